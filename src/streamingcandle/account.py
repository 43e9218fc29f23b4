"""What a run did, and what keeps it from its work: counted, and said without filling the log."""

import logging
from collections.abc import Callable, Iterable

from streamingcandle.errors import OutsideError
from streamingcandle.interfaces import Clock
from streamingcandle.partition import InputPartition

logger = logging.getLogger(__name__)

REPEAT_MS = 60_000
"""A failure that lasts is told of this often, with how often it happened."""
OFFSETS_SHOWN_MAX = 12
"""Of more partitions the sum."""


PROGRESS_MS = 1_000
"""A restore that takes longer says how far it is."""


class StoppedError(OutsideError):
    """A stop came while transactions failed, and the last one failed too."""


class Account:
    """Of one run."""

    def __init__(self, clock: Clock, tell_restore: Callable[[int], None] | None = None) -> None:
        """`tell_restore` is told how many offsets are left to restore; without it the log is, every second."""
        self._tell_restore = tell_restore
        self._progress_at_ms = clock.monotonic_ms()
        self.read = 0
        """Records folded, restores included."""
        self.failure = ""
        """Why the last transaction that failed did."""
        self._clock = clock
        self.candles = self._letters = self._aborts = 0
        self._told_at_ms: int | None = None

    def tell_restore(self, partitions: Iterable[InputPartition]) -> None:
        """How far those are that are restored."""
        restoring = [partition for partition in partitions if partition.is_restoring]
        if self._tell_restore is not None:
            self._tell_restore(sum(partition.committed.offset - partition.position for partition in restoring))
            return
        now_ms = self._clock.monotonic_ms()
        if now_ms < self._progress_at_ms + PROGRESS_MS:
            return
        self._progress_at_ms = now_ms
        for partition in restoring:
            position, goal = partition.position, partition.committed.offset
            logger.info("partition %d: restoring, at offset %d of %d", partition.number, position, goal)

    def stopped(self, partitions: Iterable[InputPartition]) -> StoppedError:
        """What a stop ends with whose last transaction fails."""
        left = sum(partition.position - partition.committed.offset for partition in partitions)
        return StoppedError(
            f"stopped before the last transaction came about: {self.failure}; nothing is lost: "
            f"the next start reads the last {left} records again"
        )

    def aborted(self, reason: str) -> None:
        """Say it at once, and while it lasts once a minute."""
        self.failure = reason
        self._aborts += 1
        now_ms = self._clock.monotonic_ms()
        if self._told_at_ms is not None and now_ms < self._told_at_ms + REPEAT_MS:
            return
        self._told_at_ms = now_ms
        times = "" if self._aborts == 1 else f" ({self._aborts} times by now)"
        logger.warning("transaction aborted, again in a moment%s: %s", times, reason)

    def landed(self, candles: int, letters: int) -> None:
        """A transaction is in the log; say it where many before were not."""
        if self._aborts > 1:
            logger.info("transaction committed, after %d that were aborted", self._aborts)
        self._aborts = 0
        self.candles += candles
        self._letters += letters

    def tell_end(self, topic: str, partitions: Iterable[InputPartition]) -> None:
        """In one line, and up to where it is committed."""
        held = sorted(partitions, key=lambda partition: partition.number)
        places = ", ".join(f"[{partition.number}]@{partition.committed.offset}" for partition in held)
        if len(held) > OFFSETS_SHOWN_MAX:
            places = f" in {len(held)} partitions, {sum(partition.committed.offset for partition in held)} records"
        logger.info(
            "ended: %d records read, %d candles and %d dead letters or late ticks published; %s",
            self.read,
            self.candles,
            self._letters,
            f"committed up to {topic}{places}" if held else "no partition was ours",
        )
