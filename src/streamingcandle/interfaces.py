"""The contracts between the path and the world. `tests/contract/` holds every log to them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from streamingcandle.errors import OutsideError, StreamingCandleError
from streamingcandle.state.background import CLOSE_TIMEOUT_S


class BrokerAwayError(OutsideError):
    """Nobody answers now, and nothing has changed by asking: poll on, and ask again. At a stop it is the end."""


class NotCommittedError(StreamingCandleError):
    """The transaction is certainly not in the log; what it held is still to be published."""


class NotMemberError(NotCommittedError):
    """As that, and the partitions are others' by now: who has them publishes it. A later poll tells of it."""


class InDoubtError(StreamingCandleError):
    """Nobody knows yet whether the transaction is in the log: `settle`, then read `committed`."""


class Origin(msgspec.Struct, frozen=True):
    """One input record as it lies in the log, for the dead letters and the late ticks."""

    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    offset: int
    headers: Sequence[tuple[str, bytes | None]] = ()


class Records(msgspec.Struct, frozen=True, kw_only=True):
    """What one poll brought of one partition, in log order; the three sequences have one length.

    `timestamp_ms` is -1 where a record has none. `next_offset` is the position after all of it, also
    after control records and gaps that are no records (then the sequences may be empty).
    """

    partition: int
    values: Sequence[bytes | None]
    timestamps_ms: Sequence[int]
    offsets: Sequence[int]
    next_offset: int
    origin: Callable[[int], Origin]
    keyless: Sequence[int] = ()
    """Indexes of the records without a key, where the topic has more than one partition."""


class Committed(msgspec.Struct, frozen=True):
    """A committed offset and what was said with it."""

    offset: int
    metadata: str


class Letter(msgspec.Struct, frozen=True):
    """One record beside the candles: a dead letter or a late tick."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


class Transaction(msgspec.Struct, frozen=True, kw_only=True):
    """Candles per topic as `(key, value)`, letters, and an offset with metadata per partition: all or nothing."""

    candles: Iterable[tuple[str, Sequence[tuple[bytes, bytes]]]]
    """Read once, within `commit`: some are sent while the next are encoded."""
    letters: Sequence[Letter]
    offsets: Mapping[int, Committed]


class Listener(Protocol):
    """Told of the partitions that come and go, from within `Log.poll`."""

    def assigned(self, partitions: Sequence[int]) -> Mapping[int, int]:
        """These are ours from now on; returns the offset to read each from.

        Where that raises BrokerAwayError they are not taken over yet, and told of again at a later poll.
        """

    def revoked(self, partitions: Sequence[int]) -> None:
        """These are ours no longer, given back or lost: nothing of them may be published any more."""

    def gone(self, partition: int, offset: int) -> None:
        """Records that we were to read next are no longer in the log; reading goes on at `offset`."""


class Reader(Protocol):
    """The tick topic as a member of the group reads it. `OutsideError` when the world fails for good.

    Every call of a `Log` may raise BrokerAwayError once `poll` has been called; before, it has waited for a time.
    """

    def poll(self, timeout_s: float, listener: Listener, *, is_held: bool = False) -> Iterable[Records]:
        """Wait at most this long for records; tells the listener of changes first.

        Records come in log order, none twice, none skipped, only of partitions assigned and only from
        committed transactions. While `is_held` none come, whatever else happens. Raises OwnedError when another
        process took our place for good, and BrokerAwayError, holding no records back, for as long as the brokers
        are lost.
        """

    def ends(self, partitions: Iterable[int]) -> Mapping[int, int]:
        """The offset after the last record now in each partition, records of open transactions included."""

    def known_ends(self, partitions: Iterable[int]) -> Mapping[int, int]:
        """As `ends`, of those that were told with the last records read; asks nobody and never raises."""

    def begins(self, partitions: Iterable[int]) -> Mapping[int, int]:
        """The first offset that each partition still has."""

    def offset_at(self, partition: int, timestamp_ms: int) -> int:
        """The first offset whose record's timestamp is at or after `timestamp_ms`, else the end."""

    def record_at(self, partition: int, offset: int) -> Origin | None:
        """The record at this offset; None where the log has none there (any more, or never had)."""

    def partitions(self) -> Sequence[int]:
        """All partitions of the tick topic, whoever has them."""

    def newest(self, topics: Sequence[str], records_max: int) -> Mapping[str, Sequence[bytes]]:
        """Values of the last committed records by topic, so many of each partition; none of a missing topic."""


class Publisher(Protocol):
    """Candles and offsets in one transaction, and what was committed."""

    def commit(self, transaction: Transaction) -> None:
        """Publish all of it or nothing, at once visible to read_committed readers.

        Only for partitions assigned now, with no poll in between. Raises NotCommittedError, InDoubtError,
        or OwnedError when another process has our identity; BrokerAwayError where nothing was begun;
        MissingTopicError where a topic is gone. A letter that its topic does not take is cut, and stops nothing.
        """

    def settle(self) -> None:
        """After InDoubtError: returns when the transaction is either in the log for good or never will be.

        Where it raises BrokerAwayError the doubt stays: poll on, settle later. No records of the partitions
        that the transaction is about come before it is settled, unless they left us and came back.
        """

    def committed(self, partitions: Iterable[int]) -> Mapping[int, Committed | None]:
        """What the group has committed, a former owner's open commits waited for."""

    def check_topics(self, names: Iterable[str]) -> None:
        """MissingTopicError names those of them that are not there, and that no commit would make."""

    def topic_id(self) -> str:
        """Identifies the tick topic's life: another one after it was deleted and made anew."""

    def close(self) -> None:
        """Leave the group in good order."""


class Log(Reader, Publisher, Protocol):
    """Where ticks come from and candles go."""


class Tail(Log, Protocol):
    """A log for one who only looks: of the group's it reads offsets, in the world it changes nothing."""

    shown: list[Transaction]
    """What was committed to it, published nowhere; whoever looks empties it."""


class Snapshots(Protocol):
    """Where snapshots are kept. Shortcuts: losing any of them costs time and never values."""

    name: str
    """For the operator."""

    def save(self, partition: int, snapshot: bytes) -> None:
        """Keep it whole, or raise OutsideError and keep the one before; at most two a partition are kept.

        The error may be that of the former call; trouble that all partitions have says the same of each.
        """

    def load(self, partition: int) -> Iterable[bytes]:
        """What there is of this partition, the youngest first, whatever has become of it."""

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Wait at most so long for what is under way, and say what is not written."""


class Clock(Protocol):
    """Time, so that a simulation can bend it."""

    def monotonic_ms(self) -> int:
        """Milliseconds that never step back."""

    def wall_ms(self) -> int:
        """Epoch milliseconds of the host."""

    def sleep_ms(self, duration_ms: int) -> None:
        """Wait."""
