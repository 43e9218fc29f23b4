"""Two processes told to be the same instance: one ends with exit 4, the other makes the candles."""

import shutil
from pathlib import Path

from broker import Broker
from disturbance import Deployment, market


def test_the_second_on_one_state_directory_is_refused(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    with Deployment(broker, topic_prefix, tmp_path) as deployment:
        first = deployment.start("--instance", "0")
        deployment.feed(market(2_000))
        deployment.await_committed(1)
        second = deployment.start("--instance", "0")
        assert second.await_end() == 4
        assert f"pid {first.process.pid}" in second.text
        deployment.await_committed()
        deployment.stop_all()
        deployment.check()


def test_the_first_is_fenced_by_a_second_with_its_name(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    """As two containers with one host name are; here the lock is deleted from under the first while it stands."""
    with Deployment(broker, topic_prefix, tmp_path) as deployment:
        with deployment.feeding(market(2_000), rate_per_s=400):
            first = deployment.start()
            deployment.await_committed(1)
            first.freeze()
            shutil.rmtree(tmp_path / "state")
            second = deployment.start()
            second.await_line("taken over")
            first.thaw()
            assert first.await_end() == 4, first.text
        # Whichever it sees first: the other's lock and owner file, or the group's answer.
        said = first.text.splitlines()[-1]
        assert f"taken by pid {second.process.pid}" in said or "another process has taken its place" in said
        deployment.await_committed()
        assert second.stop() == 0
        deployment.check()
