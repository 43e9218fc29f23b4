"""The cases of specification §8 that need no broker, each on the kernel and on the reference."""

import json
from collections.abc import Callable

import msgspec
import pytest

from streamingcandle.candles.book import new_book
from streamingcandle.candles.candle import Candle, decode_candle
from streamingcandle.candles.reference import Record, Reference
from streamingcandle.candles.rules import Rules
from streamingcandle.candles.timeframe import parse_timeframes
from streamingcandle.settings import load_settings

OPEN_MS = 1_767_325_500_000  # 2026-01-02 09:15 in Kolkata
MINUTE_MS = 60_000
DAY_MS = 86_400_000
Fold = Callable[[Rules, list[Record]], dict[tuple[str, str, int], Candle]]


def _kernel(rules: Rules, records: list[Record]) -> dict[tuple[str, str, int], Candle]:
    book = new_book(rules, partition=0)
    book.fold([r.value for r in records], [r.timestamp_ms for r in records], [r.offset for r in records])
    places = range(len(rules.timeframes))
    found = [record for place in places for record in book.candles(timeframe=place, frontier_ms=0, flush=True)]
    candles = [(key.decode(), decode_candle(value)) for key, value in found]
    return {(key, candle.timeframe, candle.window_start_millis): candle for key, candle in candles}


def _reference(rules: Rules, records: list[Record]) -> dict[tuple[str, str, int], Candle]:
    reference = Reference(rules)
    for record in records:
        reference.fold(record)
    return reference.candles()


@pytest.fixture(params=[_kernel, _reference], ids=["kernel", "reference"])
def fold(request: pytest.FixtureRequest) -> Fold:
    found: Fold = request.param
    return found


def _rules(timeframes: str = "1m") -> Rules:
    parsed = parse_timeframes(timeframes)
    return msgspec.structs.replace(load_settings({}, {}).rules(), timeframes=parsed, grace_ms=(1_000,) * len(parsed))


def _ticks(*ticks: tuple[int, float, int, int], exchange: str = "N") -> list[Record]:
    """(ms after the open, price, quantity, total), in log order."""
    records = []
    for offset, (after_ms, price, quantity, total) in enumerate(ticks):
        at_ms = OPEN_MS + after_ms
        tick = {
            "Exch": exchange,
            "ExchType": "C",
            "Token": 1,
            "LastRate": price,
            "LastQty": quantity,
            "TotalQty": total,
        }
        records.append(Record(json.dumps(tick | {"TickDt": f"/Date({at_ms})/"}).encode(), at_ms, offset))
    return records


def _volumes(candles: dict[tuple[str, str, int], Candle], label: str = "1m") -> list[object]:
    return [candle.volume for (_, timeframe, _), candle in sorted(candles.items()) if timeframe == label]


def test_a_tick_on_the_boundary_opens_the_next_window(fold: Fold) -> None:
    candles = fold(_rules(), _ticks((0, 10, 1, 1), (MINUTE_MS, 11, 1, 2)))
    assert [start for _, _, start in sorted(candles)] == [OPEN_MS, OPEN_MS + MINUTE_MS]


def test_same_second_ticks_go_by_offset(fold: Fold) -> None:
    (candle,) = fold(_rules(), _ticks((5, 10, 1, 1), (5, 12, 1, 2), (5, 11, 1, 3))).values()
    assert (candle.open, candle.high, candle.low, candle.close) == (10, 12, 10, 11)


def test_an_out_of_order_tick_counts_and_opens_when_it_is_the_first(fold: Fold) -> None:
    (candle,) = fold(_rules(), _ticks((9, 10, 1, 101), (5, 12, 1, 100), (20, 11, 3, 104))).values()
    assert (candle.open, candle.high, candle.low, candle.close, candle.volume) == (12, 12, 10, 11, 5)


def test_a_new_day_counts_from_its_own_first_tick(fold: Fold) -> None:
    monday_ms = 3 * DAY_MS
    candles = fold(_rules(), _ticks((0, 10, 10, 5_000_000), (monday_ms, 10, 300, 300)))
    assert _volumes(candles) == [10, 300]


def test_an_after_close_snapshot_changes_no_base(fold: Fold) -> None:
    day = _ticks((0, 10, 10, 100), (7 * 3_600_000, 10, 0, 900))
    assert _volumes(fold(_rules(), day)) == [10]


def test_a_zero_total_tick_between_two_readds_nothing(fold: Fold) -> None:
    assert _volumes(fold(_rules(), _ticks((0, 10, 5, 100), (1, 10, 0, 0), (2, 10, 5, 105)))) == [10]


def test_totals_beyond_32_bits(fold: Fold) -> None:
    assert _volumes(fold(_rules(), _ticks((0, 10, 1, 2**40), (1, 10, 7, 2**40 + 7)))) == [8]


def test_yesterdays_total_sent_again_before_the_open(fold: Fold) -> None:
    day = _ticks((-8 * MINUTE_MS, 10, 0, 5_000_000), (0, 10, 50, 50), (MINUTE_MS, 10, 70, 120))
    assert _volumes(fold(_rules(), day)) == [50, 70]


def test_pre_open_auction_is_no_phantom_volume(fold: Fold) -> None:
    day = _ticks((-8 * MINUTE_MS, 10, 0, 1_000), (0, 10, 20, 1_100))
    assert _volumes(fold(_rules(), day)) == [100]


def test_a_start_in_mid_day_is_no_phantom_volume(fold: Fold) -> None:
    assert _volumes(fold(_rules(), _ticks((3_600_000, 10, 5, 900_000)))) == [5]


def test_a_late_tick_moves_the_volumes_after_it(fold: Fold) -> None:
    totals = [(i * MINUTE_MS, 10.0, 50 if i else 100, 100 + 50 * i) for i in range(4)]
    candles = fold(_rules(), _ticks(*totals, (1, 10, 1, 220)))
    assert _volumes(candles) == [220, 0, 0, 30]
    assert [candle.source_offset for _, candle in sorted(candles.items())] == [4, 4, 4, 4]


def test_minutes_add_up(fold: Fold) -> None:
    ticks = [(i * 17_000, 10 + i % 3, 2, 100 + 2 * i) for i in range(200)]
    candles = fold(_rules("1m,2m,3m,5m,15m,30m"), _ticks(*ticks))
    sums = {sum(map(int, map(str, _volumes(candles, label)))) for label in ("1m", "2m", "3m", "5m", "15m", "30m")}
    assert sums == {400}


def test_nse_30m_ends_with_a_quarter_of_an_hour(fold: Fold) -> None:
    (candle,) = fold(_rules("30m"), _ticks((6 * 3_600_000 + 10 * MINUTE_MS, 10, 1, 1))).values()
    assert candle.window_end_millis - candle.window_start_millis == 15 * MINUTE_MS


def test_seven_minutes_begin_anew_each_session(fold: Fold) -> None:
    candles = fold(_rules("7m"), _ticks((0, 10, 1, 1), (3 * DAY_MS, 10, 1, 1)))
    assert [start for _, _, start in sorted(candles)] == [OPEN_MS, OPEN_MS + 3 * DAY_MS]


def test_a_saturday_session_aligns_to_its_own_open(fold: Fold) -> None:
    second_open_ms = 1_709_358_300_000  # 2024-03-02 11:15 in Kolkata is before 11:30: outside
    ticks = _ticks((second_open_ms - OPEN_MS, 10, 1, 1), (second_open_ms + 25 * MINUTE_MS - OPEN_MS, 10, 1, 2))
    (candle,) = fold(_rules("30m"), ticks).values()
    assert candle.window_start_millis == second_open_ms + 15 * MINUTE_MS


def test_round_the_clock_half_a_second_after_midnight_is_todays(fold: Fold) -> None:
    midnight_ms = 1_767_398_400_000
    (candle,) = fold(_rules("1m"), _ticks((midnight_ms + 500 - OPEN_MS, 10, 1, 1), exchange="X")).values()
    assert candle.window_start_millis == midnight_ms


def test_a_future_tick_touches_no_neighbour(fold: Fold) -> None:
    records = _ticks((0, 10, 1, 1), (30 * MINUTE_MS, 99, 1, 2), (100, 11, 1, 3))
    records[1] = msgspec.structs.replace(records[1], timestamp_ms=OPEN_MS)
    candles = fold(_rules(), records)
    assert [(candle.high, candle.ticks) for candle in candles.values()] == [(11, 2)]


def test_a_repeated_tick_publishes_nothing_new(fold: Fold) -> None:
    (candle,) = fold(_rules(), _ticks((0, 10, 1, 5), (0, 10, 1, 5), (0, 10, 1, 5))).values()
    assert (candle.source_offset, candle.ticks, candle.volume) == (0, 1, 1)


def test_a_window_without_totals_sums_quantities(fold: Fold) -> None:
    (candle,) = fold(_rules(), _ticks((0, 10, 3, 0), (1, 10, 4, 0))).values()
    assert candle.volume == 7
