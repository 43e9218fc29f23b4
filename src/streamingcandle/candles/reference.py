"""The semantics (§1 to §5) in plain, slow, obvious Python: the oracle of the tests and of `verify --reference`.

Every tick is kept. What a window holds is worked out anew from its ticks whenever one is added, and its published
fields are compared with those of before: that is the definition of `sourceOffset`, and here it is also the code.
Windows are not frozen, lost offsets and volume alarms are not known here; `revised` is always false.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from typing import Literal, NamedTuple

import msgspec

from streamingcandle.candles.candle import Candle
from streamingcandle.candles.instrument import Instrument
from streamingcandle.candles.reference_read import (
    WHOLE_MAX,
    YEAR_2000_MS,
    YEAR_10000_MS,
    Value,
    read_instrument,
    read_object,
    read_price,
    read_scrip_code,
    read_text,
    read_time,
    read_whole,
)
from streamingcandle.candles.rules import Rules
from streamingcandle.candles.session import DAY_MS, Schedule
from streamingcandle.candles.timeframe import Timeframe

CLOCK_LEAD_MS = 2_000
"""A tick moves the feed clock to at most its record's timestamp and this (§4)."""
SILENT_MS = 7 * DAY_MS
SESSION_SEARCH_DAYS = 400


class Record(msgspec.Struct, frozen=True):
    """A record of the tick topic. `timestamp_ms` is -1 where the broker has none."""

    value: bytes | None
    timestamp_ms: int
    offset: int


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a record.

    `late_for` names the timeframes it was too late for, all of them when `kind` is late. `instrument` is None where
    it cannot be read; `event_ms` is given for accepted ticks and for those of the future.
    """

    kind: Literal["folded", "quote", "outside", "late", "rejected"]
    reason: str | None = None
    late_for: tuple[str, ...] = ()
    instrument: str | None = None
    event_ms: int | None = None


class Reference:
    """The fold of one input partition."""

    def __init__(self, rules: Rules, partition: int = 0) -> None:
        """Begin with nothing; `partition` is only written into the candles."""
        self._rules = rules
        self._partition = partition
        self._markets: dict[tuple[str, str], _Market] = {}
        self._instruments: dict[Instrument, _Instrument] = {}
        self._forgotten: list[_Instrument] = []
        self._event_ms: int | None = None
        self._first_event_ms: int | None = None
        self._counts: Counter[str] = Counter()

    @property
    def event_ms(self) -> int | None:
        """E of §4: the greatest event time of accepted ticks, each at most its record's timestamp + 2 s."""
        return self._event_ms

    def ledger(self) -> dict[str, int]:
        """Count what became of the records: `read` is the sum of the five kinds."""
        always = ("read", "folded", "quotes", "outside", "late", "rejected", "time_fallback", "optional_unreadable")
        return {name: self._counts[name] for name in always} | dict(self._counts)

    def fold(self, record: Record) -> Verdict:
        """Take the next record, in log order."""
        verdict = self._judge(record)
        self._counts["read"] += 1
        self._counts["quotes" if verdict.kind == "quote" else verdict.kind] += 1
        if verdict.reason is not None:
            self._counts[f"rejected_{verdict.reason}"] += 1
        return verdict

    def candles(self) -> dict[tuple[str, str, int], Candle]:
        """Every window seen so far as it now stands, by instrument, timeframe label and start."""
        return {
            (str(instrument.named), timeframe.label, window.start_ms): self._candle(instrument, timeframe, window)
            for instrument in (*self._forgotten, *self._instruments.values())
            for (timeframe, _), windows in instrument.windows.items()
            for window in windows.values()
        }

    # ---- one record, judged in the order JSON, instrument, price, time, session, lateness

    def _judge(self, record: Record) -> Verdict:
        if not record.value:
            return Verdict(kind="rejected", reason="tombstone" if record.value is None else "empty")
        names = self._rules.fields
        found = read_object(record.value)
        named = (
            None if found is None else read_instrument(*map(found.get, (names.exchange, names.segment, names.token)))
        )
        if found is None or named is None:
            return Verdict(kind="rejected", reason="json" if found is None else "instrument")
        price = read_price(found.get(names.price))
        if not price:
            rejected = Verdict(kind="rejected", reason="price", instrument=str(named))
            return rejected if price is None else Verdict(kind="quote", instrument=str(named))
        if (named.exchange, named.segment) not in self._markets:
            schedule = self._rules.calendar.schedule(named.exchange, named.segment)
            self._markets[named.exchange, named.segment] = _Market(schedule)
        market = self._markets[named.exchange, named.segment]
        timestamp_ms = record.timestamp_ms if YEAR_2000_MS <= record.timestamp_ms < YEAR_10000_MS else None
        event_ms = self._time(read_time(found.get(names.time), market.schedule), timestamp_ms)
        if event_ms is None or (timestamp_ms is None and event_ms >= YEAR_10000_MS):
            return Verdict(kind="rejected", reason="time", instrument=str(named))
        if timestamp_ms is not None and event_ms > timestamp_ms + self._rules.future_ms:
            return Verdict(kind="rejected", reason="future", instrument=str(named), event_ms=event_ms)
        instrument = self._accept(named, event_ms, timestamp_ms)
        return self._place(instrument, market, self._tick(instrument, found, price, event_ms, record.offset))

    def _time(self, event_ms: int | None, timestamp_ms: int | None) -> int | None:
        """Fall back on the record's timestamp where the tick's own time is none."""
        if event_ms is not None and event_ms >= YEAR_2000_MS:
            return event_ms
        self._counts["time_fallback"] += timestamp_ms is not None
        return timestamp_ms

    def _accept(self, named: Instrument, event_ms: int, timestamp_ms: int | None) -> "_Instrument":
        """Let an accepted tick move the clocks, and forget its instrument if that was silent for 7 days."""
        held = self._instruments.get(named)
        if held and self._event_ms is not None and held.greatest_ms <= self._event_ms - SILENT_MS:
            self._forgotten.append(held)
            held = None
        if held is None:
            held = self._instruments[named] = _Instrument(named, event_ms)
        held.greatest_ms = max(held.greatest_ms, event_ms)
        counted_ms = event_ms if timestamp_ms is None else min(event_ms, timestamp_ms + CLOCK_LEAD_MS)
        self._event_ms = counted_ms if self._event_ms is None else max(self._event_ms, counted_ms)
        if self._first_event_ms is None:
            self._first_event_ms = event_ms
        return held

    def _tick(
        self, instrument: "_Instrument", found: "dict[str, Value]", price: float, event_ms: int, offset: int
    ) -> "_Tick":
        """Read the optional fields; one that is there and unreadable counts as absent."""
        names, decimals = self._rules.fields, self._rules.quantity_decimals
        quantity = read_whole(found.get(names.quantity), decimals)
        total = read_whole(found.get(names.total), decimals)
        name = read_text(found.get(names.company_name))
        scrip_code = read_scrip_code(found.get(names.scrip_code))
        for field, value in (
            (names.quantity, quantity),
            (names.total, total),
            (names.company_name, name),
            (names.scrip_code, scrip_code),
        ):
            self._counts["optional_unreadable"] += found.get(field) is not None and value is None
        if name is not None:
            instrument.name = name
        code = str(instrument.named.token) if scrip_code is None else scrip_code
        return _Tick(event_ms, offset, price, quantity or 0, total or None, instrument.name, code)

    def _place(self, instrument: "_Instrument", market: "_Market", tick: "_Tick") -> Verdict:
        """Put an accepted tick where it belongs: outside, or into a window of each timeframe."""
        stretch = market.stretch(tick.event_ms, self._rules)
        if stretch is None:
            self._outside(instrument, market, tick)
            return Verdict(kind="outside", instrument=str(instrument.named), event_ms=tick.event_ms)
        instrument.session_ms = max(instrument.session_ms, tick.event_ms)
        late_for = []
        for timeframe in self._rules.timeframes:
            start_ms, end_ms = market.window(tick.event_ms, stretch, timeframe)
            if end_ms + self._rules.late_horizon_ms <= instrument.session_ms:
                late_for.append(timeframe.label)
                continue
            windows = instrument.windows.setdefault((timeframe, stretch.day), {})
            windows.setdefault(start_ms, _Window(start_ms, end_ms)).add(tick)
            self._settle(instrument, windows, stretch.day, tick.offset)
        kind: Literal["late", "folded"] = "late" if len(late_for) == len(self._rules.timeframes) else "folded"
        return Verdict(kind=kind, late_for=tuple(late_for), instrument=str(instrument.named), event_ms=tick.event_ms)

    def _outside(self, instrument: "_Instrument", market: "_Market", tick: "_Tick") -> None:
        """Let the total of a tick before a session serve as its day's base, unless it is too old for that."""
        day = market.schedule.day(tick.event_ms)
        before_session = any(tick.event_ms < open_ms for open_ms, _ in market.sessions(day))
        too_old = tick.event_ms + self._rules.late_horizon_ms <= instrument.session_ms
        if tick.total is None or not before_session or too_old:
            return
        instrument.outside.setdefault(day, []).append(tick)
        for timeframe in self._rules.timeframes:
            windows = instrument.windows.get((timeframe, day), {})
            self._settle(instrument, windows, day, tick.offset)

    # ---- what a trading day's windows of one timeframe hold (§3)

    def _settle(self, instrument: "_Instrument", windows: "dict[int, _Window]", day: int, offset: int) -> None:
        """Work out the day's volumes anew, and note which windows the tick at `offset` changed."""
        base = self._base(instrument, windows.values(), day)
        greatest: int | None = None
        for start_ms in sorted(windows):
            window = windows[start_ms]
            before = greatest
            if window.total is not None:
                greatest = max(greatest or 0, window.total)
            if greatest is None:
                volume = min(window.quantity, WHOLE_MAX)
            else:
                volume = greatest - (base if before is None else before)
            window.publish((*window.shape, volume), offset)

    def _base(self, instrument: "_Instrument", windows: "Iterable[_Window]", day: int) -> int:
        """Give the total from which the day's first window with one counts."""
        if instrument.named.exchange in self._rules.since_zero or "*" in self._rules.since_zero:
            return 0
        firsts = [window.first_with_total for window in windows if window.first_with_total is not None]
        if not firsts:
            return 0
        first = min(firsts, key=_order)
        base = max((first.total or 0) - first.quantity, 0)
        seen = [tick.total or 0 for tick in instrument.outside.get(day, ()) if _order(tick) < _order(first)]
        return min(base, max(seen)) if seen else base

    # ---- the candle as readers meet it (§5)

    def _candle(self, instrument: "_Instrument", timeframe: Timeframe, window: "_Window") -> Candle:
        opens, high, low, close, name, scrip_code, volume = window.published
        decimals = self._rules.quantity_decimals
        schedule = self._markets[instrument.named.exchange, instrument.named.segment].schedule
        return Candle(
            open=opens,
            high=high,
            low=low,
            close=close,
            volume=Decimal(volume).scaleb(-decimals) if decimals else volume,
            exchange=instrument.named.exchange,
            exchange_type=instrument.named.segment,
            company_name=name,
            scrip_code=scrip_code,
            window_start_millis=window.start_ms,
            window_end_millis=window.end_ms,
            human_readable_start_time=_clock_text(schedule.local_ms(window.start_ms)),
            human_readable_end_time=_clock_text(schedule.local_ms(window.end_ms)),
            timeframe=timeframe.label,
            ticks=window.ticks_published,
            complete=self._first_event_ms is not None and window.start_ms >= self._first_event_ms,
            revised=False,
            source_partition=self._partition,
            source_offset=window.source_offset,
        )


def candles_of(rules: Rules, records: Iterable[Record]) -> dict[tuple[str, str, int], Candle]:
    """Fold a log from its start and return every candle as it stands at the end."""
    reference = Reference(rules)
    for record in records:
        reference.fold(record)
    return reference.candles()


# ---- what is held


class _Tick(NamedTuple):
    event_ms: int
    offset: int
    price: float
    quantity: int
    total: int | None
    """`TotalQty` where it is above 0."""
    name: str | None
    """Its company name, else the one last read for the instrument."""
    scrip_code: str


def _order(tick: _Tick) -> tuple[int, int]:
    return tick.event_ms, tick.offset


_Shape = tuple[float, float, float, float, str | None, str]


class _Window:
    """One window with all its ticks, and its published fields as of the last tick that changed them."""

    def __init__(self, start_ms: int, end_ms: int) -> None:
        self.start_ms = start_ms
        self.end_ms = end_ms
        self._ticks: list[_Tick] = []

    def add(self, tick: _Tick) -> None:
        ticks = self._ticks
        ticks.append(tick)
        first, last = min(ticks, key=_order), max(ticks, key=_order)
        high, low = max(each.price for each in ticks), min(each.price for each in ticks)
        self.shape: _Shape = (first.price, high, low, last.price, last.name, last.scrip_code)
        with_total = [each for each in ticks if each.total is not None]
        self.first_with_total = min(with_total, key=_order, default=None)
        self.total = max((each.total or 0 for each in with_total), default=None)
        self.quantity = sum(each.quantity for each in ticks)

    def publish(self, fields: tuple[float, float, float, float, str | None, str, int], offset: int) -> None:
        if getattr(self, "published", None) != fields:
            self.published = fields
            self.source_offset = offset
            self.ticks_published = len(self._ticks)


class _Instrument:
    """All that is known of one instrument since it was first seen, or since it was forgotten."""

    def __init__(self, named: Instrument, event_ms: int) -> None:
        self.named = named
        self.name: str | None = None
        self.greatest_ms = event_ms
        self.session_ms = 0
        """The greatest event time of its ticks in session."""
        self.windows: dict[tuple[Timeframe, int], dict[int, _Window]] = {}
        """By timeframe and trading day, then by start."""
        self.outside: dict[int, list[_Tick]] = {}
        """By trading day: ticks with a total, outside the sessions and before one of them."""


# ---- where a tick belongs (§2)


class _Stretch(NamedTuple):
    """A time on one grid: windows are aligned to the anchor, and cut where the stretch begins and ends."""

    day: int
    anchor_ms: int
    from_ms: int
    to_ms: int


class _Market:
    """The sessions of one exchange and segment."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self._sessions: dict[int, tuple[tuple[int, int], ...]] = {}

    def sessions(self, day: int) -> tuple[tuple[int, int], ...]:
        if day not in self._sessions:
            self._sessions[day] = self.schedule.sessions(day)
        return self._sessions[day]

    def stretch(self, event_ms: int, rules: Rules) -> _Stretch | None:
        """Return the session that holds this time, or the time around it if that is kept, or None for outside."""
        day = self.schedule.day(event_ms)
        for open_ms, close_ms in self.sessions(day):
            if open_ms <= event_ms < close_ms:
                return _Stretch(day, open_ms, open_ms, close_ms)
        for back in range(2 + rules.after_close_ms // DAY_MS):
            for open_ms, close_ms in reversed(self.sessions(day - back)):
                if close_ms <= event_ms <= close_ms + rules.after_close_ms:
                    return _Stretch(day - back, open_ms, open_ms, close_ms)
        return self._stretch_around(event_ms, day) if rules.outside_session == "keep" else None

    def _stretch_around(self, event_ms: int, day: int) -> _Stretch:
        midnight_ms = self.schedule.utc_ms(day * DAY_MS)
        closed = [close_ms for _, close_ms in self.sessions(day) if close_ms <= event_ms]
        for open_ms, _ in self.sessions(day):
            if event_ms < open_ms:
                return _Stretch(day, open_ms, max([midnight_ms, *closed]), open_ms)
        # Windows are shorter than a day: of the dates to come only the next two can cut one.
        coming = [self.schedule.utc_ms(later * DAY_MS) for later in (day + 1, day + 2) if self.sessions(later)]
        cut_ms = min(coming, default=event_ms + 2 * DAY_MS)
        for before in range(day, day - SESSION_SEARCH_DAYS - 1, -1):
            if self.sessions(before):
                close_ms = self.sessions(before)[-1][1]
                return _Stretch(before, close_ms, close_ms, cut_ms)
        return _Stretch(day, midnight_ms, midnight_ms, self.schedule.utc_ms((day + 1) * DAY_MS))

    def window(self, event_ms: int, stretch: _Stretch, timeframe: Timeframe) -> tuple[int, int]:
        """Return start and end of the window; a tick just after the close is taken back into the last one."""
        if timeframe.length_ms == 0:
            sessions = self.sessions(stretch.day) or ((stretch.from_ms, stretch.to_ms),)
            return sessions[0][0], sessions[-1][1]
        inside_ms = min(event_ms, stretch.to_ms - 1)
        count = (inside_ms - stretch.anchor_ms) // timeframe.length_ms
        start_ms = stretch.anchor_ms + count * timeframe.length_ms
        return max(start_ms, stretch.from_ms), min(start_ms + timeframe.length_ms, stretch.to_ms)


def _clock_text(local_ms: int) -> str:
    """Write a local time as yyyy-MM-dd HH:mm:ss.SSS."""
    day, rest_ms = divmod(local_ms, DAY_MS)
    # Python's calendar ends with 9999; it repeats itself after 400 years, and a window may end in the year 10000.
    written = date.fromordinal(day + date(1970, 1, 1).toordinal() - 146_097)
    seconds, ms = divmod(rest_ms, 1_000)
    clock = f"{seconds // 3_600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{ms:03}"
    return f"{written.year + 400:04}-{written.month:02}-{written.day:02} {clock}"
