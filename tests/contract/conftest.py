"""The worlds that the suite runs in."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contract.embedded_world import EmbeddedWorld
from contract.kafka_world import KafkaWorld
from contract.simulated_world import SimulatedWorld
from contract.world import LogWorld

NewWorld = Callable[[int], LogWorld]
"""Makes a world whose topics have that many partitions."""


@pytest.fixture(params=["embedded", "simulated", "kafka"])
def new_world(request: pytest.FixtureRequest, tmp_path: Path, topic_prefix: str) -> Iterator[NewWorld]:
    """Make worlds of one kind, ended with the test. No broker is started for a world without one."""
    worlds: list[LogWorld] = []

    def make(partitions: int) -> LogWorld:
        name = f"{topic_prefix}-{len(worlds)}"
        world: LogWorld
        if request.param == "embedded":
            world = EmbeddedWorld(tmp_path / name, partitions)
        elif request.param == "simulated":
            world = SimulatedWorld(partitions)
        else:
            world = KafkaWorld(request.getfixturevalue("broker"), name, partitions)
        worlds.append(world)
        return world

    yield make
    for world in worlds:
        world.close()


@pytest.fixture
def world(new_world: NewWorld) -> LogWorld:
    """Give a world with one partition: for promises that more would not change."""
    return new_world(1)


@pytest.fixture
def wide_world(new_world: NewWorld) -> LogWorld:
    """Give a world with three partitions."""
    return new_world(3)
