"""The tick topic on Kafka, read and asked about: what a member of the group and one outside of it have in common."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from typing import cast

from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

from streamingcandle.errors import MissingTopicError, OutsideError
from streamingcandle.interfaces import Clock, Committed, Listener, Origin, Records
from streamingcandle.kafka.brokers import ANSWER_TIMEOUT_S, CALL_TIMEOUT_S, PASSING, Brokers
from streamingcandle.kafka.client import KafkaSettings, Properties, new_client, reader_properties
from streamingcandle.kafka.feed import newest_of
from streamingcandle.kafka.refusals import NO_RIGHT, outside

logger = logging.getLogger(__name__)

POLL_RECORDS_MAX = 10_000
"""Records of one poll: about 10 ms of folding, so a stop and a due window never wait for long."""
UNREADABLE = "headers.unreadable"
"""Header of a record of which some have names that are no UTF-8: how many."""


class KafkaReader:
    """One consumer, whoever tells it what to read, and questions that need no membership."""

    def __init__(
        self, settings: KafkaSettings, clock: Clock, is_stopping: Callable[[], bool], properties: Properties
    ) -> None:
        """Connects in the background, with these properties; nothing is asked yet."""
        self._settings = settings
        self._brokers = Brokers(settings, clock, is_stopping)
        self._properties = properties
        self._consumer = self._new_consumer()
        # Not the member: what that asks the coordinator waits behind its own request to join, which the broker answers
        # when the last member has come, or a silent one's session is over. Nor an admin client: told that the
        # coordinator is another one now, it ends the process (docs/decisions/0005).
        self._asker: Consumer | None = None
        self._listener: Listener | None = None
        self._is_held = False
        self._doubtful: set[int] = set()
        """Partitions of a transaction that is not settled: no records of them come."""
        self._topic_id: str | None = None
        self._partitions: list[int] | None = None
        self._gone: dict[int, tuple[int, str]] = {}
        """Where records that we were to read are no longer there, and what the client says of it."""

    def _new_consumer(self) -> Consumer:
        return new_client(Consumer, self._settings, self._brokers.watched(self._properties))

    # ---- reading ----

    def _hold(self, *, is_held: bool) -> None:
        """Have records come or not; what the client has fetched of them goes, and is fetched again."""
        if is_held != self._is_held:
            self._is_held = is_held
            self._see_paused()

    def _see_paused(self) -> None:
        """The client remembers a pause over all changes: what is to be read is told anew after each."""
        assigned = self._consumer.assignment()
        if self._is_held:
            self._consumer.pause(assigned)
        else:
            self._consumer.resume([place for place in assigned if place.partition not in self._doubtful])

    def _read(self, timeout_s: float) -> list[Records]:
        first = self._consumer.poll(timeout_s)
        if first is None:
            return []
        messages = [first, *self._consumer.consume(POLL_RECORDS_MAX - 1, 0)]
        return [
            records
            for number, run in groupby(messages, Message.partition)
            for records in self._records(number, list(run))
        ]

    def _records(self, number: int | None, messages: list[Message]) -> list[Records]:
        """The records of one partition's run; marks of its end become positions.

        As columns: `map` over the client's own methods is what takes least per record.
        """
        position = 0
        if any(map(Message.error, messages)):
            marks = [message for message in messages if message.error() is not None]
            position = max(self._position_of(message) for message in marks)
            messages = [message for message in messages if message.error() is None]
        if number is None or number < 0 or not (messages or position):
            return []
        offsets = _offsets(messages)
        return [
            Records(
                partition=number,
                values=list(map(Message.value, messages)),
                timestamps_ms=[timestamp_ms for _, timestamp_ms in map(Message.timestamp, messages)],
                offsets=offsets,
                next_offset=max(position, offsets[-1] + 1 if offsets else 0),
                keyless=self._keyless(messages),
                origin=_origins(messages),
            )
        ]

    def _keyless(self, messages: list[Message]) -> list[int]:
        """Where all is in one partition a key says nothing."""
        if self._partitions is not None and len(self._partitions) == 1:
            return []
        keys = list(map(Message.key, messages))
        return [index for index, key in enumerate(keys) if key is None] if None in keys else []

    def _position_of(self, message: Message) -> int:
        """The position an end-of-partition mark tells; anything else is the world's failure."""
        error = message.error()
        assert error is not None
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the client's public constant
            return message.offset() or 0
        if is_fatal(error):
            message_text = f"{self._settings.tick_topic}: the consumer failed for good: {error.str()}; start again"
            raise OutsideError(message_text)
        if error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001
            self._gone[message.partition() or 0] = (message.offset() or 0, error.str())
            return 0
        # Of the name that makes a member rejoin we may know nothing.
        is_ours = message.topic() in (None, self._settings.tick_topic)
        if error.code() in NO_RIGHT and (is_ours or error.code() != KafkaError.TOPIC_AUTHORIZATION_FAILED):
            raise outside(self._settings, "read", error)
        if is_ours:
            logger.warning("%s: %s; waiting for the broker", self._settings.tick_topic, error.str())
        return 0

    def _skip_gone(self) -> None:
        """Go on at the first offset there is; where the log ends before ours it was cut, and a restart sorts it out."""
        assert self._listener is not None
        topic = self._settings.tick_topic
        for number, (offset, reason) in list(self._gone.items()):
            begin = self.begins([number])[number]
            if begin <= offset:
                message = (
                    f"{topic}[{number}]@{offset}: no such offset: {reason}; start again to go on from what is there"
                )
                raise OutsideError(message)
            self._listener.gone(number, begin)
            self._consumer.incremental_unassign([TopicPartition(topic, number)])
            self._consumer.incremental_assign([TopicPartition(topic, number, begin)])
            del self._gone[number]

    # ---- questions ----

    def ends(self, partitions: Iterable[int]) -> Mapping[int, int]:
        """See `interfaces.Reader`; high watermarks, since ticks of open transactions are still to come."""
        return self._list_offsets(partitions, OffsetSpec.latest())  # type: ignore[no-untyped-call]

    def known_ends(self, partitions: Iterable[int]) -> Mapping[int, int]:
        """See `interfaces.Reader`; each fetch brings them along."""
        topic = self._settings.tick_topic
        found = {}
        for number in partitions:
            with suppress(KafkaException):  # not ours any more, by the client's word
                known = self._consumer.get_watermark_offsets(TopicPartition(topic, number), cached=True)
                if known is not None and known[1] >= 0:
                    found[number] = known[1]
        return found

    def begins(self, partitions: Iterable[int]) -> Mapping[int, int]:
        """See `interfaces.Reader`."""
        return self._list_offsets(partitions, OffsetSpec.earliest())  # type: ignore[no-untyped-call]

    def _list_offsets(self, partitions: Iterable[int], spec: OffsetSpec) -> Mapping[int, int]:
        topic = self._settings.tick_topic
        wanted = {TopicPartition(topic, number): spec for number in partitions}
        if not wanted:
            return {}

        def ask() -> Mapping[int, int]:
            answers = self._brokers.admin.list_offsets(
                wanted, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=CALL_TIMEOUT_S
            )
            return {
                partition.partition: answer.result(ANSWER_TIMEOUT_S).offset for partition, answer in answers.items()
            }

        return self._brokers.ask(f"offsets of {topic}", ask)

    def offset_at(self, partition: int, timestamp_ms: int) -> int:
        """See `interfaces.Reader`."""
        wanted = [TopicPartition(self._settings.tick_topic, partition, max(0, timestamp_ms))]
        found = self._brokers.ask(
            f"offset of a time in {self._settings.tick_topic}[{partition}]",
            lambda: self._consumer.offsets_for_times(wanted, timeout=CALL_TIMEOUT_S),
        )[0]
        return found.offset if found.offset >= 0 else self.ends([partition])[partition]

    def record_at(self, partition: int, offset: int) -> Origin | None:
        """See `interfaces.Reader`."""
        topic = self._settings.tick_topic
        reader = new_client(Consumer, self._settings, self._brokers.watched(reader_properties(self._settings)))

        def ask() -> Message:
            message = reader.poll(CALL_TIMEOUT_S)
            error = KafkaError(KafkaError._TIMED_OUT) if message is None else message.error()  # noqa: SLF001
            if message is None or (error is not None and error.code() in PASSING):
                raise KafkaException(error)
            return message

        try:
            reader.assign([TopicPartition(topic, partition, offset)])
            message = self._brokers.ask(f"record {topic}[{partition}]@{offset}", ask)
        finally:
            reader.close()
        if message.error() is not None or message.offset() != offset:
            return None
        return origin_of(message)

    def partitions(self) -> Sequence[int]:
        """See `interfaces.Reader`; OutsideError where the topic is missing."""
        if self._partitions is None:
            name = self._settings.tick_topic
            metadata = self._brokers.ask(
                "topics", lambda: self._brokers.admin.list_topics(name, timeout=CALL_TIMEOUT_S)
            )
            topic = metadata.topics[name]
            if topic.error is not None and topic.error.code() in NO_RIGHT:
                raise outside(self._settings, f"topic {name}", topic.error)
            if topic.error is not None or not topic.partitions:
                said = "no partitions" if topic.error is None else topic.error.str()
                raise MissingTopicError(f"topic {name}: {said}; make it with `streamingcandle topics ensure`")
            self._partitions = sorted(topic.partitions)
        return self._partitions

    def check_topics(self, names: Iterable[str]) -> None:
        """See `interfaces.Publisher`."""
        self._brokers.check_topics(names)

    def newest(self, topics: Sequence[str], records_max: int) -> Mapping[str, Sequence[bytes]]:
        """See `interfaces.Reader`."""
        return self._brokers.ask(
            f"the ends of {', '.join(topics)}",
            lambda: newest_of(self._settings, self._brokers.admin, topics, records_max),
        )

    def topic_id(self) -> str:
        """See `interfaces.Publisher`."""
        if self._topic_id is None:
            name = self._settings.tick_topic

            def ask() -> str:
                answers = self._brokers.admin.describe_topics(TopicCollection([name]), request_timeout=CALL_TIMEOUT_S)
                return str(answers[name].result(ANSWER_TIMEOUT_S).topic_id)

            self._topic_id = self._brokers.ask(f"topic {name}", ask)
        return self._topic_id

    def committed(self, partitions: Iterable[int]) -> Mapping[int, Committed | None]:
        """See `interfaces.Publisher`."""
        wanted = [TopicPartition(self._settings.tick_topic, number) for number in partitions]
        if not wanted:
            return {}
        group = self._settings.group

        def ask() -> list[TopicPartition]:
            if self._asker is None:
                self._asker = new_client(Consumer, self._settings, reader_properties(self._settings))
            return self._asker.committed(wanted, timeout=CALL_TIMEOUT_S)

        found = self._brokers.ask(f"committed offsets of group {group}", ask)
        return {
            partition.partition: None
            if partition.offset == OFFSET_INVALID
            else Committed(partition.offset, partition.metadata or "")
            for partition in found
        }

    def _close_clients(self) -> None:
        self._consumer.close()
        if self._asker is not None:
            self._asker.close()


def is_fatal(error: KafkaError) -> bool:
    """Whether the client is of no use any more."""
    return error.fatal() or error.code() == KafkaError._FATAL  # noqa: SLF001 - the client's public constant


def origin_of(message: Message) -> Origin:
    """The record as it lies in its partition."""
    return Origin(message.key(), message.value(), message.timestamp()[1], message.offset() or 0, _headers(message))


def _headers(message: Message) -> list[tuple[str, bytes | None]]:
    """The record's headers, and one more where the client cannot read the name of some: how many (decisions/0015).

    It raises once or not at all, and gives for such a name no object, which nothing may touch but the `repr` of the
    tuple it is in. The values are kept, and the name that it tells of.
    """
    found, told = None, b""
    for _ in range(2):
        try:
            found = cast("list[tuple[str, bytes | None]] | None", message.headers())
            break
        except (SystemError, UnicodeDecodeError) as error:
            cause = error if isinstance(error, UnicodeDecodeError) else error.__cause__
            told = cause.object if isinstance(cause, UnicodeDecodeError) else b""
    else:
        return [(UNREADABLE, b"all")]
    is_bad = [repr(header).startswith("(<NULL>") for header in found or ()]
    if not found or not any(is_bad):
        return found or []
    names = [f"unreadable-{index}" for index in range(len(found))]
    if told:
        names[max(index for index, bad in enumerate(is_bad) if bad)] = told.decode(errors="backslashreplace")
    read = [(name, *header[1:]) if bad else header for name, bad, header in zip(names, is_bad, found, strict=True)]
    return [*read, (UNREADABLE, str(sum(is_bad)).encode())]


def _offsets(messages: Sequence[Message]) -> Sequence[int]:
    """They rise: as many as there are numbers from the first to the last are all of those."""
    if not messages:
        return ()
    first, last = messages[0].offset() or 0, messages[-1].offset() or 0
    if last - first == len(messages) - 1:
        return range(first, last + 1)
    return [message.offset() or 0 for message in messages]


def _origins(messages: list[Message]) -> Callable[[int], Origin]:
    return lambda index: origin_of(messages[index])
