"""The promises of `interfaces.Snapshots`, for files and for the topic."""

import logging
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from broker import Broker
from contract.simulated_world import RealHost
from contract.world import LIMIT_S
from streamingcandle.candles.commit import Fingerprint
from streamingcandle.clock import SystemClock
from streamingcandle.errors import OutsideError
from streamingcandle.interfaces import Snapshots
from streamingcandle.kafka.client import KafkaSettings
from streamingcandle.kafka.snapshots import CONFIG, KafkaSnapshots
from streamingcandle.simulation.snapshots import Shelf, SimulatedSnapshots
from streamingcandle.state.files import PART_SUFFIX, SLOTS, FileSnapshots, snapshot_path
from streamingcandle.state.snapshot import Snapshot

OpenStore = Callable[[], Snapshots]
"""The same place again, as the next process finds it."""
TOO_LARGE_FOR = 400_000
"""A broker that takes no more a record refuses a whole chunk, and takes the rest behind it."""


class FilePlace:
    """An instance's folder."""

    def __init__(self, folder: Path) -> None:
        """Not there yet."""
        self._folder = folder

    def open(self) -> Snapshots:
        """See `OpenStore`."""
        return FileSnapshots(self._folder)

    def prepare(self) -> None:
        """Be a place in which large ones can fail: said before it is used."""

    def fail(self, *, is_failing: bool) -> None:
        """Let each save of a large one fail from now on, or none."""
        for slot in range(SLOTS):
            path = snapshot_path(self._folder, 0, slot)
            part = path.with_name(path.name + PART_SUFFIX)
            if is_failing:
                part.mkdir()
            else:
                part.rmdir()

    def spoil_newest(self) -> None:
        """Let it lose something."""
        paths = (snapshot_path(self._folder, 0, slot) for slot in range(SLOTS))
        newest = max(paths, key=lambda path: path.stat().st_mtime_ns)
        newest.write_bytes(newest.read_bytes()[:-1])


class SimulatedPlace:
    """A shelf."""

    def __init__(self) -> None:
        """Nothing is on it."""
        self._shelf = Shelf()

    def open(self) -> Snapshots:
        """See `OpenStore`."""
        return SimulatedSnapshots("shelf", self._shelf, RealHost(SystemClock()))

    def prepare(self) -> None:
        """See `FilePlace`."""

    def fail(self, *, is_failing: bool) -> None:
        """See `FilePlace`."""
        self._shelf.is_failing = is_failing

    def spoil_newest(self) -> None:
        """See `FilePlace`."""
        self._shelf.slots[0][0] = self._shelf.slots[0][0][:-1]


class KafkaPlace:
    """A topic."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        """Not there yet."""
        self.topic = f"{prefix}-snapshots"
        self._settings = KafkaSettings(bootstrap_servers=bootstrap, group=prefix, tick_topic="-", instance=prefix)
        self.bootstrap = bootstrap
        self._admin = AdminClient({"bootstrap.servers": bootstrap})
        self.producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0})

    def open(self) -> Snapshots:
        """See `OpenStore`."""
        return KafkaSnapshots(self._settings, SystemClock(), topic=self.topic, partitions=2)

    def prepare(self) -> None:
        """See `FilePlace`."""
        config = {**CONFIG, "max.message.bytes": str(TOO_LARGE_FOR)}
        self._admin.create_topics([NewTopic(self.topic, num_partitions=2, config=config)])[self.topic].result(10)

    def fail(self, *, is_failing: bool) -> None:
        """See `prepare`: it depends on the size alone."""

    def send(self, value: bytes | None, key: bytes, headers: dict[str, bytes | None] | None = None) -> bool:
        """Whether this record is in the topic's first partition."""
        errors: list[object] = []
        self.producer.produce(
            self.topic, value, key, 0, headers=dict(headers or {}), on_delivery=lambda error, _: errors.append(error)
        )
        self.producer.flush(10)
        return errors == [None]

    def spoil_newest(self) -> None:
        """A chunk of another one is written over its first."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "-", "enable.partition.eof": True})
        consumer.assign([TopicPartition(self.topic, 0, 0)])
        keys = []
        while (message := consumer.poll(10)) is not None and message.error() is None:
            keys.append(message.key() or b"")
        consumer.close()
        slot = [key for key in keys if key.startswith(b"0/")][-1].split(b"/")[1]
        assert self.send(b"torn", b"0/" + slot + b"/0", {"snapshot": b"x", "total": b"2", "checksum": b"1"})


Place = FilePlace | SimulatedPlace | KafkaPlace


@pytest.fixture(params=["files", "simulated", "kafka"])
def place(request: pytest.FixtureRequest, tmp_path: Path, topic_prefix: str) -> Place:
    """Give a place for snapshots."""
    if request.param == "files":
        return FilePlace(tmp_path / "instance-0")
    if request.param == "simulated":
        return SimulatedPlace()
    return KafkaPlace(request.getfixturevalue("broker").bootstrap, topic_prefix)


@pytest.fixture
def open_store(place: Place) -> OpenStore:
    """Give a way to open one place again and again."""
    return place.open


def _bytes(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


def _save(open_store: OpenStore, *saved: tuple[int, bytes]) -> None:
    for partition, data in saved:
        store = open_store()
        store.save(partition, data)
        store.close(LIMIT_S)


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
        store.close(LIMIT_S)  # it only waits
        assert next(iter(open_store().load(0))) == data
    assert list(open_store().load(0)) == [b"three", b"two"]


def _snapshot(offset: int, size: int = 100) -> bytes:
    """A real one, that compresses badly."""
    return Snapshot(
        partition=0,
        offset=offset,
        rules="r",
        fingerprint=Fingerprint(offset - 1, 1, 1, "t"),
        written_ms=1,
        book=_bytes(size, offset),
    ).encode()


def test_a_damaged_one_is_written_over_first(place: Place) -> None:
    _save(place.open, (0, _snapshot(1)), (0, _snapshot(2)))
    place.spoil_newest()
    _save(place.open, (0, _snapshot(3)))
    assert next(iter(place.open().load(0))) == _snapshot(3)
    assert _snapshot(1) in place.open().load(0)


def test_a_partition_that_left_and_came_back_loses_nothing_new(open_store: OpenStore) -> None:
    ours = open_store()
    ours.save(0, _snapshot(1))
    ours.close()
    for others in range(2, 5):  # of any number of them: the slots are two
        _save(open_store, *((0, _snapshot(offset)) for offset in range(2, others + 1)))
        ours.save(0, _snapshot(10 + others))
        ours.close()
        assert list(open_store().load(0)) == [_snapshot(10 + others), _snapshot(others)]


def test_failed_saves_leave_the_newest_where_it_is(place: Place) -> None:
    place.prepare()
    store = place.open()
    for offset in (1, 2):
        store.save(0, _snapshot(offset))
        store.close(LIMIT_S)
    place.fail(is_failing=True)
    for offset in (3, 4, 5):
        with suppress(OutsideError):  # told now or at the next
            store.save(0, _snapshot(offset, 600_000))
        store.close(LIMIT_S)
    place.fail(is_failing=False)
    assert _snapshot(2) in place.open().load(0)
    with suppress(OutsideError):
        store.save(0, _snapshot(6))
    store.close(LIMIT_S)
    assert list(place.open().load(0)) == [_snapshot(6), _snapshot(2)]


HOSTILE: list[tuple[bytes, bytes | None, dict[str, bytes | None] | None]] = [
    (b"0/0/0", b"x", None),
    (b"0/0/0", None, None),
    (b"0/1/0", b"x", {"snapshot": b"a", "total": b"1000000000000", "checksum": b"1"}),
    (b"0/1/0", b"x", {"snapshot": b"a", "total": b"1999999999", "checksum": b"1"}),
    (b"0/1/0", b"x", {"snapshot": b"a", "total": b"-1", "checksum": b"1"}),
    (b"0/1/0", b"x", {"snapshot": b"a", "total": b"0", "checksum": b"0"}),
    (b"0/1/0", b"x", {"snapshot": b"a", "total": b"one", "checksum": b"\xff\xfe"}),
    (b"0/1/0", b"x", {"snapshot": b"a", "total": b"9" * 5_000, "checksum": b"1"}),
    (b"0/1/0", b"x", {"snapshot": b"a", "total": "٣".encode(), "checksum": b"1"}),
    (b"0/1/0", b"x", {"snapshot": b"a", "total": None, "checksum": None}),
    (b"0/1/0", b"x", {"snapshot": b"a" * 100_000, "total": b"1", "checksum": b"1"}),
    (b"0/1/5", b"x", {"snapshot": b"a", "total": b"2", "checksum": b"1"}),
    (b"0/1/" + b"9" * 6_000, b"x", {"snapshot": b"a", "total": b"2", "checksum": b"1"}),
    (b"0/" + b"9" * 6_000 + b"/0", b"x", {"snapshot": b"a", "total": b"1", "checksum": b"1"}),
    (b"0/7/0", b"x", {"snapshot": b"a", "total": b"1", "checksum": b"1"}),
    (b"9" * 6_000 + b"/0/0", b"x", {"snapshot": b"a", "total": b"1", "checksum": b"1"}),
    (b"0/0/0", bytes(900_000), {"snapshot": b"a", "total": b"1", "checksum": b"1"}),
    (b"\xff\xfe", b"x", {"snapshot": b"a", "total": b"1", "checksum": b"1"}),
]


def test_hostile_records_are_passed_over(broker: Broker, topic_prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    place = KafkaPlace(broker.bootstrap, topic_prefix)
    _save(place.open, (0, _snapshot(1)), (0, _snapshot(2)))
    for key, value, headers in HOSTILE:
        assert place.send(value, key, headers)
    with caplog.at_level(logging.WARNING):
        assert list(place.open().load(0)) == [_snapshot(2), _snapshot(1)]
    assert len(caplog.messages) == 1
    assert "records that are no chunks of a snapshot are passed over" in caplog.text
    # Well formed, and the beginning of nothing: two ids by turns, and a checksum of something else.
    caplog.clear()
    for identity in (b"a", b"b"):
        place.send(b"x", b"0/0/0", {"snapshot": identity, "total": b"2", "checksum": b"1"})
        place.send(b"x", b"0/0/1", {"snapshot": identity + b"-", "total": b"2", "checksum": b"1"})
    place.send(b"x", b"0/1/0", {"snapshot": b"c", "total": b"1", "checksum": b"1"})
    with caplog.at_level(logging.WARNING):
        assert list(place.open().load(0)) == []
    assert [line.endswith("of partition 0 is not whole") for line in caplog.messages] == [False, True, True]
    _save(place.open, (0, _snapshot(3)), (0, _snapshot(4)))
    assert list(place.open().load(0)) == [_snapshot(4), _snapshot(3)]
