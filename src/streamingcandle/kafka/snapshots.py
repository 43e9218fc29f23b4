"""Snapshots in a compacted topic: whoever takes a partition over finds its state there.

Two slots a partition, written in turn; a snapshot is cut into chunks, each keyed `partition/slot/number`, so
that compaction keeps the latest of each. Headers say which snapshot a chunk is of and how many there are.

The newest whole snapshot is never written over, whoever wrote it: before each write the topic's end says whether
somebody else has written since we looked, and a write that failed leaves its slot to the next one.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from uuid import uuid4

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from streamingcandle.errors import OutsideError
from streamingcandle.interfaces import Clock
from streamingcandle.kafka.brokers import PASSING
from streamingcandle.kafka.chunks import CHUNK_BYTES, Gathering, headers_of
from streamingcandle.kafka.client import KafkaSettings, new_client, producer_properties, reader_properties
from streamingcandle.kafka.feed import read_to_end
from streamingcandle.kafka.refusals import outside
from streamingcandle.kafka.rights import Right
from streamingcandle.kafka.topics import ensure_topics, partition_counts
from streamingcandle.state.background import CLOSE_TIMEOUT_S, Background
from streamingcandle.state.files import SLOTS
from streamingcandle.state.snapshot import is_whole

logger = logging.getLogger(__name__)

TAIL_RECORDS = 16
"""Looked at first, for what lies there: the newest snapshot is the last that was written."""
CALL_TIMEOUT_S = 2.0
"""No restore waits longer for a snapshot."""
DELIVERY_TIMEOUT_MS = 5_000
FLUSH_TIMEOUT_S = 6.0
"""A moment longer than the client tries."""
RETRY_MS = 100
NOT_YET = {*PASSING, KafkaError._UNKNOWN_PARTITION}  # noqa: SLF001 - the client's public constant
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
        self._counted: int | None = None
        self._background = Background(self._write_all)
        # Of the writing thread alone:
        self._kept: dict[int, int] = {}
        """By partition of the tick topic: the slot that must stay."""
        self._seen: dict[int, int] = {}
        """By partition of this topic: the offset up to which `_kept` is right."""

    def save(self, partition: int, snapshot: bytes) -> None:
        """See `interfaces.Snapshots`. Sent in the background: a failure is told at the next call."""
        self._background.save(partition, snapshot)

    def load(self, partition: int) -> Iterable[bytes]:
        """See `interfaces.Snapshots`; a topic that is missing is not made for that."""
        count = self._found_count()
        if count is None:
            return
        place = TopicPartition(self._topic, partition % count)
        consumer = new_client(Consumer, self._settings, reader_properties(self._settings))
        try:
            gathering = self._gathered(consumer, partition, place.partition, *self._watermarks(consumer, place))
        except KafkaException as error:
            raise self._outside(error.args[0], "Read") from error
        finally:
            consumer.close()
        if gathering.odd:
            where = f"{self._topic}[{place.partition}]"
            logger.warning("%s: %d records that are no chunks of a snapshot are passed over", where, gathering.odd)
        for slot, whole in gathering.snapshots():
            if whole is None:
                logger.warning("%s: snapshot in slot %d of partition %d is not whole", self._topic, slot, partition)
            else:
                yield whole

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """See `interfaces.Snapshots`."""
        is_done = self._background.is_done(timeout_s)
        errors = self._background.errors() | (set() if is_done else {f"no answer in {timeout_s:.0f} s"})
        for error in errors:
            logger.warning("the last snapshots are not in the %s: %s", self.name, error)
        if is_done:
            self._close_asker()

    def _close_asker(self) -> None:
        if (asker := self.__dict__.pop("_asker", None)) is not None:
            asker.close()

    def _outside(self, error: KafkaError, operation: str) -> OutsideError:
        return outside(self._settings, f"topic {self._topic}", error, Right(operation, "topic", self._topic))

    # ---- reading

    def _gathered(self, consumer: Consumer, partition: int, number: int, start: int, end: int) -> Gathering:
        gathering = Gathering(partition)
        for message in read_to_end(consumer, TopicPartition(self._topic, number, start), end, CALL_TIMEOUT_S):
            gathering.add(message)
        return gathering

    def _watermarks(self, consumer: Consumer, place: TopicPartition) -> tuple[int, int]:
        """A topic just made has no leaders yet."""
        until_ms = self._clock.monotonic_ms() + CALL_TIMEOUT_S * 1_000
        while True:
            try:
                return consumer.get_watermark_offsets(place, timeout=CALL_TIMEOUT_S)
            except KafkaException as error:
                if error.args[0].code() not in NOT_YET or self._clock.monotonic_ms() > until_ms:
                    raise
                self._clock.sleep_ms(RETRY_MS)

    # ---- writing, in the thread for it

    def _write_all(self, snapshots: Mapping[int, bytes]) -> dict[int, str]:
        errors: dict[int, str] = {}
        sent: dict[int, list[int]] = {}
        """Where each chunk that is there lies."""
        slots: dict[int, int] = {}
        for partition, snapshot in snapshots.items():
            try:
                slots[partition] = slot = self._free_slot(partition)
                sent[partition] = []
                for number, (chunk, headers) in enumerate(_chunks(snapshot)):
                    self._send(partition, f"{partition}/{slot}/{number}", chunk, headers, sent[partition], errors)
            except KafkaException as error:
                errors[partition] = str(self._outside(error.args[0], "Write"))
            except (OutsideError, BufferError) as error:
                errors[partition] = str(error)
        if sent and self._producer.flush(FLUSH_TIMEOUT_S):
            errors |= dict.fromkeys(sent.keys() - errors.keys(), f"topic {self._topic}: no answer")
        if errors:
            # What is there now is looked at again, in a topic that may have been made anew.
            self._counted = None
            self._seen.clear()
            self._close_asker()
            return errors
        self._kept |= slots
        for number in {partition % self._count for partition in sent}:
            self._note(
                number,
                [at for partition, offsets in sent.items() if partition % self._count == number for at in offsets],
            )
        return errors

    def _send(
        self,
        partition: int,
        key: str,
        chunk: bytes,
        headers: dict[str, str | bytes | None],
        sent: list[int],
        errors: dict[int, str],
    ) -> None:
        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                sent.append(message.offset() or 0)
            else:
                errors[partition] = str(self._outside(error, "Write"))

        number = partition % self._count
        self._producer.produce(self._topic, chunk, key, number, on_delivery=delivered, headers=headers)

    def _note(self, number: int, offsets: list[int]) -> None:
        """All up to these is known, where they lie right behind what was."""
        seen = self._seen.get(number, -1)
        if sorted(offsets) == list(range(seen, seen + len(offsets))):
            self._seen[number] = seen + len(offsets)
        else:
            self._seen.pop(number, None)

    def _free_slot(self, partition: int) -> int:
        """The one beside the newest whole snapshot. KafkaException."""
        number = partition % self._count
        begin, end = self._watermarks(self._asker, TopicPartition(self._topic, number))
        if self._seen.get(number) != end:
            # Also another partition's chunks may be new: each is looked for when it is written.
            self._kept = {other: slot for other, slot in self._kept.items() if other % self._count != number}
            self._seen[number] = end
        if partition not in self._kept:
            self._kept[partition] = self._newest(partition, begin, end)
        return (self._kept[partition] + 1) % SLOTS

    def _newest(self, partition: int, begin: int, end: int) -> int:
        """The slot of the newest whole snapshot, where there is none of the last written."""
        tail = max(begin, end - TAIL_RECORDS)
        for start in dict.fromkeys((tail, begin)):
            found = list(self._gathered(self._asker, partition, partition % self._count, start, end).snapshots())
            # What is no snapshot but looks so from outside stays only where nothing better does.
            for slot, whole in found:
                if whole is not None and is_whole(whole):
                    return slot
        return next((slot for slot, whole in found if whole is not None), found[0][0] if found else 0)

    @cached_property
    def _asker(self) -> Consumer:
        return new_client(Consumer, self._settings, reader_properties(self._settings))

    @cached_property
    def _producer(self) -> Producer:
        # A chunk sent twice is the same chunk; one that does not go soon is told of and replaced by the next.
        ours = {
            "enable.idempotence": False,
            "message.timeout.ms": DELIVERY_TIMEOUT_MS,
            "delivery.report.only.error": False,
        }
        return new_client(Producer, self._settings, producer_properties(self._settings) | ours)

    def _found_count(self) -> int | None:
        """Partitions of the topic; None where it is missing."""
        if self._counted is None:
            self._counted = partition_counts(self._settings, timeout_s=CALL_TIMEOUT_S).get(self._topic)
        return self._counted

    @property
    def _count(self) -> int:
        """Partitions of the topic, made where it is missing."""
        found = self._found_count()
        if found is None:
            ensure_topics(
                self._settings,
                [self._topic],
                partitions=self._wanted,
                replication=-1,
                own={self._topic: CONFIG},
                timeout_s=CALL_TIMEOUT_S,
            )
            logger.info("topic %s made", self._topic)
            self._counted = found = self._wanted
        return found


def _chunks(snapshot: bytes) -> Iterator[tuple[bytes, dict[str, str | bytes | None]]]:
    headers = headers_of(snapshot, uuid4().hex.encode())
    for at in range(0, len(snapshot), CHUNK_BYTES):
        yield snapshot[at : at + CHUNK_BYTES], headers
