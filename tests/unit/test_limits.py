"""What a feed makes up takes no room beyond what it is given (specification §1.1, §1.3, §6.6)."""

import json
from collections.abc import Mapping

from streamingcandle.candles.book import Book, new_book
from streamingcandle.settings import load_settings

NOW_MS = 1_767_335_675_000
DAY_MS = 86_400_000
HELD_MAX = 50


def _book() -> Book:
    return new_book(load_settings({"instruments_max": str(HELD_MAX)}, {}).rules(), partition=0)


def _fold(book: Book, at_ms: int, *ticks: Mapping[str, object]) -> list[str]:
    plain: dict[str, object] = {"Exch": "N", "ExchType": "C", "Token": 1, "LastRate": 5, "TotalQty": 7, "TickDt": at_ms}
    values = [json.dumps({**plain, **tick}).encode() for tick in ticks]
    offset = book.position() or 0
    rejects, _, _ = book.fold(values, [at_ms] * len(ticks), range(offset, offset + len(ticks)))
    return [reason for _, reason in rejects]


def _commit(book: Book) -> None:
    c_ms, offset = (book.event_ms() or 0) - 1_000, book.position() or 0
    book.committed(frontiers_ms=[c_ms] * 6, offsets=[offset] * 6, flushed=[0] * 6)


def test_rejects_and_quotes_leave_no_trace() -> None:
    book = _book()
    _fold(book, NOW_MS, {}, {"Token": 2})
    size = len(book.dump(b""))
    made_up = [
        {"Exch": f"Z{number}", "Token": number, "LastRate": price} for number in range(2_000) for price in (-5, 0)
    ]
    assert _fold(book, NOW_MS, *made_up) == ["price"] * 2_000
    too_long: list[dict[str, object]] = [
        {"Exch": "Z" * 65},
        {"ExchType": "\u00e9" * 33},
        {"Exch": "Z", "LastRate": 5, "TickDt": "noon"},
    ]
    assert _fold(book, NOW_MS, *too_long) == ["instrument", "instrument", "time"]
    assert len(book.dump(b"")) <= size + 16, "a few bytes more of counts"


def test_made_up_tokens_and_exchanges_take_the_room_of_a_day() -> None:
    book = _book()
    for day in range(4):
        at_ms = NOW_MS + day * DAY_MS
        made_up: list[dict[str, object]] = [
            {"Exch": f"Z{day}-{number % 7}", "Token": number} for number in range(HELD_MAX)
        ]
        # All of the day are new: the first two bear it out, and those of the eve go for the others.
        refused = _fold(book, at_ms, *made_up)
        assert refused == ["limit"] * (2 if day else 0)
        assert _fold(book, at_ms, *made_up, *({"Token": 10**6 + number} for number in range(100))) == ["limit"] * 100
        _commit(book)
        assert book.instruments() == HELD_MAX
        assert len(book.dump(b"")) < HELD_MAX * 1_500
    fresh = _book()
    fresh.load(book.dump(b""))
    assert fresh.instruments() == HELD_MAX


def test_the_least_recently_heard_of_another_day_goes_and_none_of_today() -> None:
    book = _book()
    _fold(book, NOW_MS, *({"Token": number} for number in range(HELD_MAX)))
    _commit(book)
    _fold(book, NOW_MS, {"Token": 0})  # heard again: token 1 is the one longest silent
    tomorrow_ms = NOW_MS + DAY_MS
    _fold(book, tomorrow_ms, {"Token": 2}, {"Token": 3})
    assert _fold(book, tomorrow_ms, {"Token": 1_000}, {"Token": 1_001}) == []
    held = [book.seen_ms("N", "C", token) is not None for token in (0, 1, 2, 3, 4, 5)]
    assert held == [True, False, True, True, False, True]


def test_names_that_fit_are_written_and_longer_ones_are_absent() -> None:
    book = _book()
    names = {"companyName": "\u0001" * 256, "ScripCode": "s" * 256}
    _fold(book, NOW_MS, names, {"Token": 2, "companyName": "\u0001" * 257, "ScripCode": "\u00e9" * 129})
    assert book.ledger()["optional_unreadable"] == 2
    records = book.candles(timeframe=0, frontier_ms=0, flush=True)
    found = {json.loads(value)["scripCode"]: json.loads(value)["companyName"] for _, value in records}
    assert found == {"s" * 256: "\u0001" * 256, "2": None}
    assert max(len(value) for _, value in records) < 4_000
