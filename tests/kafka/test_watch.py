"""`watch` on a real broker: what forms equals the reference's, and the group does not notice."""

from pathlib import Path

from confluent_kafka.admin import AdminClient

from broker import Broker
from disturbance import Deployment, await_that, market
from program import reference_candles, run
from streamingcandle.candles.candle import Candle
from watching import watching

TICKS = market(1_300)
"""Of 260 s, the last minute 20 s old: no window closes by idle time while a test runs."""
HALF = 650


def _forming(deployment: Deployment, label: str) -> dict[tuple[str, str, int], Candle]:
    candles = reference_candles(deployment.bootstrap, deployment.tick_topic)
    last_ms = max(tick.at_ms for tick in TICKS)
    return {key: c for key, c in candles.items() if key[1] == label and c.window_end_millis > last_ms}


def _group(deployment: Deployment) -> tuple[str, list[tuple[str, list[int]]]]:
    """Its state, and its members with what each has."""
    admin = AdminClient({"bootstrap.servers": deployment.bootstrap, "log_level": 0})
    name = f"{deployment.prefix}-app"
    described = admin.describe_consumer_groups([name])[name].result(30)
    members = [(m.member_id, sorted(p.partition for p in m.assignment.topic_partitions)) for m in described.members]
    return str(described.state), sorted(members)


def _groups(deployment: Deployment) -> set[str]:
    admin = AdminClient({"bootstrap.servers": deployment.bootstrap, "log_level": 0})
    return {group.group_id for group in admin.list_consumer_groups().result(30).valid}


def test_after_a_snapshot_in_mid_window_beside_a_running_group(
    broker: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    often = {"STREAMINGCANDLE_SNAPSHOT_INTERVAL": "200ms"}
    with Deployment(broker, topic_prefix, tmp_path, settings=often) as deployment:
        deployment.feed(TICKS[:HALF])
        service = deployment.start()
        deployment.await_committed()
        before, groups = _group(deployment), _groups(deployment)
        with watching(deployment.variables, tmp_path, "--timeframe", "30m") as watch:
            await_that(lambda: bool(watch.latest("forming")), "the first forming candle")
            deployment.feed(TICKS[HALF:])
            watch.await_equal("forming", _forming(deployment, "30m"))
            assert ") restored" in watch.log, watch.log
            deployment.await_committed()
            assert (_group(deployment), _groups(deployment)) == (before, groups)
            assert watch.stop() == 0
        assert _group(deployment) == before
        assert service.process.poll() is None
        deployment.stop_all()
        deployment.check()


def test_no_group_is_made_where_there_is_none(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    with Deployment(broker, topic_prefix, tmp_path) as deployment:
        deployment.feed(TICKS)
        names = set(AdminClient({"bootstrap.servers": broker.bootstrap}).list_topics().topics)
        with watching(deployment.variables, tmp_path, "--timeframe", "1m") as watch:
            watch.await_equal("forming", _forming(deployment, "1m"))
            assert watch.stop() == 0
        assert deployment.committed() == 0
        assert f"{topic_prefix}-app" not in _groups(deployment)
        assert set(AdminClient({"bootstrap.servers": broker.bootstrap}).list_topics().topics) == names
        assert not (tmp_path / "state").exists()


def test_a_missing_topic_is_one_line(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    with Deployment(broker, topic_prefix, tmp_path) as deployment:
        elsewhere = deployment.variables | {"STREAMINGCANDLE_TICK_TOPIC": f"{topic_prefix}-elsewhere"}
        done = run(elsewhere, "watch")
        assert (done.returncode, done.stdout) == (2, b"")
        assert f"topic {topic_prefix}-elsewhere" in done.stderr.decode().splitlines()[-1]
