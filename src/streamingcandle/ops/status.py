"""The line that `run` says each minute: how fast, how far, how much it holds."""

import logging

from streamingcandle.interfaces import Clock
from streamingcandle.ops.memory import resident_bytes
from streamingcandle.ops.turn import Progress
from streamingcandle.pipeline import Path

logger = logging.getLogger(__name__)

EVERY_MS = 60_000
_MIB = 1_048_576


class Status:
    """Says it for one process, all its partitions in one line."""

    def __init__(self, clock: Clock) -> None:
        """The first line comes after a minute."""
        self._clock = clock
        self._told_ms = clock.monotonic_ms()
        self._read = self._published = 0

    def turned(self, path: Path, progress: Progress) -> None:
        """The loop has come round, and stands there."""
        now_ms = self._clock.monotonic_ms()
        passed_ms = now_ms - self._told_ms
        if passed_ms < EVERY_MS:
            return
        read, published = path.account.read - self._read, path.account.candles - self._published
        instruments = sum(partition.book.instruments() for partition in path.partitions.values())
        held_bytes = resident_bytes()
        logger.info(
            "%s; %d records a second and %d candles in %d s; %d instruments%s",
            progress,
            read * 1_000 // passed_ms,
            published,
            passed_ms // 1_000,
            instruments,
            "" if held_bytes is None else f", {held_bytes // _MIB} MiB",
        )
        self._told_ms, self._read, self._published = now_ms, path.account.read, path.account.candles
