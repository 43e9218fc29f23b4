"""Rejected and late records as they lie in their topics: what the path writes there, and what is read back.

A letter is the record byte for byte, its own headers, and behind those ours: why, and where it came from. It is
known by its place. What was put back on the tick topic is noted by a mark: a record of the same topic, without a
key, in the transaction that put it back. Letters and marks live and die together, the marks last.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Protocol

import msgspec

from streamingcandle.interfaces import Origin

Headers = Sequence[tuple[str, bytes | None]]
RETRIED = "retried"
"""Header of a tick put back: the source `partition@offset` of the letter."""
MARK = "retried.letters"
"""Header of a mark; its value is JSON, the offsets of the letters by partition."""
WHY = ("reason", "timeframes")


class Place(msgspec.Struct, frozen=True, order=True):
    """Where a record lies in its topic."""

    partition: int
    offset: int

    def __str__(self) -> str:
        """`3@120`."""
        return f"{self.partition}@{self.offset}"


class StoredLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One record of a dead-letter or late topic. `value` is its beginning only where it `is_cut`."""

    place: Place
    kept_ms: int
    """When it came into this topic."""
    key: bytes | None
    value: bytes | None
    headers: Headers
    """The record's own."""
    reason: str
    """Why it was rejected, or the timeframes that it was too late for."""
    topic: str
    source: Place
    timestamp_ms: int
    """The record's; -1 where it had none."""
    size_bytes: int
    sha256: str | None
    """Of the whole record, where it was cut."""

    @property
    def is_cut(self) -> bool:
        """Whether the topic's limit on a record left only the beginning of it."""
        return self.sha256 is not None


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """A record on its way back, whole, to where it was: its producer may share keys out in another way than we do.

    Only where that partition is no more, or was of another topic, it goes by its key.
    """

    letter: Place
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: Headers
    topic: str
    partition: int

    def home(self, topic: str, partitions: int) -> int | None:
        """The partition of this topic of so many to put it in; None: by its key."""
        return self.partition if self.topic == topic and self.partition < partitions else None


class Letters(Protocol):
    """A topic of letters, on one of the logs. OutsideError where it cannot be read or written."""

    def begin(self) -> None:
        """Before a retry reads: what another one has under way is in the topic from now on, or never will be."""

    def ends(self) -> dict[int, int]:
        """The offset after the last record now in each partition. MissingTopicError, if letters do not make it."""

    def read(self, ends: dict[int, int]) -> Iterator[tuple[Place, Origin]]:
        """The committed records up to `ends`, of each partition in order."""

    def record_at(self, topic: str, place: Place) -> Origin | None:
        """A record of the tick topic; None where it is gone."""

    def put_back(self, retries: Sequence[Retry]) -> int:
        """Append to the tick topic, and mark, each record that has no mark yet: all in one transaction. How many.

        OwnedError when another retry has begun since.
        """

    def close(self) -> None:
        """Let the log go."""


def ours(origin: Origin, why: str, text: str, *, topic: str, partition: int) -> Headers:
    """The headers of a letter: the record's own, why it is here, and where it was."""
    return [
        *origin.headers,
        (why, text.encode()),
        ("source.topic", topic.encode()),
        ("source.partition", str(partition).encode()),
        ("source.offset", str(origin.offset).encode()),
        ("source.timestamp", str(origin.timestamp_ms).encode()),
    ]


def read_letter(place: Place, record: Origin) -> StoredLetter | None:
    """The letter that lies there; None for what is no letter."""
    names = [name for name, _ in record.headers]
    begin = max((index for index, name in enumerate(names) if name in WHY), default=None)
    if begin is None:
        return None
    said = {name: (value or b"").decode(errors="replace") for name, value in record.headers[begin:]}
    try:
        return StoredLetter(
            place=place,
            kept_ms=record.timestamp_ms,
            key=record.key,
            value=record.value,
            headers=record.headers[:begin],
            reason=said[names[begin]],
            topic=said["source.topic"],
            source=Place(int(said["source.partition"]), int(said["source.offset"])),
            timestamp_ms=int(said["source.timestamp"]),
            size_bytes=int(said.get("source.length", len(record.value or b""))),
            sha256=said.get("source.sha256"),
        )
    except (KeyError, ValueError):
        return None


def retry_of(letter: StoredLetter, value: bytes | None) -> Retry:
    """The record as it was, told apart by a header; one that was put back before has one such header, not two."""
    headers = [(name, text) for name, text in letter.headers if name != RETRIED]
    return Retry(
        letter=letter.place,
        key=letter.key,
        value=value,
        timestamp_ms=letter.timestamp_ms,
        headers=[*headers, (RETRIED, str(letter.source).encode())],
        topic=letter.topic,
        partition=letter.source.partition,
    )


def mark_of(places: Collection[Place]) -> tuple[bytes, Headers]:
    """Value and headers of the mark that says that these letters were put back."""
    offsets: dict[int, list[int]] = {}
    for place in sorted(places):
        offsets.setdefault(place.partition, []).append(place.offset)
    return msgspec.json.encode(offsets), [(MARK, str(len(places)).encode())]


def marked(record: Origin) -> list[Place]:
    """The letters that a mark says were put back; none where the record is no mark."""
    if not record.headers or record.headers[-1][0] != MARK:
        return []
    try:
        found = msgspec.json.decode(record.value or b"", type=dict[int, list[int]])
    except msgspec.DecodeError:
        return []
    return [Place(partition, offset) for partition, offsets in found.items() for offset in offsets]
