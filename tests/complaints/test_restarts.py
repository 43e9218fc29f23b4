"""Restarts in mid-window, with another grace and another timeframe: nothing lost, nothing twice (specification §8)."""

from collections import defaultdict
from pathlib import Path

from program import differences, environment, run_well
from streamingcandle.candles.candle import Candle, decode_candle
from streamingcandle.candles.reference import Record, Reference
from streamingcandle.embedded.store import EmbeddedStore
from streamingcandle.settings import load_settings
from streamingcandle.simulation.market import Market, ticks

OPEN_MS = 1_767_325_500_000
# Grace, timeframes, and whether the run flushes, of one process after the other.
RUNS = (
    ("10s", "1m,5m", ""),
    ("1s", "1m,5m", "--flush"),
    ("10s", "1m,3m,5m", ""),
    ("1s", "5m", ""),
    ("1s", "1m,3m,5m", "--flush"),
)


def test_changed_rules_over_restarts(tmp_path: Path) -> None:
    variables = environment("t", tmp_path, None)
    lines = [tick.value for tick in ticks(Market(12, seed=5), start_ms=OPEN_MS, rate_per_s=3, count=2_000)]
    size = len(lines) // len(RUNS)
    for piece, (grace, timeframes, flush) in enumerate(RUNS):
        path = tmp_path / f"{piece}.jsonl"
        path.write_bytes(b"\n".join(lines[piece * size : (piece + 1) * size]))
        run_well(variables, "ingest", str(path))
        rules = {"STREAMINGCANDLE_GRACE": grace, "STREAMINGCANDLE_TIMEFRAMES": timeframes}
        run_well(variables | rules, "run", "--until-end", *flush.split())

    store = EmbeddedStore(tmp_path / "data" / "log.sqlite3")
    reference = Reference(load_settings({}, {"STREAMINGCANDLE_TIMEFRAMES": "1m,3m,5m"}).rules())
    for record in store.read("t-ticks", 0, 0, 10_000):
        reference.fold(Record(record.value, record.timestamp_ms, record.offset))
    published: dict[tuple[str, str, int], list[Candle]] = defaultdict(list)
    for topic in ("t-1-min-candle", "t-3-min-candle", "t-5-min-candle"):
        for record in store.read(topic, 0, 0, 100_000):
            candle = decode_candle(record.value or b"")
            published[(record.key or b"").decode(), candle.timeframe, candle.window_start_millis].append(candle)
    store.close()
    # 3m came later: windows that were over by then stay unpublished, as a new timeframe begins at the feed clock.
    wanted = {key: candle for key, candle in reference.candles().items() if key[1] != "3m" or key in published}
    assert len([key for key in wanted if key[1] == "3m"]) > 12
    assert differences({key: candles[-1] for key, candles in published.items()}, wanted) == []
    for candles in published.values():
        offsets = [candle.source_offset for candle in candles]
        assert offsets == sorted(set(offsets)), "published twice without a change"
        assert [candle.revised for candle in candles] == [index > 0 for index in range(len(candles))]
