"""The promises of `interfaces.Publisher` and of the whole `Log`, one by one, in every world."""

import pytest

from contract.world import LogWorld, Member, Published, Tick, joined, numbered, offsets_only, values_of
from streamingcandle.candles.murmur2 import partition_of
from streamingcandle.errors import OwnedError
from streamingcandle.interfaces import Committed, Letter, Transaction

METADATA_BYTES = 4_000


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


def test_the_newest_of_several_topics_are_the_last_of_each_partition(wide_world: LogWorld) -> None:
    log = wide_world.open_log()
    joined(log)
    keys, topic = [f"M:D:{number}".encode() for number in range(12)], wide_world.candle_topic
    for number in range(4):
        candles = [(key, b"%s %d" % (key, number)) for key in keys]
        log.commit(Transaction(candles=[(topic, candles)], letters=[], offsets={0: Committed(0, str(number))}))
    found = log.newest([topic, f"{topic}-missing", wide_world.letter_topic], 2)
    written = [(record.partition, record.value) for record in wide_world.read_topic(topic)]
    last = [value for place in range(3) for value in [value for number, value in written if number == place][-2:]]
    assert found == {topic: last, f"{topic}-missing": [], wide_world.letter_topic: []}
    assert len(last) == 6


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
