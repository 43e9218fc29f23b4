"""Sessions and instruments: real days, the user's own table, and each refusal with file and line."""

from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from streamingcandle.candles.instrument import Instrument, parse_instrument
from streamingcandle.candles.session import DAY_MS, Calendar, load_calendar
from streamingcandle.errors import SettingsError

EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
HEADER = "kind,exchange,segment,date,zone,open,close,when,note\n"


@pytest.fixture(scope="module")
def calendar() -> Calendar:
    return load_calendar()


def hours(calendar: Calendar, exchange: str, segment: str, day: str) -> list[str]:
    """Give the sessions of a day as `HH:MM-HH:MM` UTC, through zoneinfo's eyes where a zone matters."""
    found = calendar.sessions(exchange, segment, date.fromisoformat(day))
    assert all(session.day == date.fromisoformat(day) for session in found)
    return [f"{at(session.open_ms)}-{at(session.close_ms)}" for session in found]


def at(utc_ms: int) -> str:
    return (EPOCH + timedelta(milliseconds=utc_ms)).strftime("%H:%M")


def written(folder: Path, *lines: str) -> Path:
    path = folder / "my-sessions.csv"
    path.write_text(HEADER + "".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("exchange", "segment", "day", "expected"),
    [
        # Asia/Kolkata is UTC+05:30
        ("N", "C", "2026-01-02", ["03:45-10:00"]),
        ("N", "U", "2026-01-02", ["03:30-11:30"]),
        ("N", "C", "2026-01-03", []),
        ("N", "D", "2026-07-31", ["03:45-10:00"]),
        ("N", "D", "2026-08-03", ["03:45-10:10"]),
        ("B", "C", "2026-08-03", ["03:45-10:05"]),
        ("N", "X", "2026-08-03", ["03:45-10:00"]),
        ("N", "D", "2026-12-04", ["03:45-10:10"]),
        ("N", "D", "2026-12-07", ["03:45-10:15"]),
        ("B", "D", "2026-12-07", ["03:45-10:15"]),
        ("N", "C", "2026-12-04", ["03:45-10:05"]),
        ("N", "C", "2026-12-07", ["03:45-10:10"]),
        ("B", "C", "2026-12-07", ["03:45-10:10"]),
        ("N", "X", "2026-12-07", ["03:45-10:00"]),
        ("N", "U", "2026-12-07", ["03:30-11:30"]),
        ("N", "U", "2026-08-03", ["03:30-11:30"]),
        ("B", "C", "2024-01-20", ["03:45-10:00"]),
        ("N", "D", "2024-03-02", ["03:45-04:30", "06:00-07:00"]),
        ("N", "C", "2024-11-01", ["12:30-13:30"]),
        ("N", "C", "2025-10-21", ["08:15-09:15"]),
        ("N", "D", "2026-02-01", ["03:45-10:00"]),
        ("N", "C", "2026-11-08", ["12:45-13:45"]),
        ("N", "U", "2026-11-08", ["12:45-13:45"]),
        ("B", "D", "2026-11-08", ["12:45-13:45"]),
        ("M", "D", "2026-11-08", ["12:45-13:45"]),
        ("M", "D", "2025-02-01", ["03:30-11:30"]),
        ("N", "U", "2026-01-26", []),
        ("M", "D", "2026-12-25", []),
        # New York's clocks: back on Sunday 2025-11-02, forward on Sunday 2026-03-08
        ("M", "D", "2025-10-31", ["03:30-18:00"]),
        ("M", "D", "2025-11-03", ["03:30-18:25"]),
        ("M", "D", "2026-03-06", ["03:30-18:25"]),
        ("M", "D", "2026-03-09", ["03:30-18:00"]),
        ("NYSE", "E", "2025-10-31", ["13:30-20:00"]),
        ("NYSE", "E", "2025-11-03", ["14:30-21:00"]),
        ("NASDAQ", "E", "2026-03-06", ["14:30-21:00"]),
        ("NASDAQ", "E", "2026-03-09", ["13:30-20:00"]),
        ("AMEX", "E", "2025-07-04", []),
        ("NYSE", "E", "2025-07-03", ["13:30-17:00"]),
        ("NASDAQ", "E", "2026-11-27", ["14:30-18:00"]),
        ("NYSE", "E", "2027-12-31", ["14:30-21:00"]),
        ("BINANCE", "SPOT", "2026-01-03", ["00:00-00:00"]),
    ],
)
def test_real_days(calendar: Calendar, exchange: str, segment: str, day: str, expected: list[str]) -> None:
    assert hours(calendar, exchange, segment, day) == expected


def _nth(year: int, month: int, weekday: int, nth: int) -> date:
    """The nth weekday of a month (Monday is 0); nth 0 is the last of the month before."""
    first = date(year, month, 1)
    return first + timedelta(days=(weekday - first.weekday()) % 7 + 7 * (nth - 1))


def _observed(day: date) -> date | None:
    """Sunday's holiday is Monday's, Saturday's is Friday's; but New Year's never the old year's last day."""
    shifted = day + timedelta(days={5: -1, 6: 1}.get(day.weekday(), 0))
    return shifted if shifted.year == day.year else None


@pytest.mark.parametrize("exchange", ["NYSE", "NASDAQ", "AMEX"])
@pytest.mark.parametrize("year", [2024, 2025, 2026, 2027])
def test_new_yorks_days_are_those_of_the_exchanges_rule(calendar: Calendar, exchange: str, year: int) -> None:
    good_friday = {2024: date(2024, 3, 29), 2025: date(2025, 4, 18), 2026: date(2026, 4, 3), 2027: date(2027, 3, 26)}
    thanksgiving = _nth(year, 11, 3, 4)
    fixed = [_observed(date(year, month, day)) for month, day in ((1, 1), (6, 19), (7, 4), (12, 25))]
    mondays = [_nth(year, 1, 0, 3), _nth(year, 2, 0, 3), _nth(year, 6, 0, 0), _nth(year, 9, 0, 1)]
    closed = {*fixed, *mondays, good_friday[year], thanksgiving}
    if year == 2025:
        closed.add(date(2025, 1, 9))
    halves = {date(year, 7, 3), thanksgiving + timedelta(days=1), date(year, 12, 24)} - closed
    day = date(year, 1, 1)
    while day.year == year:
        sessions = calendar.sessions(exchange, "E", day)
        hours = [(session.close_ms - session.open_ms) / 3_600_000 for session in sessions]
        is_open = day.weekday() < 5 and day not in closed
        assert hours == ([3.5 if day in halves else 6.5] if is_open else []), day
        day += timedelta(days=1)


def test_round_the_clock_lasts_a_day(calendar: Calendar) -> None:
    (session,) = calendar.sessions("BINANCE", "SPOT", date(2026, 1, 3))
    assert session.close_ms - session.open_ms == DAY_MS
    assert session.open_ms == 1_767_398_400_000


@pytest.mark.parametrize("name", ["America/New_York", "Asia/Kolkata", "Europe/London", "Australia/Lord_Howe"])
def test_times_agree_with_zoneinfo(tmp_path: Path, name: str) -> None:
    calendar = load_calendar(written(tmp_path, f"weekly,Z,*,2000-01-01,{name},09:00,17:00,,"))
    schedule = calendar.schedule("Z", "any")
    local = datetime(2024, 1, 1)  # noqa: DTZ001 a local time is what is asked about
    for _ in range(2 * 366 * 24):  # every half-hour and 7 seconds of a year
        naive_ms = (local - datetime(1970, 1, 1)) // timedelta(milliseconds=1)  # noqa: DTZ001
        instant_ms = (local.replace(tzinfo=ZoneInfo(name)) - EPOCH) // timedelta(milliseconds=1)
        assert schedule.utc_ms(naive_ms) == instant_ms, local
        offset = datetime.fromtimestamp(instant_ms / 1000, ZoneInfo(name)).utcoffset()
        assert offset is not None
        assert schedule.local_ms(instant_ms) == instant_ms + offset // timedelta(milliseconds=1)
        local += timedelta(minutes=30, seconds=7)


def test_schedules_are_sorted_disjoint_and_cover_the_table(calendar: Calendar) -> None:
    schedules = calendar.schedules()
    assert {(schedule.exchange, schedule.segment) for schedule in schedules} == {
        (row.exchange, row.segment) for row in calendar.rows
    }
    for schedule in schedules:
        assert schedule.utc_offsets[0][0] == -(2**63)
        assert list(schedule.utc_offsets) == sorted(schedule.utc_offsets)
        ends = [end for _, end, _, _ in schedule.days]
        begins = [begin for begin, _, _, _ in schedule.days]
        assert all(end <= begin for end, begin in zip(ends, begins[1:], strict=False))
        days = [day for day, _ in schedule.exceptions]
        assert days == sorted(set(days))


# ---- the user's own table


def test_same_key_replaces_the_group_and_others_are_added(tmp_path: Path) -> None:
    mine = written(
        tmp_path,
        "date,N,*,2024-03-02,Asia/Kolkata,10:00,11:00,,instead of two sessions",
        "date,N,D,2026-04-03,Asia/Kolkata,,,,Good Friday",
        "weekly,N,C,2026-09-01,Asia/Kolkata,09:15,15:45,,",
    )
    calendar = load_calendar(mine)
    assert hours(calendar, "N", "C", "2024-03-02") == ["04:30-05:30"]
    assert hours(calendar, "B", "C", "2024-03-02") == ["03:45-04:30", "06:00-07:00"]
    assert hours(calendar, "N", "D", "2026-04-03") == []
    assert hours(calendar, "N", "C", "2026-04-03") == ["03:45-10:00"]
    assert hours(calendar, "N", "C", "2026-08-31") == ["03:45-10:05"]
    assert hours(calendar, "N", "C", "2026-09-01") == ["03:45-10:15"]


def test_a_segments_own_exception_wins_over_the_general_one(tmp_path: Path) -> None:
    mine = written(tmp_path, "date,N,U,2024-01-26,Asia/Kolkata,10:00,12:00,,")
    calendar = load_calendar(mine)
    assert hours(calendar, "N", "U", "2024-01-26") == ["04:30-06:30"]
    assert hours(calendar, "N", "C", "2024-01-26") == []


def test_a_new_exchange_with_two_sessions_up_to_midnight(tmp_path: Path) -> None:
    mine = written(
        tmp_path,
        "# afternoon and evening",
        'weekly,X,*,2026-01-01,Europe/London,13:00,17:00,,"quoted, with a comma"',
        "weekly,X,*,2026-01-01,Europe/London,18:00,24:00,,",
    )
    calendar = load_calendar(mine)
    assert hours(calendar, "X", "any", "2026-01-02") == ["13:00-17:00", "18:00-00:00"]
    assert hours(calendar, "X", "any", "2026-06-01") == ["12:00-16:00", "17:00-23:00"]
    assert hours(calendar, "X", "any", "2025-12-31") == []


def test_only_segment_listed_leaves_the_others_round_the_clock(tmp_path: Path) -> None:
    calendar = load_calendar(written(tmp_path, "weekly,X,D,2026-01-01,Europe/London,13:00,17:00,,"))
    assert hours(calendar, "X", "C", "2026-01-03") == ["00:00-00:00"]


def test_an_exchange_of_exceptions_only_is_closed_on_all_other_days(tmp_path: Path) -> None:
    calendar = load_calendar(written(tmp_path, "date,X,*,2026-01-03,UTC,13:00,17:00,,"))
    assert hours(calendar, "X", "C", "2026-01-03") == ["13:00-17:00"]
    assert hours(calendar, "X", "C", "2026-01-05") == []


def test_a_table_saved_by_a_spreadsheet_is_read(tmp_path: Path) -> None:
    path = tmp_path / "excel.csv"
    path.write_bytes(
        b"\xef\xbb\xbf" + HEADER.replace("\n", "\r\n").encode() + b"date,N,*,2026-04-03,Asia/Kolkata,,,,\r\n"
    )
    assert hours(load_calendar(path), "N", "C", "2026-04-03") == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("daily,N,*,2026-01-01,Asia/Kolkata,09:00,10:00,,", "unknown kind 'daily'"),
        ("weekly,,*,2026-01-01,Asia/Kolkata,09:00,10:00,,", "exchange ''"),
        ("weekly,*,*,2026-01-01,Asia/Kolkata,09:00,10:00,,", "exchange '*'"),
        ("weekly,N,a:b,2026-01-01,Asia/Kolkata,09:00,10:00,,", "segment 'a:b'"),
        ("weekly,N,Q,2026-02-30,Asia/Kolkata,09:00,10:00,,", "date '2026-02-30' does not exist"),
        ("weekly,N,Q,20260201,Asia/Kolkata,09:00,10:00,,", "date '20260201'"),
        ("weekly,N,Q,2026-02-01,Asia/Kolkata,9:00,10:00,,", "time '9:00'"),
        ("weekly,N,Q,2026-02-01,Asia/Kolkata,09:00,24:01,,", "time '24:01'"),
        ("weekly,N,Q,2026-02-01,Asia/Kolkata,09:00,,,", "time ''"),
        ("weekly,N,Q,2026-02-01,Asia/Kolkata,10:00,10:00,,", "opens 10:00, closes 10:00"),
        ("weekly,N,Q,2026-02-01,Asia/Kolkata,,,,", "weekly without hours"),
        ("weekly,N,Q,2026-02-01,Asia/Calcuta,09:00,10:00,,", "unknown zone 'Asia/Calcuta'"),
        ("weekly,N,Q,2026-02-01,,09:00,10:00,,", "unknown zone ''"),
        ("weekly,N,Q,2026-02-01,../x,09:00,10:00,,", "unknown zone '../x'"),
        ("weekly,N,Q,2026-02-01,UTC,09:00,10:00,,", "exchange N in zone UTC, and in Asia/Kolkata elsewhere"),
        ("weekly,N,Q,2026-02-01,Asia/Kolkata,09:00,10:00,summer,", "unknown when 'summer'"),
        ("date,N,Q,2026-02-01,Asia/Kolkata,09:00,10:00,us-dst,", "us-dst in a row for one date"),
        ("weekly,N,Q,2026-02-01,Asia/Kolkata,09:00,10:00,", "8 columns instead of 9"),
        ('weekly,N,Q,2026-02-01,Asia/Kolkata,09:00,10:00,,"open', "not a line of CSV"),
    ],
)
def test_a_wrong_row_is_refused_with_file_and_line(tmp_path: Path, line: str, reason: str) -> None:
    path = written(tmp_path, "# a comment", line)
    with pytest.raises(SettingsError) as caught:
        load_calendar(path)
    where, _, rest = str(caught.value).partition(": ")
    assert where == f"{path}:3"
    assert rest.startswith(reason)
    assert "; " in rest


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ("date,Q,*,2026-02-01,UTC,09:00,10:00,,", "date,Q,*,2026-02-01,UTC,09:59,11:00,,", "overlaps"),
        ("weekly,Q,*,2026-02-01,UTC,09:00,10:00,us-dst,", "weekly,Q,*,2026-02-01,UTC,09:59,11:00,,", "overlaps"),
        ("date,Q,*,2026-02-01,UTC,,,,", "date,Q,*,2026-02-01,UTC,09:59,11:00,,", "2026-02-01 is closed"),
    ],
)
def test_rows_that_contradict_each_other_are_refused(tmp_path: Path, first: str, second: str, reason: str) -> None:
    path = written(tmp_path, first, second)
    with pytest.raises(SettingsError, match=reason) as caught:
        load_calendar(path)
    assert str(caught.value).startswith(f"{path}:3: ")


def test_touching_sessions_and_the_two_seasons_do_not_overlap(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "weekly,Q,*,2026-02-01,UTC,09:00,10:00,us-dst,",
        "weekly,Q,*,2026-02-01,UTC,09:30,10:30,us-standard,",
        "weekly,Q,*,2026-02-01,UTC,10:30,11:00,,",
    )
    assert hours(load_calendar(path), "Q", "x", "2026-02-02") == ["09:30-10:30", "10:30-11:00"]
    assert hours(load_calendar(path), "Q", "x", "2026-06-01") == ["09:00-10:00", "10:30-11:00"]


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.csv: cannot read"):
        load_calendar(tmp_path / "nowhere.csv")
    latin = tmp_path / "latin.csv"
    latin.write_bytes(b"\xe9")
    with pytest.raises(SettingsError, match=r"latin\.csv: cannot read"):
        load_calendar(latin)


# ---- instruments


def test_an_instrument_reads_back() -> None:
    assert parse_instrument("M:D:458305") == Instrument(exchange="M", segment="D", token=458305)
    assert str(parse_instrument("NSE:EQ:9223372036854775807")) == "NSE:EQ:9223372036854775807"


@pytest.mark.parametrize(
    "text", ["", "458305", "M:D", "M:D:-1", "M:D:01", "M::5", "M:D:9223372036854775808", "M:D:5:6"]
)
def test_what_is_no_instrument_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="give the key of its candles"):
        parse_instrument(text)
