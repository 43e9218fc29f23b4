"""A live feed stopped in mid-minute: the last candles come out on time without a further tick."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition

from broker import Broker
from program import PROGRAM, environment, run, run_well
from streamingcandle.candles.candle import decode_candle
from streamingcandle.clock import SystemClock

LIMIT_S = 30
GRACE_MS = 1_000
TICKS_SEEN = 1_450
"""Of 1,500: a tick too late to change anything stays uncounted in its candle."""


@contextmanager
def _running(variables: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([PROGRAM, "run"], env=variables, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.terminate()
            assert process.wait(LIMIT_S) == 0


def test_last_candles_come_by_idle_time(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    variables = environment(topic_prefix, tmp_path, broker.bootstrap) | {
        "STREAMINGCANDLE_TIMEFRAMES": "2s",
        "STREAMINGCANDLE_CANDLE_TOPIC_SECONDS": f"{topic_prefix}-{{n}}-sec-candle",
        # Whenever the test runs, its exchanges are open.
        "STREAMINGCANDLE_OUTSIDE_SESSION": "keep",
    }
    run_well(variables, "topics", "ensure", "--partitions", "2")
    clock = SystemClock()
    consumer = Consumer(
        {"bootstrap.servers": broker.bootstrap, "group.id": f"{topic_prefix}-r", "isolation.level": "read_committed"}
    )
    topic = f"{topic_prefix}-2-sec-candle"
    consumer.assign([TopicPartition(topic, number, 0) for number in range(2)])
    try:
        with _running(variables):
            assert run(variables, "simulate", "--instruments", "20", "--rate", "200", "--ticks", "1500").returncode == 0
            delays_ms, ticks = [], 0
            until_ms = clock.monotonic_ms() + LIMIT_S * 1_000
            seen: dict[tuple[bytes, int], int] = {}
            while clock.monotonic_ms() < until_ms and ticks < TICKS_SEEN:
                message = consumer.poll(0.05)
                if message is None:
                    continue
                assert message.error() is None
                candle = decode_candle(message.value() or b"")
                seen[message.key() or b"", candle.window_start_millis] = candle.ticks
                ticks = sum(seen.values())
                written_ms = message.timestamp()[1]
                delays_ms.append(written_ms - candle.window_end_millis - GRACE_MS)
    finally:
        consumer.close()
    assert ticks >= TICKS_SEEN, f"{ticks} of 1500 ticks in candles"
    ordered = sorted(delays_ms)
    assert ordered[0] >= -2_000
    assert ordered[len(ordered) // 2] < 500, ordered
