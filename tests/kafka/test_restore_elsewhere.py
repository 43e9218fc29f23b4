"""`state backup` beside a running service, `state restore` on a new host and a new cluster, and where it must not."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker import Broker
from disturbance import Deployment, await_that, market
from mirror import mirror_candles, mirror_ticks, once_idle
from program import run, run_well

TICKS = market(1_800, instruments=20)
OFTEN = {"STREAMINGCANDLE_SNAPSHOT_INTERVAL": "200ms", "STREAMINGCANDLE_COMMIT_INTERVAL": "100ms"}
OFTEN |= {"STREAMINGCANDLE_KAFKA_SESSION_TIMEOUT_MS": "2000"}


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Give another cluster."""
    with Broker(tmp_path_factory.mktemp("second")) as running:
        yield running


def restore(deployment: Deployment, backup: Path, *arguments: str) -> dict[str, str]:
    """What it tells, by its first word."""
    done = once_idle(deployment.variables, "state", "restore", str(backup), *arguments)
    assert done.returncode == 0, done.stderr
    return dict(line.split("\t", 1) for line in done.stdout.decode().splitlines())


def refused(deployment: Deployment, backup: Path, *arguments: str) -> str:
    """The one line, of exit code 1."""
    done = once_idle(deployment.variables, "state", "restore", str(backup), *arguments)
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1), done.stderr
    return done.stderr.decode()


def test_to_a_new_host(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    backup = tmp_path / "a.backup"
    with Deployment(broker, topic_prefix, tmp_path, settings=OFTEN) as deployment:
        service = deployment.start()
        with deployment.feeding(TICKS[:900], rate_per_s=1_000):
            deployment.await_committed(500)
            folder = tmp_path / "state" / f"{topic_prefix}-app" / "instance-0"
            await_that(lambda: len({path.name[:-2] for path in folder.glob("snapshot-?-?")}) == 3, "snapshots of all")
            # Beside it: whatever is being written now, no snapshot is ahead of the offsets.
            told = json.loads(run_well(deployment.variables, "state", "backup", str(backup), "--json"))
        assert sorted(told["offsets"]) == ["0", "1", "2"]
        assert told["snapshots"] == [0, 1, 2]
        done = run(deployment.variables, "state", "restore", str(backup))
        assert (done.returncode, done.stderr.count(b"\n")) == (4, 1), done.stderr
        deployment.feed(TICKS[900:1_200])
        deployment.await_committed()
        service.kill()
        shutil.rmtree(tmp_path / "state")
        deployment.variables["STREAMINGCANDLE_STATE_DIR"] = str(tmp_path / "new")
        told = restore(deployment, backup)
        assert (told["offsets"], told["snapshots"]) == (
            "the group's are newer than the backup's, and stay",
            "of partitions 0, 1, 2",
        )
        deployment.feed(TICKS[1_200:])
        service = deployment.start()
        service.await_line("restored", count=3)
        deployment.await_committed()
        deployment.stop_all()
        deployment.check()


def test_to_a_new_cluster(broker: Broker, second: Broker, topic_prefix: str, tmp_path: Path) -> None:
    backup = tmp_path / "a.backup"
    with Deployment(broker, topic_prefix, tmp_path, settings=OFTEN) as former:
        former.feed(TICKS[:1_200])
        run_well(former.variables, "run", "--until-end")
        run_well(former.variables, "state", "backup", str(backup))
        former.await_settled()
        folder = tmp_path / "there"
        folder.mkdir()
        with Deployment(second, topic_prefix, folder, settings=OFTEN) as deployment:
            told = restore(deployment, backup, "--dry-run")
            assert told["offsets"].startswith("not set: the tick topic is another one, and empty")
            mirror_ticks(former, deployment)
            # The offsets would say that candles are out which no reader finds there.
            told = restore(deployment, backup, "--dry-run")
            assert told["offsets"].startswith("not set: no candle topic holds any")
            mirror_candles(former, deployment)
            told = restore(deployment, backup)
            assert told["offsets"].endswith(", set")
            assert told["snapshots"] == "of partitions 0, 1, 2"
            # Again: what is there is there, and with leave to replace it nothing else comes of it.
            assert "there already; --replace" in refused(deployment, backup)
            assert restore(deployment, backup, "--replace")["offsets"] == "the group's are the backup's"
            shutil.rmtree(folder / "state")  # so that it is the topic's snapshots that are restored
            deployment.feed(TICKS[1_200:])
            service = deployment.start()
            service.await_line("(snapshots topic) restored", count=3)
            deployment.await_committed()
            deployment.stop_all()
            deployment.check()
