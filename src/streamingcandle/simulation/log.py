"""`interfaces.Log` of one process on the pretended broker. Between any two calls the process may die or freeze."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, Protocol

from streamingcandle.errors import OwnedError
from streamingcandle.interfaces import (
    BrokerAwayError,
    Committed,
    InDoubtError,
    Listener,
    NotCommittedError,
    NotMemberError,
    Origin,
    Records,
    Transaction,
)
from streamingcandle.simulation.broker import Broker, FencedError
from streamingcandle.simulation.broker import Transaction as Pending

Fate = Literal["lands", "aborts", "lands unsaid", "is lost", "lands later"]
"""What becomes of a commit; of the last three the process only learns that it is in doubt."""

UNDECIDED_MS = 100
"""How often a transaction that holds what we ask for is looked at again."""


class Host(Protocol):
    """The process a log lives in, as far as the log needs it."""

    identity: str
    """In the group."""
    producer: str
    """Its transactional id."""

    def reach(self, point: str) -> None:
        """Between two calls: here the process may lose time, freeze, or end."""

    def wait(self, duration_ms: int, is_over: Callable[[], bool]) -> None:
        """Return after this time, or somewhat after it is over."""

    def fate(self) -> Fate:
        """What becomes of the commit now asked for."""

    def late_ms(self) -> int:
        """When a commit that lands later does so."""

    def is_arrived(self) -> bool:
        """Whether a commit on its way is at the broker before its producer is fenced."""

    def is_away(self) -> bool:
        """Whether the brokers cannot be reached now."""

    def records_max(self) -> int:
        """How many records a poll brings of a partition, at most."""


class SimulatedLog:
    """A member of the group; joins at the first poll, and gets its partitions at a later one."""

    def __init__(self, broker: Broker, host: Host) -> None:
        """Nothing is asked yet."""
        self._broker = broker
        self._host = host
        self._token: int | None = None
        self._epoch: int | None = None
        self._positions: dict[int, int] = {}
        self.listener: Listener | None = None
        self._doubtful: set[int] = set()
        """Partitions of a transaction that is not settled: no records of them come."""
        self.delivered: dict[int, int] = {}
        """By partition: how many records came since it was assigned."""

    @property
    def token(self) -> int | None:
        """Says that we are a member, as long as the group agrees."""
        return self._token

    # ---- reading

    def poll(self, timeout_s: float, listener: Listener, *, is_held: bool = False) -> Iterable[Records]:
        """See `interfaces.Reader`."""
        self._host.reach("poll")
        self.listener = listener
        if self._host.is_away():
            self._host.wait(int(timeout_s * 1_000), lambda: not self._host.is_away())
            raise BrokerAwayError("the brokers are away")
        self._be_member(listener)
        if is_held:
            self._host.wait(int(timeout_s * 1_000), lambda: False)
            return []
        if not self._is_readable():
            self._host.wait(int(timeout_s * 1_000), self._is_readable)
        return [records for number in list(self._positions) if (records := self._read(number)) is not None]

    def _be_member(self, listener: Listener) -> None:
        group = self._broker.group
        if self._token is not None and not group.is_member(self._token):
            lost = sorted(self._positions)
            self._doubtful.clear()
            if lost:
                self._positions.clear()
                listener.revoked(lost)
            if group.is_taken(self._host.identity):
                raise OwnedError(f"{self._host.identity}: another process has taken its place")
            self._token = None
        if self._token is None:
            self._token = group.join(self._host.identity)
            return
        leaving = group.has_to_give_back(self._token)
        if leaving:
            for number in leaving:
                self._positions.pop(number, None)
            self._doubtful -= set(leaving)
            listener.revoked(leaving)
            group.given_back(self._token)
            return
        coming = sorted(group.taken_over(self._token) - self._positions.keys())
        if coming:
            self.delivered.update(dict.fromkeys(coming, 0))
            self._positions.update(listener.assigned(coming))
            self._joined(coming)

    def _joined(self, partitions: Sequence[int]) -> None:
        """These have become ours."""

    def _is_readable(self) -> bool:
        return self._host.records_max() > 0 and any(
            position < self._broker.ticks[number].stable_end and number not in self._doubtful
            for number, position in self._positions.items()
        )

    def _read(self, number: int) -> Records | None:
        if number in self._doubtful:
            return None
        position = self._positions[number]
        found, next_offset = self._broker.ticks[number].read(position, self._host.records_max())
        if next_offset == position:
            return None
        self._positions[number] = next_offset
        self.delivered[number] += len(found)
        return Records(
            partition=number,
            values=[origin.value for origin in found],
            timestamps_ms=[origin.timestamp_ms for origin in found],
            offsets=[origin.offset for origin in found],
            next_offset=next_offset,
            origin=found.__getitem__,
        )

    def ends(self, partitions: Iterable[int]) -> Mapping[int, int]:
        """See `interfaces.Reader`."""
        self._host.reach("ends")
        return {number: self._broker.ticks[number].end for number in partitions}

    def known_ends(self, partitions: Iterable[int]) -> Mapping[int, int]:
        """See `interfaces.Reader`."""
        return {number: self._broker.ticks[number].end for number in partitions if number in self._positions}

    def begins(self, partitions: Iterable[int]) -> Mapping[int, int]:
        """See `interfaces.Reader`."""
        self._host.reach("begins")
        return dict.fromkeys(partitions, 0)

    def offset_at(self, partition: int, timestamp_ms: int) -> int:
        """See `interfaces.Reader`."""
        self._host.reach("offset_at")
        return self._broker.ticks[partition].offset_at(timestamp_ms)

    def record_at(self, partition: int, offset: int) -> Origin | None:
        """See `interfaces.Reader`."""
        self._host.reach("record_at")
        found, _ = self._broker.ticks[partition].read(offset, 1)
        return found[0] if found and found[0].offset == offset else None

    def partitions(self) -> Sequence[int]:
        """See `interfaces.Reader`."""
        self._host.reach("partitions")
        return range(len(self._broker.ticks))

    def newest(self, topics: Sequence[str], records_max: int) -> Mapping[str, Sequence[bytes]]:
        """See `interfaces.Reader`."""
        found = {}
        for topic in topics:
            self._host.reach("newest")
            newest = [record.value for sheet in self._broker.read_topic(topic) for record in sheet[-records_max:]]
            found[topic] = [value for value in newest if value is not None]
        return found

    # ---- publishing

    def commit(self, transaction: Transaction) -> None:
        """See `interfaces.Publisher`. A freeze or an end may come at each step, and leaves what is done."""
        self._host.reach("commit")
        fate = self._host.fate()
        if self._epoch is None:
            self._epoch = self._broker.init_producer(self._host.producer)
            self._host.reach("init")
        try:
            pending = self._broker.begin(self._host.producer, self._epoch, self._host)
            self._write(transaction, pending, self._epoch)
            self._host.reach("offsets")
            is_member = self._token is not None and self._broker.add_offsets(
                pending, self._epoch, self._token, dict(transaction.offsets)
            )
            self._host.reach("end")
            if fate == "aborts" or not is_member:
                self._broker.end(pending, self._epoch, is_commit=False)
                if not is_member:
                    raise NotMemberError("not a member of the group any more")
                raise NotCommittedError("aborted")
            self._end(pending, self._epoch, fate)
        except (FencedError, BrokerAwayError) as error:
            self._doubtful |= transaction.offsets.keys()
            raise InDoubtError(f"fenced or away: {error}") from error
        except InDoubtError:
            self._doubtful |= transaction.offsets.keys()
            raise

    def _write(self, transaction: Transaction, pending: Pending, epoch: int) -> None:
        for topic, candles in transaction.candles:
            for key, value in candles:
                self._broker.write(pending, epoch, topic, key, value, ())
        for letter in transaction.letters:
            self._broker.write(pending, epoch, letter.topic, letter.key, letter.value, letter.headers)

    def _end(self, pending: Pending, epoch: int, fate: Fate) -> None:
        if fate == "lands later":
            self._broker.end_later(pending, epoch, self._host.late_ms())
        elif fate != "is lost":
            self._broker.end(pending, epoch, is_commit=True)
        if fate != "lands":
            raise InDoubtError(f"no answer: the commit {fate}")

    def settle(self) -> None:
        """See `interfaces.Publisher`."""
        self._host.reach("settle")
        self._epoch = self._broker.init_producer(self._host.producer, is_arrived=self._host.is_arrived())
        self._doubtful.clear()
        self._host.reach("settled")

    def committed(self, partitions: Iterable[int]) -> Mapping[int, Committed | None]:
        """See `interfaces.Publisher`."""
        self._host.reach("committed")
        wanted = list(partitions)
        while self._broker.is_undecided(wanted):
            self._host.wait(UNDECIDED_MS, lambda: not self._broker.is_undecided(wanted))
            self._host.reach("undecided")
        return {number: self._broker.committed(number) for number in wanted}

    def check_topics(self, names: Iterable[str]) -> None:
        """See `interfaces.Publisher`: every topic is there."""

    def topic_id(self) -> str:
        """See `interfaces.Publisher`."""
        return self._broker.topic_id

    def close(self) -> None:
        """See `interfaces.Publisher`. A static member's place waits for it till its session runs out."""
        self._positions.clear()
