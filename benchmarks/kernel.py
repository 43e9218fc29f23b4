"""The kernel alone, by stage; CPU time of one core."""

from collections.abc import Iterator
from time import process_time

from benchmarks.feed import at_ms, tick
from benchmarks.figure import Figure
from streamingcandle.candles.book import Book, new_book
from streamingcandle.settings import load_settings

BATCH = 10_000
"""As many as one poll brings."""
CLOSE_EVERY = 50_000
DUE_MS = 1_000
CANDLES_MAX = 1_000_000


def bench(ticks: int, runs: int) -> Iterator[Figure]:
    """Decode, fold, close and encode, dump and load; at 1,000 and 50,000 instruments."""
    for instruments in (1_000, 50_000):
        count = min(ticks, 400_000)
        batches = _batches(count, instruments, is_quote=False)
        quotes = _batches(count, instruments, is_quote=True)
        name = f"kernel, {instruments:,} instruments"
        decode, fold, close, dump, load = [], [], [], [], []
        size = 0
        for _ in range(runs):
            decode.append(_fold(_new(), quotes))
            fold.append(_fold(_new(), batches))
            book = _new()
            close.append(_fold(book, batches, is_closing=True))
            began = process_time()
            data = book.dump(b"")
            dump.append((process_time() - began) * 1_000)
            size = len(data)
            began = process_time()
            _new().load(data)
            load.append((process_time() - began) * 1_000)
        per_s = count / 1e6
        yield Figure(f"{name}: decode (quotes)", [per_s / s for s in decode], "M ticks/CPU s")
        yield Figure(f"{name}: decode, fold", [per_s / s for s in fold], "M ticks/CPU s", "1.5")
        yield Figure(f"{name}: decode, fold, close, encode", [per_s / s for s in close], "M ticks/CPU s")
        yield Figure(f"{name}: dump of {size / 1e6:.1f} MB", dump, "ms")
        yield Figure(f"{name}: load", load, "ms")


def _new() -> Book:
    return new_book(load_settings({}, {}).rules(), partition=0)


def _batches(count: int, instruments: int, *, is_quote: bool) -> list[tuple[list[bytes], list[int], list[int]]]:
    found = []
    for first in range(0, count, BATCH):
        indexes = range(first, min(count, first + BATCH))
        times = [at_ms(index, instruments) for index in indexes]
        values = [
            tick(index, instruments, event_ms=at, is_quote=is_quote)[1]
            for index, at in zip(indexes, times, strict=True)
        ]
        found.append((values, times, list(indexes)))
    return found


def _fold(book: Book, batches: list[tuple[list[bytes], list[int], list[int]]], *, is_closing: bool = False) -> float:
    """CPU seconds."""
    frames = len(load_settings({}, {}).rules().timeframes)
    began = process_time()
    for values, times, offsets in batches:
        book.fold(values, times, offsets)
        if is_closing and (offsets[-1] + 1) % CLOSE_EVERY == 0:
            due_ms = [times[-1] - DUE_MS] * frames
            frontiers_ms = book.close(due_ms=due_ms, flush=False, candles_max=CANDLES_MAX)
            for place, frontier_ms in enumerate(frontiers_ms):
                book.candles(timeframe=place, frontier_ms=frontier_ms, flush=False)
            offset = offsets[-1] + 1
            book.committed(frontiers_ms=frontiers_ms, offsets=[offset] * frames, flushed=[0] * frames)
    return process_time() - began
