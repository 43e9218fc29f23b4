"""The feed clock of one partition: F = E + confirmed idle time (semantics §4 and §6).

E comes from ticks. Idle time is confirmed only up to an instant at which the broker was asked for the
end of the partition and beyond which we have read: a consumer that lags, is paused or frozen counts none.
"""

RESTART_MARGIN_MS = 2_000
"""After a restart the wall clock of another process is believed only this much less (§6)."""


class FeedClock:
    """Never falls. `now_ms` is monotonic, `wall_ms` epoch; both come in as arguments."""

    def __init__(self, *, f_ms: int = 0, e_ms: int | None = None, w_ms: int = 0, is_idle_counted: bool) -> None:
        """Go on from a commit's F, E and W, or from nothing."""
        self.e_ms = e_ms
        self.w_ms = w_ms
        self._f_ms = f_ms
        self._is_idle_counted = is_idle_counted
        self._arrived_ms: int | None = None
        self._asked: tuple[int, int, int] | None = None

    @property
    def f_ms(self) -> int:
        """F; 0 before the first tick."""
        return self._f_ms

    def rise(self, e_ms: int | None, *, now_ms: int, wall_ms: int) -> None:
        """A batch was read at `now_ms`; `e_ms` is the greatest event time since the log began."""
        if e_ms is None or (self.e_ms is not None and e_ms <= self.e_ms):
            return
        self.e_ms = e_ms
        self.w_ms = wall_ms
        self._arrived_ms = now_ms
        self._f_ms = max(self._f_ms, e_ms)

    def idle_needed_ms(self, f_ms: int, *, now_ms: int, wall_ms: int) -> int | None:
        """How long until asking for the end can bring F to `f_ms`; None when asking is no help."""
        if not self._is_idle_counted or self.e_ms is None or self._asked is not None:
            return None
        needed_ms = f_ms - self.e_ms
        if self._arrived_ms is None:
            return max(0, self.w_ms + RESTART_MARGIN_MS + needed_ms - wall_ms)
        return max(0, self._arrived_ms + needed_ms - now_ms)

    def ask(self, end_offset: int, *, now_ms: int, wall_ms: int) -> None:
        """The broker named `end_offset` when asked at `now_ms`, read before the question was sent."""
        self._asked = (end_offset, now_ms, wall_ms)

    def reach(self, position: int) -> None:
        """Everything before `position` is read: confirm the instant asked about, if it covers it."""
        if self._asked is None or position < self._asked[0]:
            return
        _, now_ms, wall_ms = self._asked
        self._asked = None
        if self.e_ms is None:
            return
        is_ours = self._arrived_ms is not None
        idle_ms = now_ms - (self._arrived_ms or 0) if is_ours else wall_ms - self.w_ms - RESTART_MARGIN_MS
        self._f_ms = max(self._f_ms, self.e_ms + max(0, idle_ms))
