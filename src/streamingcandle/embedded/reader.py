"""The tick topic on the embedded store, read and asked about: with the group or without."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from streamingcandle.clock import SystemClock
from streamingcandle.embedded.store import EmbeddedStore, StoredRecord
from streamingcandle.errors import MissingTopicError
from streamingcandle.interfaces import Committed, Listener, Origin, Records

POLL_RECORDS_MAX = 10_000
"""Records of one poll over all partitions."""
POLL_BYTES_MAX = 16_000_000
"""Values of one poll, and the last record's rest: all of them are held until they are folded."""
PROBE_MS = 10
"""How often another process's writes are looked for while nothing is there."""


class EmbeddedReader:
    """All partitions are read from the first poll on. For one thread at a time, as its store is."""

    def __init__(self, store: EmbeddedStore, *, group: str, topic: str, clock: SystemClock) -> None:
        """`group`: whose offsets are asked about. MissingTopicError for a missing topic."""
        self._store = store
        self._group = group
        self._topic = topic
        self._clock = clock
        self._count, self._topic_id = store.topic(topic)
        self._positions: dict[int, int] = {}
        self._ends: dict[int, int] = {}

    def poll(self, timeout_s: float, listener: Listener, *, is_held: bool = False) -> Iterable[Records]:
        """See `interfaces.Reader`."""
        self._count, _ = self._store.topic(self._topic)
        fresh = [number for number in range(self._count) if number not in self._positions]
        if fresh:
            self._positions.update(listener.assigned(fresh))
        until_ms = self._clock.monotonic_ms() + int(timeout_s * 1_000)
        mark = None
        while True:
            # Nothing of ours is written while we wait: the mark moves when somebody else's is.
            if not is_held and mark != (now := self._store.change_mark()):
                mark = now
                batches = self._read()
                if batches:
                    return batches
            left_ms = until_ms - self._clock.monotonic_ms()
            if left_ms <= 0:
                return []
            self._clock.sleep_ms(min(PROBE_MS, left_ms))

    def _read(self) -> list[Records]:
        """Share the poll's records out: who has little gets it all, what he leaves goes to who has more.

        Equal shares alone would make one partition's backlog look like the end of the log (`BACKLOG_RECORDS`).
        """
        self._ends = dict(self.ends(self._positions))
        behind = sorted((end - self._positions[number], number) for number, end in self._ends.items())
        batches = []
        room, left_bytes = POLL_RECORDS_MAX, POLL_BYTES_MAX
        for place, (waiting, number) in enumerate(behind):
            share = min(waiting, max(1, room // (len(behind) - place)))
            if share > 0 and left_bytes > 0:
                records = self._read_share(number, share, left_bytes)
                batches.append(records)
                room -= share
                left_bytes -= sum(map(len, filter(None, records.values)))
        return batches

    def _read_share(self, number: int, share: int, left_bytes: int) -> Records:
        found = self._store.read(self._topic, number, self._positions[number], share, bytes_max=left_bytes)
        self._positions[number] = found[-1].offset + 1
        return Records(
            partition=number,
            values=[record.value for record in found],
            timestamps_ms=[record.timestamp_ms for record in found],
            offsets=[record.offset for record in found],
            next_offset=self._positions[number],
            origin=_origins(found),
            keyless=[] if self._count == 1 else [index for index, record in enumerate(found) if record.key is None],
        )

    def ends(self, partitions: Iterable[int]) -> Mapping[int, int]:
        """See `interfaces.Reader`."""
        return {number: self._store.end(self._topic, number) for number in partitions}

    def known_ends(self, partitions: Iterable[int]) -> Mapping[int, int]:
        """See `interfaces.Reader`."""
        return {number: self._ends[number] for number in partitions if number in self._ends}

    def begins(self, partitions: Iterable[int]) -> Mapping[int, int]:
        """See `interfaces.Reader`."""
        return {number: self._store.begin(self._topic, number) for number in partitions}

    def offset_at(self, partition: int, timestamp_ms: int) -> int:
        """See `interfaces.Reader`."""
        return self._store.offset_at(self._topic, partition, timestamp_ms)

    def record_at(self, partition: int, offset: int) -> Origin | None:
        """See `interfaces.Reader`."""
        found = self._store.read(self._topic, partition, offset, 1)
        return _origins(found)(0) if found and found[0].offset == offset else None

    def partitions(self) -> Sequence[int]:
        """See `interfaces.Reader`."""
        return range(self._count)

    def newest(self, topics: Sequence[str], records_max: int) -> Mapping[str, Sequence[bytes]]:
        """See `interfaces.Reader`."""
        return {topic: self._newest(topic, records_max) for topic in topics}

    def _newest(self, topic: str, records_max: int) -> Sequence[bytes]:
        try:
            count, _ = self._store.topic(topic)
        except MissingTopicError:
            return []
        starts = [max(0, self._store.end(topic, number) - records_max) for number in range(count)]
        records = [self._store.read(topic, number, start, records_max) for number, start in enumerate(starts)]
        return [record.value for found in records for record in found if record.value is not None]

    def committed(self, partitions: Iterable[int]) -> Mapping[int, Committed | None]:
        """See `interfaces.Publisher`."""
        found = self._store.committed(self._group, self._topic)
        return {number: Committed(*found[number]) if number in found else None for number in partitions}

    def check_topics(self, names: Iterable[str]) -> None:
        """See `interfaces.Publisher`: a commit makes what is missing."""

    def topic_id(self) -> str:
        """See `interfaces.Publisher`."""
        return self._topic_id


def _origins(found: list[StoredRecord]) -> Callable[[int], Origin]:
    def origin(index: int) -> Origin:
        record = found[index]
        return Origin(record.key, record.value, record.timestamp_ms, record.offset, record.headers)

    return origin
