"""The promises of `interfaces.Log`, one by one, in every world."""

import threading

import pytest

from contract.conftest import NewWorld
from contract.world import LIMIT_S, LogWorld, Member, Published, Tick
from streamingcandle.candles.murmur2 import partition_of
from streamingcandle.clock import SystemClock
from streamingcandle.errors import OwnedError
from streamingcandle.interfaces import Committed, Letter, Log, Transaction

NOTICED_MS_MAX = 100
"""A record's way to a poll that waits. One busy moment of the machine is no broken promise: the best of some counts."""
TRIES = 5
METADATA_BYTES = 4_000


def numbered(count: int, *, key: bytes = b"M:D:1", first: int = 0) -> list[Tick]:
    return [Tick(key, str(number).encode()) for number in range(first, first + count)]


def values_of(ticks: list[Tick]) -> list[bytes | None]:
    return [tick.value for tick in ticks]


def offsets_only(offsets: dict[int, Committed]) -> Transaction:
    return Transaction(candles=[], letters=[], offsets=offsets)


def joined(log: Log) -> Member:
    member = Member(log)
    member.join()
    return member


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


# ---- publishing


def test_a_commit_publishes_all_of_it_at_once(wide_world: LogWorld) -> None:
    world = wide_world
    log = world.open_log()
    joined(log)
    candles = [(f"M:D:{number % 7}".encode(), str(number).encode()) for number in range(500)]
    letter = Letter(world.letter_topic, b"M:D:1", b"bad", [("reason", b"json")])
    offsets = {0: Committed(0, "zero"), 1: Committed(0, "one"), 2: Committed(0, "two")}
    log.commit(Transaction(candles=[(world.candle_topic, candles)], letters=[letter], offsets=offsets))
    assert log.committed([0, 1, 2]) == offsets
    published = world.read_topic(world.candle_topic)
    assert published == [
        Published(number, key, value) for number in range(3) for key, value in candles if partition_of(key, 3) == number
    ]
    (found,) = world.read_topic(world.letter_topic)
    assert found == Published(partition_of(b"M:D:1", 3), b"M:D:1", b"bad", [("reason", b"json")])


def test_later_commits_come_after(world: LogWorld) -> None:
    log = world.open_log()
    joined(log)
    for number in range(5):
        candles = [(b"M:D:1", f"{number}-{turn}".encode()) for turn in range(2)]
        offsets = {0: Committed(0, str(number))}
        log.commit(Transaction(candles=[(world.candle_topic, candles)], letters=[], offsets=offsets))
        assert log.committed([0]) == offsets
    values = [record.value for record in world.read_topic(world.candle_topic)]
    assert values == [f"{number}-{turn}".encode() for number in range(5) for turn in range(2)]


@pytest.mark.parametrize(
    "letter",
    [
        Letter("", b"k", b"\x00\xff not UTF-8", [("reason", b"json"), ("empty", b""), ("none", None)]),
        Letter("", b"k", None, [("reason", b"empty")]),
        Letter("", None, b"no key", [("twice", b"1"), ("twice", b"2")]),
        Letter("", None, None, []),
        Letter("", b"", b"x" * 900_000, [("long", b"y" * 10_000)]),
    ],
    ids=["bytes", "tombstone", "keyless", "nothing", "big"],
)
def test_letters_are_published_byte_for_byte(world: LogWorld, letter: Letter) -> None:
    log = world.open_log()
    joined(log)
    letters = [Letter(world.letter_topic, letter.key, letter.value, letter.headers)]
    log.commit(Transaction(candles=[], letters=letters, offsets={0: Committed(0, "")}))
    (found,) = world.read_topic(world.letter_topic)
    assert (found.key, found.value, list(found.headers)) == (letter.key, letter.value, list(letter.headers))


def test_nothing_is_committed_before_the_first_commit(wide_world: LogWorld) -> None:
    log = wide_world.open_log()
    assert log.committed([0, 1, 2]) == {0: None, 1: None, 2: None}
    assert log.committed([]) == {}


def test_offsets_and_metadata_come_back(wide_world: LogWorld) -> None:
    wide_world.append([Tick(None, b"v") for _ in range(30)])
    log = wide_world.open_log()
    joined(log)
    long = ("0123456789abcdef" * 256)[:METADATA_BYTES]
    log.commit(offsets_only({0: Committed(1, long), 2: Committed(2, "")}))
    assert log.committed([0, 1, 2]) == {0: Committed(1, long), 1: None, 2: Committed(2, "")}
    log.commit(offsets_only({1: Committed(3, "{}")}))
    assert log.committed([2, 1]) == {2: Committed(2, ""), 1: Committed(3, "{}")}
    # The same offset with other metadata, and one that falls: what was said last counts.
    log.commit(offsets_only({0: Committed(1, "again"), 2: Committed(1, "back")}))
    log.close()
    expected = {0: Committed(1, "again"), 1: Committed(3, "{}"), 2: Committed(1, "back")}
    assert wide_world.open_log().committed([0, 1, 2]) == expected


def test_settling_without_a_doubt_changes_nothing(world: LogWorld) -> None:
    log = world.open_log()
    joined(log)
    candles = [(world.candle_topic, [(b"M:D:1", b"1")])]
    log.commit(Transaction(candles=candles, letters=[], offsets={0: Committed(0, "1")}))
    log.settle()
    assert log.committed([0]) == {0: Committed(0, "1")}
    log.commit(Transaction(candles=candles, letters=[], offsets={0: Committed(0, "2")}))
    assert log.committed([0]) == {0: Committed(0, "2")}
    assert len(world.read_topic(world.candle_topic)) == 2


def test_reading_goes_on_after_a_commit(world: LogWorld) -> None:
    world.append(numbered(5))
    log = world.open_log()
    member = Member(log)
    member.read_all()
    candles = [(world.candle_topic, [(b"M:D:1", b"1")])]
    log.commit(Transaction(candles=candles, letters=[], offsets={0: Committed(member.positions[0], "")}))
    world.append(numbered(5, first=5))
    member.read_all()
    assert member.values(0) == values_of(numbered(10))


# ---- who comes after


def test_the_next_one_gets_what_is_left(wide_world: LogWorld) -> None:
    ticks = [Tick(f"M:D:{number % 30}".encode(), str(number).encode()) for number in range(300)]
    wide_world.append(ticks[:200])
    log = wide_world.open_log()
    first = Member(log)
    first.read_all()
    log.commit(offsets_only({number: Committed(at, "") for number, at in first.positions.items()}))
    wide_world.append(ticks[200:])
    log.close()
    second = Member(wide_world.open_log())
    second.read_all()
    assert (first.count, second.count) == (200, 100)
    for partition in range(3):
        expected = [tick.value for tick in ticks if tick.key and partition_of(tick.key, 3) == partition]
        assert first.values(partition) + second.values(partition) == expected


def test_what_was_not_committed_is_read_again(world: LogWorld) -> None:
    world.append(numbered(10))
    log = world.open_log()
    first = Member(log)
    first.read_all()
    log.commit(offsets_only({0: Committed(4, "")}))
    log.close()
    second = Member(world.open_log())
    second.read_all()
    assert second.values(0) == values_of(numbered(6, first=4))


def test_one_identity_has_one_owner(world: LogWorld) -> None:
    world.append(numbered(3))
    first = joined(world.open_log())
    with pytest.raises(OwnedError):
        world.contend(first)
