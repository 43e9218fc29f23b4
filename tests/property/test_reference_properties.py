"""What holds for the reference whatever the log: it is the oracle of the kernel, so it is asked by itself first."""

import json
from collections import defaultdict
from fractions import Fraction
from itertools import pairwise
from math import floor
from typing import Any

import msgspec
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from property.strategies import (
    DELAY_MS,
    INSTRUMENTS,
    LEAP_MS,
    ODD,
    YEAR_MS,
    bare_tick,
    batches,
    cases,
    disordered,
    orderly_batches,
)
from streamingcandle.candles.candle import Candle
from streamingcandle.candles.reference import Record, Reference, candles_of
from streamingcandle.candles.reference_read import (
    Number,
    Unusable,
    read_object,
    read_price,
    read_quantity,
    read_total,
    read_whole,
)
from streamingcandle.candles.rules import Rules
from streamingcandle.candles.timeframe import parse_timeframes

PLAIN = Rules(timeframes=parse_timeframes("10s,1m,7m,30m,1h,1d"), grace_ms=(1_000,) * 6, calendar=ODD)
KEEP = Rules(timeframes=parse_timeframes("1m,7m,1h"), grace_ms=(1_000,) * 3, calendar=ODD, outside_session="keep")

Key = tuple[str, str, int]


def values(candles: dict[Key, Candle]) -> dict[Key, tuple[object, ...]]:
    """Keep what the order of arrival must not change."""
    return {key: (each.open, each.high, each.low, each.close, each.volume) for key, each in candles.items()}


@settings(deadline=None)
@given(case=cases())
def test_the_ledger_balances_and_every_candle_is_sane(case: tuple[Rules, list[Record]]) -> None:
    rules, batch = case
    reference = Reference(rules)
    for record in batch:
        reference.fold(record)
        ledger = reference.ledger()
        assert ledger["read"] == sum(ledger[kind] for kind in ("folded", "quotes", "outside", "late", "rejected"))
        assert ledger["rejected"] == sum(count for name, count in ledger.items() if name.startswith("rejected_"))
    windows = defaultdict(list)
    for (instrument, label, start_ms), candle in reference.candles().items():
        assert candle.low <= min(candle.open, candle.close) <= max(candle.open, candle.close) <= candle.high
        assert candle.volume >= 0
        assert candle.ticks >= 1
        assert f"{candle.exchange}:{candle.exchange_type}" == instrument.rpartition(":")[0]
        assert candle.window_start_millis == start_ms < candle.window_end_millis
        windows[instrument, label].append((start_ms, candle.window_end_millis))
    for spans in windows.values():
        assert all(end_ms <= start_ms for (_, end_ms), (start_ms, _) in pairwise(sorted(spans)))


@settings(deadline=None)
@given(case=cases())
def test_rejected_records_and_quotes_touch_nothing(case: tuple[Rules, list[Record]]) -> None:
    rules, batch = case
    reference = Reference(rules)
    # What is refused by a limit moves a clock all the same (§6.6).
    kept = [(record, reference.fold(record)) for record in batch]
    accepted = [record for record, verdict in kept if verdict.kind not in ("rejected", "quote")]
    assume(all(verdict.reason != "limit" for _, verdict in kept))
    without = Reference(rules)
    without.fold(Record(None, -1, batch[0].offset))  # the log begins where it began
    for record in accepted:
        without.fold(record)
    assert without.candles() == reference.candles()
    assert (without.event_ms, without.claim_ms) == (reference.event_ms, reference.claim_ms)


@settings(deadline=None)
@given(data=st.data(), batch=orderly_batches())
def test_the_order_of_arrival_does_not_matter(data: st.DataObject, batch: list[Record]) -> None:
    other = data.draw(disordered(batch))
    for rules in (PLAIN, KEEP):
        assert values(candles_of(rules, other)) == values(candles_of(rules, batch))


@settings(deadline=None)
@given(batch=orderly_batches())
def test_neighbours_do_not_matter(batch: list[Record]) -> None:
    together = candles_of(PLAIN, batch)
    alone: dict[Key, Candle] = {}
    for token in {json.loads(record.value or b"")["Token"] for record in batch}:
        alone |= candles_of(PLAIN, [record for record in batch if json.loads(record.value or b"")["Token"] == token])
    assert {key: msgspec.structs.replace(candle, complete=False) for key, candle in together.items()} == {
        key: msgspec.structs.replace(candle, complete=False) for key, candle in alone.items()
    }


@settings(deadline=None)
@given(case=cases())
def test_no_neighbour_matters_not_even_a_liar(case: tuple[Rules, list[Record]]) -> None:
    rules = msgspec.structs.replace(case[0], instruments_max=50_000)
    together = Reference(rules)
    alone: dict[str | None, Reference] = defaultdict(lambda: Reference(rules))
    for record in case[1]:
        verdict = together.fold(record)
        assert alone[verdict.instrument].fold(record) == verdict
    apart: dict[Key, Candle] = {}
    for each in alone.values():
        apart |= each.candles()
    assert {key: msgspec.structs.replace(candle, complete=False) for key, candle in together.candles().items()} == {
        key: msgspec.structs.replace(candle, complete=False) for key, candle in apart.items()
    }


@settings(deadline=None)
@given(data=st.data(), batch=orderly_batches())
def test_one_lie_costs_nothing_but_its_own_window(data: st.DataObject, batch: list[Record]) -> None:
    """First, last or in between, of an instrument of the feed or of another: a tick that is a year ahead."""
    assume(batch)
    liar = data.draw(st.sampled_from(INSTRUMENTS))
    place = data.draw(st.integers(0, len(batch)))
    honest_ms = max(record.timestamp_ms for record in batch) - DELAY_MS
    lie_ms = honest_ms + YEAR_MS
    lying = [*batch[:place], Record(bare_tick(liar, lie_ms), lie_ms, 0), *batch[place:]]
    reference = Reference(PLAIN)
    for offset, record in enumerate(lying):
        assert reference.fold(msgspec.structs.replace(record, offset=offset)).kind in ("folded", "outside")
    assert (reference.event_ms or 0) <= honest_ms
    told = {key: value for key, value in values(reference.candles()).items() if key[2] <= honest_ms}
    assert told == values(candles_of(PLAIN, batch))


@settings(deadline=None)
@given(case=cases())
def test_e_never_falls_and_a_claim_is_a_leap(case: tuple[Rules, list[Record]]) -> None:
    rules, batch = case
    reference = Reference(rules)
    before_ms = None
    for record in batch:
        reference.fold(record)
        event_ms, claim_ms = reference.event_ms, reference.claim_ms
        assert before_ms is None or (event_ms is not None and event_ms >= before_ms)
        assert event_ms is None or claim_ms is None or claim_ms > event_ms + LEAP_MS
        before_ms = event_ms


@settings(deadline=None)
@given(batch=orderly_batches())
def test_volumes_add_up_to_the_days_total_less_the_base(batch: list[Record]) -> None:
    """Worked out from the ticks alone: sessions, first total, greatest total, outside totals before it."""
    days = defaultdict(list)
    for record in batch:
        found = json.loads(record.value or b"")
        schedule = ODD.schedule(found["Exch"], found["ExchType"])
        event_ms = record.timestamp_ms - DELAY_MS
        day = schedule.day(event_ms)
        inside = any(open_ms <= event_ms < close_ms + 1_001 for open_ms, close_ms in schedule.sessions(day))
        days[f"{found['Exch']}:{found['ExchType']}:{found['Token']}", day].append((event_ms, inside, found))
    candles = candles_of(PLAIN, batch)
    for (instrument, day), ticks in days.items():
        totals = [
            (at_ms, found["TotalQty"], found["LastQty"])
            for at_ms, inside, found in ticks
            if inside and found.get("TotalQty")
        ]
        if not totals:
            continue
        first_ms, total, quantity = totals[0]
        before = [found.get("TotalQty", 0) for at_ms, inside, found in ticks if not inside and at_ms < first_ms]
        base = min([max(total - quantity, 0), *([max(before)] if any(before) else [])])
        expected = max(total for _, total, _ in totals) - base
        sessions = ODD.schedule(*instrument.split(":")[:2]).sessions(day)
        for timeframe in PLAIN.timeframes:
            # the first window with a total may end a second before it: a tick just after the close
            counted = [
                candle.volume
                for (of, label, start_ms), candle in candles.items()
                if (of, label) == (instrument, timeframe.label)
                and sessions[0][0] <= start_ms < sessions[-1][1]
                and (candle.window_end_millis > first_ms or _is_last_before(candle, first_ms, sessions))
            ]
            assert sum(counted) == expected


def _is_last_before(candle: Candle, at_ms: int, sessions: tuple[tuple[int, int], ...]) -> bool:
    """Tell whether the tick came within a second of the close that ends this window, and no session was open."""
    in_session = any(open_ms <= at_ms < close_ms for open_ms, close_ms in sessions)
    return (
        not in_session
        and candle.window_end_millis <= at_ms <= candle.window_end_millis + 1_000
        and any(candle.window_end_millis == close_ms for _, close_ms in sessions)
    )


# ---- reading


def _refuse(_: str) -> None:
    raise ValueError


def _by_the_library(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text, parse_constant=_refuse, parse_int=Number, parse_float=Number)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


SCRAP = (
    "{", "}", "[", "]", ",", ":", '"', '"a"', '"b"', '"\\u00e9"', '"\\ud83d\\ude00"', '"\\ud800"', "1", "-0.5e+3",
    "0", "null", "true", "e", ".", "-", "\\", " ", "\n", "\t", "NaN", "é", '{"a":', "1}", '"\x7f"',
)  # fmt: skip
SCRAPS = st.lists(st.sampled_from(SCRAP), max_size=14).map("".join)


@settings(max_examples=500, deadline=None)
@given(text=st.one_of(SCRAPS, SCRAPS.map(lambda scraps: '{"a":' + scraps + "}")))
def test_json_is_read_as_the_library_reads_it(text: str) -> None:
    expected = _by_the_library(text)
    found = read_object(text.encode())
    if expected is None or found is None:
        assert found is expected
        return
    assert list(found) == list(expected)
    for name, value in found.items():
        if isinstance(value, Unusable):
            assert isinstance(expected[name], bool | list | dict) or "\\ud800" in text
        else:
            assert (value, type(value)) == (expected[name], type(expected[name]))


@settings(deadline=None)
@given(batch=batches())
def test_damaged_ticks_are_read_as_the_library_reads_them(batch: list[Record]) -> None:
    for record in batch:
        try:
            text = (record.value or b"").decode()
        except UnicodeDecodeError:
            assert read_object(record.value or b"") is None
            continue
        assert (read_object(text.encode()) is None) == (_by_the_library(text) is None)


NUMBERS = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(("", "-")),
    st.one_of(st.integers(0, 20), st.integers(0, 2**70)),
    st.sampled_from(("", ".0", ".5", ".25", ".100", ".000000001", ".99999999999999999999")),
    st.sampled_from(("", "e0", "e1", "E+2", "e-1", "e-2", "e18", "e-18", "e300", "e-300")),
)


@settings(max_examples=500, deadline=None)
@given(text=NUMBERS, decimals=st.sampled_from((0, 2, 8, 9, 18)))
def test_numbers_are_exact(text: str, decimals: int) -> None:
    exact = Fraction(text)
    whole = exact.denominator == 1 and 0 <= exact <= 2**63 - 1
    assert read_whole(text) == (int(exact) if whole else None)
    rounded = floor(abs(exact) * 10**decimals + Fraction(1, 2)) if abs(exact) < 10**19 else None
    assert read_quantity(text, decimals) == rounded
    assert read_total(text, decimals) == (None if exact < 0 else rounded)
    price = read_price(text)
    assert price == (float(text) if float("inf") > float(text) >= 0 else None)
