"""When which partition's state is written, and what is said where a store fails."""

import logging
from collections.abc import Mapping, Sequence

from streamingcandle.errors import OutsideError
from streamingcandle.interfaces import Clock, Snapshots
from streamingcandle.partition import InputPartition

logger = logging.getLogger(__name__)


class Saver:
    """Writes states to every store there is."""

    def __init__(self, clock: Clock, snapshots: Sequence[Snapshots]) -> None:
        """Nothing is written yet."""
        self._clock = clock
        self._snapshots = snapshots
        self._failing: dict[str, dict[int, str]] = {}

    def save(self, partitions: Mapping[int, InputPartition], interval_ms: int, *, is_all: bool) -> None:
        """The snapshot longest due, or at a clean stop all: one at a time, so that no candle waits for many."""
        now_ms = self._clock.monotonic_ms()
        due_ms = now_ms - (0 if is_all else interval_ms)
        waiting = [p for p in partitions.values() if p.position > p.snapshot_offset and p.snapshot_at_ms <= due_ms]
        waiting.sort(key=lambda partition: partition.snapshot_at_ms)
        for partition in waiting:
            snapshot = partition.snapshot(wall_ms=self._clock.wall_ms())
            if snapshot is None:
                continue
            data = snapshot.encode()
            for store in self._snapshots:
                if is_all and self._failing.get(store.name):
                    continue  # a stop does not wait for it again
                self._save(store, partition.number, data, partitions)
            partition.snapshot_offset = snapshot.offset
            partition.snapshot_at_ms = now_ms
            if not is_all:
                return

    def _save(self, store: Snapshots, number: int, data: bytes, partitions: Mapping[int, InputPartition]) -> None:
        """A store that fails costs time at the next start: said once, and once when it is over for all partitions."""
        failing = self._failing.setdefault(store.name, {})
        try:
            store.save(number, data)
        except OutsideError as error:
            if str(error) not in failing.values():
                logger.warning("snapshots in the %s fail, the run goes on without: %s", store.name, error)
            failing[number] = str(error)
        else:
            # Partitions given up meanwhile are somebody else's to write.
            left = {other: text for other, text in failing.items() if other != number and other in partitions}
            if failing and not left:
                logger.info("snapshots in the %s are written again", store.name)
            self._failing[store.name] = left
