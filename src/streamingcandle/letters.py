"""Rejected and late records as they lie in their topics: what the path writes there, and what is read back.

A letter is the record byte for byte, its own headers, and behind those ours: why, and where it came from. It is
known by its place. One that is over its topic's limit is cut: key, headers and value are then the beginnings of the
record's, and `source.length`, `source.sha256` (of the value, also where that is whole) say so, `source.key.length`,
`source.key.sha256` of a cut key, `source.headers.count`, `.length` and `.sha256` where some headers are left out (each
name and value followed by a zero byte). The shortest form has nothing of the record, and its place as key.
What was put back on the tick topic is noted by a mark: a record of the same topic, without a
key, in the transaction that put it back. Letters and marks live and die together, the marks last.
"""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from typing import Protocol

import msgspec

from streamingcandle.interfaces import Letter, Origin

Headers = Sequence[tuple[str, bytes | None]]
RETRIED = "retried"
"""Header of a tick put back: the source `partition@offset` of the letter."""
MARK = "retried.letters"
"""Header of a mark; its value is JSON, the offsets of the letters by partition."""
WHY = ("reason", "timeframes")
OWN_HEADERS = 5
"""How many headers of ours a letter has, whole."""
CUT_BYTES = 1_000
"""What a batch of one record and the headers of a cut take beside key, value and other headers."""
HEADER_BYTES = 10
"""What one header takes beside its name and value, at most."""
PART_SHARE = 4
"""A cut key gets one part in so many of the room, the record's own headers as much: the rest is the value's."""
WHY_BYTES_MAX = 200
"""Of why a letter is here, in its shortest form."""


class Place(msgspec.Struct, frozen=True, order=True):
    """Where a record lies in its topic."""

    partition: int
    offset: int

    def __str__(self) -> str:
        """`3@120`."""
        return f"{self.partition}@{self.offset}"


class StoredLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One record of a dead-letter or late topic. Where it `is_cut`, key, value and headers may be beginnings only."""

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
    """Of the whole value, where anything was cut."""

    @property
    def is_cut(self) -> bool:
        """Whether the topic's limit on a record left only a part of it."""
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


def cut(letter: Letter, limit_bytes: int) -> Letter:
    """The letter itself where the topic takes it; else what fits of it, with full lengths and SHA-256 (§1.1)."""
    own, said = _parts(letter)
    room_bytes = limit_bytes - CUT_BYTES - _size_bytes(said)
    if len(letter.key or b"") + len(letter.value or b"") + _size_bytes(own) <= room_bytes:
        return letter
    if room_bytes <= 0:
        return shortest(letter)
    headers, key = list[tuple[str, bytes | None]](), letter.key
    left_bytes = room_bytes // PART_SHARE
    for name, text in own:
        left_bytes -= _size_bytes([(name, text)])
        if left_bytes < 0:
            break
        headers.append((name, text))
    if key is not None and len(key) > room_bytes // PART_SHARE:
        key = key[: room_bytes // PART_SHARE]
    left_bytes = room_bytes - _size_bytes(headers) - len(key or b"")
    value = None if letter.value is None else letter.value[:left_bytes]
    told = [*said, *_lengths(letter, is_key_whole=key == letter.key, is_all_headers=len(headers) == len(own))]
    return Letter(letter.topic, key, value, [*headers, *told])


def shortest(letter: Letter) -> Letter:
    """Why, where from, lengths and SHA-256; and a key, which a compacted topic asks for: the place."""
    _, said = _parts(letter)
    source = {name: text or b"" for name, text in said}
    key = source.get("source.partition", b"") + b"@" + source.get("source.offset", b"")
    said = [(name, None if text is None else text[:WHY_BYTES_MAX] if name in WHY else text) for name, text in said]
    told = [*said, *_lengths(letter, is_key_whole=letter.key is None, is_all_headers=False)]
    return Letter(letter.topic, key, None, told)


def place_of(letter: Letter) -> str:
    """Where its record lies: `ticks[3]@120`."""
    said = {name: (text or b"").decode(errors="replace") for name, text in _parts(letter)[1]}
    return f"{said.get('source.topic', '?')}[{said.get('source.partition', '?')}]@{said.get('source.offset', '?')}"


def _parts(letter: Letter) -> tuple[Headers, Headers]:
    """The record's own headers, and ours behind them."""
    names = [name for name, _ in letter.headers]
    begin = max((index for index, name in enumerate(names) if name in WHY), default=len(names))
    return letter.headers[:begin], letter.headers[begin:]


def _size_bytes(headers: Headers) -> int:
    return sum(len(name.encode()) + len(text or b"") + HEADER_BYTES for name, text in headers)


def _lengths(letter: Letter, *, is_key_whole: bool, is_all_headers: bool) -> Headers:
    value, key, (own, _) = letter.value or b"", letter.key or b"", _parts(letter)
    told = [("source.length", str(len(value)).encode()), ("source.sha256", hashlib.sha256(value).hexdigest().encode())]
    if not is_key_whole:
        told += [
            ("source.key.length", str(len(key)).encode()),
            ("source.key.sha256", hashlib.sha256(key).hexdigest().encode()),
        ]
    if own and not is_all_headers:
        packed = b"".join(name.encode() + b"\0" + (text or b"") + b"\0" for name, text in own)
        told += [
            ("source.headers.count", str(len(own)).encode()),
            ("source.headers.length", str(len(packed) - 2 * len(own)).encode()),
            ("source.headers.sha256", hashlib.sha256(packed).hexdigest().encode()),
        ]
    return told


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
