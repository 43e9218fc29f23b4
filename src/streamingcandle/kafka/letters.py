"""`letters.Letters` on Kafka: one transactional id an application, so that of two retries the later one stays."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from streamingcandle.errors import OutsideError, OwnedError
from streamingcandle.interfaces import Clock, Origin
from streamingcandle.kafka.client import (
    KafkaSettings,
    new_client,
    produce,
    reader_properties,
    transaction_properties,
)
from streamingcandle.kafka.feed import read_to_end
from streamingcandle.kafka.reader import origin_of
from streamingcandle.kafka.refusals import NO_RIGHT
from streamingcandle.kafka.tail import ends_of
from streamingcandle.kafka.topics import partition_count
from streamingcandle.letters import Place, Retry, mark_of

STAMP_CURE = (
    "a record's timestamp is further from the broker's clock than the topic's message.timestamp.after.max.ms or "
    "message.timestamp.before.max.ms lets in: correct the clock that stamped it"
)
ASK_TIMEOUT_S = 15.0
OPEN_TIMEOUT_S = 30.0
"""Behind an open transaction nothing is read; a dead process's ends after 10 s, and brokers look every 10 s."""
_FENCED = frozenset({KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED})  # noqa: SLF001


class KafkaLetters:
    """The letters of one topic."""

    def __init__(self, settings: KafkaSettings, clock: Clock, *, topic: str) -> None:
        """`settings.instance` is the transactional id of a retry. Connects in the background."""
        self._settings = settings
        self._clock = clock
        self._topic = topic
        self._reader = new_client(Consumer, settings, reader_properties(settings))
        self._producer: Producer | None = None
        self._partitions = 0
        """Of the tick topic, once a retry has begun."""

    def begin(self) -> None:
        """See `letters.Letters`: the broker ends what a former producer of this id left open, and fences it."""
        self._producer = new_client(Producer, self._settings, transaction_properties(self._settings))
        try:
            self._producer.init_transactions(self._settings.ask_s(OPEN_TIMEOUT_S))
        except KafkaException as error:
            raise self._outside(f"transactional id {self._settings.instance}", error) from error
        self._partitions = partition_count(self._settings, self._settings.tick_topic)

    def ends(self) -> dict[int, int]:
        """See `letters.Letters`; high watermarks: a mark may lie behind another process's open transaction."""
        return ends_of(self._settings, self._clock, self._topic)

    def read(self, ends: dict[int, int]) -> Iterator[tuple[Place, Origin]]:
        """See `letters.Letters`."""
        for number, end in ends.items():
            place = TopicPartition(self._topic, number)
            try:
                place.offset, _ = self._reader.get_watermark_offsets(place, timeout=ASK_TIMEOUT_S)
                for message in read_to_end(self._reader, place, end, OPEN_TIMEOUT_S):
                    if (offset := message.offset() or 0) < end:
                        yield Place(number, offset), origin_of(message)
            except KafkaException as error:
                raise self._outside(f"topic {self._topic}[{number}]", error) from error

    def record_at(self, topic: str, place: Place) -> Origin | None:
        """See `letters.Letters`."""
        reader = new_client(Consumer, self._settings, reader_properties(self._settings))
        try:
            reader.assign([TopicPartition(topic, place.partition, place.offset)])
            message = reader.poll(OPEN_TIMEOUT_S)
        finally:
            reader.close()
        error = KafkaError(KafkaError._TIMED_OUT) if message is None else message.error()  # noqa: SLF001
        is_gone = error is not None and error.code() in (
            KafkaError._PARTITION_EOF,  # noqa: SLF001 - the client's public constants
            KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
            KafkaError.UNKNOWN_TOPIC_OR_PART,
        )
        if error is not None and not is_gone:
            raise self._outside(f"record {topic}[{place.partition}]@{place.offset}", KafkaException(error))
        return None if message is None or is_gone or message.offset() != place.offset else origin_of(message)

    def put_back(self, retries: Sequence[Retry]) -> int:
        """See `letters.Letters`; what others marked was there before `begin` returned, and nobody came since."""
        assert self._producer is not None
        producer = self._producer
        value, headers = mark_of([retry.letter for retry in retries])
        failed: list[KafkaError] = []

        def delivered(error: KafkaError | None, _message: object) -> None:
            if error is not None:
                failed.append(error)

        try:
            producer.begin_transaction()
            for retry in retries:
                details: dict[str, Any] = {"headers": list(retry.headers), "on_delivery": delivered}
                if retry.timestamp_ms >= 0:
                    details["timestamp"] = retry.timestamp_ms
                if (home := retry.home(self._settings.tick_topic, self._partitions)) is not None:
                    details["partition"] = home
                produce(producer, self._settings.tick_topic, retry.value, retry.key, **details)
            produce(producer, self._topic, value, None, headers=list(headers))
            producer.commit_transaction(OPEN_TIMEOUT_S)
        except KafkaException as error:
            if error.args[0].code() in _FENCED:
                message = f"transactional id {self._settings.instance}: another retry has begun; let that one end"
                raise OwnedError(message) from error
            with suppress(KafkaException):
                producer.abort_transaction(ASK_TIMEOUT_S)
            # Where that fails too, the next one to begin ends it, either way, before it reads what is marked.
            cause = KafkaException(failed[0]) if failed else error
            raise self._outside(
                f"topic {self._settings.tick_topic}", cause, "type it again: nothing goes twice"
            ) from error
        return len(retries)

    def close(self) -> None:
        """See `letters.Letters`."""
        self._reader.close()

    def _outside(self, what: str, error: KafkaException, cure: str = "is the broker up?") -> OutsideError:
        if error.args[0].code() == KafkaError.INVALID_TIMESTAMP:
            cure = f"{STAMP_CURE}, or leave that record out by `--to`"
        if error.args[0].code() in NO_RIGHT:
            cure = "have it granted: Read on the letters, Write on ticks, letters and the transactional id"
        return OutsideError(f"{what} at {self._settings.bootstrap_servers}: {error.args[0].str()}; {cure}")
