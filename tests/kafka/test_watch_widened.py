"""Partitions are added to the tick topic under a running `watch`: it shows them too, soon after the group has them."""

from pathlib import Path

from broker import Broker
from disturbance import Deployment, market
from program import reference_candles
from streamingcandle.candles.murmur2 import partition_of
from watching import watching

TICKS = market(1_300)
"""Of 260 s: the last minute is 20 s old, so that it forms while the test runs."""
HALF = 650
NOTICED = {
    "STREAMINGCANDLE_KAFKA_TOPIC_METADATA_REFRESH_INTERVAL_MS": "1000",
    # Its instruments stay where they are, which it cannot know.
    "STREAMINGCANDLE_PARTITION_CHECK": "warn",
}


def test_partitions_added_are_shown(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    homes = {tick.key for tick in TICKS}
    new = [tick for tick in market(1_300, instruments=120) if tick.key not in homes]
    last_ms = max(tick.at_ms for tick in (*TICKS, *new))
    with Deployment(broker, topic_prefix, tmp_path, settings=NOTICED) as deployment:
        with watching(deployment.variables, tmp_path, "--timeframe", "1m") as watch:
            watch.await_line(": taken over", count=3)
            service = deployment.start()
            deployment.feed(TICKS[:HALF])
            deployment.await_committed()
            deployment.widen(5)
            watch.await_line(": taken over", count=5)
            for number in range(3):
                deployment.feed([t for t in TICKS[HALF:] if partition_of(t.key, 3) == number], partition=number)
            for number in (3, 4):
                deployment.feed([t for t in new if partition_of(t.key, 2) == number - 3], partition=number)
            wanted = reference_candles(deployment.bootstrap, deployment.tick_topic)
            assert {key[0].rpartition(":")[2].encode() for key in wanted} == homes | {tick.key for tick in new}
            watch.await_all(wanted, label="1m", last_ms=last_ms)
            assert len(watch.log.splitlines()) < 10, watch.log
            assert watch.stop() == 0
        deployment.await_committed()
        assert service.process.poll() is None
        deployment.stop_all()
        deployment.check()
