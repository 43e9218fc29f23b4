"""The promises of `interfaces.Reader`, one by one, in every world, to a member of the group and to who only looks."""

import threading

import pytest

from contract.conftest import MEMBERS, TAILS, NewWorld
from contract.world import LIMIT_S, LogWorld, Member, Tick, joined, numbered, offsets_only, values_of
from streamingcandle.candles.murmur2 import partition_of
from streamingcandle.clock import SystemClock
from streamingcandle.interfaces import Committed

NOTICED_MS_MAX = 100
"""A record's way to a poll that waits. One busy moment of the machine is no broken promise: the best of some counts."""
TRIES = 5
HELD_POLLS = 20

pytestmark = pytest.mark.parametrize("new_world", [*MEMBERS, *TAILS], indirect=True)


# ---- reading


def test_records_come_in_order_none_twice_none_skipped(wide_world: LogWorld) -> None:
    keys = [f"M:D:{number}".encode() for number in range(30)]
    ticks = [Tick(keys[number % len(keys)], str(number).encode()) for number in range(25_000)]
    wide_world.append(ticks[:20_000])
    member = Member(wide_world.open_log())
    member.read(1)
    wide_world.append(ticks[20_000:])
    member.read_all()
    for partition in range(3):
        assert member.values(partition) == [
            tick.value for tick in ticks if tick.key and partition_of(tick.key, 3) == partition
        ]


def test_records_appended_while_polling_come_in_order_too(world: LogWorld) -> None:
    member = joined(world.open_log())

    def feed() -> None:
        for turn in range(20):
            world.append(numbered(50, first=50 * turn))

    thread = threading.Thread(target=feed)
    thread.start()
    member.read(1_000)
    thread.join(LIMIT_S)
    member.read_all()
    assert member.values(0) == values_of(numbered(1_000))


def test_records_without_a_key_are_read_as_well(wide_world: LogWorld) -> None:
    wide_world.append([Tick(None, str(number).encode()) for number in range(10)])
    member = Member(wide_world.open_log())
    member.read_all()
    found = [value for partition in range(3) for value in member.values(partition)]
    assert sorted(found, key=str) == values_of(numbered(10))


def test_the_ends_are_known_of_what_was_read_and_of_nothing_else(wide_world: LogWorld) -> None:
    log = wide_world.open_log()
    assert log.known_ends([0, 1, 2]) == {}
    wide_world.append([Tick(f"M:D:{number}".encode(), b"x") for number in range(100)])
    member = Member(log)
    member.read_all()
    ends = dict(log.ends([0, 1, 2]))
    member.poll_until(lambda: log.known_ends([0, 1, 2]) == ends)  # a fetch behind the records brings them
    assert log.known_ends([1, 7]) == {1: ends[1]}


def test_all_partitions_are_assigned_before_any_record(wide_world: LogWorld) -> None:
    wide_world.append(numbered(10))
    log = wide_world.open_log()
    assert list(log.partitions()) == [0, 1, 2]
    member = Member(log)
    member.read_all()
    assert [sorted(partitions) for partitions in member.assignments] == [[0, 1, 2]]


def test_reading_begins_where_assigned_said(world: LogWorld) -> None:
    world.append(numbered(10))
    member = Member(world.open_log(), starts={0: 7})
    member.read_all()
    assert member.values(0) == values_of(numbered(3, first=7))
    assert [offset for batch in member.batches for offset in batch.offsets] == [7, 8, 9]


def test_reading_may_begin_before_what_is_committed_and_at_the_end(world: LogWorld) -> None:
    world.append(numbered(10))
    log = world.open_log()
    joined(log)
    log.commit(offsets_only({0: Committed(10, "")}))
    log.close()
    again = Member(world.open_log(), starts={0: 4})
    again.read_all()
    assert again.values(0) == values_of(numbered(6, first=4))
    again.log.close()
    late = Member(world.open_log(), starts={0: 10})
    late.read_all()
    assert late.count == 0
    world.append(numbered(1, first=10))
    late.read_all()
    assert late.values(0) == [b"10"]


def test_timestamps_and_offsets_are_the_records_own(world: LogWorld) -> None:
    stamps_ms = [1_767_335_675_000, 1_767_335_675_000, 1_600_000_000_000, 1_767_335_676_000]
    world.append([Tick(b"k", b"v", stamp_ms) for stamp_ms in stamps_ms])
    member = Member(world.open_log())
    member.read_all()
    assert [stamp_ms for batch in member.batches for stamp_ms in batch.timestamps_ms] == stamps_ms
    assert [offset for batch in member.batches for offset in batch.offsets] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "tick",
    [
        Tick(
            b"M:D:458305", b'{"Token":458305}', 1_767_335_675_123, [("a", b"1"), ("a", b"2"), ("b", None), ("c", b"")]
        ),
        Tick(b"\x00\xff", b"\x00\xfe\xff not UTF-8", 1_000_000_000_000, [("bytes", b"\x00\xff")]),
        Tick(b"tombstone", None, 1_767_335_675_123, [("why", b"gone")]),
        Tick(None, b"no key"),
        Tick(b"", b""),
    ],
    ids=["headers", "bytes", "tombstone", "keyless", "empty"],
)
def test_origin_gives_the_record_byte_for_byte(world: LogWorld, tick: Tick) -> None:
    world.append([Tick(b"before", b"it"), tick, Tick(b"after", b"it")])
    member = Member(world.open_log())
    member.read_all()
    origins = {batch.offsets[at]: batch.origin(at) for batch in member.batches for at in range(len(batch.offsets))}
    origin = origins[1]
    assert (origin.key, origin.value, origin.timestamp_ms) == tick[:3]
    assert origin.offset == 1
    assert list(origin.headers) == list(tick.headers)
    assert member.values(0)[1] == tick.value


def test_origin_holds_after_later_polls(world: LogWorld) -> None:
    world.append([Tick(b"first", b"1", headers=[("h", b"1")])])
    member = joined(world.open_log())
    member.read(1)
    (batch,) = [batch for batch in member.batches if batch.values]
    world.append(numbered(100))
    member.read_all()
    assert (batch.origin(0).key, list(batch.origin(0).headers)) == (b"first", [("h", b"1")])


def test_only_committed_records_are_read(world: LogWorld) -> None:
    world.append(numbered(3))
    member = joined(world.open_log())
    member.read(3)
    before = member.log.ends([0])[0]
    with world.append_open(numbered(3, first=3)):
        assert member.poll(0.3) == 0
        assert member.log.ends([0])[0] - before == (3 if world.counts_open else 0)
        assert member.positions[0] == before
    member.read(6)
    world.append_aborted([Tick(b"k", b"aborted")])
    world.append(numbered(1, first=6))
    member.read_all()
    assert member.values(0) == values_of(numbered(7))


def test_the_position_reaches_the_end_behind_what_is_no_record(world: LogWorld) -> None:
    world.append(numbered(3))
    world.append_aborted(numbered(2))
    member = Member(world.open_log())
    member.join()
    member.poll_until(lambda: member.positions == member.log.ends([0]))
    # The mark that ends a transaction may come after the answer that it has ended.
    world.append_aborted(numbered(2))
    member.poll_until(lambda: member.positions == member.log.ends([0]))
    assert member.values(0) == values_of(numbered(3))


def test_an_idle_poll_returns_in_time(world: LogWorld) -> None:
    world.append(numbered(3))
    member = joined(world.open_log())
    member.read_all()
    clock = SystemClock()
    for timeout_s in (0.0, 0.05, 0.3):
        taken_ms = []
        for _ in range(TRIES):
            begun_ms = clock.monotonic_ms()
            assert member.poll(timeout_s) == 0
            taken_ms.append(clock.monotonic_ms() - begun_ms)
        assert min(taken_ms) <= timeout_s * 1_000 + 50


def test_a_waiting_poll_notices_a_record_at_once(world: LogWorld) -> None:
    member = joined(world.open_log())
    clock = SystemClock()
    delays_ms = []
    for turn in range(TRIES):
        appended_ms: list[int] = []

        def feed(turn: int = turn, appended_ms: list[int] = appended_ms) -> None:
            world.append(numbered(1, first=turn))
            appended_ms.append(clock.monotonic_ms())

        thread = threading.Thread(target=feed)
        thread.start()
        member.read(turn + 1, poll_s=5.0)
        seen_ms = clock.monotonic_ms()
        thread.join(LIMIT_S)
        delays_ms.append(seen_ms - appended_ms[0])
    assert min(delays_ms) <= NOTICED_MS_MAX, delays_ms


# ---- asking about the log


def test_begins_and_ends(wide_world: LogWorld) -> None:
    log = wide_world.open_log()
    assert log.begins([0, 1, 2]) == log.ends([0, 1, 2]) == {0: 0, 1: 0, 2: 0}
    key = b"M:D:1"
    partition = partition_of(key, 3)
    wide_world.append(numbered(5, key=key))
    assert log.begins([0, 1, 2]) == {0: 0, 1: 0, 2: 0}
    assert log.ends([0, 1, 2]) == {0: 0, 1: 0, 2: 0} | {partition: 5}
    assert log.ends([partition]) == {partition: 5}
    assert log.ends([]) == log.begins([]) == {}


def test_offset_at_gives_the_first_record_at_or_after_a_time(world: LogWorld) -> None:
    log = world.open_log()
    start_ms = 1_767_335_675_000
    assert log.offset_at(0, start_ms) == 0
    world.append([Tick(b"k", b"v", start_ms + late_ms) for late_ms in (0, 1_000, 3_000, 2_000, 3_000, 5_000)])
    expected = {-1: 0, 0: 0, 1: 1, 1_000: 1, 1_500: 2, 2_000: 2, 3_000: 2, 3_001: 5, 5_000: 5, 5_001: 6}
    assert {late_ms: log.offset_at(0, start_ms + late_ms) for late_ms in expected} == expected
    assert log.offset_at(0, 0) == 0


def test_the_topics_id_is_its_own(new_world: NewWorld) -> None:
    one, other = new_world(1), new_world(1)
    log = one.open_log()
    first = log.topic_id()
    one.append(numbered(1))
    assert first
    assert log.topic_id() == first
    log.close()
    assert one.open_log().topic_id() == first
    assert other.open_log().topic_id() != first


def test_record_at_gives_the_record_that_has_the_offset(wide_world: LogWorld) -> None:
    tick = Tick(b"M:D:1", b"\x00\xff", 1_767_335_675_123, [("h", b"1"), ("h", None)])
    partition = partition_of(b"M:D:1", 3)
    wide_world.append([*numbered(2), tick])
    wide_world.append_aborted(numbered(2))
    log = wide_world.open_log()
    record = log.record_at(partition, 2)
    assert record is not None
    assert (record.key, record.value, record.timestamp_ms, record.offset) == (*tick[:3], 2)
    assert list(record.headers) == list(tick.headers)
    # Given up, not there yet, and never there.
    end = log.ends([partition])[partition]
    assert [log.record_at(partition, offset) for offset in (3, end, end + 5)] == [None, None, None]
    assert log.record_at((partition + 1) % 3, 0) is None
    # Whoever asks about one place reads on at another.
    member = joined(log)
    member.read_all()
    assert log.record_at(partition, 0) is not None
    wide_world.append(numbered(1, first=9))
    member.read_all()
    assert member.values(partition) == [b"0", b"1", tick.value, b"9"]
