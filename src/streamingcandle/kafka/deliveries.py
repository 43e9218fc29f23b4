"""What a topic takes, and what became of the records that were handed to the client.

A broker refuses a batch for its size, not a record; the client neither splits the batch nor tells which record was too
large. So what is believed of a topic's limit falls with each refusal, batches and letters with it, until they fit.
"""

from collections.abc import Iterable

from confluent_kafka import KafkaError, Message
from confluent_kafka.admin import ConfigResource  # type: ignore[attr-defined]

from streamingcandle.errors import OutsideError
from streamingcandle.interfaces import BrokerAwayError, Letter
from streamingcandle.kafka.brokers import ANSWER_TIMEOUT_S, CALL_TIMEOUT_S, Brokers, logger
from streamingcandle.kafka.rights import Right
from streamingcandle.letters import cut, place_of, shortest

RECORD_BYTES_MAX = 1_048_588
"""Kafka's default `max.message.bytes`."""
BATCH_BYTES_MAX = 1_000_000
"""The client's default `batch.size`."""
BATCH_OVERHEAD_BYTES = 500
LESSEN = 10
"""Where nobody tells a topic's limit it is taken for so many times less after a refusal."""
LIMIT_BYTES_MIN = 1_000
"""Below this neither a candle nor the shortest form of a letter fits: whoever refuses that refuses everything."""
DROPPED_NAMED_MAX = 20
"""Letters that no topic takes are named one by one, of one transaction as many; the others are counted."""
TOO_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE, KafkaError.INVALID_MSG_SIZE})
REFUSED = frozenset({KafkaError.INVALID_RECORD, KafkaError.INVALID_MSG})
"""The record itself is not taken, such as one without a key by a compacted topic."""
_NOT_TOLD = frozenset(
    {
        KafkaError._PURGE_QUEUE,  # noqa: SLF001 - thrown away with its transaction
        KafkaError._PURGE_INFLIGHT,  # noqa: SLF001
        KafkaError._INVALID_DIFFERENT_RECORD,  # noqa: SLF001 - another one of its batch was refused
    }
)


class Failures:
    """The records of one transaction that were not taken; told by the client, from within its calls."""

    def __init__(self) -> None:
        """None yet."""
        self.first = ""
        """Topic, partition and reason."""
        self.topics: dict[str, set[int]] = {}
        """Codes of the errors, by topic."""
        self.letters: list[Letter] = []
        """Those refused for what they are."""

    def tell(self, error: KafkaError | None, message: Message) -> None:
        """As the client's `on_delivery`."""
        if error is not None:
            self.add(message.topic() or "", message.partition(), error)

    def add(self, topic: str, partition: int | None, error: KafkaError, letter: Letter | None = None) -> None:
        """Note one."""
        if error.code() in _NOT_TOLD:
            return
        if not self.first:
            place = topic if partition is None or partition < 0 else f"{topic}[{partition}]"
            self.first = f"{place}: {error.str()}"
        self.topics.setdefault(topic, set()).add(error.code())
        if letter is not None and error.code() in REFUSED:
            self.letters.append(letter)

    def having(self, codes: frozenset[int]) -> list[str]:
        """The topics with such an error."""
        return sorted(topic for topic, found in self.topics.items() if found & codes)


class Limits:
    """How many bytes a topic takes at once, as far as we know; and letters in a form that it takes."""

    def __init__(self, brokers: Brokers) -> None:
        """Nothing is known yet."""
        self._brokers = brokers
        self._limits: dict[str, int] = {}
        self._forms: dict[int, tuple[Letter, Letter | None]] = {}
        """By identity, letters refused: with what is sent instead, None for nothing."""
        self.dropped = 0
        """How many letters no form of which was taken."""

    @property
    def batch_bytes(self) -> int:
        """What every topic known takes as one batch."""
        return max(1, min([BATCH_BYTES_MAX, *(limit - BATCH_OVERHEAD_BYTES for limit in self._limits.values())]))

    def fitting(self, letters: Iterable[Letter]) -> list[tuple[Letter, Letter]]:
        """Each, and as its topic takes it; BrokerAwayError where nobody answers for a limit."""
        found = []
        for letter in letters:
            _, form = self._forms.get(id(letter), (letter, letter))
            if form is not None:
                found.append((letter, cut(form, self._of(letter.topic))))
        return found

    def lower(self, topic: str, letters: Iterable[Letter]) -> bool:
        """After a refusal: it takes less than we believed. False where that is nothing that could be sent to it."""
        known = self._limits.pop(topic, RECORD_BYTES_MAX)
        if known <= LIMIT_BYTES_MIN:
            self._limits[topic] = known
            ours = [letter for letter in letters if letter.topic == topic]
            self._drop(ours)
            return bool(ours)
        asked = self._of(topic)
        self._limits[topic] = asked if asked < known else max(LIMIT_BYTES_MIN, known // LESSEN)
        logger.warning(
            "%s takes no record or batch of %d bytes: at most %d from now on; raise its max.message.bytes",
            topic,
            min(known, BATCH_BYTES_MAX),
            self._limits[topic],
        )
        return True

    def shorten(self, letters: Iterable[Letter]) -> None:
        """These were refused for what they are: in their shortest form next, and then not at all."""
        again = []
        for letter in letters:
            if id(letter) in self._forms:
                again.append(letter)
            else:
                self._forms[id(letter)] = (letter, shortest(letter))
        self._drop(again)

    def _drop(self, letters: list[Letter]) -> None:
        """They hold their partition's candles up no longer. The record is still where it was: say where."""
        self.dropped += len(letters)
        for letter in letters:
            self._forms[id(letter)] = (letter, None)
        for letter in letters[:DROPPED_NAMED_MAX]:
            said = {name: (text or b"").decode(errors="replace") for name, text in shortest(letter).headers}
            why = said.get("reason") or said.get("timeframes")
            logger.error(
                "%s: not even its shortest form is taken by %s, so it is not there: %s, %s bytes, sha256 %s; "
                "raise max.message.bytes of that topic to 10000 or more, and let its cleanup.policy be delete",
                place_of(letter),
                letter.topic,
                why,
                said.get("source.length"),
                said.get("source.sha256"),
            )
        if len(letters) > DROPPED_NAMED_MAX:
            logger.error("and %d records more", len(letters) - DROPPED_NAMED_MAX)

    def forget(self) -> None:
        """The transaction is decided: its letters will not come again."""
        self._forms.clear()

    def _of(self, topic: str) -> int:
        """The topic's own limit; Kafka's default where we may not ask."""
        if topic not in self._limits:
            resource = ConfigResource(ConfigResource.Type.TOPIC, topic)

            def ask() -> int:
                answers = self._brokers.admin.describe_configs([resource], request_timeout=CALL_TIMEOUT_S)
                return int(answers[resource].result(ANSWER_TIMEOUT_S)["max.message.bytes"].value)

            try:
                self._limits[topic] = self._brokers.ask(
                    f"limit of topic {topic}", ask, Right("DescribeConfigs", "topic", topic)
                )
            except BrokerAwayError:
                raise
            except OutsideError as error:
                logger.warning("%s; taken as %d", error, RECORD_BYTES_MAX)
                self._limits[topic] = RECORD_BYTES_MAX
        return self._limits[topic]
