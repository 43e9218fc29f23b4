"""The kernel against the reference: equal on any batch, cut anywhere, dumped and loaded anywhere."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from property.strategies import batches, cases
from streamingcandle.candles.book import Book, new_book
from streamingcandle.candles.candle import Candle, decode_candle
from streamingcandle.candles.reference import Record, Reference
from streamingcandle.candles.rules import Rules
from streamingcandle.settings import load_settings

SLOW = settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
INSTRUMENTS_MAX = 100
"""More than any case has: nothing is forgotten."""
Key = tuple[str, str, int]


def _fold(book: Book, records: list[Record]) -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
    if book.position() is None and records and records[0].offset > 0:
        book.lose()
    rejects, late, _ = book.fold(
        [record.value for record in records],
        [record.timestamp_ms for record in records],
        [record.offset for record in records],
    )
    return rejects, late


def _candles(book: Book, rules: Rules) -> dict[Key, Candle]:
    found = {}
    for place in range(len(rules.timeframes)):
        for key, value in book.candles(timeframe=place, frontier_ms=0, flush=True):
            candle = decode_candle(value)
            found[(key.decode(), candle.timeframe, candle.window_start_millis)] = candle
    return found


def _pieces(records: list[Record], cuts: list[int]) -> list[list[Record]]:
    edges = [0, *sorted(cut % (len(records) + 1) for cut in cuts), len(records)]
    return [records[start:end] for start, end in pairwise(edges)]


@SLOW
@given(case=cases(), cuts=st.lists(st.integers(0, 1_000), max_size=4), dumps=st.booleans())
def test_kernel_equals_reference(case: tuple[Rules, list[Record]], cuts: list[int], *, dumps: bool) -> None:
    rules, records = case
    reference = Reference(rules)
    verdicts = [reference.fold(record) for record in records]
    book = new_book(rules, partition=0)
    rejects: dict[int, str] = {}
    late: dict[int, tuple[str, ...]] = {}
    start = 0
    for piece in _pieces(records, cuts):
        rejected, too_late = _fold(book, piece)
        rejects |= {start + index: reason for index, reason in rejected}
        late |= {start + index: tuple(labels.split(",")) for index, labels in too_late}
        start += len(piece)
        if dumps:
            loaded = new_book(rules, partition=0)
            assert loaded.load(book.dump(b"mark")) == b"mark"
            book = loaded
    assert rejects == {i: v.reason for i, v in enumerate(verdicts) if v.kind == "rejected"}
    assert late == {i: v.late_for for i, v in enumerate(verdicts) if v.late_for}
    assert (book.event_ms(), book.claim_ms()) == (reference.event_ms, reference.claim_ms)
    counts = book.ledger()
    assert {name: count for name, count in reference.ledger().items() if counts[name] != count} == {}
    assert counts["read"] == len(records)
    found, wanted = _candles(book, rules), reference.candles()
    plain = {key: msgspec.structs.replace(candle, revised=False) for key, candle in found.items()}
    assert plain == wanted


@SLOW
@given(case=cases(), commits=st.lists(st.tuples(st.integers(0, 1_000), st.integers(0, 900_000)), max_size=4))
def test_published_windows_stay_published(case: tuple[Rules, list[Record]], commits: list[tuple[int, int]]) -> None:
    """Commits at any time, with any grace: the last record of each window equals the reference."""
    rules, records = case
    book = new_book(rules, partition=0)
    frontiers = [0] * len(rules.timeframes)
    published: dict[Key, Candle] = {}
    graces = [grace for _, grace in sorted(commits)] + [0]
    for piece, grace_ms in zip(_pieces(records, [cut for cut, _ in commits]), graces, strict=True):
        _fold(book, piece)
        due = [max(c, (book.event_ms() or 0) - grace_ms) for c in frontiers]
        frontiers = book.close(due_ms=due, flush=False, candles_max=3)
        sheets = [book.candles(timeframe=place, frontier_ms=c, flush=False) for place, c in enumerate(frontiers)]
        for key, value in (record for sheet in sheets for record in sheet):
            candle = decode_candle(value)
            window = (key.decode(), candle.timeframe, candle.window_start_millis)
            # Of an instrument that was forgotten nobody knows any more what was published.
            if rules.instruments_max > INSTRUMENTS_MAX:
                assert candle.revised == (window in published)
            published[window] = candle
        offsets = [book.position() or 0] * len(frontiers)
        book.committed(frontiers_ms=frontiers, offsets=offsets, flushed=[0] * len(frontiers))
    published |= _candles(book, rules)
    wanted = Reference(rules)
    for record in records:
        wanted.fold(record)
    same = {"complete": True, "revised": False}
    assert {k: msgspec.structs.replace(c, **same) for k, c in published.items()} == {
        k: msgspec.structs.replace(c, **same) for k, c in wanted.candles().items()
    }


@SLOW
@given(case=cases(), cut=st.integers(0, 1_000), grace_ms=st.integers(0, 900_000))
def test_open_windows_are_the_references_above_the_frontier(
    case: tuple[Rules, list[Record]], cut: int, grace_ms: int
) -> None:
    """After a commit anywhere: what is open is whole, of all instruments or of some, and looking changes nothing."""
    rules, records = case
    book, reference = new_book(rules, partition=0), Reference(rules)
    early, later = _pieces(records, [cut])
    _fold(book, early)
    due_ms = [max(0, (book.event_ms() or 0) - grace_ms)] * len(rules.timeframes)
    book.committed(frontiers_ms=due_ms, offsets=[book.position() or 0] * len(due_ms), flushed=[0] * len(due_ms))
    _fold(book, later)
    for record in records:
        reference.fold(record)
    before = book.dump(b"")
    candles = reference.candles()
    keys = sorted({key for key, _, _ in candles})
    for wanted in (None, keys[::2], []):
        named = None if wanted is None else [_named(key) for key in wanted]
        for place, timeframe in enumerate(rules.timeframes):
            found = book.open_windows(timeframe=place, instruments=named)
            ends_ms = [decode_candle(value).window_end_millis for _, value in found]
            assert ends_ms == sorted(ends_ms)
            plain = {
                (key.decode(), candle.window_start_millis): msgspec.structs.replace(candle, revised=False)
                for key, candle in ((key, decode_candle(value)) for key, value in found)
            }
            assert plain == {
                (key, start_ms): candle
                for (key, label, start_ms), candle in candles.items()
                if label == timeframe.label
                and candle.window_end_millis > due_ms[place]
                and (wanted is None or key in wanted)
            }
    assert book.dump(b"") == before
    with pytest.raises(ValueError, match="no timeframe"):
        book.open_windows(timeframe=len(rules.timeframes), instruments=None)


def _named(key: str) -> tuple[str, str, int]:
    exchange, segment, token = key.split(":")
    return exchange, segment, int(token)


@SLOW
@given(damage=st.binary(max_size=400), cut=st.integers(0, 400), flip=st.integers(0, 4_000), records=batches())
def test_load_takes_any_bytes(damage: bytes, cut: int, flip: int, records: list[Record]) -> None:
    """Damaged dumps are refused and change nothing."""
    book = new_book(load_settings({}, {}).rules(), partition=0)
    _fold(book, records)
    before = book.dump(b"mark")
    bad = bytearray(before)
    bad[flip % len(bad)] ^= 0x10
    for dumped in (damage, before[:cut][: len(before) - 1], bytes(bad)):
        try:
            book.load(dumped)
        except ValueError:
            assert book.dump(b"mark") == before
        else:
            raise AssertionError(dumped)
