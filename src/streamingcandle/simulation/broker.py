"""A pretended broker: tick partitions with upstream transactions and gaps, candle topics, transactions, offsets.

It believes what Kafka believes and no more: a transaction needs the newest epoch of its id, offsets in it the token of
a member of the group; which partitions a member commits is not looked at. A reader of committed records finds
them in the order they were written, not in the order of the commits.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import msgspec

from streamingcandle.candles.murmur2 import partition_of
from streamingcandle.interfaces import Committed, Origin
from streamingcandle.simulation.group import Group

Headers = Sequence[tuple[str, bytes | None]]

TRANSACTION_MS_MAX = 6_000
"""An open transaction older than this is aborted, and its producer fenced."""


class FencedError(Exception):
    """Another producer has this transactional id, or the transaction ran out of time."""


class Upstream(msgspec.Struct, eq=False):
    """A transaction of a program that writes ticks."""

    first_offset: int
    state: str = "open"


class Entry(msgspec.Struct, frozen=True):
    """One place in a tick partition that is taken: a record, or where `origin` is None a control record."""

    offset: int
    appended_ms: int
    origin: Origin | None
    upstream: Upstream | None


class TickPartition:
    """One partition of the tick topic."""

    def __init__(self) -> None:
        """Empty."""
        self.entries: list[Entry] = []
        self.end = 0
        self._offsets: list[int] = []
        self._open: list[Upstream] = []

    @property
    def stable_end(self) -> int:
        """The last stable offset: up to here every transaction is decided."""
        return min((upstream.first_offset for upstream in self._open), default=self.end)

    def append(
        self,
        key: bytes | None,
        value: bytes | None,
        *,
        timestamp_ms: int,
        appended_ms: int,
        headers: Headers = (),
        upstream: Upstream | None = None,
    ) -> int:
        """Add a record; its offset."""
        origin = Origin(key, value, timestamp_ms, self.end, headers)
        return self._add(Entry(self.end, appended_ms, origin, upstream))

    def skip(self, count: int) -> None:
        """Leave a gap, as compaction does."""
        self.end += count

    def begin(self) -> Upstream:
        """Open an upstream transaction that writes here."""
        upstream = Upstream(self.end)
        self._open.append(upstream)
        return upstream

    def decide(self, upstream: Upstream, state: str, *, appended_ms: int) -> None:
        """End it, committed or aborted; the control record takes an offset."""
        upstream.state = state
        self._open.remove(upstream)
        self._add(Entry(self.end, appended_ms, None, upstream))

    def has_open(self, upstream: Upstream) -> bool:
        """Whether this transaction writes here and is not decided."""
        return upstream in self._open

    def _add(self, entry: Entry) -> int:
        self.entries.append(entry)
        self._offsets.append(entry.offset)
        self.end = entry.offset + 1
        return entry.offset

    def read(self, position: int, records_max: int) -> tuple[list[Origin], int]:
        """Committed records from `position` on, and the position after them and after what is no record."""
        stable_end = self.stable_end
        found: list[Origin] = []
        for index in range(bisect_left(self._offsets, position), len(self.entries)):
            entry = self.entries[index]
            if entry.offset >= stable_end:
                break
            if entry.origin is None or (entry.upstream is not None and entry.upstream.state != "committed"):
                continue
            if len(found) == records_max:
                return found, found[-1].offset + 1 if found else position
            found.append(entry.origin)
        return found, max(position, stable_end)

    def records(self) -> list[Entry]:
        """All committed records, those before the last stable offset."""
        stable_end = self.stable_end
        return [
            entry
            for entry in self.entries
            if entry.offset < stable_end
            and entry.origin is not None
            and (entry.upstream is None or entry.upstream.state == "committed")
        ]

    def offset_at(self, timestamp_ms: int) -> int:
        """The first record below the last stable offset with this timestamp or a later one, else the end."""
        stable_end = self.stable_end
        for entry in self.entries:
            if entry.offset >= stable_end:
                break
            if entry.origin is not None and entry.origin.timestamp_ms >= timestamp_ms:
                return entry.offset
        return self.end


class Transaction(msgspec.Struct, eq=False):
    """A transaction of ours: its state, what is committed with it, and when."""

    producer: str
    begun_ms: int
    author: object
    """Who wrote it, for whoever audits the story."""
    state: str = "open"
    offsets: dict[int, Committed] = msgspec.field(default_factory=dict)
    records: list[tuple[str, "Written"]] = msgspec.field(default_factory=list)
    """With their topics, as written."""
    lands_ms: int | None = None
    """When a commit on its way arrives."""
    ended_ms: int = 0


class Written(msgspec.Struct, frozen=True, eq=False):
    """A record of ours in a topic."""

    key: bytes | None
    value: bytes | None
    headers: Headers
    transaction: Transaction


class Broker:
    """The whole pretended cluster."""

    def __init__(self, partitions: int, now_ms: Callable[[], int], topic_id: str = "topic-1") -> None:
        """`now_ms` tells the broker's time."""
        self.ticks = [TickPartition() for _ in range(partitions)]
        self.group = Group(partitions)
        self.topic_id = topic_id
        self.landed: list[Transaction] = []
        """Committed transactions of ours, in the order they were."""
        self._now_ms = now_ms
        self._topics: dict[str, list[list[Written]]] = {}
        self._offsets: dict[int, Committed] = {}
        self._epochs: dict[str, int] = defaultdict(int)
        self._open: dict[str, Transaction] = {}

    # ---- transactions

    def init_producer(self, producer: str, *, is_arrived: bool = False) -> int:
        """Take over a transactional id; a transaction left open is aborted, or committed if that had arrived."""
        self.pass_time()
        self._epochs[producer] += 1
        if producer in self._open:
            transaction = self._open[producer]
            self._end(transaction, is_commit=is_arrived and transaction.lands_ms is not None)
        return self._epochs[producer]

    def begin(self, producer: str, epoch: int, author: object) -> Transaction:
        """Open a transaction. Where one of this producer is open still, it goes on: the broker knows no better."""
        self._check(producer, epoch)
        if producer not in self._open:
            self._open[producer] = Transaction(producer, self._now_ms(), author)
        return self._open[producer]

    def write(
        self, transaction: Transaction, epoch: int, topic: str, key: bytes | None, value: bytes | None, headers: Headers
    ) -> None:
        """Write a record; nobody who reads committed records sees it yet."""
        self._check(transaction.producer, epoch)
        count = len(self.ticks)
        sheets = self._topics.setdefault(topic, [[] for _ in range(count)])
        number = partition_of(key, count) if key is not None else 0
        written = Written(key, value, headers, transaction)
        sheets[number].append(written)
        transaction.records.append((topic, written))

    def add_offsets(self, transaction: Transaction, epoch: int, token: int, offsets: dict[int, Committed]) -> bool:
        """Offsets to commit with it; false where the token is no member's any more."""
        self._check(transaction.producer, epoch)
        if not self.group.is_member(token):
            return False
        transaction.offsets |= offsets
        return True

    def end(self, transaction: Transaction, epoch: int, *, is_commit: bool) -> None:
        """Commit or abort it."""
        self._check(transaction.producer, epoch)
        self._end(transaction, is_commit=is_commit)

    def end_later(self, transaction: Transaction, epoch: int, lands_ms: int) -> None:
        """A commit is on its way and arrives then, unless the producer is fenced before."""
        self._check(transaction.producer, epoch)
        transaction.lands_ms = lands_ms

    def _check(self, producer: str, epoch: int) -> None:
        self.pass_time()
        if self._epochs[producer] != epoch:
            raise FencedError(producer)

    def _end(self, transaction: Transaction, *, is_commit: bool) -> None:
        transaction.state = "committed" if is_commit else "aborted"
        transaction.ended_ms = self._now_ms()
        del self._open[transaction.producer]
        if is_commit:
            self._offsets |= transaction.offsets
            self.landed.append(transaction)

    def pass_time(self) -> None:
        """Let commits on their way arrive, and transactions run out of time."""
        now_ms = self._now_ms()
        for transaction in sorted(self._open.values(), key=lambda each: each.begun_ms):
            if transaction.lands_ms is not None and transaction.lands_ms <= now_ms:
                self._end(transaction, is_commit=True)
            elif transaction.begun_ms + TRANSACTION_MS_MAX <= now_ms:
                self._epochs[transaction.producer] += 1
                self._end(transaction, is_commit=False)

    # ---- offsets and readers

    def is_undecided(self, partitions: Iterable[int]) -> bool:
        """Whether an open transaction holds offsets of these."""
        self.pass_time()
        wanted = set(partitions)
        return any(wanted & transaction.offsets.keys() for transaction in self._open.values())

    def committed(self, number: int) -> Committed | None:
        """The group's offset of one tick partition."""
        self.pass_time()
        return self._offsets.get(number)

    def read_topic(self, topic: str) -> list[list[Written]]:
        """What a reader of committed records finds, by partition."""
        self.pass_time()
        found = []
        for sheet in self._topics.get(topic, []):
            states = [record.transaction.state for record in sheet]
            stable_end = states.index("open") if "open" in states else len(states)
            found.append([record for record in sheet[:stable_end] if record.transaction.state == "committed"])
        return found

    def topics(self) -> list[str]:
        """Topics we have written to."""
        return sorted(self._topics)
