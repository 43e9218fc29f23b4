"""Somebody falls silent while the service runs: the last candle comes all the same, on time and once.

One instrument, one partition, all of them: no neighbour's tick is needed for a neighbour's candle, and a
due window is decided within 50 ms on an idle machine (the median of several: one slow moment of a shared
machine is none of ours).
"""

import subprocess
from collections import defaultdict
from contextlib import closing
from pathlib import Path

import pytest

from program import PROGRAM, environment, run_well
from streamingcandle.candles.candle import Candle, decode_candle
from streamingcandle.candles.murmur2 import partition_of
from streamingcandle.clock import SystemClock
from streamingcandle.embedded.store import EmbeddedStore

LENGTH_MS = 1_000
GRACE_MS = 1_000
LIVE_MS = 6_000
STEP_MS = 50
LIMIT_MS = 30_000
TICK_READ_MS = 20
"""From a tick's event time to its reading: the embedded log looks for news every 10 ms."""
DECIDED_MS = 50


def _token(partition: int) -> int:
    return next(token for token in range(1_000) if partition_of(str(token).encode(), 2) == partition)


LOUD, SAME_PARTITION, OTHER_PARTITION = _token(0), _token(0) + 1_000, _token(1)


@pytest.mark.parametrize(
    ("silent", "loud"),
    [
        pytest.param(SAME_PARTITION, (LOUD,), id="one-instrument"),
        pytest.param(OTHER_PARTITION, (LOUD,), id="one-partition"),
        pytest.param(OTHER_PARTITION, (), id="all-partitions"),
    ],
)
def test_the_last_candle_comes(silent: int, loud: tuple[int, ...], tmp_path: Path) -> None:
    variables = environment("t", tmp_path, None) | {
        "STREAMINGCANDLE_TIMEFRAMES": "1s",
        "STREAMINGCANDLE_CANDLE_TOPIC_SECONDS": "t-{n}-sec-candle",
        "STREAMINGCANDLE_OUTSIDE_SESSION": "keep",
    }
    run_well(variables, "topics", "ensure", "--partitions", "2")
    clock = SystemClock()
    with closing(EmbeddedStore(tmp_path / "data" / "log.sqlite3")) as store:
        with subprocess.Popen([PROGRAM, "run"], env=variables, stderr=subprocess.PIPE) as process:
            try:
                began_ms = clock.wall_ms()
                silent_from_ms = began_ms + LIVE_MS // 2
                sent_ms = []
                while (now_ms := clock.wall_ms()) < began_ms + LIVE_MS:
                    tokens = (*loud, silent) if now_ms < silent_from_ms else loud
                    sent_ms += [now_ms] if silent in tokens else []
                    store.append("t-ticks", [_tick(token, now_ms) for token in tokens])
                    clock.sleep_ms(STEP_MS)
                _await_all(store, clock, process)
            finally:
                process.terminate()
            assert process.wait(LIMIT_MS / 1_000) == 0
        candles = _candles(store)
    starts = [candle.window_start_millis for candle, _ in candles[silent]]
    assert starts == sorted({at_ms // LENGTH_MS * LENGTH_MS for at_ms in sent_ms})
    delays_ms = sorted(
        written_ms - candle.window_end_millis - GRACE_MS for found in candles.values() for candle, written_ms in found
    )
    assert delays_ms[0] >= -DECIDED_MS, delays_ms
    assert delays_ms[len(delays_ms) // 2] < TICK_READ_MS + DECIDED_MS, delays_ms


def _tick(token: int, at_ms: int) -> tuple[bytes, bytes, int, tuple[()]]:
    value = f'{{"Exch":"N","ExchType":"C","Token":{token},"LastRate":100.5,"LastQty":1,"TickDt":"/Date({at_ms})/"}}'
    return str(token % 1_000).encode(), value.encode(), at_ms, ()


def _candles(store: EmbeddedStore) -> dict[int, list[tuple[Candle, int]]]:
    found = defaultdict(list)
    partitions = dict(store.topics()).get("t-1-sec-candle", 0)
    for partition in range(partitions):
        for record in store.read("t-1-sec-candle", partition, 0, 10_000):
            candle = decode_candle(record.value or b"")
            found[int(candle.scrip_code)].append((candle, record.timestamp_ms))
    return found


def _await_all(store: EmbeddedStore, clock: SystemClock, process: subprocess.Popen[bytes]) -> None:
    """Until every tick is in a candle: none is sent any more."""
    sent = sum(store.end("t-ticks", partition) for partition in range(2))
    until_ms = clock.monotonic_ms() + LIMIT_MS
    while sum(candle.ticks for found in _candles(store).values() for candle, _ in found) < sent:
        assert clock.monotonic_ms() < until_ms, "candles are missing"
        assert process.poll() is None
        clock.sleep_ms(STEP_MS)
