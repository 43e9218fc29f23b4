"""What Hypothesis is given: logs of ticks as a bad day might bring them, and rules to fold them by.

- `rules()`: any rules; `batches(fields)`: any log; `cases()`: rules with a log that uses their field names.
- `bare_tick(instrument, event_ms)`: one tick without a total.
- `orderly_batches()`: plain ticks in order of time, no two of an instrument at the same moment, each record written
  `DELAY_MS` after its tick; `disordered(batch)`: the same ticks as they might arrive, at most `DISORDER_MS` late.

A plain tick is the rule and every oddity a choice, so that a failing log shrinks to plain ticks and its one oddity.
"""

import json
from datetime import UTC, date, datetime, timedelta

import msgspec
from hypothesis import strategies as st

from streamingcandle.candles.reference import Record
from streamingcandle.candles.rules import Fields, Rules
from streamingcandle.candles.session import Calendar, Row, load_calendar
from streamingcandle.candles.timeframe import parse_timeframes

SECOND_MS, MINUTE_MS, HOUR_MS, DAY_MS = 1_000, 60_000, 3_600_000, 86_400_000
LEAP_MS = HOUR_MS
KOLKATA_MS = 5 * HOUR_MS + 30 * MINUTE_MS
YEAR_MS = 365 * DAY_MS
WHOLE_MAX = 2**63 - 1
DISORDER_MS = 5 * MINUTE_MS
DELAY_MS = DISORDER_MS
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


DAYS = tuple(
    date.fromisoformat(day)
    for day in (
        "2026-01-02",  # Friday
        "2026-01-03",  # Saturday
        "2026-01-05",
        "2026-01-26",  # closed in India
        "2024-03-02",  # Saturday, two sessions
        "2024-11-01",  # one hour in the evening
        "2026-03-06",  # New York's clocks go forward on the 8th
        "2025-10-31",  # ... and back on the 2nd
        "2026-07-31",  # the next trading day closes later
        "2026-10-02",  # Lord Howe's clocks go forward on the 4th
    )
)
SHIPPED = Calendar(
    rows=tuple(
        row
        for row in load_calendar().rows
        if row.exchange in ("N", "M", "NYSE") and (row.kind == "weekly" or row.date in DAYS)
    )
)
"""The shipped sessions, as far as the logs here go: a failing case is printed with all its rows."""


def _row(exchange: str, zone: str, opens_h: float, closes_h: float, on: date | None = None) -> Row:
    open_ms, close_ms = int(opens_h * HOUR_MS), int(closes_h * HOUR_MS)
    kind, day = ("weekly", date(2000, 1, 1)) if on is None else ("date", on)
    return Row(kind, exchange, "*", day, zone, open_ms, close_ms)  # type: ignore[arg-type]


ODD = Calendar(
    rows=(
        *SHIPPED.rows,
        # touching sessions, the last up to midnight, and a Saturday from midnight on
        _row("T", "Asia/Kolkata", 9, 12),
        _row("T", "Asia/Kolkata", 12, 13.5),
        _row("T", "Asia/Kolkata", 20, 24),
        _row("T", "Asia/Kolkata", 0, 1, on=date(2026, 1, 3)),
        # half an hour of daylight saving, and a session over the hour that it skips
        _row("L", "Australia/Lord_Howe", 1, 10),
        # exceptions alone
        _row("S", "UTC", 6, 6.5, on=date(2026, 1, 5)),
    )
)
"""The shipped sessions and exchanges with odder ones."""

INSTRUMENTS = (
    ("N", "C", 7),
    ("M", "D", 458305),
    ("X", "Y", 2**63 - 1),
    ("N", "U", 7),
    ("N", "D", 7),
    ("T", "D", 0),
    ("NYSE", "E", 320193),
    ("L", "E", 1),
    ("S", "E", 1),
)
HEAP = ("X", "Q", 1)
"""An instrument without totals, of quantities that 18 of them pass 127 bits where there are 18 decimals."""
_CLOCKS = """
    09:07 08:50 09:15 09:16 09:45 00:00 01:00 05:30 09:00 10:00 11:30 12:00
    12:30 13:30 15:29 15:30 15:35 15:40 17:00 18:00 19:00 20:00 23:30 23:55
"""
CLOCKS_MS = tuple((int(clock[:2]) * 60 + int(clock[3:])) * MINUTE_MS for clock in _CLOCKS.split())
"""Moments of the Indian day at which something begins or ends."""


class Spelling(msgspec.Struct, frozen=True):
    """One tick: what it says, before it is written down."""

    exchange: str
    segment: str
    token: str
    price: str
    quantity: str | None
    total: str | None
    time: str
    more: tuple[tuple[str, str], ...] = ()
    """Members as they stand in the JSON, name and value; they come last and so win."""


def write(tick: Spelling, names: Fields) -> bytes:
    """Write a tick as JSON; its values are JSON already."""
    members = [
        (names.exchange, json.dumps(tick.exchange)),
        (names.segment, json.dumps(tick.segment)),
        (names.token, tick.token),
        ("High", "1e3"),
        (names.price, tick.price),
        (names.quantity, tick.quantity),
        (names.total, tick.total),
        (names.time, tick.time),
    ]
    texts = [f"{json.dumps(name)}:{value}" for name, value in members if value is not None]
    texts += [f"{name}:{value}" for name, value in tick.more]
    return ("{" + ",".join(texts) + "}").encode("utf-8", "surrogatepass")


# ---- rules


LABELS = ("1m", "2m", "3m", "5m", "7m", "15m", "30m", "1h", "5h", "1d", "10s", "1s")
OTHER_FIELDS = Fields(
    exchange="e",
    segment='s"q\\',
    token="Tokén",  # noqa: S106 no password
    price="ltp",
    quantity="",
    total="v",
    time="at",
    company_name="\U0001f56f",
    scrip_code="code",
)


@st.composite
def rules(draw: st.DrawFn) -> Rules:
    """Draw rules that a settings file can say."""
    labels = draw(st.lists(st.sampled_from(LABELS), min_size=1, max_size=4, unique=True))
    timeframes = parse_timeframes(",".join(labels))
    return Rules(
        timeframes=timeframes,
        grace_ms=(1_000,) * len(timeframes),
        calendar=draw(st.sampled_from((SHIPPED, ODD))),
        fields=draw(st.sampled_from((Fields(), Fields(), OTHER_FIELDS))),
        allowed_lateness_ms=draw(st.sampled_from((600_000, 60_000, 1_001, HOUR_MS, 3 * DAY_MS))),
        future_ms=draw(st.sampled_from((60_000, 0, HOUR_MS))),
        after_close_ms=draw(st.sampled_from((1_000, 0, 90_000))),
        quantity_decimals=draw(st.sampled_from((8, 0, 2, 18))),
        outside_session=draw(st.sampled_from(("skip", "keep"))),
        since_zero=draw(st.sampled_from(((), (), ("N",), ("*",), ("M", "X")))),
        instruments_max=draw(st.sampled_from((50_000, 50_000, 50_000, 1, 2, 2, 3, 4))),
    )


# ---- logs


STEPS_MS = st.one_of(
    st.sampled_from((0, 1, 500, SECOND_MS, 5 * SECOND_MS, 20 * SECOND_MS)),
    st.integers(0, 2 * MINUTE_MS),
    st.sampled_from((MINUTE_MS, 9 * MINUTE_MS, 20 * MINUTE_MS, HOUR_MS, 5 * HOUR_MS)),
)
BEHIND_MS = st.one_of(
    st.just(0),
    st.just(0),
    st.just(0),
    st.sampled_from((1, SECOND_MS, 20 * SECOND_MS, MINUTE_MS, 9 * MINUTE_MS, 10 * MINUTE_MS, 11 * MINUTE_MS, HOUR_MS)),
    st.integers(0, 15 * MINUTE_MS),
    # ahead of the record, within and beyond what a wrong clock may be, and days behind
    st.sampled_from((0, 0, -1, -2_000, -2_051, -60_000, -60_050, -60_051, -HOUR_MS, -DAY_MS, DAY_MS, 7 * DAY_MS)),
)
LEADS_MS = st.sampled_from((LEAP_MS, LEAP_MS + 1, 61 * MINUTE_MS, 3 * HOUR_MS, DAY_MS, 3 * DAY_MS, YEAR_MS, YEAR_MS))
"""How far a liar is ahead."""
NEAR_MS = st.sampled_from((0, 0, 1, -1, MINUTE_MS, LEAP_MS - 1, LEAP_MS, LEAP_MS + 1, -LEAP_MS, 2 * LEAP_MS, DAY_MS))
"""Around a time that was said before: what bears it out, and what just does not."""
PRICES = st.sampled_from(("100.0", "100.05", "99.95", "246346.0", "0.05", "101", '"100.10"', "1.0005e2"))
QUANTITIES = st.sampled_from((1, 0, 5, 50, 700))


def _long_texts(bytes_max: int) -> tuple[str, ...]:
    """List JSON strings of so many bytes in UTF-8, and of one more, of letters of one to four bytes."""
    texts = []
    for letter, size in (("x", 1), ("é", 2), ("\\u00e9", 2), ("\\n", 1), ("😀", 4), ("\\ud83d\\ude00", 4)):
        texts += [f'"{letter * (bytes_max // size)}"', f'"{letter * (bytes_max // size)}y"']
    return tuple(texts)


ODD_PRICES = (
    "0", "0.0", "-0.0", "-1", "null", '"NaN"', "true", "1e400", "1e-400", "-1e-400", '"Infinity"', '""', "[1]",
    "4.9e-324", "1.7976931348623157e308", "179769313486231580793e289", '" 1"', "0.1e1", '"0"', "100.00000000000001",
)  # fmt: skip
ODD_WHOLES = (
    "null", "5.0", "5e0", '"5"', '"5.00"', "0.5", "2.25", "-1", "-0", "0", '""', '"x"', '"05"', "true", "{}", "1e18",
    "1e19", str(WHOLE_MAX), str(WHOLE_MAX + 1), f'"{WHOLE_MAX}.0"', "5000000000", "1e999999999999", "0e999999999999",
    "0.000000001", "92233720368.547758070", "50e-1", '"\\u0035"', "1" + "0" * 30 + "e-30",
    "-5", "-0.5", '"-7.25"', "-1e-9", "-1e18", "-1e19", "-0.0", "3.60", "1.5", "0.49999", "1e-8", "5e-9", "49e-10",
    "0.005", "-0.005", "123456789.123456785", "7.999999995", "9999999999999999999", "9999999999999999999.5", "1e20",
    "10000000000000000000", '"9999999999999999999.9999999999999999995"', "1e-999999999999", "-1e999999999999",
    "0." + "3" * 60, "5e-19", "4e-19", "2" + "0" * 40 + "e-39", "12345678901234567890e-1",
)  # fmt: skip
ODD_TOKENS = (
    "null", '"7"', "7.0", "7e0", "-7", "-0", '"07"', "7.5", '"seven"', "9223372036854775808", "70e-1", "true", "[]",
)  # fmt: skip
ODD_NAMES = (
    '"A"', '""', "null", "5", '"\\ud800"', '"\\ud83d\\ude00"', '"é/\\/\\n"', "[]", '"\\u0000"', '"A B"',
    *_long_texts(256),
)  # fmt: skip
ODD_CODES = (
    '"005"', "5", "5.0", "-5", '""', "null", "1e3", "0.5", "9223372036854775808", '"\\udc00x"', "false", "-0",
    *_long_texts(256),
)  # fmt: skip
ODD_TIMES = (
    "null", "0", '""', '"0"', '"/Date(0)/"', '"/Date(-62135596800000)/"', '"/Date(99999999999999999999)/"', "-1",
    "true", '"/Date(9223372036854775807)/"', '"9999-12-31T23:59:59-01:00"', '"9999-12-31 23:59:59"', "1e400",
    "1e-400", "[]", '"0000-01-01 00:00:00"', '"2026-02-29 10:00:00"', '"2026-01-02 24:00:00"',
    '"2026-01-02 09:15:60"', "253402300800e9", '"2026-01-02T09:15:00"', '"2026-01-02 09:15"',
    '"2026-01-02T09:15:00+24:00"', '"1999-12-31T23:59:59.999Z"', "99999999999", '"2000-01-01T00:00:00Z"',
    '"2026-03-08 02:30:00"', '"2025-11-02 01:30:00"', '"2026-10-04 02:15:00"', "253402300799999e6", '"\\ud800"',
    '"2026-01-02 09:15:00."', '" 1767335675"', '"/Date(1767335675000+05:30)/"', '"1767335675e3"',
    "-5", "-0.0", '"-1767335675"', '"/Date(-1)/"', '"/Date(-0)/"', '"soon"', '"0000-00-00 00:00:00"', "{}", "false",
    '"2026-01-02t09:15:30"', '"2026-01-02T09:15:30.25"', '"2026-01-02T09:15:60"', '"1999-12-31T23:59:59"',
    '"0001-01-01T00:00:00"', '"2000-01-01T00:00:00"', '"2026-01-02T09:15"',
)  # fmt: skip
ODD_MEMBERS = (
    ('"x"', '{"Exch":"B","a":[[],{}]}'), ('"Bid"', "[" * 200 + "]" * 200), ('"\\ud800"', "1"), ('""', "-0.0e-0"),
    ('"\\u0045xch"', '"B"'), ('"Exch"', "null"), ('"Exch"', '"\\ud800"'), ('"Exch"', '"a:b"'), ('"ExchType"', '""'),
    ('"Exch"', '"\\u004e"'), ('"LastRate"', "7"), ('"TotalQty"', "1"), ('"TotalQty"', "null"), ('"Exch"', "5"),
    ('"x"', '"\ud800"'), ('"x"', "NaN"), ('"x"', "01"), ('"x"', '"\t"'), ("x", "1"), ('"x"', ""), ('"x"', "1} {"),
)  # fmt: skip
GARBAGE = (
    None, b"", b" ", b"null", b"[]", b"{}", b"{", b"\xff\xfe", b"\xef\xbb\xbf{}", b"[" * 500, b'"', b'{"a":1,}',
    b"{}{}", b"\x00", b'{"Exch":"N"}',
)  # fmt: skip


def _spelled_times(event_ms: int, exchange: str) -> tuple[str, ...]:
    """List ways to write one instant; those without ms cut them."""
    utc = EPOCH + timedelta(milliseconds=event_ms)
    local = utc + timedelta(milliseconds=KOLKATA_MS if exchange in ("N", "M", "T") else 0)
    ms = f"{event_ms % 1_000:03}"
    seconds, india = utc.strftime("%H:%M:%S"), (utc + timedelta(milliseconds=KOLKATA_MS)).strftime("%Y-%m-%dT%H:%M:%S")
    return (
        f'"/Date({event_ms})/"',
        f'"\\/Date({event_ms}+0530)\\/"',
        f'"{local:%Y-%m-%d %H:%M:%S}"',
        f'"{local:%Y-%m-%d %H:%M:%S}.{ms}"',
        f'"{local:%Y-%m-%dT%H:%M:%S}.{ms}"',
        f'"{local:%Y-%m-%dT%H:%M:%S}"',
        f'"{utc:%Y-%m-%d}T{seconds}.{ms}999Z"',
        f'"{utc:%Y-%m-%d}t{seconds}.{ms[0]}z"',
        f'"{india}.{ms}+05:30"',
        f'"{india}+0530"',
        f'"{utc:%Y-%m-%d} {seconds}-00"',
        f'"{utc:%Y-%m-%d}T{utc:%H:%M}Z"',
        f"{event_ms // 1_000}.{ms}7",
        f'"{event_ms // 1_000}"',
        f"{event_ms}",
        f'"{event_ms}.9"',
        f"{event_ms}123",
        f'"{event_ms}123456"',
        f"{event_ms}e3",
        f"0.{event_ms}e{len(str(event_ms))}",
    )


_Named = tuple[str, str, int]


class _Feed:
    """A log in the making: the clock, the totals, the times said, and the records written so far."""

    def __init__(self, names: Fields, now_ms: int, offset: int = 0) -> None:
        self.names = names
        self.now_ms = now_ms
        self.offset = offset
        self.totals: dict[_Named, int] = {}
        self.said_ms: list[int] = []
        self.records: list[Record] = []

    def append(self, value: bytes | None, timestamp_ms: int) -> None:
        self.records.append(Record(value, timestamp_ms, self.offset))
        self.offset += 1


class _World(msgspec.Struct, frozen=True):
    """What kind of feed a log comes from."""

    instruments: tuple[_Named, ...]
    liars: tuple[_Named, ...]
    """These lie with each tick."""
    lies: tuple[bool, ...]
    """Whether a tick of another is a lie is drawn from these."""
    kinds: tuple[str, ...]
    steps: tuple[str, ...]


_PLAIN_KINDS = ("tick",) * 20 + ("repeat", "repeat", "mutated", "garbage")
_PLAIN_STEPS = ("little",) * 14 + ("moment", "moment", "moment", "week")


ANY_WORLD = ("plain", "plain", "liars", "liars", "crowd", "claims")
CROWDED = ("crowd", "crowd", "crowd", "plain", "liars")
ROOMY = ("plain", "plain", "liars", "liars", "claims", "claims")


@st.composite
def _worlds(draw: st.DrawFn, worlds: tuple[str, ...]) -> _World:
    """Draw a plain feed, one with liars in it, one of many instruments over days, or one of claims without end."""
    kind = draw(st.sampled_from(worlds))
    if kind == "claims":  # round the clock, or nearly: a burst of claims falls into no pause
        instruments = draw(st.sampled_from(((INSTRUMENTS[2],), (INSTRUMENTS[2], INSTRUMENTS[0]), (INSTRUMENTS[1],))))
        kinds: tuple[str, ...] = ("tick",) * 3 + ("near",) * 5 + ("repeat", "claims", "claims", "claims")
        return _World(instruments, (), (False,), kinds, _PLAIN_STEPS)
    count = {"plain": (1, 3), "liars": (1, 3), "crowd": (2, 5)}[kind]
    named = st.lists(st.sampled_from(INSTRUMENTS), min_size=count[0], max_size=count[1], unique=True)
    instruments = tuple(draw(named))
    if kind == "plain":
        return _World(instruments, (), (False,), _PLAIN_KINDS, _PLAIN_STEPS)
    if kind == "liars":
        liars = draw(st.lists(st.sampled_from(instruments), max_size=2, unique=True))
        kinds = ("tick",) * 14 + ("repeat", "near", "near", "near", "near", "lie", "lie")
        return _World(instruments, tuple(liars), (False,) * 7 + (True,), kinds, _PLAIN_STEPS)
    kinds = ("tick",) * 14 + ("near", "near", "repeat")
    steps = ("little",) * 4 + ("moment", "day", "day", "week")
    return _World(instruments, (), (False,) * 20 + (True,), kinds, steps)


@st.composite
def batches(
    draw: st.DrawFn, fields: Fields | None = None, size_max: int = 40, worlds: tuple[str, ...] = ANY_WORLD
) -> list[Record]:
    """Draw a log in offset order: mostly a feed, and whatever else may stand in a topic."""
    world = draw(_worlds(worlds))
    day = draw(st.sampled_from(DAYS))
    begins_ms = _moment_ms(day, draw(st.sampled_from(CLOCKS_MS)))
    feed = _Feed(fields or Fields(), begins_ms, draw(st.sampled_from((0, 0, 0, 1, 5_000))))
    if draw(st.sampled_from((False,) * 9 + (True,))):
        _heap(draw, feed)
    for _ in range(draw(st.integers(1, size_max))):
        if len(feed.records) > 2 * size_max:
            break
        _step(draw, feed, world.steps)
        kind = draw(st.sampled_from(world.kinds))
        if kind == "garbage":
            feed.append(draw(st.sampled_from(GARBAGE)), feed.now_ms)
        elif kind == "repeat" and feed.records:
            feed.append(draw(st.sampled_from(feed.records)).value, feed.now_ms)
        elif kind == "claims":
            _claims(draw, feed, draw(st.sampled_from(world.instruments)))
        else:
            _append_tick(draw, feed, world, kind)
        feed.offset += draw(st.sampled_from((0,) * 8 + (1, 100)))
    return feed.records


def _append_tick(draw: st.DrawFn, feed: _Feed, world: _World, kind: str) -> None:
    """Append a tick: of now, or as a liar says it, or near to a time said before, by whomever."""
    instrument = draw(st.sampled_from(world.instruments))
    if kind == "near" and feed.said_ms:
        stamped_ms = event_ms = draw(st.sampled_from(feed.said_ms[-6:])) + draw(NEAR_MS)
    elif kind == "lie" or instrument in world.liars or draw(st.sampled_from(world.lies)):
        stamped_ms = event_ms = feed.now_ms + draw(LEADS_MS)
    else:
        stamped_ms = feed.now_ms
        event_ms = feed.now_ms - draw(BEHIND_MS)
    feed.said_ms.append(event_ms)
    value = write(_tick(draw, feed, instrument, event_ms), feed.names)
    timestamp_ms = stamped_ms + draw(
        st.sampled_from((50,) * 12 + (0, 2_000, -2_000, -2_001, -3_000, HOUR_MS, -HOUR_MS))
    )
    timestamp_ms = draw(st.sampled_from((timestamp_ms,) * 12 + (-1, 0, 946_684_799_999, 253_402_300_800_000)))
    feed.append(_mutated(draw, value) if kind == "mutated" else value, timestamp_ms)


def _claims(draw: st.DrawFn, feed: _Feed, instrument: _Named) -> None:
    """Append lies of one instrument about many windows, each with a true tick, or a snapshot sent again, after it."""
    apart_ms = draw(st.sampled_from((MINUTE_MS, 7 * MINUTE_MS, HOUR_MS, DAY_MS, DAY_MS)))
    ahead_ms = draw(st.sampled_from((LEAP_MS - MINUTE_MS, LEAP_MS, LEAP_MS + MINUTE_MS, 3 * HOUR_MS, DAY_MS)))
    steps_ms = draw(st.sampled_from(((1,), (1,), (1,), (1, 1, 1, 0))))
    now_ms = feed.now_ms
    for number in range(draw(st.sampled_from((16, 17, 18)))):
        feed.now_ms += steps_ms[number % len(steps_ms)]
        for event_ms in (feed.now_ms, now_ms + ahead_ms + number * apart_ms):
            feed.said_ms.append(event_ms)
            feed.append(bare_tick(instrument, event_ms, feed.names), event_ms)


def _heap(draw: st.DrawFn, feed: _Feed) -> None:
    """Append ticks without a total whose quantities add up to more than is counted."""
    for number in range(draw(st.sampled_from((17, 18, 19)))):
        value = bare_tick(HEAP, feed.now_ms + number, feed.names, quantity="9999999999999999999")
        feed.append(value, feed.now_ms + number)


def bare_tick(instrument: _Named, event_ms: int, names: Fields | None = None, quantity: str = "1") -> bytes:
    """Write a tick without a total."""
    exchange, segment, token = instrument
    time = f'"/Date({event_ms})/"'
    return write(Spelling(exchange, segment, str(token), "100.0", quantity, None, time), names or Fields())


def _moment_ms(day: date, clock_ms: int) -> int:
    return (day - date(1970, 1, 1)).days * DAY_MS - KOLKATA_MS + clock_ms


def _step(draw: st.DrawFn, feed: _Feed, steps: tuple[str, ...] = _PLAIN_STEPS) -> None:
    """Let time pass: a little, up to the next moment of the day at which something happens, for a day or a week."""
    how = draw(st.sampled_from(steps))
    if how == "little":
        feed.now_ms += draw(STEPS_MS)
    elif how in ("day", "week"):
        feed.now_ms += (DAY_MS if how == "day" else 7 * DAY_MS) + draw(st.sampled_from((0, -1, 1)))
    else:
        days, clock_ms = divmod(feed.now_ms + KOLKATA_MS, DAY_MS)
        clocks_ms = sorted(CLOCKS_MS)
        coming_ms = [each - clock_ms for each in clocks_ms if each > clock_ms] or [DAY_MS - clock_ms]
        near_ms = draw(st.sampled_from((0, -1, 1, 1_000, 1_001, 59_999)))
        feed.now_ms = days * DAY_MS - KOLKATA_MS + clock_ms + max(0, draw(st.sampled_from(coming_ms[:4])) + near_ms)


def _tick(draw: st.DrawFn, feed: _Feed, instrument: _Named, event_ms: int) -> Spelling:
    """Draw one tick of an instrument: plain, or odd in one or two ways."""
    exchange, segment, token = instrument
    quantity = draw(QUANTITIES)
    moves = draw(st.sampled_from(("adds",) * 10 + ("stays", "falls", "leaps", "anew", "zero")))
    total = feed.totals.get(instrument, draw(st.sampled_from((0, 1_000, 5_000_000_000))))
    if moves != "zero":
        total = {
            "adds": total + quantity,
            "stays": total,
            "falls": total // 2,
            "leaps": total + 12_345,
            "anew": quantity,
        }[moves]
        feed.totals[instrument] = total
    tick = Spelling(
        exchange=exchange,
        segment=segment,
        token=str(token),
        price=draw(PRICES),
        quantity=str(quantity),
        total="0" if moves == "zero" else str(total),
        time=f'"/Date({event_ms})/"',
    )
    for odd in (
        draw(st.lists(st.sampled_from(_ODDITIES), max_size=2)) if draw(st.sampled_from((False, False, True))) else ()
    ):
        tick = _odd(draw, tick, odd, event_ms, feed.names)
    return tick


_FIELDS: dict[str, tuple[str, tuple[str | None, ...]]] = {
    "strange time": ("time", ODD_TIMES),
    "no time": ("time", ("null",)),
    "price": ("price", ODD_PRICES),
    "no price": ("price", ("null",)),
    "quantity": ("quantity", ODD_WHOLES),
    "no quantity": ("quantity", (None,)),
    "total": ("total", ODD_WHOLES),
    "no total": ("total", (None,)),
    "token": ("token", ODD_TOKENS),
}
"""By oddity: which part of a tick becomes which of these."""
_ODDITIES = (
    *_FIELDS,
    "strange time",
    "quantity",
    "total",
    "time",
    "time",
    "time",
    "name",
    "name",
    "code",
    "member",
    "key",
)
ODD_KEYS = _long_texts(64)


def _odd(draw: st.DrawFn, tick: Spelling, odd: str, event_ms: int, names: Fields) -> Spelling:
    if odd == "time":
        return msgspec.structs.replace(tick, time=draw(st.sampled_from(_spelled_times(event_ms, tick.exchange))))
    if odd in _FIELDS:
        part, values = _FIELDS[odd]
        return msgspec.structs.replace(tick, **{part: draw(st.sampled_from(values))})
    if odd == "name":
        member = (json.dumps(names.company_name), draw(st.sampled_from(ODD_NAMES)))
    elif odd == "code":
        member = (json.dumps(names.scrip_code), draw(st.sampled_from(ODD_CODES)))
    elif odd == "key":
        member = (json.dumps(draw(st.sampled_from((names.exchange, names.segment)))), draw(st.sampled_from(ODD_KEYS)))
    else:
        member = draw(st.sampled_from(ODD_MEMBERS))
    return msgspec.structs.replace(tick, more=(*tick.more, member))


def _mutated(draw: st.DrawFn, value: bytes) -> bytes:
    """Damage bytes: cut, flip, insert, double."""
    at = draw(st.integers(0, len(value) - 1))
    how = draw(st.sampled_from(("cut", "flip", "insert", "double", "spaces")))
    if how == "cut":
        return value[:at]
    if how == "flip":
        return value[:at] + bytes([value[at] ^ 1 << draw(st.integers(0, 7))]) + value[at + 1 :]
    if how == "double":
        end = draw(st.integers(at, min(len(value), at + 20)))
        return value[:end] + value[at:]
    if how == "spaces":
        return value.replace(b":", b" \t:\r\n ").replace(b"{", b" { ", 1) + b"\n"
    inserted = (
        b" ",
        b"\x00",
        b"\xff",
        b",",
        b"}",
        b'"',
        b"\\",
        b"0",
        b"-",
        b"\xef\xbb\xbf",
        b"\xed\xa0\x80",
        b"\xc3\xa9",
        b"\xc2\xa0",
    )
    return value[:at] + draw(st.sampled_from(inserted)) + value[at:]


@st.composite
def cases(draw: st.DrawFn, size_max: int = 40) -> tuple[Rules, list[Record]]:
    """Draw rules and a log whose ticks use their field names."""
    chosen = draw(rules())
    worlds = ROOMY if chosen.instruments_max > len(INSTRUMENTS) else CROWDED
    return chosen, draw(batches(chosen.fields, size_max, worlds))


# ---- logs without a late tick


@st.composite
def orderly_batches(draw: st.DrawFn, size_max: int = 40) -> list[Record]:
    """Draw plain ticks, ordered by event time, no two of them at the same moment, at most four days long."""
    instruments = draw(st.lists(st.sampled_from(INSTRUMENTS), min_size=1, max_size=3, unique=True))
    feed = _Feed(Fields(), _moment_ms(draw(st.sampled_from(DAYS)), draw(st.sampled_from(CLOCKS_MS))))
    end_ms = feed.now_ms + 4 * DAY_MS
    for _ in range(draw(st.integers(1, size_max))):
        _step(draw, feed)
        feed.now_ms += 1
        if feed.now_ms >= end_ms:
            break
        exchange, segment, token = instrument = draw(st.sampled_from(instruments))
        quantity = draw(QUANTITIES)
        total = feed.totals.get(instrument, 0) + quantity + draw(st.sampled_from((0, 0, 0, 30, -40)))
        feed.totals[instrument] = max(total, 0)
        told = draw(st.sampled_from((str(feed.totals[instrument]),) * 6 + ("0", None)))
        time = f'"/Date({feed.now_ms})/"'
        tick = Spelling(exchange, segment, str(token), draw(PRICES), str(quantity), told, time)
        feed.append(write(tick, feed.names), feed.now_ms + DELAY_MS)
    return feed.records


@st.composite
def disordered(draw: st.DrawFn, batch: list[Record]) -> list[Record]:
    """Draw another order of arrival of an orderly batch, with offsets in that order."""
    behind_ms = draw(st.lists(st.integers(0, DISORDER_MS), min_size=len(batch), max_size=len(batch)))
    arrivals = sorted(zip(batch, behind_ms, strict=True), key=lambda arrival: arrival[0].timestamp_ms + arrival[1])
    return [msgspec.structs.replace(record, offset=offset) for offset, (record, _) in enumerate(arrivals)]
