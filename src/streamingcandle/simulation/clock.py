"""Virtual time: one instant for the whole pretended world, and what each process's clocks make of it."""

import heapq
from collections.abc import Callable
from itertools import count

Action = Callable[[], None]


class VirtualTime:
    """What happens when. Time stands still while something happens, and leaps to what comes next."""

    def __init__(self, start_ms: int) -> None:
        """Begin at an instant, epoch ms."""
        self.now_ms = start_ms
        self._coming: list[tuple[int, int, Action]] = []
        self._order = count()

    def at(self, at_ms: int, action: Action) -> None:
        """Let something happen then, or now where that is past; of two at one instant the first told comes first."""
        heapq.heappush(self._coming, (max(at_ms, self.now_ms), next(self._order), action))

    def run_until(self, until_ms: int) -> None:
        """Let everything happen that comes up to and at this instant."""
        while self._coming and self._coming[0][0] <= until_ms:
            self.now_ms, _, action = heapq.heappop(self._coming)
            action()
        self.now_ms = max(self.now_ms, until_ms)


class ProcessClock:
    """`interfaces.Clock` of one process: monotonic since its host's boot, and a wall clock that may be wrong."""

    def __init__(self, time: VirtualTime, *, booted_ms: int, wall_error_ms: int, sleep: Callable[[int], None]) -> None:
        """`sleep` lets the process wait; `wall_error_ms` may be stepped at any time."""
        self._time = time
        self._booted_ms = booted_ms
        self._sleep = sleep
        self.wall_error_ms = wall_error_ms

    def monotonic_ms(self) -> int:
        """See `interfaces.Clock`."""
        return self._time.now_ms - self._booted_ms

    def wall_ms(self) -> int:
        """See `interfaces.Clock`."""
        return self._time.now_ms + self.wall_error_ms

    def sleep_ms(self, duration_ms: int) -> None:
        """See `interfaces.Clock`."""
        self._sleep(duration_ms)
