"""Snapshots in a compacted topic: whoever takes a partition over finds its state there.

Two slots a partition, written in turn; a snapshot is cut into chunks, each keyed `partition/slot/number`, so
that compaction keeps the latest of each. Headers say which snapshot a chunk is of and how many there are.
"""

import logging
import re
import zlib
from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property
from uuid import uuid4

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from streamingcandle.errors import OutsideError
from streamingcandle.interfaces import Clock
from streamingcandle.kafka.brokers import PASSING
from streamingcandle.kafka.client import KafkaSettings, new_client, producer_properties, reader_properties
from streamingcandle.kafka.feed import read_to_end
from streamingcandle.kafka.refusals import outside
from streamingcandle.kafka.rights import Right
from streamingcandle.kafka.topics import ensure_topics, partition_counts
from streamingcandle.state.files import SLOTS

logger = logging.getLogger(__name__)

CHUNK_BYTES = 500_000
"""Below every broker's limit of a record."""
CALL_TIMEOUT_S = 2.0
"""No candle waits longer for a snapshot, and no stop."""
CLOSE_TIMEOUT_S = 1.0
DELIVERY_TIMEOUT_MS = 10_000
RETRY_MS = 100
CONFIG = {
    "cleanup.policy": "compact",
    # Compaction leaves the active segment alone: a small one keeps a restore short.
    "segment.bytes": "8388608",
    "segment.ms": "600000",
    "min.cleanable.dirty.ratio": "0.1",
    "max.message.bytes": "1048588",
    # Nobody reads these times but `doctor`, which compares the broker's clock with the host's by them.
    "message.timestamp.type": "LogAppendTime",
}


class KafkaSnapshots:
    """Implements `interfaces.Snapshots`; the topic is made at the first use where it is missing."""

    name = "snapshots topic"

    def __init__(self, settings: KafkaSettings, clock: Clock, *, topic: str, partitions: int) -> None:
        """`partitions`: of the tick topic. Nothing is asked yet."""
        self._settings = settings
        self._clock = clock
        self._topic = topic
        self._wanted = partitions
        self._slots: dict[int, int] = {}
        self._error: KafkaError | None = None

    def save(self, partition: int, snapshot: bytes) -> None:
        """See `interfaces.Snapshots`. The client sends in the background: a failure is told at the next call."""
        slot = self._slots[partition] = (self._slots.get(partition, 0) + 1) % SLOTS
        count = self._count
        self._producer.poll(0)
        chunks = [snapshot[at : at + CHUNK_BYTES] for at in range(0, len(snapshot), CHUNK_BYTES)]
        identity = uuid4().hex.encode()
        try:
            for number, chunk in enumerate(chunks):
                headers: dict[str, str | bytes | None] = {
                    "snapshot": identity,
                    "total": str(len(chunks)).encode(),
                    "checksum": str(zlib.crc32(snapshot)).encode(),
                }
                self._producer.produce(
                    self._topic,
                    chunk,
                    f"{partition}/{slot}/{number}",
                    partition % count,
                    on_delivery=self._delivered,
                    headers=headers,
                )
        except (BufferError, KafkaException) as error:
            raise OutsideError(f"topic {self._topic}: {error}") from error
        if self._error is not None:
            failed, self._error = self._error, None
            self.__dict__.pop("_count", None)
            raise self._outside(failed, "Write")

    def _outside(self, error: KafkaError, operation: str) -> OutsideError:
        return outside(self._settings, f"topic {self._topic}", error, Right(operation, "topic", self._topic))

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        self._error = error or self._error

    def load(self, partition: int) -> Iterable[bytes]:
        """See `interfaces.Snapshots`."""
        chunks: dict[int, dict[int, Message]] = defaultdict(dict)
        newest: dict[int, int] = {}
        for message in self._read(partition % self._count):
            key = re.fullmatch(rb"(\d+)/(\d+)/(\d+)", message.key() or b"")
            if key is None:
                continue  # not ours
            number, slot, place = map(int, key.groups())
            if number == partition:
                chunks[slot][place] = message
                newest[slot] = message.offset() or 0
        for slot in sorted(newest, key=lambda slot: newest[slot], reverse=True):
            self._slots.setdefault(partition, slot)
            whole = _joined(chunks[slot])
            if whole is None:
                logger.warning("%s: snapshot in slot %d of partition %d is not whole", self._topic, slot, partition)
            else:
                yield whole

    def _read(self, number: int) -> list[Message]:
        consumer = new_client(Consumer, self._settings, reader_properties(self._settings))
        try:
            place = TopicPartition(self._topic, number, 0)
            place.offset, end = self._watermarks(consumer, place)
            return list(read_to_end(consumer, place, end, CALL_TIMEOUT_S))
        except KafkaException as error:
            raise self._outside(error.args[0], "Read") from error
        finally:
            consumer.close()

    def _watermarks(self, consumer: Consumer, place: TopicPartition) -> tuple[int, int]:
        """A topic just made has no leaders yet."""
        until_ms = self._clock.monotonic_ms() + CALL_TIMEOUT_S * 1_000
        while True:
            try:
                return consumer.get_watermark_offsets(place, timeout=CALL_TIMEOUT_S)
            except KafkaException as error:
                if error.args[0].code() not in PASSING or self._clock.monotonic_ms() > until_ms:
                    raise
                self._clock.sleep_ms(RETRY_MS)

    def close(self) -> None:
        """See `interfaces.Snapshots`."""
        if "_producer" in self.__dict__:
            self._producer.flush(CLOSE_TIMEOUT_S)
        if self._error is not None:
            logger.warning("the last snapshots are not in the %s: %s", self.name, self._outside(self._error, "Write"))

    @cached_property
    def _producer(self) -> Producer:
        # A chunk sent twice is the same chunk; one that does not go soon is told of and replaced by the next.
        ours = {"enable.idempotence": False, "message.timeout.ms": DELIVERY_TIMEOUT_MS}
        return new_client(Producer, self._settings, producer_properties(self._settings) | ours)

    @cached_property
    def _count(self) -> int:
        """Partitions of the topic."""
        counts = partition_counts(self._settings, timeout_s=CALL_TIMEOUT_S)
        if self._topic not in counts:
            ensure_topics(
                self._settings,
                [self._topic],
                partitions=self._wanted,
                replication=-1,
                own={self._topic: CONFIG},
                timeout_s=CALL_TIMEOUT_S,
            )
            logger.info("topic %s made", self._topic)
        return counts.get(self._topic, self._wanted)


def _joined(chunks: dict[int, Message]) -> bytes | None:
    """The snapshot whose chunks these are; None where some are of another or missing."""
    first = dict(chunks[0].headers() or []) if 0 in chunks else {}
    total = int(first.get("total") or b"0")
    parts = [chunks[number] for number in range(total) if number in chunks]
    whole = b"".join(part.value() or b"" for part in parts)
    is_whole = len(parts) == total > 0 and all(dict(part.headers() or []) == first for part in parts)
    return whole if is_whole and str(zlib.crc32(whole)).encode() == first.get("checksum") else None
