"""What the suite needs of the world around a log, and a member of the group that takes what comes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import NamedTuple, Protocol

from streamingcandle.clock import SystemClock
from streamingcandle.interfaces import Committed, Log, Records, Tail, Transaction

LIMIT_S = 30.0
"""For what must come: a group that forms, a record on its way. Takes milliseconds on an idle machine."""

Headers = Sequence[tuple[str, bytes | None]]


class Tick(NamedTuple):
    """A record for the tick topic."""

    key: bytes | None
    value: bytes | None
    timestamp_ms: int = 1_767_335_675_000
    headers: Headers = ()


class Published(NamedTuple):
    """A committed record as a reader finds it."""

    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class LogWorld(Protocol):
    """A tick topic of its own, a group of its own, and topics to publish to."""

    topic: str
    partitions: int
    candle_topic: str
    letter_topic: str
    counts_open: bool
    """Whether records of a transaction that is still open have offsets already."""

    def append(self, ticks: Iterable[Tick]) -> None:
        """To the tick topic, by key; there for every reader when it returns. From any thread."""

    def append_aborted(self, ticks: Iterable[Tick]) -> None:
        """In a transaction that is given up."""

    def append_open(self, ticks: Iterable[Tick]) -> AbstractContextManager[None]:
        """In a transaction that is open inside the context and committed at its end."""

    def open_log(self) -> Log:
        """The group's one member, started again; the one before has been closed."""

    def contend(self, first: "Member") -> None:
        """Let another process claim the identity of `first`, who has joined; OwnedError to whom it is due."""

    def read_topic(self, name: str) -> list[Published]:
        """All committed records now, partition by partition, in order. Empty where there is no topic."""

    def close(self) -> None:
        """End what is still open."""


class TailWorld(LogWorld, Protocol):
    """One where somebody may look on."""

    def open_tail(self) -> Tail:
        """For one who only looks at the tick topic, and at the group's offsets; any number of them."""

    def visible(self) -> object:
        """What others can see of the topics, of the group, its offsets and members, and of groups beside it."""


class Member:
    """Polls a log; begins where the group has committed, or at `starts`, or at the beginning."""

    def __init__(self, log: Log, starts: Mapping[int, int] | None = None) -> None:
        """Nothing is polled yet."""
        self.log = log
        self.starts = starts or {}
        self.assignments: list[Sequence[int]] = []
        self.batches: list[Records] = []
        self.positions: dict[int, int] = {}
        self._clock = SystemClock()

    def assigned(self, partitions: Sequence[int]) -> Mapping[int, int]:
        """See `interfaces.Listener`."""
        self.assignments.append(tuple(partitions))
        committed = self.log.committed(partitions)
        begins = self.log.begins(partitions)
        for number in partitions:
            found = committed[number]
            self.positions[number] = self.starts.get(number, begins[number] if found is None else found.offset)
        return {number: self.positions[number] for number in partitions}

    def revoked(self, partitions: Sequence[int]) -> None:
        """See `interfaces.Listener`."""
        for number in partitions:
            self.positions.pop(number, None)

    def gone(self, partition: int, offset: int) -> None:
        """See `interfaces.Listener`; no contract takes records away from under a reader."""
        raise AssertionError((partition, offset))

    def poll(self, timeout_s: float, *, is_held: bool = False) -> int:
        """Poll once, hold the batches to what `Records` promises; how many records came."""
        batches = list(self.log.poll(timeout_s, self, is_held=is_held))
        for batch in batches:
            assert len(batch.values) == len(batch.timestamps_ms) == len(batch.offsets)
            at = [self.positions[batch.partition], *batch.offsets, batch.next_offset]
            assert at[0] <= at[-1], "the position fell"
            assert all(one < next_one for one, next_one in pairwise(at[1:])), "out of order"
            assert not batch.offsets or at[0] <= at[1], "a record came before the position"
            self.positions[batch.partition] = batch.next_offset
        self.batches += batches
        return sum(len(batch.values) for batch in batches)

    def poll_until(self, is_done: Callable[[], bool], *, poll_s: float = 0.05) -> None:
        """Poll until then, LIMIT_S at most."""
        until_ms = self._clock.monotonic_ms() + LIMIT_S * 1_000
        while not is_done():
            assert self._clock.monotonic_ms() < until_ms, f"it did not come; {self.count} records did"
            self.poll(poll_s)

    def join(self) -> None:
        """Poll until all partitions are ours."""
        self.poll_until(lambda: self.positions.keys() == set(self.log.partitions()))

    def read(self, count: int, *, poll_s: float = 0.05) -> None:
        """Poll until that many records have come in all."""
        self.poll_until(lambda: self.count >= count, poll_s=poll_s)

    def read_all(self) -> None:
        """Poll until every position is at the end the log has now, or behind it."""
        self.join()
        ends = self.log.ends(self.log.partitions())
        self.poll_until(lambda: all(self.positions[number] >= end for number, end in ends.items()))

    @property
    def count(self) -> int:
        """How many records have come."""
        return sum(len(batch.values) for batch in self.batches)

    def values(self, partition: int) -> list[bytes | None]:
        """The values of one partition, in the order they came."""
        return [value for batch in self.batches if batch.partition == partition for value in batch.values]


def joined(log: Log) -> Member:
    """One who has all partitions."""
    member = Member(log)
    member.join()
    return member


def numbered(count: int, *, key: bytes = b"M:D:1", first: int = 0) -> list[Tick]:
    """Ticks of one key."""
    return [Tick(key, str(number).encode()) for number in range(first, first + count)]


def values_of(ticks: list[Tick]) -> list[bytes | None]:
    """As a reader has them."""
    return [tick.value for tick in ticks]


def offsets_only(offsets: Mapping[int, Committed]) -> Transaction:
    """A commit that publishes nothing."""
    return Transaction(candles=[], letters=[], offsets=offsets)
