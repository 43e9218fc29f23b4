"""Frames of the table: any size, any names, any prices."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from streamingcandle.candles.candle import Candle
from streamingcandle.cli.board import CLOSES_MAX, INSTRUMENTS_MAX, REVISED_MS, Board, name_of
from streamingcandle.cli.screen import Line, View, frame, rows_shown, sparkline
from streamingcandle.ops.watch import Standing

START_MS = 1_767_325_500_000
COUNTS = dict.fromkeys(("read", "folded", "late", "rejected", "quotes", "outside"), 1_234_567)


def candle(minute: int = 0, *, label: str = "1m", revised: bool = False, **fields: Any) -> Candle:
    start_ms = START_MS + minute * 60_000
    given: dict[str, Any] = {
        "open": 100.0,
        "high": 110.0,
        "low": 90.0,
        "close": 105.0,
        "volume": 1_000,
        "company_name": "RELIANCE",
    }
    return Candle(
        **given | fields,
        exchange="N",
        exchange_type="C",
        scrip_code="7",
        window_start_millis=start_ms,
        window_end_millis=start_ms + 60_000,
        human_readable_start_time=f"2026-01-02 09:{15 + minute:02}:00.000",
        human_readable_end_time=f"2026-01-02 09:{16 + minute:02}:00.000",
        timeframe=label,
        ticks=1,
        complete=True,
        revised=revised,
        source_partition=0,
        source_offset=minute,
    )


def view(board: Board, forming: list[tuple[str, Candle]], **fields: Any) -> View:
    standing = Standing(feed_ms=1, ledger=COUNTS, position=1, goal=2, is_caught_up=True, is_away=False)
    given: dict[str, Any] = {
        "title": "streamingcandle",
        "timeframes": ["1m", "30m", "1d"],
        "chosen": 0,
        "rows": board.rows("1m", forming, 0),
        "first": 0,
        "standing": standing,
        "ticks_per_s": 2_400,
        "clock": "2026-01-02 09:21:33",
        "revisions": list(board.revisions),
        "revised": 3,
        "remark": "",
        "has_keys": True,
    }
    return View(**given | fields)


def text(lines: list[Line]) -> list[str]:
    return ["".join(span.text for span in line) for line in lines]


@given(
    width=st.integers(1, 260),
    height=st.integers(1, 80),
    names=st.lists(st.text(max_size=40) | st.none(), max_size=60),
    price=st.floats(0.01, 1e12),
    volume=st.integers(0, 2**63 - 1),
    revised=st.booleans(),
    remark=st.sampled_from(["", "broker ▒ 警告 " * 9]),
)
def test_a_frame_fills_its_terminal_and_no_more(
    width: int, height: int, names: list[str | None], price: float, volume: int, remark: str, *, revised: bool
) -> None:
    board = Board()
    forming = [(f"N:C:{i}", candle(close=price, volume=volume, company_name=name)) for i, name in enumerate(names)]
    board.take([(key, candle(revised=revised, company_name=c.company_name)) for key, c in forming[::2]], 0)
    lines = text(frame(view(board, forming, remark=remark), width, height))
    assert len(lines) <= height
    assert {cell_len(line) for line in lines} == {width}
    assert all(line.isprintable() for line in lines)


def test_states_and_revisions() -> None:
    board = Board()
    board.take([("N:C:7", candle(0)), ("N:C:8", candle(0, company_name=None))], 0)
    board.take([("N:C:7", candle(0, revised=True, close=101.5, volume=1_200))], 0)
    rows = {row.key: row for row in board.rows("1m", [("N:C:8", candle(1))], REVISED_MS - 1)}
    assert (rows["N:C:7"].state, rows["N:C:8"].state) == ("revised", "forming")
    assert rows["N:C:8"].closes == [105.0, 105.0]
    assert rows["N:C:7"].revised is not None
    (later,) = [row for row in board.rows("1m", [], REVISED_MS) if row.key == "N:C:7"]
    assert (later.state, later.revised) == ("revised", None)
    assert board.rows("30m", [], 0) == []
    lines = text(frame(view(board, []), 120, 30))
    assert any("↻ RELIANCE" in line and "revised 09:15" in line for line in lines)
    (told,) = [line.rstrip() for line in lines if "late tick" in line]
    assert told == "↻ late tick  RELIANCE 1m 09:15  close 105.00 → 101.50, volume 1,000 → 1,200"


@pytest.mark.parametrize(
    ("name", "shown"), [(None, "N:C:7"), ("A\x1b[2JB", "A?[2JB"), ("A\nB", "A?B"), ("TATA MOTORS", "TATA MOTORS")]
)
def test_a_name_never_commands_the_terminal(name: str | None, shown: str) -> None:
    assert name_of("N:C:7", candle(company_name=name)) == shown


@pytest.mark.parametrize(
    ("close", "shown"), [(105.0, "105.00"), (83.2575, "83.2575"), (0.000_01, "0.00001"), (246_346.5, "246346.50")]
)
def test_prices_have_the_decimals_they_need(close: float, shown: str) -> None:
    board = Board()
    lines = text(frame(view(board, [("N:U:7", candle(close=close))]), 120, 24))
    assert any(f" {shown} " in line for line in lines), lines


def test_what_is_held_has_a_limit() -> None:
    board = Board()
    board.take([(f"N:C:{i}", candle()) for i in range(INSTRUMENTS_MAX + 5)], 0)
    board.take([("N:C:0", candle(minute)) for minute in range(CLOSES_MAX + 9)], 0)
    rows = board.rows("1m", [], 0)
    assert (len(rows), board.is_full) == (INSTRUMENTS_MAX, True)
    assert max(len(row.closes) for row in rows) == CLOSES_MAX


def test_what_the_head_says() -> None:
    away = Standing(feed_ms=0, ledger=COUNTS, position=5, goal=9, is_caught_up=True, is_away=True)
    behind = Standing(feed_ms=0, ledger=COUNTS, position=5, goal=9, is_caught_up=False, is_away=False)
    assert "broker lost" in text(frame(view(Board(), [], standing=away), 80, 24))[1]
    assert "reading the log: 5 of 9" in text(frame(view(Board(), [], standing=behind, clock=""), 80, 24))[1]
    assert re.search(r"2,400 ticks/s   1,234,567 folded   3 revised", text(frame(view(Board(), []), 80, 24))[1])


def test_a_sparkline_spans_its_values() -> None:
    assert sparkline([1.0, 2.0, 8.0]) == "▁▂█"
    assert sparkline([5.0, 5.0]) == "▁▁"
    assert sparkline([]) == ""


@pytest.mark.parametrize("height", range(1, 60))
def test_there_is_always_a_row(height: int) -> None:
    board = Board()
    forming = [(f"N:C:{i}", candle(company_name=f"NAME {i}")) for i in range(60)]
    lines = text(frame(view(board, forming), 80, height))
    assert sum("NAME" in line for line in lines) == (rows_shown(height) if height > 1 else 0)
