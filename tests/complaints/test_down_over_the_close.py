"""The service is down as the last window ends: after its restart the candle comes, once, with no further tick."""

import subprocess
from pathlib import Path

from program import PROGRAM, environment, run_well
from streamingcandle.candles.candle import Candle, decode_candle
from streamingcandle.clock import SystemClock
from streamingcandle.embedded.store import EmbeddedStore
from streamingcandle.simulation.market import Market, ticks

OPEN_MS = 1_767_325_500_000
LIMIT_MS = 30_000


def _candles(store: EmbeddedStore) -> list[Candle]:
    return [decode_candle(record.value or b"") for record in store.read("t-2-sec-candle", 0, 0, 10_000)]


def test_the_last_candle_comes_after_a_restart(tmp_path: Path) -> None:
    variables = environment("t", tmp_path, None) | {
        "STREAMINGCANDLE_TIMEFRAMES": "2s",
        "STREAMINGCANDLE_CANDLE_TOPIC_SECONDS": "t-{n}-sec-candle",
    }
    feed = ticks(Market(1, seed=5, disorder=0), start_ms=OPEN_MS, rate_per_s=10, count=45)
    (tmp_path / "ticks.jsonl").write_bytes(b"\n".join(tick.value for tick in feed))
    run_well(variables, "ingest", str(tmp_path / "ticks.jsonl"))
    run_well(variables, "run", "--until-end")
    store = EmbeddedStore(tmp_path / "data" / "log.sqlite3")
    assert [candle.window_start_millis - OPEN_MS for candle in _candles(store)] == [0]

    clock = SystemClock()
    until_ms = clock.monotonic_ms() + LIMIT_MS
    with subprocess.Popen([PROGRAM, "run"], env=variables, stderr=subprocess.PIPE) as process:
        try:
            while len(_candles(store)) < 3:
                assert clock.monotonic_ms() < until_ms, "the last candle did not come"
                assert process.poll() is None
                clock.sleep_ms(20)
        finally:
            process.terminate()
        assert process.wait(LIMIT_MS / 1_000) == 0
    run_well(variables, "run", "--until-end", "--flush")
    assert [candle.window_start_millis - OPEN_MS for candle in _candles(store)] == [0, 2_000, 4_000]
    store.close()
