"""The reference against cases worked out by hand from the specification; times of day are Indian unless said."""

import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from streamingcandle.candles.candle import Candle
from streamingcandle.candles.reference import Record, Reference, Verdict, candles_of
from streamingcandle.candles.rules import Fields, Rules
from streamingcandle.candles.session import load_calendar
from streamingcandle.candles.timeframe import parse_timeframes

CALENDAR = load_calendar()
DAY = "2026-01-02"  # a Friday
EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def ms(clock: str, day: str = DAY, zone: str = "+05:30") -> int:
    return (datetime.fromisoformat(f"{day}T{clock}{zone}") - EPOCH) // timedelta(milliseconds=1)


def rules(timeframes: str = "1m", **changes: Any) -> Rules:
    chosen = parse_timeframes(timeframes)
    return Rules(timeframes=chosen, grace_ms=(1_000,) * len(chosen), calendar=CALENDAR, **changes)


def tick(
    clock: str,
    price: object,
    quantity: object = None,
    total: object = None,
    *,
    of: str = "N:C:7",
    day: str = DAY,
    record_ms: int | None = None,
    **fields: object,
) -> tuple[bytes, int]:
    """Give the bytes and the record timestamp (the event's own time unless said) of a tick."""
    exchange, segment, token = of.split(":")
    event_ms = ms(clock, day)
    found = {
        "Exch": exchange,
        "ExchType": segment,
        "Token": int(token),
        "LastRate": price,
        "TickDt": f"/Date({event_ms})/",
    }
    found |= {name: value for name, value in (("LastQty", quantity), ("TotalQty", total)) if value is not None}
    return json.dumps(found | fields).encode(), event_ms if record_ms is None else record_ms


def log(ticks: Iterable[tuple[bytes, int]], first: int = 0) -> list[Record]:
    return [Record(value, timestamp_ms, first + index) for index, (value, timestamp_ms) in enumerate(ticks)]


def play(given: Rules, *ticks: tuple[bytes, int]) -> dict[tuple[str, str, int], Candle]:
    return candles_of(given, log(ticks))


def judge(given: Rules, *ticks: tuple[bytes, int]) -> tuple[Reference, list[Verdict]]:
    reference = Reference(given)
    return reference, [reference.fold(record) for record in log(ticks)]


def clock_after(given: Rules, *ticks: tuple[bytes, int]) -> tuple[int | None, int | None]:
    """Give E and the claim on it."""
    reference, _ = judge(given, *ticks)
    return reference.event_ms, reference.claim_ms


def one(candles: dict[tuple[str, str, int], Candle], clock: str, timeframe: str = "1m", of: str = "N:C:7") -> Candle:
    return candles[of, timeframe, ms(clock)]


def prices(candle: Candle) -> tuple[float, float, float, float]:
    return candle.open, candle.high, candle.low, candle.close


def volumes(candles: dict[tuple[str, str, int], Candle], timeframe: str = "1m") -> list[int | Decimal]:
    return [candle.volume for (_, label, _), candle in sorted(candles.items()) if label == timeframe]


# ---- the candle


def test_the_example_of_the_specification_comes_out_as_its_candle() -> None:
    value = (
        b'{"Exch":"M","ExchType":"D","Token":458305,"LastRate":246346.0,"LastQty":2,"TotalQty":47798,"High":246500.0,'
        b'"TickDt":"/Date(1767335675000)/","ChgPcnt":3.5023737,"companyName":"SILVERMIC 27 FEB 2026"}'
    )
    candles = candles_of(rules(), [Record(value, 1_767_335_675_100, 81_234)])
    assert candles == {
        ("M:D:458305", "1m", 1_767_335_640_000): Candle(
            open=246346.0,
            high=246346.0,
            low=246346.0,
            close=246346.0,
            volume=2,
            exchange="M",
            exchange_type="D",
            company_name="SILVERMIC 27 FEB 2026",
            scrip_code="458305",
            window_start_millis=1_767_335_640_000,
            window_end_millis=1_767_335_700_000,
            human_readable_start_time="2026-01-02 12:04:00.000",
            human_readable_end_time="2026-01-02 12:05:00.000",
            timeframe="1m",
            ticks=1,
            complete=False,
            revised=False,
            source_partition=0,
            source_offset=81_234,
        )
    }


def test_a_tick_on_the_boundary_opens_the_next_window() -> None:
    candles = play(rules(), tick("09:15:59.999", 10), tick("09:16:00.000", 20))
    assert prices(one(candles, "09:15")) == (10, 10, 10, 10)
    assert prices(one(candles, "09:16")) == (20, 20, 20, 20)


def test_ticks_of_one_moment_go_by_offset() -> None:
    candles = play(rules(), tick("09:15:01", 10), tick("09:15:01", 30), tick("09:15:01", 20))
    assert prices(one(candles, "09:15")) == (10, 30, 10, 20)


def test_an_out_of_order_tick_counts_where_its_time_says() -> None:
    candles = play(
        rules(),
        tick("09:15:20", 10, 1, 101),
        tick("09:15:50", 12, 1, 104),
        tick("09:15:10", 9, 1, 100),
        tick("09:15:30", 15, 1, 102),
    )
    candle = one(candles, "09:15")
    assert prices(candle) == (9, 15, 9, 12)
    assert candle.volume == 104 - 99  # first by time: total 100, quantity 1
    assert (candle.ticks, candle.source_offset) == (4, 3)


def test_a_repeated_tick_changes_nothing_not_even_the_count() -> None:
    snapshot = tick("09:15:20", 10, 5, 100)
    candle = one(play(rules(), snapshot, snapshot, snapshot), "09:15")
    assert (candle.volume, candle.ticks, candle.source_offset) == (5, 1, 0)
    candle = one(play(rules(), snapshot, snapshot, tick("09:15:21", 11, 1, 101)), "09:15")
    assert (candle.volume, candle.ticks, candle.source_offset) == (6, 3, 2)


def test_names_come_from_the_close_tick_or_were_last_read() -> None:
    candles = play(
        rules(),
        tick("09:15:01", 10, companyName="OLD", ScripCode=500),
        tick("09:15:02", 10),
        tick("09:07:00", 10, companyName="NEW"),  # outside the session, but read
        tick("09:16:02", 10, ScripCode="0500"),
        tick("09:17:02", 0, companyName="QUOTE"),
        tick("09:17:03", 10),
    )
    assert (one(candles, "09:15").company_name, one(candles, "09:15").scrip_code) == ("OLD", "7")
    assert (one(candles, "09:16").company_name, one(candles, "09:16").scrip_code) == ("NEW", "0500")
    assert one(candles, "09:17").company_name == "NEW"
    assert one(play(rules(), tick("09:15:01", 10)), "09:15").company_name is None


def test_complete_from_where_e_first_rose_unless_the_log_was_read_from_its_start() -> None:
    ticks = [tick("09:15:30", 10), tick("09:16:00", 10, of="N:C:8"), tick("09:17:30", 10)]
    candles = candles_of(rules(), log(ticks))
    assert all(candle.complete for candle in candles.values())
    candles = candles_of(rules(), log(ticks[:1], first=1))
    assert not one(candles, "09:15").complete  # E has no witness yet
    candles = candles_of(rules(), log(ticks, first=1))
    assert not one(candles, "09:15").complete
    assert one(candles, "09:16", of="N:C:8").complete  # E rose to 09:16:00
    assert one(candles, "09:17").complete


# ---- volume


def test_a_new_day_begins_its_total_anew() -> None:
    candles = play(
        rules(),
        tick("15:29:00", 10, 10, 5_000_000, day="2026-01-01"),
        tick("09:15:00", 10, 300, 300),
    )
    assert one(candles, "09:15").volume == 300


def test_after_close_snapshots_change_no_base() -> None:
    candles = play(
        rules(),
        tick("15:29:00", 10, 10, 5_000_000, day="2026-01-01"),
        tick("18:00:00", 10, 10, 5_000_000, day="2026-01-01"),
        tick("09:15:00", 10, 300, 700),
    )
    assert one(candles, "09:15").volume == 300


def test_a_falling_or_missing_or_zero_total_adds_nothing_again() -> None:
    candles = play(
        rules(),
        tick("09:15:01", 10, 10, 100),
        tick("09:15:02", 10, 10, 0),
        tick("09:15:03", 10, 10),
        tick("09:15:04", 10, 10, 90),
        tick("09:15:05", 10, 10, 110),
        tick("09:16:05", 10, 10, 105),
        tick("09:17:05", 10, 10, 0),
        tick("09:18:05", 10, 10, 130),
    )
    assert volumes(candles) == [20, 0, 0, 20]


def test_totals_beyond_32_bits() -> None:
    large = 9_000_000_000_000_000_000
    candles = play(rules(), tick("09:15:01", 10, 1, large), tick("09:16:01", 10, 1, large + 5_000_000_000))
    assert volumes(candles) == [1, 5_000_000_000]


def test_no_phantom_volume_when_the_first_tick_comes_in_mid_day() -> None:
    candles = play(rules(), tick("11:00:10", 10, 3, 47_798), tick("11:01:10", 10, 2, 47_900))
    assert volumes(candles) == [3, 102]


def test_what_was_traded_before_the_first_tick_seen_counts_from_the_outside_total() -> None:
    # pre-open auction: 1,000 traded; the first tick seen in the session says 1,250, of which 50 last
    preopen, first = tick("09:08:00", 10, 0, 1_000), tick("09:15:02", 10, 50, 1_250)
    assert volumes(play(rules(), preopen, first)) == [250]
    assert volumes(play(rules(), first, preopen)) == [250]
    candle = one(play(rules(), first, preopen), "09:15")
    assert (candle.ticks, candle.source_offset) == (1, 1)  # changed from afar


def test_yesterdays_total_sent_again_before_the_open_loses_no_day() -> None:
    candles = play(
        rules(), tick("08:50:00", 10, 5, 5_000_000), tick("09:15:00", 10, 300, 300), tick("09:16:00", 10, 1, 400)
    )
    assert volumes(candles) == [300, 100]


def test_an_outside_total_after_the_first_in_session_tick_is_no_base() -> None:
    # a Saturday with two sessions: the total of the pause comes after the day's first total
    saturday = "2024-03-02"
    candles = play(
        rules(),
        tick("09:15:10", 10, 10, 500, day=saturday),
        tick("10:30:00", 10, 10, 100, day=saturday),
        tick("11:30:10", 10, 10, 600, day=saturday),
    )
    assert volumes(candles) == [10, 100]
    # ... and before it when the first session was missed
    candles = play(rules(), tick("10:30:00", 10, 10, 550, day=saturday), tick("11:30:10", 10, 10, 600, day=saturday))
    assert volumes(candles) == [50]


def test_an_old_outside_tick_serves_no_base() -> None:
    first, second = tick("09:15:02", 10, 50, 1_250), tick("09:18:00", 10, 1, 1_251)
    assert volumes(play(rules(), first, second, tick("09:08:00.001", 10, 0, 1_000))) == [250, 1]
    assert volumes(play(rules(), first, second, tick("09:08:00", 10, 0, 1_000))) == [50, 1]


def test_since_zero_counts_from_zero() -> None:
    ticks = tick("11:00:10", 10, 3, 47_798), tick("11:00:10", 10, 3, 500, of="M:D:1")
    candles = play(rules(since_zero=("N",)), *ticks)
    assert one(candles, "11:00").volume == 47_798
    assert one(candles, "11:00", of="M:D:1").volume == 3
    assert one(play(rules(since_zero=("*",)), *ticks), "11:00", of="M:D:1").volume == 500


def test_without_totals_quantities_add_up() -> None:
    candles = play(
        rules(),
        tick("09:15:01", 10, 3),
        tick("09:15:02", 10, "4"),
        tick("09:16:01", 10),
        tick("09:17:01", 10, 5, 100),
        tick("09:18:01", 10, 7),
    )
    assert volumes(candles) == [7, 0, 5, 0]
    assert volumes(play(rules(), tick("09:15:01", 10, 2**63 - 1), tick("09:15:02", 10, 5))) == [2**63 + 4]


def test_a_late_tick_revises_the_windows_after_it() -> None:
    ticks = [
        tick("09:15:01", 10, 100, 100),
        tick("09:16:01", 10, 50, 150),
        tick("09:17:01", 10, 50, 200),
        tick("09:18:01", 10, 50, 250),
    ]
    assert volumes(play(rules(), *ticks)) == [100, 50, 50, 50]
    candles = play(rules(), *ticks, tick("09:15:59", 10, 1, 220))
    assert volumes(candles) == [220, 0, 0, 30]
    assert [one(candles, f"09:{minute}").source_offset for minute in (15, 16, 17, 18)] == [4, 4, 4, 4]
    assert [one(candles, f"09:{minute}").ticks for minute in (15, 16, 17, 18)] == [2, 1, 1, 1]


def test_every_timeframe_adds_up_to_the_same_volume() -> None:
    ticks = [
        tick(f"{9 + n // 60:02}:{n % 60:02}:{n % 7:02}", 10 + n % 5, n % 4, 1_000 + n * n) for n in range(16, 300, 3)
    ]
    candles = play(rules("10s,1m,2m,3m,5m,7m,15m,30m,1h,1d"), *ticks)
    sums = {label: sum(volumes(candles, label)) for _, label, _ in candles}
    first = 16  # total 1,256, quantity 0
    last = 298
    assert set(sums.values()) == {last * last - first * first}


def test_quantities_are_decimals_rounded_when_read() -> None:
    candles = play(rules(), tick("09:15:01", 10, "0.25", "100.5"), tick("09:16:01", 10, 1, 101.75))
    assert volumes(candles) == [Decimal("0.25"), Decimal("1.25")]
    candles = play(rules(quantity_decimals=2), tick("09:15:01", 10, "0.255"), tick("09:16:01", 10, "0.0049999"))
    assert volumes(candles) == [Decimal("0.26"), 0]
    assert volumes(play(rules(quantity_decimals=0), tick("09:15:01", 10, 0.5, 41.5))) == [1]
    (volume,) = volumes(play(rules(), tick("09:15:01", 10, "3.60")))
    assert str(volume) == "3.6"
    (volume,) = volumes(play(rules(), tick("09:15:01", 10, "118.0")))
    assert isinstance(volume, int)


def test_a_sign_is_the_side_of_a_quantity_and_spoils_a_total() -> None:
    reference, _ = judge(rules(), tick("09:15:01", 10, -5), tick("09:16:01", 10, 2, -7), tick("09:17:01", 10, 1, "-0"))
    assert volumes(reference.candles()) == [5, 2, 1]
    assert reference.ledger()["optional_unreadable"] == 1


def test_quantities_end_at_ten_to_the_nineteenth_and_sums_at_127_bits() -> None:
    reference, _ = judge(rules(), tick("09:15:01", 10, "9999999999999999999"), tick("09:15:02", 10, 10**19))
    assert volumes(reference.candles()) == [9_999_999_999_999_999_999]
    assert reference.ledger()["optional_unreadable"] == 1
    many = [tick(f"09:15:{second:02}", 10, "9e18") for second in range(20)]
    assert volumes(play(rules(quantity_decimals=18), *many[:18])) == [162 * 10**18]
    (volume,) = volumes(play(rules(quantity_decimals=18), *many))
    assert str(volume) == "170141183460469231731.687303715884105727"


# ---- lateness, clocks, verdicts


def test_too_late_for_a_short_window_and_not_for_a_long_one() -> None:
    ticks = (
        tick("09:15:10", 10, 1, 100),
        tick("09:30:00", 10, 1, 200),
        tick("09:15:20", 50, 1, 150),
        tick("09:15:30", 60, 1, 150, of="N:C:8"),
    )
    reference, verdicts = judge(rules("1m,5m,30m"), *ticks)
    assert verdicts[2].kind == "folded"
    assert verdicts[2].late_for == ("1m", "5m")  # 09:20 + 10 min = 09:30
    assert verdicts[3].late_for == ()  # another instrument's clock
    candles = reference.candles()
    assert one(candles, "09:15").high == 10
    assert one(candles, "09:15", "30m").high == 50
    reference, verdicts = judge(rules("1m,5m"), *ticks)
    assert verdicts[2].kind == "late"
    assert verdicts[2].late_for == ("1m", "5m")
    assert reference.ledger()["late"] == 1


def test_the_horizon_is_reached_exactly() -> None:
    late = tick("09:15:20", 50)
    _, verdicts = judge(rules(), tick("09:25:59.999", 10), late)
    assert verdicts[1].late_for == ()
    _, verdicts = judge(rules(), tick("09:26:00.000", 10), late)
    assert verdicts[1].kind == "late"


def test_the_base_is_of_each_timeframe_its_own() -> None:
    candles = play(
        rules("1m,30m"), tick("09:17:10", 10, 10, 500), tick("09:28:00", 10, 10, 600), tick("09:16:10", 10, 1, 400)
    )
    assert volumes(candles, "1m") == [10, 100]
    assert volumes(candles, "30m") == [201]


def test_e_follows_accepted_ticks_only_and_never_runs_ahead_of_the_record() -> None:
    bad = (b"{", ms("09:20:00")), tick("09:20:00", 0), tick("09:20:00", -1)
    assert clock_after(rules(), *bad) == (None, None)
    ticks = [*bad, tick("09:07:00", 10)]
    assert clock_after(rules(), *ticks) == (None, ms("09:07:00"))
    ticks += [tick("09:15:30", 10, record_ms=ms("09:15:00"))]
    assert clock_after(rules(), *ticks) == (ms("09:15:02"), None)
    ticks += [tick("09:15:01", 10)]
    assert clock_after(rules(), *ticks) == (ms("09:15:02"), None)
    ticks += [tick("09:16:01", 10, record_ms=-1)]
    assert clock_after(rules(), *ticks) == (ms("09:16:01"), None)


def test_a_tick_of_the_future_is_rejected_by_its_record_timestamp() -> None:
    reference, verdicts = judge(
        rules(),
        tick("09:16:00.000", 10, record_ms=ms("09:15:00")),
        tick("09:16:00.001", 10, record_ms=ms("09:15:00")),
        tick("09:16:00.002", 10, record_ms=-1),
    )
    assert [verdict.reason for verdict in verdicts] == [None, "future", None]
    assert verdicts[1].event_ms == ms("09:16:00.001")
    assert reference.ledger() == {
        "read": 3, "folded": 2, "quotes": 0, "outside": 0, "late": 0, "rejected": 1, "rejected_future": 1,
        "behind": 0, "time_fallback": 0, "optional_unreadable": 0,
    }  # fmt: skip


def test_a_time_that_is_none_falls_back_on_the_records_own() -> None:
    good = ms("09:15:30")
    none: object
    for none in (
        None,
        0,
        "0.0",
        "/Date(0)/",
        "1999-12-31 23:59:59",
        -5,
        "-1767335675",
        "0000-01-01 00:00:00",
        "1e-400",
    ):
        reference, verdicts = judge(rules(), tick("09:20:00", 10, TickDt=none, record_ms=good))
        assert verdicts[0].event_ms == good, none
        assert reference.ledger()["time_fallback"] == 1
        for missing in (-1, 0, ms("00:00", "1999-12-31"), 253_402_300_800_000):
            reference, verdicts = judge(rules(), tick("09:20:00", 10, TickDt=none, record_ms=missing))
            assert verdicts[0].reason == "time"
            assert reference.ledger()["time_fallback"] == 0


def test_a_time_that_cannot_be_read_is_rejected() -> None:
    unreadable: object
    for unreadable in ("", "yesterday", True, [], "\ud800", "2026-01-02T09:15", "2026-02-30 09:15:00", "/Date(x)/"):
        reference, verdicts = judge(rules(), tick("09:20:00", 10, TickDt=unreadable))
        assert verdicts[0].reason == "time", unreadable
        assert reference.ledger()["time_fallback"] == 0


def test_a_local_time_is_written_with_a_blank_or_a_t() -> None:
    for written in ("2026-01-02T09:15:30", "2026-01-02 09:15:30"):
        _, verdicts = judge(rules(), tick("09:20:00", 10, TickDt=written))
        assert verdicts[0].event_ms == ms("09:15:30")


def test_the_year_10000() -> None:
    for written in ("/Date(253402300800000)/", 253_402_300_800_000_000_000, "9999-12-31T23:59:59-01:00", "1e400"):
        _, (verdict,) = judge(rules(), tick("09:20:00", 10, TickDt=written))
        assert verdict.reason == "future", written
        _, (verdict,) = judge(rules(), tick("09:20:00", 10, TickDt=written, record_ms=-1))
        assert verdict.reason == "time"
    candles = play(rules(), tick("09:20:00", 10, of="X:Y:1", TickDt="9999-12-31 23:59:59.999", record_ms=-1))
    (candle,) = candles.values()
    assert candle.human_readable_end_time == "10000-01-01 00:00:00.000"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "tombstone"),
        (b"", "empty"),
        (b" ", "json"),
        (b"[]", "json"),
        (b'{"Exch":"N"', "json"),
        (b"{}", "instrument"),
        (b'{"Exch":"N","ExchType":"C","Token":-1,"LastRate":1}', "instrument"),
        (b'{"Exch":"N","ExchType":"","Token":1,"LastRate":1}', "instrument"),
        (b'{"Exch":"N:","ExchType":"C","Token":1,"LastRate":1}', "instrument"),
        (b'{"Exch":"\\ud800","ExchType":"C","Token":1,"LastRate":1}', "instrument"),
        (b'{"Exch":5,"ExchType":"C","Token":1,"LastRate":1}', "instrument"),
        (b'{"Exch":"N","ExchType":"C","Token":9223372036854775808,"LastRate":1}', "instrument"),
        (b'{"Exch":"N","ExchType":"C","Token":1}', "price"),
        (b'{"Exch":"N","ExchType":"C","Token":1,"LastRate":null}', "price"),
        (b'{"Exch":"N","ExchType":"C","Token":1,"LastRate":"NaN"}', "price"),
        (b'{"Exch":"N","ExchType":"C","Token":1,"LastRate":1e400}', "price"),
        (b'{"Exch":"N","ExchType":"C","Token":1,"LastRate":-0.01}', "price"),
        (b'{"Exch":"N","ExchType":"C","Token":1,"LastRate":1}', "time"),
    ],
)
def test_bad_records_are_rejected_and_touch_nothing(value: bytes | None, reason: str) -> None:
    reference = Reference(rules())
    verdict = reference.fold(Record(value, -1, 0))
    assert (verdict.kind, verdict.reason) == ("rejected", reason)
    assert reference.candles() == {}
    assert reference.event_ms is None
    ledger = reference.ledger()
    assert (ledger["read"], ledger["rejected"], ledger[f"rejected_{reason}"]) == (1, 1, 1)


def test_strings_count_as_numbers_and_the_last_of_equal_names_wins() -> None:
    value = (
        b'{"Exch":"B","Exch":"N","ExchType":"C","Token":"5.0","LastRate":"1e2","LastQty":"5e0","TotalQty":"x",'
        b'"\\u0054otalQty":50,"TickDt":"' + str(ms("09:15:01")).encode() + b'","ScripCode":5e1}'
    )
    ((key, candle),) = candles_of(rules(), [Record(value, -1, 3)]).items()
    assert key == ("N:C:5", "1m", ms("09:15"))
    assert (candle.open, candle.volume, candle.scrip_code) == (100.0, 5, "50")


def test_unreadable_optional_fields_are_absent_and_counted() -> None:
    reference, _ = judge(
        rules(),
        tick("09:15:01", 10, "x", -1, companyName=5, ScripCode=True),
        tick("09:15:02", 0, "x", -1),  # a quote touches nothing
    )
    assert reference.ledger()["optional_unreadable"] == 4
    candle = one(reference.candles(), "09:15")
    assert (candle.volume, candle.company_name, candle.scrip_code) == (0, None, "7")


def test_other_names_of_fields() -> None:
    given = rules(fields=Fields(exchange="x", segment="s", token="t", price="p", time="at"))  # noqa: S106 no password
    value = json.dumps({"x": "N", "s": "C", "t": 7, "p": 10, "at": ms("09:15:01"), "Token": "no"}).encode()
    assert list(candles_of(given, [Record(value, -1, 0)])) == [("N:C:7", "1m", ms("09:15"))]


def _with(field: str, text: str) -> tuple[bytes, int]:
    value, timestamp_ms = tick("09:15:00", 10)
    return json.dumps(json.loads(value) | {field: text}).encode(), timestamp_ms


def test_texts_have_a_length() -> None:
    for name, expected in (("é" * 32, "folded"), ("é" * 32 + "a", "rejected"), ("x" * 64, "folded")):
        for field in ("Exch", "ExchType"):
            _, (verdict,) = judge(rules(outside_session="keep"), _with(field, name))
            assert verdict.kind == expected
    reference, _ = judge(
        rules(),
        tick("09:15:01", 10, companyName="é" * 128, ScripCode="s" * 256),
        tick("09:16:01", 10, companyName="é" * 128 + "a", ScripCode="s" * 257),
    )
    assert one(reference.candles(), "09:15").scrip_code == "s" * 256
    assert (one(reference.candles(), "09:16").company_name, one(reference.candles(), "09:16").scrip_code) == (
        "é" * 128,
        "7",
    )
    assert reference.ledger()["optional_unreadable"] == 2


# ---- whose time counts, and what is held (specification §4.1, §4.2, §6.6)


YEAR_AHEAD = "2027-01-04"  # a Monday
TWO = tick("09:15:10", 10), tick("09:15:20", 10, of="N:C:8")
"""Two instruments, heard: E is at 09:15:20, their own clocks have a claim each."""


def test_a_lie_spoils_no_lateness() -> None:
    lie = tick("09:15:00", 99, day=YEAR_AHEAD)
    true = [tick(f"09:{minute}:10", 10) for minute in (15, 16, 17)]
    for place in range(4):  # first, in the middle, last
        reference, verdicts = judge(rules(), *true[:place], lie, *true[place:])
        assert [(verdict.kind, verdict.late_for) for verdict in verdicts] == [("folded", ())] * 4
        assert set(reference.candles()) == {("N:C:7", "1m", ms(f"09:{minute}")) for minute in (15, 16, 17)} | {
            ("N:C:7", "1m", ms("09:15", YEAR_AHEAD))
        }


def test_an_instruments_own_next_tick_is_the_witness_of_its_leap() -> None:
    first = [tick("09:15:10", 10), tick("09:15:20", 10)]
    late = tick("09:15:30", 10)
    assert judge(rules(), *first, tick("12:00:00", 10), late)[1][-1].kind == "folded"
    assert judge(rules(), *first, tick("12:00:00", 10), tick("12:00:00", 10), late)[1][-1].kind == "late"
    # of two that differ by more than an hour the earlier is believed; the later waits on if it came last
    assert judge(rules(), *first, tick("14:00:00", 10), tick("12:00:00", 10), late)[1][-1].kind == "late"
    apart = [*first, tick("12:00:00", 10), tick("14:00:00", 10)]
    too_late_at_14 = tick("12:10:30", 10)
    assert judge(rules(), *apart, too_late_at_14)[1][-1].kind == "folded"
    assert judge(rules(), *apart, tick("14:00:01", 10), too_late_at_14)[1][-1].kind == "late"
    # a tick the instrument's own clock believes speaks against the claim, a snapshot sent again does not
    leap, again = tick("12:00:00", 10), tick("12:00:01", 10)
    assert judge(rules(), *first, leap, tick("09:15:21", 10), again, late)[1][-1].kind == "folded"
    assert judge(rules(), *first, leap, tick("09:15:20", 10), again, late)[1][-1].kind == "late"


def test_e_believes_a_leap_when_another_instrument_bears_it_out() -> None:
    lie, next_day = tick("09:15:00", 99, day=YEAR_AHEAD), "2026-01-05"
    assert clock_after(rules(), *TWO) == (ms("09:15:20"), None)
    assert clock_after(rules(), *TWO, lie) == (ms("09:15:20"), ms("09:15:00", YEAR_AHEAD))
    assert clock_after(rules(), *TWO, lie, tick("09:15:30", 10)) == (ms("09:15:30"), None)
    another = tick("09:15:00", 10, of="N:C:8", day=next_day)
    assert clock_after(rules(), *TWO, lie, another) == (ms("09:15:00", next_day), None)
    assert clock_after(rules(), *TWO, another, lie) == (ms("09:15:00", next_day), ms("09:15:00", YEAR_AHEAD))
    assert clock_after(rules(), *TWO, another, tick("09:15:01", 10, day=next_day))[0] == ms("09:15:01", next_day)


def test_an_instrument_is_its_own_witness_where_no_other_was_heard() -> None:
    alone = tick("09:15:10", 10), tick("12:00:00", 10), tick("12:00:01", 10)
    assert clock_after(rules(), *alone) == (ms("12:00:01"), None)
    another = tick("09:15:21", 10, of="N:C:8")
    once = *TWO, tick("09:15:20", 10), another, tick("12:00:00", 10), tick("12:00:01", 10)
    assert clock_after(rules(), *once) == (ms("09:15:21"), ms("12:00:01"))
    leap = tick("14:00:00", 10), tick("14:00:01", 10)
    assert clock_after(rules(), *once, leap[0]) == (ms("09:15:21"), ms("14:00:00"))
    assert clock_after(rules(), *once, *leap) == (ms("14:00:01"), None)
    assert clock_after(rules(), *once, another, *leap) == (ms("09:15:21"), ms("14:00:01"))


def test_the_hosts_clock_can_be_the_witness() -> None:
    reference, _ = judge(rules(), tick("09:15:10", 10))
    assert (reference.event_ms, reference.claim_ms) == (None, ms("09:15:10"))
    reference.witness(ms("09:15:10"))
    assert (reference.event_ms, reference.claim_ms) == (ms("09:15:10"), None)


def test_ticks_far_behind_e_are_counted() -> None:
    noon = tick("12:00:00", 10), tick("12:00:00", 10, of="N:C:8")
    reference, _ = judge(rules(), *noon, tick("11:00:00", 10), tick("10:59:59.999", 10), tick("10:00:00", 0))
    assert reference.ledger()["behind"] == 1


def test_where_too_many_instruments_are_held_one_goes_whose_day_is_over() -> None:
    life = [tick("15:29:00", 10, of=f"N:C:{token}") for token in (1, 2, 3)]
    new = tick("15:29:00", 10, of="N:C:4")
    assert judge(rules(instruments_max=4), *life, new)[1][-1].reason is None
    for clock, reason in (("00:09:59.999", "limit"), ("00:10:00", None)):  # midnight and the horizon
        later = [tick(clock, 10, of=of, day="2026-01-03") for of in ("N:C:1", "N:C:3")]
        reference, verdicts = judge(rules(instruments_max=3), *life, *later, new)
        assert reference.event_ms == ms(clock, "2026-01-03")
        assert verdicts[-1].reason == reason
        assert reference.ledger().get("rejected_limit", 0) == (reason == "limit")


def test_the_one_heard_least_recently_by_offset_is_forgotten_and_begins_a_new_life() -> None:
    today = "2026-01-05"
    given = rules(instruments_max=4)
    ticks = [
        tick("09:15:01", 10, 5, 100, of="N:C:1"),
        tick("09:20:00", 10, 5, 200, of="N:C:1"),
        tick("09:15:02", 10, 5, 100, of="N:C:2", companyName="B"),
        tick("09:20:00", 10, 5, 200, of="N:C:2"),
        tick("09:15:03", 10, 5, 100, of="N:C:1"),  # heard after N:C:2, of an earlier time
        tick("09:15:00", 10, of="N:C:3", day=today),
        tick("09:15:00", 10, of="N:C:4", day=today),
        tick("09:15:01", 10, of="N:C:5", day=today),  # in the place of N:C:2
        tick("09:15:04", 20, 7, 150, of="N:C:2"),  # in the place of N:C:1
        tick("09:15:05", 10, of="N:C:1", day=today),  # in the place of N:C:2 again, whose day is over
        tick("09:15:06", 10, of="N:C:2", day=today),
    ]
    reference, verdicts = judge(given, *ticks)
    assert [verdict.reason for verdict in verdicts] == [None] * 10 + ["limit"]
    candles = reference.candles()
    begun_anew, before = one(candles, "09:15", of="N:C:2"), one(candles, "09:20", of="N:C:2")
    assert (begun_anew.open, begun_anew.volume, begun_anew.company_name) == (20, 7, None)
    assert (before.volume, before.company_name) == (100, "B")  # of the former life, as it stood


def test_claimed_windows_are_few() -> None:
    true = [tick("09:15:10", 10), tick("09:15:20", 10)]
    for minute in range(16):
        true += [tick(f"11:{minute:02}:00", 99), tick(f"09:15:{21 + minute}", 10)]
    reference, verdicts = judge(
        rules(),
        *true,
        tick("11:59:00", 99),
        tick("10:15:59", 10),  # no window beyond an hour
        tick("09:15:40", 10),
        tick("16:00:00", 10),  # in no window
        tick("11:05:30", 99),  # in a window there is
        tick("12:00:00", 10, of="N:C:8"),
    )
    assert [verdict.reason for verdict in verdicts[-6:]] == ["limit", None, None, None, None, None]
    assert reference.ledger()["rejected_limit"] == 1
    # what is rejected moves its instrument's own clock: what comes true is believed with the next tick
    morning = [tick(clock, 10, day="2026-01-05") for clock in ("09:15:00", "09:15:01", "09:16:00")]
    _, verdicts = judge(rules(), *true, *morning)
    assert [verdict.kind for verdict in verdicts[-3:]] == ["rejected", "folded", "folded"]


# ---- windows


def starts(candles: dict[tuple[str, str, int], Candle], timeframe: str) -> list[str]:
    return [
        f"{candle.human_readable_start_time[11:16]}-{candle.human_readable_end_time[11:16]}"
        for (_, label, _), candle in sorted(candles.items())
        if label == timeframe
    ]


def test_windows_are_aligned_to_the_open_and_cut_at_the_close() -> None:
    candles = play(rules("7m,30m,1h,1d"), tick("09:15:00", 10), tick("12:00:00", 10), tick("15:29:59.999", 10))
    assert starts(candles, "30m") == ["09:15-09:45", "11:45-12:15", "15:15-15:30"]
    assert starts(candles, "7m") == ["09:15-09:22", "11:56-12:03", "15:26-15:30"]  # 53 x 7 min = 371 of 375
    assert starts(candles, "1h") == ["09:15-10:15", "11:15-12:15", "15:15-15:30"]
    assert starts(candles, "1d") == ["09:15-15:30"]


def test_a_tick_within_a_second_after_the_close_is_of_the_last_window() -> None:
    reference, verdicts = judge(
        rules("1m,7m"), tick("15:30:00.000", 10), tick("15:30:01.000", 11), tick("15:30:01.001", 12)
    )
    assert [verdict.kind for verdict in verdicts] == ["folded", "folded", "outside"]
    assert starts(reference.candles(), "1m") == ["15:29-15:30"]
    assert starts(reference.candles(), "7m") == ["15:26-15:30"]
    assert one(reference.candles(), "15:29").close == 11


def test_an_open_session_takes_the_tick_at_the_close_of_the_one_before(tmp_path: Path) -> None:
    table = tmp_path / "touching.csv"
    table.write_text("date,T,*,2026-01-02,UTC,09:00,10:00,,\ndate,T,*,2026-01-02,UTC,10:00,11:00,,\n")
    given = Rules(timeframes=parse_timeframes("7m"), grace_ms=(1_000,), calendar=load_calendar(table))
    reference = Reference(given)
    reference.fold(log([tick("15:30:00.500", 10, of="T:T:1")])[0])  # 10:00:00.500 UTC
    assert starts(reference.candles(), "7m") == ["10:00-10:07"]


def test_a_saturday_with_two_sessions() -> None:
    saturday = "2024-03-02"
    clocks = ("09:59:00", "10:00:01.001", "11:30:00", "12:29:59")
    candles = play(rules("7m,30m,1d"), *(tick(clock, 10, day=saturday) for clock in clocks))
    assert starts(candles, "30m") == ["09:45-10:00", "11:30-12:00", "12:00-12:30"]
    assert starts(candles, "7m") == ["09:57-10:00", "11:30-11:37", "12:26-12:30"]
    assert starts(candles, "1d") == ["09:15-12:30"]


def test_round_the_clock_a_tick_after_midnight_is_todays() -> None:
    just_after = tick("05:30:00.500", 10, of="X:Y:1")  # 00:00:00.500 UTC
    candles = play(rules("7m,1d"), just_after)
    assert starts(candles, "7m") == ["00:00-00:07"]
    (day,) = [candle for (_, label, _), candle in candles.items() if label == "1d"]
    assert day.human_readable_start_time == "2026-01-02 00:00:00.000"
    assert day.window_end_millis - day.window_start_millis == 86_400_000


def test_outside_ticks_are_counted_and_in_no_window() -> None:
    reference, verdicts = judge(
        rules(),
        tick("09:07:00", 10),
        tick("16:00:00", 10),
        tick("12:00:00", 10, day="2026-01-03"),
        tick("09:15:00", 10),
    )
    assert [verdict.kind for verdict in verdicts] == ["outside", "outside", "outside", "folded"]
    assert reference.ledger()["outside"] == 3
    assert starts(reference.candles(), "1m") == ["09:15-09:16"]
    assert (reference.event_ms, reference.claim_ms) == (ms("16:00:00"), ms("12:00:00", "2026-01-03"))


def test_kept_outside_ticks_have_windows_around_the_session() -> None:
    given = rules("7m,1d", outside_session="keep", allowed_lateness_ms=10 * 86_400_000)
    candles = play(
        given,
        tick("00:01:00", 10, 1, 10),
        tick("09:07:00", 10, 1, 20),
        tick("09:15:00", 10, 1, 30),
        tick("15:30:01", 10, 1, 40),
        tick("15:30:01.001", 10, 1, 50),
        tick("23:59:00", 10, 1, 60),
        tick("12:00:00", 10, 1, 70, day="2026-01-03"),
        tick("23:59:59", 10, 1, 80, day="2026-01-04"),
    )
    assert starts(candles, "7m") == [
        "00:00-00:02",  # 09:15 is 79 x 7 min and 2 min after midnight
        "09:01-09:08",
        "09:15-09:22",
        "15:26-15:30",
        "15:30-15:37",
        "23:54-00:01",  # 72 x 7 min after 15:30; Saturday has no session, so its midnight cuts nothing
        "11:55-12:02",  # 175 x 7 min
        "23:58-00:00",  # 484 x 7 min, cut: Monday has a session
    ]
    assert starts(candles, "1d") == ["09:15-15:30"]
    assert volumes(candles, "1d") == [71]
    assert sum(volumes(candles, "7m")) == 71
