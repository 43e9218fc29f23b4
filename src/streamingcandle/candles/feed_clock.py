"""The feed clock of one partition: F = E + confirmed idle time (specification §4.3).

E comes from ticks. Idle time is confirmed only up to an instant at which the broker was asked for the
end of the partition and beyond which we have read: a consumer that lags, is paused or frozen counts none.
And it closes the windows that are held, no more: a host clock that was wrong once does not stay in F.
"""

RESTART_MARGIN_MS = 2_000
"""After a restart the wall clock of another process is believed only this much less (§4.3)."""

LEAP_MS = 3_600_000
"""A step of E beyond this needs a second witness (§4.1)."""

CLAIM_LEAD_MS = 2_000
"""So far may a time that the host's clock bears out be ahead of it (§4.2): as a tick may be of its timestamp."""


class FeedClock:
    """Never falls. `now_ms` is monotonic, `wall_ms` epoch; both come in as arguments."""

    def __init__(
        self,
        *,
        f_ms: int = 0,
        e_ms: int | None = None,
        w_ms: int = 0,
        arrived_ms: int | None = None,
        is_idle_counted: bool,
    ) -> None:
        """Go on from a commit's F, E and W, or from nothing; `arrived_ms`: when E arrived, by the monotonic clock."""
        self.e_ms = e_ms
        self.w_ms = w_ms
        self._f_ms = f_ms
        self._is_idle_counted = is_idle_counted
        self._arrived_ms = arrived_ms
        self._asked: tuple[int, int, int] | None = None

    @property
    def f_ms(self) -> int:
        """F; 0 before E."""
        return self._f_ms

    def believes(self, claim_ms: int, *, wall_ms: int) -> bool:
        """Whether the host's clock is the second witness of a leap: in live use the time claimed was within the hour.

        A time to come is believed when it is there. Believed before, idle time would stay ahead by as much.
        """
        return self._is_idle_counted and -CLAIM_LEAD_MS <= wall_ms - claim_ms <= LEAP_MS

    def rise(self, e_ms: int | None, *, now_ms: int, wall_ms: int) -> None:
        """A batch was read at `now_ms`; `e_ms` is the greatest event time since the log began."""
        if e_ms is None or (self.e_ms is not None and e_ms <= self.e_ms):
            return
        step_ms = 0 if self.e_ms is None else e_ms - self.e_ms
        if step_ms > LEAP_MS and self._idle_ms(now_ms=now_ms, wall_ms=wall_ms) >= step_ms:
            # Idle time had passed it already, and closes by when it did: the tick waited for its witness.
            self.w_ms += step_ms
            self._arrived_ms = None if self._arrived_ms is None else self._arrived_ms + step_ms
        else:
            self.w_ms = wall_ms
            self._arrived_ms = now_ms
        self.e_ms = e_ms
        self._f_ms = max(self._f_ms, e_ms)

    def _begin_anew(self, *, now_ms: int, wall_ms: int) -> None:
        """E that arrived in the future, by a host whose clock was wrong, arrived now: or nothing closes till then."""
        if self._arrived_ms is None and wall_ms < self.w_ms:
            self.w_ms = wall_ms
            self._arrived_ms = now_ms

    def _idle_ms(self, *, now_ms: int, wall_ms: int) -> int:
        """Since E arrived, confirmed or not."""
        if self._arrived_ms is None:
            return wall_ms - self.w_ms - RESTART_MARGIN_MS
        return now_ms - self._arrived_ms

    def idle_needed_ms(self, f_ms: int, *, now_ms: int, wall_ms: int) -> int | None:
        """How long until asking for the end can bring F to `f_ms`; None when asking is no help."""
        if not self._is_idle_counted or self.e_ms is None or self._asked is not None:
            return None
        self._begin_anew(now_ms=now_ms, wall_ms=wall_ms)
        return max(0, f_ms - self.e_ms - self._idle_ms(now_ms=now_ms, wall_ms=wall_ms))

    def ask(self, end_offset: int, *, now_ms: int, wall_ms: int) -> None:
        """The broker named `end_offset` when asked at `now_ms`, read before the question was sent."""
        self._asked = (end_offset, now_ms, wall_ms)

    def reach(self, position: int, *, held_f_ms: int) -> None:
        """Everything before `position` is read: confirm the instant asked about, if it covers it.

        `held_f_ms`: the feed time at which the last of the windows held is due, 0 without any.
        """
        if self._asked is None or position < self._asked[0]:
            return
        _, now_ms, wall_ms = self._asked
        self._asked = None
        if self.e_ms is not None:
            idle_f_ms = self.e_ms + self._idle_ms(now_ms=now_ms, wall_ms=wall_ms)
            self._f_ms = max(self._f_ms, min(idle_f_ms, held_f_ms))
