"""The promises of `interfaces.Tail` beyond those of every reader: it reads the group's offsets, and changes nothing."""

from contract.world import LogWorld, Member, TailWorld, Tick, joined, numbered, offsets_only
from streamingcandle.candles.murmur2 import partition_of
from streamingcandle.interfaces import Committed, Letter, Transaction

METADATA = '{"said": "by the group"}'
TICKS = [Tick(f"M:D:{number % 30}".encode(), str(number).encode()) for number in range(300)]


def _transaction(world: LogWorld, offsets: dict[int, int]) -> Transaction:
    """Of everything there is to publish, and to a topic that is not there."""
    return Transaction(
        candles=[(world.candle_topic, [(b"M:D:1", b"1"), (b"M:D:2", b"2")]), ("nowhere", [(b"M:D:1", b"3")])],
        letters=[Letter(world.letter_topic, b"M:D:1", b"bad", [("reason", b"json")])],
        offsets={number: Committed(offset, "the tail's") for number, offset in offsets.items()},
    )


def _commit(member: Member) -> dict[int, Committed]:
    """What the group's member has read."""
    offsets = {number: Committed(offset, METADATA) for number, offset in member.positions.items()}
    member.log.commit(offsets_only(offsets))
    return offsets


def test_it_reads_the_groups_offsets(seen_world: TailWorld) -> None:
    tail = seen_world.open_tail()
    assert tail.committed([0, 1, 2]) == {0: None, 1: None, 2: None}
    assert tail.committed([]) == {}
    member = joined(seen_world.open_log())
    looking = joined(tail)
    for piece in (TICKS[:100], TICKS[100:]):
        seen_world.append(piece)
        member.read_all()
        offsets = _commit(member)
        assert tail.committed([0, 1, 2]) == offsets
        assert tail.committed([1]) == {1: offsets[1]}
        looking.read_all()
        assert looking.positions == member.positions
    # Who comes when the group has gone finds them as well, and goes on from there.
    member.log.close()
    late = joined(seen_world.open_tail())
    assert late.positions == {number: one.offset for number, one in offsets.items()}
    seen_world.append(TICKS[:50])
    late.read_all()
    assert late.count == 50


def test_a_commit_is_shown_and_published_nowhere(seen_world: TailWorld) -> None:
    seen_world.append(TICKS)
    member = joined(seen_world.open_log())
    member.read_all()
    offsets = _commit(member)
    before = seen_world.visible()
    tail = seen_world.open_tail()
    looking = joined(tail)
    looking.read_all()
    assert tail.shown == []
    first, second = _transaction(seen_world, looking.positions), _transaction(seen_world, {1: 7})
    tail.commit(first)
    tail.commit(second)
    assert tail.shown == [first, second]
    tail.shown.clear()
    tail.commit(second)
    assert tail.shown == [second]
    assert tail.committed([0, 1, 2]) == offsets
    assert seen_world.visible() == before


def test_a_commit_may_come_before_any_of_the_groups(seen_world: TailWorld) -> None:
    before = seen_world.visible()
    tail = seen_world.open_tail()
    joined(tail)
    tail.commit(_transaction(seen_world, {0: 0, 1: 0, 2: 0}))
    tail.settle()
    assert tail.committed([0, 1, 2]) == {0: None, 1: None, 2: None}
    tail.close()
    # No group was made, and the one that comes begins at the beginning.
    assert seen_world.visible() == before
    seen_world.append(TICKS)
    member = joined(seen_world.open_log())
    member.read_all()
    assert member.count == len(TICKS)


def test_there_is_nothing_to_settle(seen_world: TailWorld) -> None:
    seen_world.append(numbered(5))
    tail = seen_world.open_tail()
    tail.settle()
    looking = joined(tail)
    tail.commit(_transaction(seen_world, {0: 1}))
    before = seen_world.visible()
    shown = list(tail.shown)
    tail.settle()
    assert tail.shown == shown
    assert seen_world.visible() == before
    looking.read_all()
    assert looking.count == 5


def test_the_group_does_not_notice(seen_world: TailWorld) -> None:
    member = joined(seen_world.open_log())
    before = seen_world.visible()
    tails = [seen_world.open_tail() for _ in range(3)]
    looking = [joined(tail) for tail in tails]
    member.poll(0.5)
    assert seen_world.visible() == before
    seen_world.append(TICKS)
    for one in (member, *looking):
        one.read_all()
    published = Transaction(
        candles=[(seen_world.candle_topic, [(b"M:D:1", b"1")])],
        letters=[],
        offsets={number: Committed(offset, METADATA) for number, offset in member.positions.items()},
    )
    member.log.commit(published)
    for tail in tails:
        assert tail.committed([0, 1, 2]) == published.offsets
        tail.close()
    # Never asked to give anything back, and still the owner of it.
    assert [sorted(numbers) for numbers in member.assignments] == [[0, 1, 2]]
    seen_world.append(TICKS)
    member.read_all()
    assert member.count == 2 * len(TICKS)
    _commit(member)


def test_of_what_the_group_publishes_it_reads_nothing(seen_world: TailWorld) -> None:
    looking = joined(seen_world.open_tail())
    member = joined(seen_world.open_log())
    for piece in (TICKS[:100], TICKS[100:200], TICKS[200:]):
        seen_world.append(piece)
        member.read_all()
        candles = [(seen_world.candle_topic, [(tick.key or b"", b"candle") for tick in piece])]
        offsets = {number: Committed(offset, METADATA) for number, offset in member.positions.items()}
        member.log.commit(Transaction(candles=candles, letters=[], offsets=offsets))
        looking.read_all()
        assert looking.poll(0) == 0
        assert looking.positions == member.positions
    for number in range(3):
        expected = [tick.value for tick in TICKS if partition_of(tick.key or b"", 3) == number]
        assert looking.values(number) == expected


def test_after_its_close_another_may_look(seen_world: TailWorld) -> None:
    seen_world.append(TICKS)
    for _ in range(2):
        tail = seen_world.open_tail()
        looking = joined(tail)
        looking.read_all()
        assert looking.count == len(TICKS)
        tail.close()
    unused = seen_world.open_tail()
    unused.close()
