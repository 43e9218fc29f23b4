"""An exchange that the table of sessions does not know is said once, with its first place and what was meant."""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path as FilePath

import pytest

from program import environment, run, run_well
from streamingcandle.candles.rules import Rules
from streamingcandle.candles.session import Calendar, load_calendar
from streamingcandle.candles.timeframe import parse_timeframes
from streamingcandle.interfaces import Origin, Records
from streamingcandle.unlisted import NAMES_MAX, Unlisted

HEADER = "kind,exchange,segment,date,zone,open,close,when,note\n"


def rules(calendar: Calendar) -> Rules:
    return Rules(timeframes=parse_timeframes("1m"), grace_ms=(1_000,), calendar=calendar)


def value(instrument: str, price: float = 1.5) -> bytes:
    exchange, segment, token = instrument.split(":")
    tick = {"Exch": exchange, "ExchType": segment, "Token": int(token), "LastRate": price, "TickDt": 1_767_325_500}
    return json.dumps(tick).encode()


def records(values: Sequence[bytes], *, first: int = 0, partition: int = 3) -> Records:
    return Records(
        partition=partition,
        values=values,
        timestamps_ms=[1_767_325_500_000] * len(values),
        offsets=range(first, first + len(values)),
        next_offset=first + len(values),
        origin=lambda index: Origin(None, values[index], 1_767_325_500_000, first + index),
    )


Check = Callable[..., list[str]]


@pytest.fixture
def check(caplog: pytest.LogCaptureFixture) -> Check:
    """Give a run's check: what it said of the instruments of these records."""
    unlisted = Unlisted(rules(load_calendar()), "ticks")

    def checked(*instruments: str, before: Sequence[bytes] = (), first: int = 0, partition: int = 3) -> list[str]:
        caplog.clear()
        values = [*before, *(value(instrument) for instrument in instruments)]
        unlisted.check(records(values, first=first, partition=partition), dict.fromkeys(instruments))
        assert all(record.levelno == logging.WARNING for record in caplog.records)
        return [record.getMessage() for record in caplog.records]

    return checked


def test_it_is_said_once_with_its_first_place(check: Check) -> None:
    (said,) = check("N:C:1", "NSE:EQ:7", "NSE:EQ:8", first=812)
    assert said.startswith("ticks[3]@813: exchange 'NSE' has no sessions (nearest: N): it trades round the clock")
    assert "let the feed say N, or give it rows" in said
    assert "STREAMINGCANDLE_SESSIONS" in said
    assert "\n" not in said
    assert check("NSE:EQ:9") == []
    assert check("NSE:FO:9", partition=4) == []


def test_the_place_is_that_of_a_record_that_counts(check: Check) -> None:
    (said,) = check("NSE:EQ:7", before=[b"{", value("NSE:EQ:7", price=-1.0)], first=10)
    assert said.startswith("ticks[3]@12: ")


def test_what_a_snapshot_brought_has_no_offset(caplog: pytest.LogCaptureFixture) -> None:
    Unlisted(rules(load_calendar()), "ticks").check(records([value("N:C:1")]), ["NSE:EQ:7"])
    assert caplog.messages[0].startswith("ticks[3]: exchange 'NSE'")


@pytest.mark.parametrize(
    ("exchange", "nearest"),
    [
        ("NSE", "N"),
        ("NSE_FO", "N"),
        ("NFO", "N"),
        ("n", "N"),
        ("BSE", "B"),
        ("MCX", "M"),
        ("XNYS", "NYSE"),
        ("NYSEE", "NYSE"),
        ("nasdaq", "NASDAQ"),
        ("Nasdq", "NASDAQ"),
        ("BINANCE", None),
        ("LSE", None),
        ("Börse", None),
    ],
)
def test_the_nearest_is_what_was_meant(check: Check, exchange: str, nearest: str | None) -> None:
    (said,) = check(f"{exchange}:X:1")
    assert (f"(nearest: {nearest})" in said) == (nearest is not None)
    assert ("nearest" in said) == (nearest is not None)


def test_what_is_listed_is_not_said(check: Check) -> None:
    assert check("N:C:1", "N:Z:1", "NYSE:Q:5", "M:D:458305") == []


def test_a_segment_of_an_exchange_that_lists_others(tmp_path: FilePath, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "sessions.csv"
    path.write_text(f"{HEADER}weekly,X,EQ,2026-01-01,Asia/Kolkata,09:00,17:00,,\n")
    unlisted = Unlisted(rules(load_calendar(path)), "ticks")
    instruments = ["X:EQ:1", "X:eq:1", "X:eq:2"]
    unlisted.check(records([value(instrument) for instrument in instruments]), instruments)
    (said,) = caplog.messages
    assert said.startswith("ticks[3]@1: exchange 'X:eq' has no sessions (nearest: X:EQ)")


def test_made_up_names_are_bounded(check: Check) -> None:
    names = [f"Q{number}:X:1" for number in range(200)]
    said = check(*names[:7]) + check(*names[7:]) + check(*names, "NSE:EQ:1")
    assert len(said) == NAMES_MAX + 1
    assert said[-1] == f"more than {NAMES_MAX} exchanges have no sessions; the others are not named"


def test_a_name_is_short_and_shows_no_codes(check: Check) -> None:
    (said,) = check("\x1b[2J\nNSE" + "x" * 10_000 + ":X:1")
    assert said.isprintable()
    assert len(said) < 400


# ---- the program


def test_a_run_says_it_and_an_hour_by_its_other_name_is_the_hour(tmp_path: FilePath) -> None:
    lines = [value(name) for name in ("N:C:1", "NSE:EQ:7", "NSE:EQ:8")]
    (tmp_path / "ticks.jsonl").write_bytes(b"\n".join(lines))
    variables = environment("t", tmp_path, None) | {
        "STREAMINGCANDLE_TIMEFRAMES": "1m,60m",
        "STREAMINGCANDLE_LOG_FORMAT": "text",
    }
    run_well(variables, "ingest", str(tmp_path / "ticks.jsonl"))
    done = run(variables, "run", "--until-end", "--flush")
    assert done.returncode == 0
    said = [line for line in done.stderr.decode().splitlines() if " WARNING " in line]
    assert len(said) == 2, said
    assert "STREAMINGCANDLE_TIMEFRAMES: 60m is 1h: its candles are in 1-hour-candle" in said[0]
    assert "t-ticks[0]@1: exchange 'NSE' has no sessions (nearest: N)" in said[1]
    read = [run_well(variables, "candles", "N:C:1", "--timeframe", text, "--format", "json") for text in ("60m", "1h")]
    assert read[0] == read[1]
    assert json.loads(read[0])["timeframe"] == "1h"
