"""Several processes share the partitions: one is killed, one frozen beyond its session and thawed, one added."""

from pathlib import Path

from broker import Broker
from disturbance import Deployment, market


def test_one_killed_one_frozen_one_added(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    feed = market(2_000)
    with Deployment(broker, topic_prefix, tmp_path, partitions=6) as deployment:
        first, second, third = (deployment.start() for _ in range(3))
        deployment.feed(feed[:700])
        deployment.await_committed()
        for service in (first, second, third):
            service.await_line("taken over")
        with deployment.feeding(feed[700:1_400], rate_per_s=700):
            first.kill()
            second.freeze()
        added = deployment.start()
        # Only when the sessions of both are over is everything committed.
        deployment.await_committed()
        second.thaw()
        second.await_line("partitions given up")
        deployment.feed(feed[1_400:])
        deployment.await_committed()
        assert [one.process.poll() for one in (second, third, added)] == [None, None, None], second.text
        deployment.stop_all()
        deployment.check()
