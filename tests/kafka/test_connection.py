"""The way to the broker is cut, held up or slow, while ticks come in."""

from pathlib import Path

from disturbance import Deployment, market
from proxy import OFFSET_FETCH, Proxied

RESUMED_S = 5.0


def test_cut_and_mended(proxied: Proxied, topic_prefix: str, tmp_path: Path) -> None:
    feed = market(2_000)
    with Deployment(proxied.broker, topic_prefix, tmp_path, through=proxied.proxy.bootstrap) as deployment:
        service = deployment.start()
        deployment.await_partitions()
        for turn, piece in enumerate((feed[:1_000], feed[1_000:]), start=1):
            with deployment.feeding(piece, rate_per_s=1_000), proxied.proxy.cut():
                service.await_line("broker lost", count=turn)
            deployment.await_committed(limit_s=RESUMED_S)
        assert service.text.count("broker lost") == service.text.count("broker back") == 2, service.text
        deployment.stop_all()
        deployment.check()


def test_a_broker_that_does_not_answer(proxied: Proxied, topic_prefix: str, tmp_path: Path) -> None:
    feed = market(2_000)
    with Deployment(proxied.broker, topic_prefix, tmp_path, through=proxied.proxy.bootstrap) as deployment:
        service = deployment.start()
        deployment.feed(feed[:1_000])
        deployment.await_committed()
        with deployment.feeding(feed[1_000:], rate_per_s=1_000), proxied.proxy.held():
            service.await_line("broker lost")
        deployment.await_committed(limit_s=RESUMED_S)
        deployment.stop_all()
        deployment.check()


def test_a_broker_that_falls_silent_while_partitions_are_taken_over(
    proxied: Proxied, topic_prefix: str, tmp_path: Path
) -> None:
    with Deployment(proxied.broker, topic_prefix, tmp_path, through=proxied.proxy.bootstrap) as deployment:
        deployment.feed(market(2_000))
        proxied.proxy.hold_before(OFFSET_FETCH)
        service = deployment.start()
        proxied.proxy.await_met()
        service.await_line("broker lost")
        proxied.proxy.release()
        deployment.await_committed()
        deployment.stop_all()
        deployment.check()


def test_a_slow_way(proxied: Proxied, topic_prefix: str, tmp_path: Path) -> None:
    proxied.proxy.delay_s = 0.1
    try:
        with Deployment(proxied.broker, topic_prefix, tmp_path, through=proxied.proxy.bootstrap) as deployment:
            service = deployment.start()
            with deployment.feeding(market(2_000), rate_per_s=500):
                deployment.await_committed(1)
            deployment.await_committed()
            deployment.stop_all()
            assert "broker lost" not in service.text
            deployment.check()
    finally:
        proxied.proxy.delay_s = 0.0


def test_a_stop_while_nobody_answers(proxied: Proxied, topic_prefix: str, tmp_path: Path) -> None:
    with Deployment(proxied.broker, topic_prefix, tmp_path, through=proxied.proxy.bootstrap) as deployment:
        service = deployment.start()
        with deployment.feeding(market(2_000), rate_per_s=1_000):
            deployment.await_committed(1)
            with proxied.proxy.held():
                # Of what it could not read it cannot know: 0 where all it has read is committed.
                assert service.stop() in {0, 3}, service.text
        deployment.check()
