"""That the loop turns, told to those who watch it from outside: once a second, and by the loop itself.

A turn is a poll and what follows from it, half a second at most while nothing happens. Waits for a broker are turns
as well: each has a limit of its own. A process that stands still anywhere tells nothing, and that is the alarm:

    the file `turn` of the instance    its mtime; a health check looks there
    systemd                            READY, STATUS, WATCHDOG (`systemd.py`)
    the parent of workers              the same for all of them (`workers.py`)
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import msgspec

from streamingcandle.interfaces import Clock
from streamingcandle.partition import InputPartition
from streamingcandle.state.directory import TURN_NAME

TELL_EVERY_MS = 1_000
_SPANS = ((172_800_000, 86_400_000, "d"), (7_200_000, 3_600_000, "h"), (120_000, 60_000, "min"))
"""From how many ms on, in units of how many ms, and what they are called."""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Where the loop of one process is, or those of all workers."""

    is_ready: bool = False
    """Has its share of the partitions, be it none, and has restored them."""
    partitions: int = 0
    delay_ms: int | None = None
    """How far the feed clock is behind the wall clock; None before the first tick.

    Of the partitions not read to the end the one furthest behind, else the newest: a quiet one is not late.
    """
    lag: int | None = None
    """Records not read yet; None where the log has not told its ends."""
    restoring: int = 0
    """Records still to be folded of what was committed before."""

    def __str__(self) -> str:
        """One line, for the operator."""
        if self.restoring:
            return f"{self.partitions} partitions, restoring, {self.restoring} records to go"
        if not self.is_ready:
            return "starting"
        delay = "no tick yet" if self.delay_ms is None else f"feed clock {span(self.delay_ms)} behind"
        lag = "lag not known yet" if self.lag is None else f"{self.lag} records behind"
        return f"{self.partitions} partitions, {delay}, {lag}"


def span(duration_ms: int) -> str:
    """A duration as a person says it."""
    for from_ms, unit_ms, unit in _SPANS:
        if duration_ms >= from_ms:
            return f"{duration_ms // unit_ms} {unit}"
    return f"{duration_ms / 1_000:.1f} s"


def progress_of(
    partitions: Iterable[InputPartition], ends: Mapping[int, int], *, wall_ms: int, is_shared: bool
) -> Progress:
    """`ends`: as far as they are known; `is_shared`: whether we have been told our share of the partitions."""
    held = list(partitions)
    restoring = sum(partition.committed.offset - partition.position for partition in held if partition.is_restoring)
    lagging = [partition for partition in held if partition.position < ends.get(partition.number, 0)]
    known = all(partition.number in ends for partition in held)
    late_ms = [partition.clock.f_ms for partition in lagging if partition.clock.f_ms]
    seen_ms = [partition.clock.f_ms for partition in held if partition.clock.f_ms]
    f_ms = min(late_ms) if late_ms else max(seen_ms, default=None)
    return Progress(
        is_ready=is_shared and not restoring,
        partitions=len(held),
        delay_ms=None if f_ms is None else max(0, wall_ms - f_ms),
        lag=sum(ends[partition.number] - partition.position for partition in lagging) if known else None,
        restoring=restoring,
    )


def together(workers: Sequence[Progress]) -> Progress:
    """Of all workers: ready when each is, as late as the latest."""
    delays_ms = [progress.delay_ms for progress in workers if progress.delay_ms is not None]
    lags = [progress.lag for progress in workers if progress.lag is not None]
    return Progress(
        is_ready=all(progress.is_ready for progress in workers),
        partitions=sum(progress.partitions for progress in workers),
        delay_ms=max(delays_ms, default=None),
        lag=sum(lags) if len(lags) == len(workers) else None,
        restoring=sum(progress.restoring for progress in workers),
    )


class Watcher(Protocol):
    """Who wants to know that the loop turns."""

    def tell(self, progress: Progress) -> None:
        """Never waits and never raises: nobody who only watches holds the loop up."""


class Turn:
    """Passes on what the loop tells, once a second; for the loop's thread."""

    def __init__(self, clock: Clock) -> None:
        """Nobody watches yet."""
        self._clock = clock
        self._watchers: list[Watcher] = []
        self._progress = Progress()
        self._tell_at_ms = 0

    def watch(self, watcher: Watcher) -> None:
        """Tell this one too from now on, and at the next turn."""
        self._watchers.append(watcher)
        self._tell_at_ms = 0

    @property
    def is_due(self) -> bool:
        """Whether `turned` has something to tell: a second has passed, or we may be ready now."""
        return not self._progress.is_ready or self._is_time()

    def turned(self, progress: Progress) -> None:
        """The loop has come round, and stands there."""
        is_news = progress.is_ready != self._progress.is_ready
        self._progress = progress
        if is_news or self._is_time():
            self._tell()

    def waited(self) -> None:
        """A piece of a wait is over; where we stand has not changed."""
        if self._is_time():
            self._tell()

    def _is_time(self) -> bool:
        return self._clock.monotonic_ms() >= self._tell_at_ms

    def _tell(self) -> None:
        self._tell_at_ms = self._clock.monotonic_ms() + TELL_EVERY_MS
        for watcher in self._watchers:
            watcher.tell(self._progress)


class TurnFile:
    """The file `turn` of an instance: its mtime is the last turn's. What the disk says is told by `Instance.hold`."""

    def __init__(self, folder: Path) -> None:
        """Made at the first turn, and again where somebody deleted it."""
        self._path = folder / TURN_NAME

    def tell(self, progress: Progress) -> None:
        """See `Watcher`."""
        del progress
        with suppress(OSError):
            try:
                os.utime(self._path)
            except FileNotFoundError:
                self._path.touch()
