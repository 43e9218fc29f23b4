"""When an exchange trades: sessions as dated data (specification §2.1), compiled to plain numbers.

A row of the table is `kind,exchange,segment,date,zone,open,close,when,note`:

- `weekly`: Monday to Friday from `date` on, until a later row of the same exchange and segment. `when` is empty,
  `us-dst` or `us-standard`: only while the United States' daylight saving is on, or off.
- `date`: this one date instead, whatever the weekday; no hours = closed.
- Several rows of the same kind, exchange, segment and date are several sessions of a day.
- Segment `*` stands for the segments without a row of their own that holds on the day in question. An exception
  wins over a weekly row, and among each the segment's own over `*`.

Days are days since 1970-01-01 of the exchange's local date; times of day are ms since local midnight.
"""

import csv
import re
from bisect import bisect_right
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Literal, NoReturn
from zoneinfo import ZoneInfo

import msgspec

from streamingcandle.errors import SettingsError
from streamingcandle.text_file import read_text

DAY_MS = 86_400_000
FOREVER_MS = -(2**63)
"""Where the first UTC offset begins."""
DAY_END = 2_932_897
"""10000-01-01: the day after the last that the kernel knows."""
TABLE_MAX_BYTES = 4_000_000
"""Ten years of holidays of a hundred exchanges have half of it; reading as much takes some seconds."""
LOOK_BACK_DAYS = 400
"""How far back the last session is looked for."""
WEEKDAYS = 0b0011111
EVERY_DAY = 0b1111111

COLUMNS = ("kind", "exchange", "segment", "date", "zone", "open", "close", "when", "note")

When = Literal["", "us-dst", "us-standard"]
Kind = Literal["weekly", "date"]
Hours = tuple[tuple[int, int], ...]
"""Sessions of a day, (open, close) in ms after local midnight, in order, disjoint."""

_US_ZONE = "America/New_York"
_US_DST_OFFSET_MS = -4 * 3_600_000
_OFFSETS_FROM = datetime(2000, 1, 1, tzinfo=UTC)
_OFFSETS_TO = datetime(2101, 1, 1, tzinfo=UTC)
# No zone has changed its offset and changed it back within a week since 2000.
_OFFSET_STEP_S = 7 * 86_400
_MONDAY = 4  # 1970-01-05, in days


class Row(msgspec.Struct, frozen=True):
    """One line of the table. `open_ms` and `close_ms` are local times of day; both None: closed."""

    kind: Kind
    exchange: str
    segment: str
    date: date
    zone: str
    open_ms: int | None
    close_ms: int | None
    when: When = ""


class Session(msgspec.Struct, frozen=True):
    """One session: `[open_ms, close_ms)` in epoch ms UTC, of the trading day `day`."""

    open_ms: int
    close_ms: int
    day: date


class Schedule(msgspec.Struct, frozen=True):
    """What one exchange and segment trade, as plain data: what the kernel gets.

    - `utc_offsets`: (from this UTC ms on, offset in ms), ascending, the first from -2**63; exact for 2000 to 2100.
    - `days`: (from day, to day exclusive, weekdays with bit 0 = Monday, hours), ascending and disjoint.
    - `exceptions`: (day, hours), ascending; no hours = closed. They win over `days`.
    """

    exchange: str
    segment: str
    zone: str
    utc_offsets: tuple[tuple[int, int], ...]
    days: tuple[tuple[int, int, int, Hours], ...]
    exceptions: tuple[tuple[int, Hours], ...]

    def local_ms(self, utc_ms: int) -> int:
        """Return the wall clock's reading at an instant, as ms since 1970-01-01 00:00 local."""
        index = bisect_right(self.utc_offsets, utc_ms, key=lambda entry: entry[0]) - 1
        return utc_ms + self.utc_offsets[index][1]

    def utc_ms(self, local_ms: int) -> int:
        """Return the instant of a local time: the first where it is twice, by the old offset where skipped."""
        offset_ms = self.utc_offsets[0][1]
        for from_ms, next_ms in self.utc_offsets[1:]:
            if local_ms < from_ms + max(offset_ms, next_ms):
                break
            offset_ms = next_ms
        return local_ms - offset_ms

    def day(self, utc_ms: int) -> int:
        """Return the local date of an instant."""
        return self.local_ms(utc_ms) // DAY_MS

    def hours(self, day: int) -> Hours:
        """Return the sessions of a local date as times of day; empty when there is none."""
        index = bisect_right(self.exceptions, day, key=lambda entry: entry[0]) - 1
        if index >= 0 and self.exceptions[index][0] == day:
            return self.exceptions[index][1]
        index = bisect_right(self.days, day, key=lambda entry: entry[0]) - 1
        if index < 0:
            return ()
        _, to_day, weekdays, hours = self.days[index]
        weekday = (day - _MONDAY) % 7
        return hours if day < to_day and weekdays >> weekday & 1 else ()

    def trading_day(self, utc_ms: int) -> int:
        """Return the local date, or the last before it, that has a session; the date itself when none has."""
        today = self.day(utc_ms)
        return next((day for day in range(today, today - LOOK_BACK_DAYS, -1) if self.hours(day)), today)

    def sessions(self, day: int) -> tuple[tuple[int, int], ...]:
        """Return the sessions of a local date as (open, close) in epoch ms UTC."""
        midnight_ms = day * DAY_MS
        hours = self.hours(day)
        return tuple((self.utc_ms(midnight_ms + opens), self.utc_ms(midnight_ms + closes)) for opens, closes in hours)


class Calendar(msgspec.Struct, frozen=True):
    """The whole table: rows in the order (exchange, segment, kind, date, open)."""

    rows: tuple[Row, ...]

    def schedules(self) -> tuple[Schedule, ...]:
        """Return the schedules of all pairs of exchange and segment listed, `*` among them."""
        return tuple(_compiled(self).values())

    def schedule(self, exchange: str, segment: str) -> Schedule:
        """Return the pair's own schedule, else that of the exchange's `*`, else round the clock in UTC."""
        compiled = _compiled(self)
        return compiled.get((exchange, segment)) or compiled.get((exchange, "*")) or round_the_clock(exchange, segment)

    def sessions(self, exchange: str, segment: str, day: date) -> tuple[Session, ...]:
        """Return the sessions whose local date is `day`, in order."""
        found = self.schedule(exchange, segment).sessions(_day_number(day))
        return tuple(Session(open_ms=open_ms, close_ms=close_ms, day=day) for open_ms, close_ms in found)

    def day_start_ms(self, utc_ms: int) -> int:
        """Return the earliest local midnight of the trading days that hold an instant, over all exchanges.

        A fold from there on sees every tick of those days, the pre-open's too (specification §6.4).
        """
        schedules = (*self.schedules(), round_the_clock("", "*"))
        return min(schedule.utc_ms(schedule.trading_day(utc_ms) * DAY_MS) for schedule in schedules)


def round_the_clock(exchange: str, segment: str) -> Schedule:
    """Return the schedule of an exchange that is not listed: every day from midnight to midnight UTC."""
    always = ((0, DAY_END, EVERY_DAY, ((0, DAY_MS),)),)
    return Schedule(exchange, segment, "UTC", ((FOREVER_MS, 0),), always, ())


def load_calendar(override: Path | None = None) -> Calendar:
    """Read the shipped table and, over it, one of the user's.

    The user's rows of one kind, exchange, segment and date replace the shipped ones of the same; others are added.
    SettingsError with file and line for a row that cannot be meant.
    """
    shipped = resources.files("streamingcandle.candles").joinpath("sessions.csv").read_text(encoding="utf-8")
    groups = _read_groups(shipped, "sessions.csv (shipped)")
    if override is not None:
        try:
            text = read_text(override, TABLE_MAX_BYTES, "utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            message = f"{override}: cannot read this table of sessions ({why}); give the path of a UTF-8 text file"
            raise SettingsError(message) from error
        groups |= _read_groups(text, str(override))
    _check_zones(groups)
    rows = [row for group in groups.values() for _, row in group]
    rows.sort(key=lambda row: (row.exchange, row.segment, row.kind, row.date, row.open_ms or 0, row.when))
    return Calendar(rows=tuple(rows))


# ---- reading the table

_Group = list[tuple[str, Row]]
_Groups = dict[tuple[str, str, str, date], _Group]
"""By (kind, exchange, segment, date): where each row was read, and the row."""


def _read_groups(text: str, path: str) -> _Groups:
    groups: _Groups = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        where = f"{path}:{number}"
        cells = _cells(where, line)
        if cells == list(COLUMNS):
            continue
        row = _row(where, cells)
        group = groups.setdefault((row.kind, row.exchange, row.segment, row.date), [])
        group.append((where, row))
        _check_overlap(where, row, [other for _, other in group[:-1]])
    return groups


def _cells(where: str, line: str) -> list[str]:
    try:
        (cells,) = csv.reader([line.strip()], strict=True)
    except csv.Error as error:
        _refuse(where, f"not a line of CSV ({error})", "close the quotes, or leave them out")
    if len(cells) != len(COLUMNS):
        _refuse(where, f"{len(cells)} columns instead of {len(COLUMNS)}", f"write {','.join(COLUMNS)}")
    return [cell.strip() for cell in cells]


def _row(where: str, cells: list[str]) -> Row:
    kind, exchange, segment, day, zone, opens, closes, when, _ = cells
    if kind not in ("weekly", "date"):
        _refuse(where, f"unknown kind {kind!r}", "write weekly (from this date on) or date (an exception)")
    if not exchange or ":" in exchange or exchange == "*":
        _refuse(where, f"exchange {exchange!r}", "write the exchange as the ticks name it, such as N")
    if not segment or ":" in segment:
        _refuse(where, f"segment {segment!r}", "write the segment as the ticks name it, such as D, or * for all others")
    if when not in ("", "us-dst", "us-standard"):
        _refuse(where, f"unknown when {when!r}", "write us-dst, us-standard or nothing")
    if when and kind == "date":
        _refuse(where, f"{when} in a row for one date", "leave `when` empty: the date says it")
    _check_zone(where, zone)
    if opens or closes:
        open_ms, close_ms = _time_ms(where, opens), _time_ms(where, closes)
        if open_ms >= close_ms:
            _refuse(where, f"opens {opens}, closes {closes}", "close after the open; past midnight it is two rows")
        return Row(kind, exchange, segment, _date(where, day), zone, open_ms, close_ms, when)  # type: ignore[arg-type]
    if kind == "weekly":
        _refuse(where, "weekly without hours", "write open and close; only a row for one date may be closed")
    return Row("date", exchange, segment, _date(where, day), zone, None, None)


def _date(where: str, text: str) -> date:
    # fromisoformat alone would also take 20260803 and 2026-W32-1.
    try:
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
            _refuse(where, f"date {text!r}", "write it as 2026-08-03")
        return date.fromisoformat(text)
    except ValueError:
        _refuse(where, f"date {text!r} does not exist", "correct it")


def _time_ms(where: str, text: str) -> int:
    match = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)|24:00", text, re.ASCII)
    if match is None:
        _refuse(where, f"time {text!r}", "write open and close as 09:15, up to 24:00")
    return DAY_MS if match[1] is None else (int(match[1]) * 60 + int(match[2])) * 60_000


def _check_zone(where: str, zone: str) -> None:
    try:
        if zone:
            ZoneInfo(zone)
            return
    except (LookupError, ValueError, OSError):
        pass
    _refuse(where, f"unknown zone {zone!r}", "write a name of the time zone database, such as Asia/Kolkata")


def _check_overlap(where: str, row: Row, others: Iterable[Row]) -> None:
    for other in others:
        if row.open_ms is None or row.close_ms is None or other.open_ms is None or other.close_ms is None:
            _refuse(where, f"{row.date} is closed and has another row", "leave one of the two out")
        apart = row.when and other.when and row.when != other.when
        if not apart and row.open_ms < other.close_ms and other.open_ms < row.close_ms:
            _refuse(where, "overlaps another session of the same day", "let each begin when the one before has closed")


def _check_zones(groups: _Groups) -> None:
    zones: dict[str, str] = {}
    for group in groups.values():
        for where, row in group:
            zone = zones.setdefault(row.exchange, row.zone)
            if zone != row.zone:
                what = f"exchange {row.exchange} in zone {row.zone}, and in {zone} elsewhere"
                _refuse(where, what, "give all rows of an exchange one zone")


def _refuse(where: str, what: str, remedy: str) -> NoReturn:
    message = f"{where}: {what}; {remedy}"
    raise SettingsError(message)


# ---- compiling it


@lru_cache(maxsize=32)
def _compiled(calendar: Calendar) -> dict[tuple[str, str], Schedule]:
    exchanges: dict[str, list[Row]] = {}
    for row in calendar.rows:
        exchanges.setdefault(row.exchange, []).append(row)
    schedules = {}
    for exchange, rows in exchanges.items():
        for segment in sorted({row.segment for row in rows}):
            schedules[exchange, segment] = _schedule(exchange, segment, rows)
    return schedules


def _schedule(exchange: str, segment: str, rows: list[Row]) -> Schedule:
    """Compile one segment from the rows of its exchange."""
    groups: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        if row.segment in (segment, "*"):
            groups.setdefault((row.kind, row.segment, _day_number(row.date)), []).append(row)
    zone = rows[0].zone
    exceptions: dict[int, Hours] = {}
    for name in ("*", segment):
        exceptions |= {day: _hours(group) for (kind, of, day), group in groups.items() if (kind, of) == ("date", name)}
    weekly = {key: group for key, group in groups.items() if key[0] == "weekly"}
    days = _ranges(segment, weekly)
    return Schedule(exchange, segment, zone, _utc_offsets(zone), days, tuple(sorted(exceptions.items())))


def _ranges(segment: str, weekly: dict[tuple[str, str, int], list[Row]]) -> tuple[tuple[int, int, int, Hours], ...]:
    """Cut time where the rows that hold change; between two cuts the hours are the same."""
    cuts = {day for _, _, day in weekly}
    seasonal = any(row.when for group in weekly.values() for row in group)
    seasons = _us_seasons() if seasonal else ()
    cuts |= {day for day, _ in seasons}
    ranges: list[tuple[int, int, int, Hours]] = []
    for day, end in pairwise([*sorted(cuts), DAY_END]):
        hours = _weekly_hours(segment, day, weekly, seasons)
        if not hours:
            continue
        if ranges and ranges[-1][1] == day and ranges[-1][3] == hours:
            day = ranges.pop()[0]  # noqa: PLW2901 the range before goes on
        ranges.append((day, end, WEEKDAYS, hours))
    return tuple(ranges)


def _weekly_hours(
    segment: str, day: int, weekly: dict[tuple[str, str, int], list[Row]], seasons: tuple[tuple[int, When], ...]
) -> Hours:
    for name in (segment, "*"):
        begun = [from_day for _, of, from_day in weekly if of == name and from_day <= day]
        if begun:
            index = bisect_right(seasons, day, key=lambda season: season[0]) - 1
            season = seasons[max(index, 0)][1] if seasons else ""
            return _hours(row for row in weekly["weekly", name, max(begun)] if row.when in ("", season))
    return ()


def _hours(rows: Iterable[Row]) -> Hours:
    found = ((row.open_ms, row.close_ms) for row in rows)
    return tuple(sorted((opens, closes) for opens, closes in found if opens is not None and closes is not None))


def _us_seasons() -> tuple[tuple[int, When], ...]:
    """List (first day, season) of the United States' daylight saving, by the local date of each change."""
    return tuple(
        (max(from_ms + offset_ms, -DAY_MS) // DAY_MS, "us-dst" if offset_ms == _US_DST_OFFSET_MS else "us-standard")
        for from_ms, offset_ms in _utc_offsets(_US_ZONE)
    )


@lru_cache(maxsize=64)
def _utc_offsets(zone: str) -> tuple[tuple[int, int], ...]:
    """List (from UTC ms, offset ms): steps of a week, and bisection to the second where the offset differs."""
    info = ZoneInfo(zone)

    def offset_ms(at_s: int) -> int:
        offset = datetime.fromtimestamp(at_s, info).utcoffset() or timedelta(0)
        return offset // timedelta(milliseconds=1)

    step_s, end_s = int(_OFFSETS_FROM.timestamp()), int(_OFFSETS_TO.timestamp())
    before_ms = offset_ms(step_s)
    offsets = [(FOREVER_MS, before_ms)]
    while step_s < end_s:
        low_s, high_s = step_s, step_s + _OFFSET_STEP_S
        step_s, after_ms = high_s, offset_ms(high_s)
        if after_ms == before_ms:
            continue
        while high_s - low_s > 1:
            middle_s = (low_s + high_s) // 2
            if offset_ms(middle_s) == before_ms:
                low_s = middle_s
            else:
                high_s = middle_s
        offsets.append((high_s * 1_000, after_ms))
        before_ms = after_ms
    return tuple(offsets)


def _day_number(day: date) -> int:
    return day.toordinal() - date(1970, 1, 1).toordinal()
