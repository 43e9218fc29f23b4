"""The broker goes away under a running service: it is waited for, told in two lines, and candles resume."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from broker import Broker
from disturbance import Deployment, await_that, market

RESUMED_S = 5.0
"""What the service promises, from the broker's return to the next candle."""


@pytest.mark.parametrize("end", [Broker.stop, Broker.kill], ids=["stopped", "killed"])
def test_candles_resume_after_the_brokers_return(
    broker: Broker, topic_prefix: str, tmp_path: Path, end: Callable[[Broker], None]
) -> None:
    feed = market(2_000)
    with Deployment(broker, topic_prefix, tmp_path) as deployment:
        service = deployment.start()
        deployment.feed(feed[:1_000])
        deployment.await_committed()
        # A single broker that is killed forgets the marks of a transaction it has not marked in every topic yet.
        deployment.await_settled()
        end(broker)
        service.await_line("broker lost")
        broker.start()
        count = deployment.candle_count()
        deployment.feed(feed[1_000:])
        await_that(lambda: deployment.candle_count() > count, "a new candle", limit_s=RESUMED_S)
        deployment.await_committed()
        assert re.search(r"broker back after \d+ s", service.text)
        assert service.text.count("broker lost") == service.text.count("broker back") == 1, service.text
        assert len(service.text.splitlines()) < 30, service.text
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
