"""The answer to a commit, or the commit itself, is lost on the way; a transaction lasts too long."""

from collections.abc import Callable
from pathlib import Path

import pytest

from disturbance import Deployment, await_that, market
from proxy import ADD_OFFSETS_TO_TXN, END_TXN, TXN_OFFSET_COMMIT, Proxied, Proxy

RATE_PER_S = 100
"""So that ticks still come when a rule is set on a slow machine."""
TRANSACTION_MS = 3_000
PIECE = 500


@pytest.mark.parametrize(
    ("lose", "api_key"),
    [
        pytest.param(Proxy.lose_answer, END_TXN, id="answer-to-end"),
        pytest.param(Proxy.cut_before, END_TXN, id="end"),
        pytest.param(Proxy.lose_answer, TXN_OFFSET_COMMIT, id="answer-to-offsets"),
        pytest.param(Proxy.cut_before, ADD_OFFSETS_TO_TXN, id="announcement"),
    ],
)
def test_lost_in_the_middle_of_a_commit(
    proxied: Proxied, topic_prefix: str, tmp_path: Path, lose: Callable[[Proxy, int], None], api_key: int
) -> None:
    feed = market(2_000)
    with Deployment(proxied.broker, topic_prefix, tmp_path, through=proxied.proxy.bootstrap) as deployment:
        deployment.start()
        for first in range(0, len(feed), PIECE):
            with deployment.feeding(feed[first : first + PIECE], rate_per_s=1_000):
                lose(proxied.proxy, api_key)
                proxied.proxy.await_met()
            deployment.await_committed()
        deployment.stop_all()
        deployment.check()


def test_stopped_before_the_answer_to_a_commit_comes(proxied: Proxied, topic_prefix: str, tmp_path: Path) -> None:
    with Deployment(proxied.broker, topic_prefix, tmp_path, through=proxied.proxy.bootstrap) as deployment:
        with deployment.feeding(market(2_000), rate_per_s=RATE_PER_S):
            service = deployment.start()
            deployment.await_committed(1)
            proxied.proxy.lose_answer(END_TXN)
            proxied.proxy.await_met()
            with proxied.proxy.cut():
                assert service.stop() == 3, service.text
        deployment.check()


def test_a_doubt_is_settled_when_the_broker_is_back(proxied: Proxied, topic_prefix: str, tmp_path: Path) -> None:
    with Deployment(proxied.broker, topic_prefix, tmp_path, through=proxied.proxy.bootstrap) as deployment:
        service, feed = deployment.start(), market(2_000)
        with deployment.feeding(feed[:1_900], rate_per_s=RATE_PER_S):
            deployment.await_committed(1)
            proxied.proxy.lose_answer(END_TXN)
            proxied.proxy.await_met()
            with proxied.proxy.cut():
                service.await_line("in doubt")
        # What was in doubt may have been all there was: committed, but not yet known to the service.
        deployment.feed(feed[1_900:])
        deployment.await_committed()
        deployment.stop_all()
        deployment.check()


def test_frozen_inside_a_transaction_beyond_its_timeout(proxied: Proxied, topic_prefix: str, tmp_path: Path) -> None:
    settings = {"STREAMINGCANDLE_KAFKA_TRANSACTION_TIMEOUT_MS": str(TRANSACTION_MS)}
    with Deployment(
        proxied.broker, topic_prefix, tmp_path, through=proxied.proxy.bootstrap, settings=settings
    ) as deployment:
        service = deployment.start()
        with deployment.feeding(market(2_000), rate_per_s=RATE_PER_S):
            deployment.await_committed(1)
            proxied.proxy.hold_before(END_TXN)
            proxied.proxy.await_met()
            service.freeze()
            # The broker gives the transaction up: readers see the end again.
            await_that(lambda: bool(deployment.unsettled()), "a transaction is open")
            deployment.await_settled()
            proxied.proxy.release()
            service.thaw()
        deployment.await_committed()
        deployment.stop_all()
        deployment.check()
