"""The broker goes away under a running `watch`: it says so in one line, says when it is back, and goes on."""

import re
from pathlib import Path

from broker import Broker
from disturbance import Deployment, await_that, market
from program import reference_candles
from watching import watching

TICKS = market(1_300)
"""Of 260 s: the last minute is 20 s old, so that it forms while the test runs."""
PIECES = (TICKS[:400], TICKS[400:850], TICKS[850:])
LAST_MS = max(tick.at_ms for tick in TICKS)


def test_it_goes_on_after_the_brokers_return(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    with (
        Deployment(broker, topic_prefix, tmp_path) as deployment,
        watching(deployment.variables, tmp_path, "--timeframe", "1m") as watch,
    ):
        watch.await_line(": taken over", count=3)
        service = deployment.start()
        deployment.feed(PIECES[0])
        for turn, (end, piece) in enumerate(((broker.stop, PIECES[1]), (broker.kill, PIECES[2])), start=1):
            deployment.await_committed()
            deployment.await_settled()
            end()
            watch.await_line("broker lost", count=turn)
            broker.start()
            deployment.feed(piece)
        wanted = reference_candles(deployment.bootstrap, deployment.tick_topic)
        watch.await_all(wanted, label="1m", last_ms=LAST_MS)
        assert len(re.findall(r"broker back after \d+ s", watch.log)) == 2, watch.log
        assert watch.log.count("broker lost") == 2, watch.log
        # Beside those four the three partitions, and a question or two of a broker that has just come up.
        assert len(watch.log.splitlines()) < 15, watch.log
        assert watch.stop() == 0
        deployment.await_committed()
        assert service.process.poll() is None
        deployment.stop_all()
        deployment.check()


def test_a_stop_while_the_broker_is_away_is_a_stop(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    with (
        Deployment(broker, topic_prefix, tmp_path) as deployment,
        watching(deployment.variables, tmp_path, "--timeframe", "1m") as watch,
    ):
        deployment.feed(PIECES[0])
        await_that(lambda: bool(watch.latest("forming")), "the first forming candle")
        broker.kill()
        try:
            watch.await_line("broker lost")
            assert watch.stop() == 0
        finally:
            broker.start()
        assert "Traceback" not in watch.log
