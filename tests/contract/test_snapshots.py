"""The promises of `interfaces.Snapshots`, for files and for the topic."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.simulated_world import RealHost
from streamingcandle.clock import SystemClock
from streamingcandle.interfaces import Snapshots
from streamingcandle.kafka.client import KafkaSettings
from streamingcandle.kafka.snapshots import KafkaSnapshots
from streamingcandle.simulation.snapshots import Shelf, SimulatedSnapshots
from streamingcandle.state.files import FileSnapshots

OpenStore = Callable[[], Snapshots]
"""The same place again, as the next process finds it."""


@pytest.fixture(params=["files", "simulated", "kafka"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path, topic_prefix: str) -> OpenStore:
    """Give a way to open one place again and again."""
    if request.param == "files":
        return lambda: FileSnapshots(tmp_path / "instance-0")
    if request.param == "simulated":
        shelf = Shelf()
        return lambda: SimulatedSnapshots("shelf", shelf, RealHost(SystemClock()))
    broker = request.getfixturevalue("broker")
    settings = KafkaSettings(
        bootstrap_servers=broker.bootstrap, group=topic_prefix, tick_topic="-", instance=topic_prefix
    )
    return lambda: KafkaSnapshots(settings, SystemClock(), topic=f"{topic_prefix}-snapshots", partitions=2)


def _bytes(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


def _save(open_store: OpenStore, *saved: tuple[int, bytes]) -> None:
    for partition, data in saved:
        store = open_store()
        list(store.load(partition))  # as every process does before it writes
        store.save(partition, data)
        store.close()


def test_nothing_is_there_at_first(open_store: OpenStore) -> None:
    assert list(open_store().load(0)) == []


def test_the_two_youngest_come_youngest_first(open_store: OpenStore) -> None:
    first, second, third = (_bytes(1_300_000 - 500_000 * seed, seed) for seed in range(3))
    _save(open_store, (0, first))
    assert list(open_store().load(0)) == [first]
    _save(open_store, (0, second))
    assert list(open_store().load(0)) == [second, first]
    _save(open_store, (0, third))
    assert list(open_store().load(0)) == [third, second]


def test_partitions_keep_theirs(open_store: OpenStore) -> None:
    _save(open_store, (0, b"zero"), (1, b"one"), (2, b"two"), (3, b"three"))
    assert [list(open_store().load(number)) for number in range(5)] == [[b"zero"], [b"one"], [b"two"], [b"three"], []]


def test_one_process_writes_in_turn(open_store: OpenStore) -> None:
    store = open_store()
    for data in (b"one", b"two", b"three"):
        store.save(0, data)
        store.close()  # it only waits
        assert next(iter(open_store().load(0))) == data
    assert list(open_store().load(0)) == [b"three", b"two"]
