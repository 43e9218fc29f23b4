"""The broker goes away under a running service: it is waited for, told in two lines, and candles resume."""

import re
from pathlib import Path

from broker import Broker
from disturbance import Deployment, market

RESUMED_S = 5.0
"""What the service promises, from the broker's return to the next candle: one busy moment of the machine is not its."""


def test_candles_resume_after_the_brokers_return(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    feed = market(2_000)
    resumed_s = []
    with Deployment(broker, topic_prefix, tmp_path) as deployment:
        service = deployment.start()
        deployment.feed(feed[:800])
        for turn, (end, piece) in enumerate(((broker.stop, feed[800:1_400]), (broker.kill, feed[1_400:])), start=1):
            deployment.await_committed()
            # A single broker that is killed forgets the marks of a transaction it has not marked in every topic yet.
            deployment.await_settled()
            end()
            service.await_line("broker lost", count=turn)
            broker.start()
            count = deployment.candle_count()
            deployment.feed(piece)
            resumed_s.append(deployment.await_candle(count))
        deployment.await_committed()
        assert min(resumed_s) < RESUMED_S, resumed_s
        assert len(re.findall(r"broker back after \d+ s", service.text)) == 2
        assert service.text.count("broker lost") == 2, service.text
        assert len(service.text.splitlines()) < 50, service.text
        deployment.stop_all()
        deployment.check()


def test_a_stop_while_the_broker_is_away_is_exit_3(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    with Deployment(broker, topic_prefix, tmp_path) as deployment:
        service = deployment.start()
        deployment.feed(market(2_000))
        deployment.await_committed()
        deployment.await_settled()
        broker.kill()
        try:
            service.await_line("broker lost")
            assert service.stop() == 3
        finally:
            broker.start()
        assert service.text.splitlines()[-1].startswith("streamingcandle: ")
        deployment.check()
