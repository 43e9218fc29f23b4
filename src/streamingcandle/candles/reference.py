"""The specification (§1 to §5, §6.6) in plain, slow, obvious Python: the oracle of tests and `verify --reference`.

Every tick is kept. What a window holds is worked out anew from its ticks whenever one is added, and its published
fields are compared with those of before: that is the definition of `sourceOffset`, and here it is also the code.
Windows are not frozen, lost offsets and volume alarms are not known here; `revised` is always false.
"""

from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from typing import Literal, NamedTuple

import msgspec

from streamingcandle.candles.candle import Candle
from streamingcandle.candles.instrument import Instrument
from streamingcandle.candles.reference_clock import LEAP_MS, Clock, FeedTime
from streamingcandle.candles.reference_market import Market, Stretch, clock_text
from streamingcandle.candles.reference_read import (
    YEAR_2000_MS,
    YEAR_10000_MS,
    Value,
    read_instrument,
    read_object,
    read_price,
    read_quantity,
    read_scrip_code,
    read_text,
    read_time,
    read_total,
)
from streamingcandle.candles.rules import Rules
from streamingcandle.candles.session import DAY_MS
from streamingcandle.candles.timeframe import Timeframe

CLOCK_LEAD_MS = 2_000
"""A tick moves the feed clock to at most its record's timestamp and this (§4.2)."""
CLAIMED_WINDOWS_MAX = 16
"""So many windows of a timeframe may an instrument hold that start beyond what its clock believes."""
SUM_MAX = 2**127 - 1


class Record(msgspec.Struct, frozen=True):
    """A record of the tick topic. `timestamp_ms` is -1 where the broker has none."""

    value: bytes | None
    timestamp_ms: int
    offset: int


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a record.

    `late_for` names the timeframes it was too late for, all of them when `kind` is late. `instrument` is None where
    it cannot be read; `event_ms` is given for accepted ticks, for those of the future and those over a limit.
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
        self._markets: dict[tuple[str, str], Market] = {}
        self._instruments: dict[Instrument, _Instrument] = {}
        self._forgotten: list[_Instrument] = []
        self._feed = FeedTime()
        self._first_offset: int | None = None
        self._counts: Counter[str] = Counter()

    @property
    def event_ms(self) -> int | None:
        """E: how far the feed's own time has come; None until it has a witness."""
        return self._feed.clock.value_ms

    @property
    def claim_ms(self) -> int | None:
        """A time more than an hour beyond E that awaits its witness."""
        return self._feed.clock.claim_ms

    def witness(self, event_ms: int) -> None:
        """Raise E to this time, a claim that the host's clock bears out, and drop the claim (§4.2)."""
        self._feed.witness(event_ms)

    def ledger(self) -> dict[str, int]:
        """Count what became of the records: `read` is the sum of the five kinds."""
        always = (
            *("read", "folded", "quotes", "outside", "late", "rejected"),
            *("behind", "time_fallback", "optional_unreadable"),
        )
        return {name: self._counts[name] for name in always} | dict(self._counts)

    def fold(self, record: Record) -> Verdict:
        """Take the next record, in log order."""
        if self._first_offset is None:
            self._first_offset = record.offset
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

    # ---- one record, judged in the order JSON, instrument, price, time, limit, session, lateness

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
        return self._judge_time(named, found, price, record)

    def _judge_time(self, named: Instrument, found: "dict[str, Value]", price: float, record: Record) -> Verdict:
        market = self._market(named)
        stamp_ms = record.timestamp_ms if YEAR_2000_MS <= record.timestamp_ms < YEAR_10000_MS else None
        written = found.get(self._rules.fields.time)
        event_ms = 0 if written is None else read_time(written, market.schedule)
        fallback = event_ms is not None and event_ms < YEAR_2000_MS
        if fallback:
            event_ms = stamp_ms
        if event_ms is None or (stamp_ms is None and event_ms >= YEAR_10000_MS):
            return Verdict(kind="rejected", reason="time", instrument=str(named))
        if stamp_ms is not None and event_ms > stamp_ms + self._rules.future_ms:
            return Verdict(kind="rejected", reason="future", instrument=str(named), event_ms=event_ms)
        stretch = market.stretch(event_ms, self._rules)
        counted_ms = event_ms if stamp_ms is None else min(event_ms, stamp_ms + CLOCK_LEAD_MS)
        has_room = self._is_held_or_makes_room(named)
        if not has_room:  # a day whose instruments are all new must be able to begin
            self._feed.take(named, counted_ms, leapt=False)
        if not has_room or self._has_too_many_claims(named, stretch, event_ms):
            return Verdict(kind="rejected", reason="limit", instrument=str(named), event_ms=event_ms)
        self._counts["time_fallback"] += fallback
        instrument = self._accept(named, event_ms, counted_ms, in_session=stretch is not None, offset=record.offset)
        return self._place(instrument, stretch, self._tick(instrument, found, price, event_ms, record.offset))

    def _market(self, named: Instrument) -> Market:
        """Return the sessions that hold for an instrument; they are kept with its first accepted tick only."""
        kept = self._markets.get((named.exchange, named.segment))
        return kept or Market(self._rules.calendar.schedule(named.exchange, named.segment))

    # ---- what is held (rules 11 and 12)

    def _is_held_or_makes_room(self, named: Instrument) -> bool:
        """Tell whether a tick of this instrument can be held; where another must go for it, forget that one."""
        if named in self._instruments or len(self._instruments) < self._rules.instruments_max:
            return True
        over = [held for held in self._instruments.values() if self._is_day_over(held)]
        if not over:
            return False
        forgotten = min(over, key=lambda held: held.last_offset)
        self._forgotten.append(self._instruments.pop(forgotten.named))
        return True

    def _is_day_over(self, held: "_Instrument") -> bool:
        """Tell whether E is past the day of the instrument's greatest event time, its last close, and the horizon."""
        market = self._market(held.named)
        sessions = market.sessions(market.trading_day(held.greatest_ms, self._rules))
        midnight_ms = market.schedule.utc_ms((market.schedule.day(held.greatest_ms) + 1) * DAY_MS)
        over_ms = max([midnight_ms, *(close_ms for _, close_ms in sessions)])
        return self.event_ms is not None and over_ms + self._rules.allowed_lateness_ms <= self.event_ms

    def _has_too_many_claims(self, named: Instrument, stretch: Stretch | None, event_ms: int) -> bool:
        """Tell whether a tick would open a window beyond its instrument's clock while 16 such are held.

        The clock hears the tick all the same, so that what comes true in the end is not refused for ever.
        """
        held = self._instruments.get(named)
        if held is None or held.clock.value_ms is None or stretch is None:
            return False
        clock = held.clock.after(event_ms)
        if not clock.is_leap(event_ms):
            return False
        beyond_ms = (clock.value_ms or 0) + LEAP_MS
        starts_ms = {
            timeframe: self._market(named).window(event_ms, stretch, timeframe)[0]
            for timeframe in self._rules.timeframes
        }
        opens = any(
            start_ms > beyond_ms and start_ms not in held.windows.get((timeframe, stretch.day), {})
            for timeframe, start_ms in starts_ms.items()
        )
        claimed = Counter(
            timeframe.label
            for (timeframe, _), windows in held.windows.items()
            for start_ms in windows
            if start_ms > beyond_ms
        )
        if not opens or max(claimed.values(), default=0) < CLAIMED_WINDOWS_MAX:
            return False
        held.clock = clock
        return True

    def _is_late(self, end_ms: int, clock: Clock) -> bool:
        """Tell whether something that ended then is too old; while a clock has no value nothing is."""
        return clock.value_ms is not None and end_ms + self._rules.allowed_lateness_ms <= clock.value_ms

    def _accept(
        self, named: Instrument, event_ms: int, counted_ms: int, *, in_session: bool, offset: int
    ) -> "_Instrument":
        """Let an accepted tick move its instrument's clock, then E."""
        self._markets.setdefault((named.exchange, named.segment), self._market(named))
        held = self._instruments.setdefault(named, _Instrument(named, event_ms))
        held.greatest_ms = max(held.greatest_ms, event_ms)
        held.last_offset = offset
        leapt = in_session and held.clock.claim_ms is not None and held.clock.is_leap(event_ms)
        if in_session:
            held.clock = held.clock.after(event_ms)
        self._feed.take(named, counted_ms, leapt=leapt)
        self._counts["behind"] += self.event_ms is not None and event_ms < self.event_ms - LEAP_MS
        return held

    def _tick(
        self, instrument: "_Instrument", found: "dict[str, Value]", price: float, event_ms: int, offset: int
    ) -> "_Tick":
        """Read the optional fields; one that is there and unreadable counts as absent."""
        names, decimals = self._rules.fields, self._rules.quantity_decimals
        quantity = read_quantity(found.get(names.quantity), decimals)
        total = read_total(found.get(names.total), decimals)
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

    def _place(self, instrument: "_Instrument", stretch: Stretch | None, tick: "_Tick") -> Verdict:
        """Put an accepted tick where it belongs: outside, or into a window of each timeframe."""
        market = self._market(instrument.named)
        if stretch is None:
            self._outside(instrument, market, tick)
            return Verdict(kind="outside", instrument=str(instrument.named), event_ms=tick.event_ms)
        late_for = []
        for timeframe in self._rules.timeframes:
            start_ms, end_ms = market.window(tick.event_ms, stretch, timeframe)
            if self._is_late(end_ms, instrument.clock):
                late_for.append(timeframe.label)
                continue
            windows = instrument.windows.setdefault((timeframe, stretch.day), {})
            windows.setdefault(start_ms, _Window(start_ms, end_ms)).add(tick)
            self._settle(instrument, windows, stretch.day, tick.offset)
        kind: Literal["late", "folded"] = "late" if len(late_for) == len(self._rules.timeframes) else "folded"
        return Verdict(kind=kind, late_for=tuple(late_for), instrument=str(instrument.named), event_ms=tick.event_ms)

    def _outside(self, instrument: "_Instrument", market: Market, tick: "_Tick") -> None:
        """Let the total of a tick before a session serve as its day's base, unless it is too old for that."""
        day = market.schedule.day(tick.event_ms)
        before_session = any(tick.event_ms < open_ms for open_ms, _ in market.sessions(day))
        if tick.total is None or not before_session or self._is_late(tick.event_ms, instrument.clock):
            return
        instrument.outside.setdefault(day, []).append(tick)
        for timeframe in self._rules.timeframes:
            windows = instrument.windows.get((timeframe, day), {})
            self._settle(instrument, windows, day, tick.offset)

    # ---- what a trading day's windows of one timeframe hold (§3.3)

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
                volume = min(window.quantity, SUM_MAX)
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

    # ---- the candle as readers meet it (§5.1)

    def _candle(self, instrument: "_Instrument", timeframe: Timeframe, window: "_Window") -> Candle:
        opens, high, low, close, name, scrip_code, volume = window.published
        schedule = self._market(instrument.named).schedule
        return Candle(
            open=opens,
            high=high,
            low=low,
            close=close,
            volume=_in_few_digits(volume, self._rules.quantity_decimals),
            exchange=instrument.named.exchange,
            exchange_type=instrument.named.segment,
            company_name=name,
            scrip_code=scrip_code,
            window_start_millis=window.start_ms,
            window_end_millis=window.end_ms,
            human_readable_start_time=clock_text(schedule.local_ms(window.start_ms)),
            human_readable_end_time=clock_text(schedule.local_ms(window.end_ms)),
            timeframe=timeframe.label,
            ticks=window.ticks_published,
            complete=self._is_complete(window),
            revised=False,
            source_partition=self._partition,
            source_offset=window.source_offset,
        )

    def _is_complete(self, window: "_Window") -> bool:
        """Tell whether no tick of the window can be missing: the log was read from its start, or E was there before."""
        if self._first_offset == 0:
            return True
        return self._feed.first_ms is not None and window.start_ms >= self._feed.first_ms


def _in_few_digits(units: int, decimals: int) -> int | Decimal:
    """Return so many units of 10^-decimals, as an integer where it is one, else without zeros at the end."""
    while decimals and units % 10 == 0:
        units, decimals = units // 10, decimals - 1
    return Decimal(f"{units}E-{decimals}") if decimals else units


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
        self.last_offset = -1
        """Of its last accepted tick."""
        self.clock = Clock()
        """How far its ticks in session have come: by this it is judged what is too late."""
        self.windows: dict[tuple[Timeframe, int], dict[int, _Window]] = {}
        """By timeframe and trading day, then by start."""
        self.outside: dict[int, list[_Tick]] = {}
        """By trading day: ticks with a total, outside the sessions and before one of them."""
