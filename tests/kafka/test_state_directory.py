"""The state directory is deleted, damaged, or another instance's: that costs time and no candle."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from broker import Broker
from disturbance import Deployment, market


def _delete(base: Path) -> None:
    shutil.rmtree(base)


def _damage(base: Path) -> None:
    for file in base.rglob("*"):
        if file.is_file():
            data = bytearray(file.read_bytes())
            data[len(data) // 2 :] = bytes(byte ^ 0x55 for byte in data[len(data) // 2 :])
            file.write_bytes(data)


def _swap(base: Path) -> None:
    (instances,) = base.iterdir()
    first, second = sorted(instances.iterdir())
    first.rename(instances / "moved")
    second.rename(first)
    (instances / "moved").rename(second)


@pytest.mark.parametrize("disturb", [_delete, _damage, _swap])
def test_state_is_lost_between_two_runs(
    broker: Broker, topic_prefix: str, tmp_path: Path, disturb: Callable[[Path], None]
) -> None:
    feed = market(2_000)
    with Deployment(broker, topic_prefix, tmp_path, partitions=4) as deployment:
        services = [deployment.start() for _ in range(2)]
        for service in services:
            service.await_line("taken over")
        deployment.feed(feed[:1_000])
        deployment.await_committed()
        deployment.stop_all()
        disturb(tmp_path / "state")
        services = [deployment.start() for _ in range(2)]
        for service in services:
            service.await_line("taken over")
        deployment.feed(feed[1_000:])
        deployment.await_committed()
        deployment.stop_all()
        deployment.check()
