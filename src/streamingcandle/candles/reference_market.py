"""Where the reference says a tick belongs: its trading day, its stretch of the grid, its windows (specification §2)."""

from datetime import date
from typing import NamedTuple

from streamingcandle.candles.rules import Rules
from streamingcandle.candles.session import DAY_MS, Schedule
from streamingcandle.candles.timeframe import Timeframe

SESSION_SEARCH_DAYS = 400


class Stretch(NamedTuple):
    """A time on one grid: windows are aligned to the anchor, and cut where the stretch begins and ends."""

    day: int
    anchor_ms: int
    from_ms: int
    to_ms: int


class Market:
    """The sessions of one exchange and segment."""

    def __init__(self, schedule: Schedule) -> None:
        """Take the sessions as compiled for them."""
        self.schedule = schedule
        self._sessions: dict[int, tuple[tuple[int, int], ...]] = {}

    def sessions(self, day: int) -> tuple[tuple[int, int], ...]:
        """Return the sessions of a local date as (open, close) in epoch ms UTC."""
        if day not in self._sessions:
            self._sessions[day] = self.schedule.sessions(day)
        return self._sessions[day]

    def stretch(self, event_ms: int, rules: Rules) -> Stretch | None:
        """Return the session that holds this time, or the time around it if that is kept, or None for outside."""
        in_session = self._stretch_of_session(event_ms, rules)
        if in_session is None and rules.outside_session == "keep":
            return self._stretch_around(event_ms, self.schedule.day(event_ms))
        return in_session

    def _stretch_of_session(self, event_ms: int, rules: Rules) -> Stretch | None:
        """Return the session that holds this time, or that closed just before it."""
        day = self.schedule.day(event_ms)
        for open_ms, close_ms in self.sessions(day):
            if open_ms <= event_ms < close_ms:
                return Stretch(day, open_ms, open_ms, close_ms)
        for back in range(2 + rules.after_close_ms // DAY_MS):
            for open_ms, close_ms in reversed(self.sessions(day - back)):
                if close_ms <= event_ms <= close_ms + rules.after_close_ms:
                    return Stretch(day - back, open_ms, open_ms, close_ms)
        return None

    def trading_day(self, event_ms: int, rules: Rules) -> int:
        """Return the session's date; outside: of the next session on the same date, else of the last one before."""
        stretch = self._stretch_of_session(event_ms, rules) or self._stretch_around(
            event_ms, self.schedule.day(event_ms)
        )
        return stretch.day

    def _stretch_around(self, event_ms: int, day: int) -> Stretch:
        midnight_ms = self.schedule.utc_ms(day * DAY_MS)
        closed = [close_ms for _, close_ms in self.sessions(day) if close_ms <= event_ms]
        for open_ms, _ in self.sessions(day):
            if event_ms < open_ms:
                return Stretch(day, open_ms, max([midnight_ms, *closed]), open_ms)
        # Windows are shorter than a day: of the dates to come only the next two can cut one.
        coming = [self.schedule.utc_ms(later * DAY_MS) for later in (day + 1, day + 2) if self.sessions(later)]
        cut_ms = min(coming, default=event_ms + 2 * DAY_MS)
        for before in range(day, day - SESSION_SEARCH_DAYS - 1, -1):
            if self.sessions(before):
                close_ms = self.sessions(before)[-1][1]
                return Stretch(before, close_ms, close_ms, cut_ms)
        return Stretch(day, midnight_ms, midnight_ms, self.schedule.utc_ms((day + 1) * DAY_MS))

    def window(self, event_ms: int, stretch: Stretch, timeframe: Timeframe) -> tuple[int, int]:
        """Return start and end of the window; a tick just after the close is taken back into the last one."""
        if timeframe.length_ms == 0:
            sessions = self.sessions(stretch.day) or ((stretch.from_ms, stretch.to_ms),)
            return sessions[0][0], sessions[-1][1]
        inside_ms = min(event_ms, stretch.to_ms - 1)
        count = (inside_ms - stretch.anchor_ms) // timeframe.length_ms
        start_ms = stretch.anchor_ms + count * timeframe.length_ms
        return max(start_ms, stretch.from_ms), min(start_ms + timeframe.length_ms, stretch.to_ms)


def clock_text(local_ms: int) -> str:
    """Write a local time as yyyy-MM-dd HH:mm:ss.SSS."""
    day, rest_ms = divmod(local_ms, DAY_MS)
    # Python's calendar ends with 9999; it repeats itself after 400 years, and a window may end in the year 10000.
    written = date.fromordinal(day + date(1970, 1, 1).toordinal() - 146_097)
    seconds, ms = divmod(rest_ms, 1_000)
    clock = f"{seconds // 3_600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{ms:03}"
    return f"{written.year + 400:04}-{written.month:02}-{written.day:02} {clock}"
