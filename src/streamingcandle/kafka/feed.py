"""Ticks into the tick topic, and candles out of theirs: plain clients outside of the group."""

import logging
from collections.abc import Iterable, Iterator

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from streamingcandle.candles.murmur2 import partition_of
from streamingcandle.errors import OutsideError
from streamingcandle.kafka.client import KafkaSettings, new_client, produce, producer_properties, reader_properties
from streamingcandle.kafka.topics import partition_count

logger = logging.getLogger(__name__)

FLUSH_TIMEOUT_S = 60.0
READ_TIMEOUT_S = 15.0
STAMP_CURE = (
    "a record's timestamp is further from the broker's clock than the topic's message.timestamp.after.max.ms or "
    "message.timestamp.before.max.ms lets in: correct the clock that stamped it"
)


class TickProducer:
    """Appends to the tick topic, idempotently, in order per key."""

    def __init__(self, settings: KafkaSettings) -> None:
        """OutsideError without a broker; MissingTopicError."""
        self._settings = settings
        partition_count(settings, settings.tick_topic)
        self._producer = new_client(Producer, settings, producer_properties(settings), logger)
        self._failed: list[KafkaError] = []

    def append(self, records: Iterable[tuple[bytes | None, bytes | None, int]]) -> None:
        """Queue `(key, value, timestamp_ms)`; waits while the client's queue is full."""
        for key, value, timestamp_ms in records:
            details = {"timestamp": timestamp_ms, "on_delivery": self._delivered}
            produce(self._producer, self._settings.tick_topic, value, key, **details)
        self._producer.poll(0)

    def _delivered(self, error: KafkaError | None, _message: object) -> None:
        if error is not None:
            self._failed.append(error)

    def flush(self) -> None:
        """Return when the broker has it all. OutsideError when it has not."""
        left = self._producer.flush(FLUSH_TIMEOUT_S)
        if left or self._failed:
            cause = self._failed[0].str() if self._failed else f"{left} records not taken in {FLUSH_TIMEOUT_S:.0f} s"
            where = f"topic {self._settings.tick_topic} at {self._settings.bootstrap_servers}"
            cure = "see that it is there and the broker up, then send them again"
            if self._failed and self._failed[0].code() == KafkaError.INVALID_TIMESTAMP:
                cure = STAMP_CURE
            raise OutsideError(f"{where}: {cause}; {cure}")


def read_to_end(consumer: Consumer, place: TopicPartition, end: int, timeout_s: float) -> Iterator[Message]:
    """The records of one partition from `place` on, up to the offset `end`. KafkaException where none comes."""
    consumer.assign([place])
    position = place.offset
    while position < end:
        message = consumer.poll(timeout_s)
        if message is None:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"nothing read for {timeout_s:.0f} s"))  # noqa: SLF001
        error = message.error()
        if error is None:
            yield message
        elif error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - the client's public constant
            raise KafkaException(error)
        position = max(position, (message.offset() or 0) + (error is None))


def read_key(settings: KafkaSettings, topic: str, key: bytes) -> Iterator[bytes]:
    """The committed values of one key, in order, up to the end of its partition now. MissingTopicError."""
    partition = TopicPartition(topic, partition_of(key, partition_count(settings, topic)), 0)
    consumer = new_client(Consumer, settings, reader_properties(settings))
    try:
        partition.offset, end = consumer.get_watermark_offsets(partition, timeout=READ_TIMEOUT_S)
        for message in read_to_end(consumer, partition, end, READ_TIMEOUT_S):
            if message.key() == key:
                yield message.value() or b""
    except KafkaException as error:
        where = f"topic {topic} at {settings.bootstrap_servers}"
        raise OutsideError(f"{where}: {error.args[0].str()}; is the broker up?") from error
    finally:
        consumer.close()
