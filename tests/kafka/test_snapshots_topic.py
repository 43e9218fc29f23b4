"""The snapshots topic alone, and without it: the state comes from where it is left."""

import shutil
from pathlib import Path

from confluent_kafka.admin import AdminClient

from broker import Broker
from disturbance import Deployment, await_that, market
from program import read_topic

TICKS = market(1_500)


def test_the_topic_alone_and_deleted(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    with Deployment(broker, topic_prefix, tmp_path) as deployment:
        deployment.feed(TICKS[:500])
        first = deployment.start("--until-end")
        assert first.await_end() == 0
        # A new host: no state directory.
        state = Path(deployment.variables["STREAMINGCANDLE_STATE_DIR"])
        shutil.rmtree(state)
        deployment.feed(TICKS[500:1_000])
        second = deployment.start("--until-end")
        assert second.await_end() == 0, second.text
        assert second.text.count("(snapshots topic) restored") == deployment.partitions, second.text

        shutil.rmtree(state)
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        topic = f"{topic_prefix}-app-snapshots"
        admin.delete_topics([topic])[topic].result(30)
        await_that(lambda: topic not in admin.list_topics().topics, "the topic is gone")
        deployment.feed(TICKS[1_000:])
        third = deployment.start("--until-end")
        assert third.await_end() == 0, third.text
        assert f"topic {topic} made" in third.text
        assert "folding from 0" in third.text
        deployment.check()


def test_the_topic_deleted_under_the_service(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    often = {"STREAMINGCANDLE_SNAPSHOT_INTERVAL": "200ms", "STREAMINGCANDLE_COMMIT_INTERVAL": "100ms"}
    with Deployment(broker, topic_prefix, tmp_path, settings=often) as deployment:
        service = deployment.start()
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        topic = f"{topic_prefix}-app-snapshots"

        def is_written() -> bool:
            return topic in admin.list_topics().topics and bool(read_topic(broker.bootstrap, topic))

        with deployment.feeding(TICKS, rate_per_s=25):
            await_that(is_written, "snapshots in the topic")
            admin.delete_topics([topic])[topic].result(30)
            service.await_line(f"topic {topic} made")
            await_that(is_written, "snapshots in the topic made anew")
        # A failure that is over before the next snapshot is due is not said.
        if "snapshots in the snapshots topic fail, the run goes on without" in service.text:
            service.await_line("snapshots in the snapshots topic are written again")
        deployment.await_committed()
        deployment.stop_all()
        deployment.check()
