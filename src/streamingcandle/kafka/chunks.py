"""Snapshots out of chunks, as a log tells them: nothing in a record is believed, and nothing in it is our trouble."""

import re
import zlib
from collections.abc import Iterator

import msgspec
from confluent_kafka import Message

from streamingcandle.state.files import SLOTS
from streamingcandle.state.snapshot import SNAPSHOT_BYTES_MAX

CHUNK_BYTES = 500_000
"""Below every broker's limit of a record."""
CHUNKS_MAX = SNAPSHOT_BYTES_MAX // CHUNK_BYTES
IDENTITY_BYTES_MAX = 64
_KEY = re.compile(rb"([0-9]{1,10})/([0-9]{1,10})/([0-9]{1,6})")
_NUMBER = re.compile(rb"[0-9]{1,10}")


class Chunk(msgspec.Struct, frozen=True):
    """What a record says that it is a part of."""

    identity: bytes
    total: int
    checksum: int


def headers_of(snapshot: bytes, identity: bytes) -> dict[str, str | bytes | None]:
    """Of each of a snapshot's chunks."""
    total = -(-len(snapshot) // CHUNK_BYTES)
    return {
        "snapshot": identity,
        "total": str(total).encode(),
        "checksum": str(zlib.crc32(snapshot)).encode(),
    }


class _Slot:
    """The snapshot that was written last, or is left of it: at most CHUNKS_MAX chunks of CHUNK_BYTES."""

    def __init__(self) -> None:
        self.chunk: Chunk | None = None
        self.offset = 0
        self._parts: dict[int, bytes] = {}

    def add(self, chunk: Chunk, number: int, value: bytes, offset: int) -> None:
        if chunk != self.chunk:
            self._parts.clear()  # of another one: what was written over is whole no more
        self.chunk, self.offset, self._parts[number] = chunk, offset, value

    def whole(self) -> bytes | None:
        if self.chunk is None or len(self._parts) != self.chunk.total:
            return None
        whole = b"".join(self._parts[number] for number in range(self.chunk.total))
        return whole if zlib.crc32(whole) == self.chunk.checksum else None


class Gathering:
    """The snapshots of one partition, as the records come in log order."""

    def __init__(self, partition: int) -> None:
        """Nothing has come."""
        self._partition = partition
        self._slots: dict[int, _Slot] = {}
        self.odd = 0
        """Records with a key like ours of this partition that are no chunks."""

    def add(self, message: Message) -> None:
        """Take the next record; others than of this partition are passed over."""
        key = _KEY.fullmatch(message.key() or b"")
        if key is None:
            return
        partition, slot, number = map(int, key.groups())
        if partition != self._partition:
            return
        value, chunk = message.value() or b"", _chunk_of(message)
        if chunk is None or slot >= SLOTS or number >= chunk.total or not 0 < len(value) <= CHUNK_BYTES:
            self.odd += 1
            return
        self._slots.setdefault(slot, _Slot()).add(chunk, number, value, message.offset() or 0)

    def snapshots(self) -> Iterator[tuple[int, bytes | None]]:
        """Slot and snapshot, the last written first; None for one that is not whole."""
        for slot in sorted(self._slots, key=lambda slot: self._slots[slot].offset, reverse=True):
            yield slot, self._slots[slot].whole()


def _chunk_of(message: Message) -> Chunk | None:
    try:
        headers = dict(message.headers() or [])
    except (ValueError, TypeError, SystemError):
        return None  # names that are no text
    identity, total, checksum = (headers.get(name) for name in ("snapshot", "total", "checksum"))
    if not isinstance(identity, bytes) or len(identity) > IDENTITY_BYTES_MAX:
        return None
    counted = [_NUMBER.fullmatch(value) if isinstance(value, bytes) else None for value in (total, checksum)]
    if counted[0] is None or counted[1] is None:
        return None
    chunk = Chunk(identity, int(counted[0][0]), int(counted[1][0]))
    return chunk if 0 < chunk.total <= CHUNKS_MAX else None
