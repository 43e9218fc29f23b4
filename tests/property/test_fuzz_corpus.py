"""What the fuzzers of rust/fuzz found worth keeping: the decoder against the reference, `load` against itself."""

import zlib
from pathlib import Path

import msgspec
import pytest

from streamingcandle.candles.book import FORMAT_VERSION, Book, judge, new_book
from streamingcandle.candles.candle import decode_candle
from streamingcandle.candles.reference import Record, Reference
from streamingcandle.candles.rules import Rules
from streamingcandle.settings import load_settings

CORPUS = Path(__file__).parents[2] / "rust" / "fuzz" / "corpus"
NOW_MS = 1_767_335_675_500
PLAIN = {"timeframes": "1m,1d"}
OTHER = PLAIN | {"quantity_decimals": "9", "outside_session": "keep"}
KEPT = PLAIN | {"quantity_decimals": "2", "outside_session": "keep"}


def _rules(flags: dict[str, str]) -> Rules:
    return load_settings(flags, {}).rules()


@pytest.mark.parametrize("flags", [PLAIN, OTHER])
@pytest.mark.parametrize("timestamp_ms", [NOW_MS, -1])
def test_kernel_and_reference_agree_on_every_record(flags: dict[str, str], timestamp_ms: int) -> None:
    rules = _rules(flags)
    files = sorted((CORPUS / "judge").iterdir())
    assert len(files) > 50
    for file in files:
        values = file.read_bytes().split(b"\xff")
        times_ms, offsets = [timestamp_ms] * len(values), list(range(len(values)))
        reference, book = Reference(rules), new_book(rules, partition=0)
        verdicts = [reference.fold(Record(value, timestamp_ms, offset)) for offset, value in enumerate(values)]
        rejects, _, _ = book.fold(values, times_ms, offsets)
        assert rejects == [(i, v.reason) for i, v in enumerate(verdicts) if v.kind == "rejected"], file.name
        for (reason, instrument, event_ms), verdict in zip(judge(rules, values, times_ms), verdicts, strict=True):
            assert reason == verdict.reason, file.name
            assert reason is not None or (instrument, event_ms) == (verdict.instrument, verdict.event_ms), file.name
        counts = book.ledger()
        assert {name: counts[name] for name in reference.ledger()} == reference.ledger(), file.name
        sheets = [book.candles(timeframe=place, frontier_ms=0, flush=True) for place in range(2)]
        # A forgotten instrument begins anew: of one window the later record holds, as for every reader.
        found = {}
        for key, candle in ((key.decode(), decode_candle(value)) for sheet in sheets for key, value in sheet):
            found[key, candle.timeframe, candle.window_start_millis] = msgspec.structs.replace(candle, revised=False)
        assert found == reference.candles(), file.name


def _sealed(body: bytes, rules: Rules) -> bytes:
    """Make a body into a dump whose checksum is right, the fuzzer's digest being `d`."""
    digest = rules.digest.encode()
    if body.startswith(b"\x01d"):
        body = bytes([len(digest)]) + digest + body[2:]
    return b"SCBK" + FORMAT_VERSION.to_bytes(2, "little") + zlib.crc32(body).to_bytes(4, "little") + body


def _go_on(book: Book) -> None:
    """A tick, a close, a commit: a loaded book is as good as any other."""
    offset = (book.position() or 0) + 1
    value = b'{"Exch":"N","ExchType":"C","Token":7,"LastRate":100.5,"LastQty":2,"TotalQty":50}'
    if offset < 2**62:
        book.fold([value, value], [NOW_MS, NOW_MS + 600_000], [offset, offset + 1])
    frontiers_ms = book.close(due_ms=[NOW_MS, NOW_MS], flush=True, candles_max=3)
    for place, frontier_ms in enumerate(frontiers_ms):
        book.candles(timeframe=place, frontier_ms=frontier_ms, flush=True)
    book.committed(frontiers_ms=frontiers_ms, offsets=[offset + 2] * 2, flushed=[0, 0])


def test_load_takes_any_body() -> None:
    rules = _rules(KEPT)
    loaded = 0
    for file in sorted((CORPUS / "load").iterdir()):
        book = new_book(rules, partition=0)
        try:
            fingerprint = book.load(_sealed(file.read_bytes(), rules))
        except ValueError:
            continue
        loaded += 1
        dumped = book.dump(fingerprint)
        again = new_book(rules, partition=0)
        assert again.load(dumped) == fingerprint
        assert again.dump(fingerprint) == dumped, file.name
        _go_on(book)
    assert loaded >= 9
