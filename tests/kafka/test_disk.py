"""The state directory's disk is full or read-only, while the service runs or from its start: no candle minds."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path

import pytest

from broker import Broker
from disk import Disk, mounted
from disturbance import Deployment, Service, await_that, market
from program import run_well
from streamingcandle.simulation.market import MarketTick
from streamingcandle.state.owner import read_owner
from streamingcandle.state.snapshot import Snapshot

TICKS = market(6_000)
LOOK_TICKS = 5
FAIL = "snapshots in the state directory fail, the run goes on without"
AGAIN = "snapshots in the state directory are written again"
OFTEN = {"STREAMINGCANDLE_SNAPSHOT_INTERVAL": "200ms", "STREAMINGCANDLE_COMMIT_INTERVAL": "100ms"}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Give a disk with room."""
    with mounted(tmp_path / "disk") as made:
        yield made


@pytest.fixture
def deployment(broker: Broker, topic_prefix: str, tmp_path: Path, disk: Disk) -> Iterator[Deployment]:
    """Give a deployment with its state on the disk, and a temp directory of its own."""
    (tmp_path / "temp").mkdir()
    settings = OFTEN | {"STREAMINGCANDLE_STATE_DIR": str(disk.path), "TMPDIR": str(tmp_path / "temp")}
    with Deployment(broker, topic_prefix, tmp_path, settings=settings) as made:
        yield made


def _offsets(folder: Path) -> list[int]:
    """Of each partition with snapshots in there, how far the youngest goes. Each must be whole."""
    found: Counter[int] = Counter()
    for path in folder.rglob("snapshot-?-?"):
        snapshot = Snapshot.decode(path.read_bytes())
        found[snapshot.partition] = max(found[snapshot.partition], snapshot.offset)
    return list(found.values())


def _feed_until(is_so: Callable[[], bool], what: str, deployment: Deployment, feed: Iterator[MarketTick]) -> None:
    """Each look at it sends a few ticks: without any there is nothing to write."""

    def look() -> bool:
        deployment.feed(list(islice(feed, LOOK_TICKS)))
        return is_so()

    await_that(look, what)


def _go_through(deployment: Deployment, feed: Iterator[MarketTick], service: Service) -> None:
    """With the disk failing: it says so, and commits what comes."""
    _feed_until(lambda: FAIL in service.text, FAIL, deployment, feed)
    deployment.feed(list(islice(feed, 200)))
    deployment.await_committed()


def _end(deployment: Deployment, disk: Disk, service: Service, *said: str) -> None:
    """Each line was said once; what lies on the disk is whole and goes to the end."""
    deployment.await_committed()
    deployment.stop_all()
    for line in said:
        assert service.text.count(line) == 1, service.text[-3_000:]
    assert sum(_offsets(disk.path)) == deployment.sent
    assert b"damaged" not in run_well(deployment.variables, "state", "verify")
    deployment.check()


@pytest.mark.parametrize(
    ("outage", "reason"), [(Disk.full, "No space left on device"), (Disk.read_only, "Read-only file system")]
)
def test_while_it_runs(
    deployment: Deployment, disk: Disk, outage: Callable[[Disk], AbstractContextManager[None]], reason: str
) -> None:
    feed = iter(TICKS)
    service = deployment.start()
    _feed_until(lambda: len(_offsets(disk.path)) == deployment.partitions, "snapshots", deployment, feed)
    with outage(disk):
        _go_through(deployment, feed, service)
        assert len(_offsets(disk.path)) == deployment.partitions
    _feed_until(lambda: AGAIN in service.text, AGAIN, deployment, feed)
    _end(deployment, disk, service, FAIL, f"{disk.path}/{deployment.prefix}-app/instance-0: {reason}", AGAIN)


def test_full_from_the_start(deployment: Deployment, disk: Disk) -> None:
    feed = iter(TICKS)
    instance = disk.path / f"{deployment.prefix}-app" / "instance-0"
    with disk.full():
        service = deployment.start()
        _go_through(deployment, feed, service)
        assert (_offsets(disk.path), read_owner(instance)) == ([], None)
    _feed_until(lambda: AGAIN in service.text, AGAIN, deployment, feed)
    await_that(lambda: read_owner(instance) is not None, "a word of who owns it")
    assert service.text.count("No space left on device") == 2  # of the owner's file, of the snapshots
    _end(deployment, disk, service, f"{instance}/owner: No space left on device; going on", FAIL, AGAIN)


def test_read_only_at_a_start(deployment: Deployment, disk: Disk, tmp_path: Path) -> None:
    deployment.start()
    deployment.feed(TICKS[:500])
    deployment.await_committed()
    deployment.stop_all()
    left = _offsets(disk.path)
    with disk.read_only():
        service = deployment.start()
        deployment.feed(TICKS[500:1_000])
        deployment.await_committed()
        deployment.stop_all()
        assert service.text.count(f"{disk.path}/{deployment.prefix}-app/instance-0") == 1
        assert service.text.count("Read-only file system; using") == 1
        assert sum(_offsets(tmp_path / "temp")) == deployment.sent
        assert _offsets(disk.path) == left
    service = deployment.start()
    deployment.feed(TICKS[1_000:1_500])
    _end(deployment, disk, service)
    assert "Read-only" not in service.text
