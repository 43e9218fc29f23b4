"""The worlds that the suite runs in."""

from collections.abc import Callable, Iterator

import pytest

from contract.embedded_world import EmbeddedTailWorld, EmbeddedWorld
from contract.kafka_world import KafkaTailWorld, KafkaWorld
from contract.simulated_world import SimulatedWorld
from contract.world import LogWorld, TailWorld

NewWorld = Callable[[int], LogWorld]
"""Makes a world whose topics have that many partitions."""

MEMBERS = ("embedded", "simulated", "kafka")
"""Worlds whose log is the group's member."""
TAILS = ("embedded-tail", "kafka-tail")
"""Worlds whose log only looks."""


def _embedded(request: pytest.FixtureRequest, name: str, partitions: int) -> EmbeddedWorld:
    kind = EmbeddedTailWorld if request.param in TAILS else EmbeddedWorld
    return kind(request.getfixturevalue("tmp_path") / name, partitions)


def _kafka(request: pytest.FixtureRequest, name: str, partitions: int) -> KafkaWorld:
    kind = KafkaTailWorld if request.param in TAILS else KafkaWorld
    return kind(request.getfixturevalue("broker"), name, partitions)


@pytest.fixture(params=MEMBERS)
def new_world(request: pytest.FixtureRequest, topic_prefix: str) -> Iterator[NewWorld]:
    """Make worlds of one kind, ended with the test. No broker is started for a world without one."""
    worlds: list[LogWorld] = []

    def make(partitions: int) -> LogWorld:
        name = f"{topic_prefix}-{len(worlds)}"
        world: LogWorld
        if request.param == "simulated":
            world = SimulatedWorld(partitions)
        elif request.param.startswith("embedded"):
            world = _embedded(request, name, partitions)
        else:
            world = _kafka(request, name, partitions)
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


@pytest.fixture(params=["embedded", "kafka"])
def seen_world(request: pytest.FixtureRequest, topic_prefix: str) -> Iterator[TailWorld]:
    """Give a world with three partitions, where somebody may look on beside the group's member."""
    make = _embedded if request.param == "embedded" else _kafka
    made = make(request, topic_prefix, 3)
    yield made
    made.close()
