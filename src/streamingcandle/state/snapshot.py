"""A snapshot: the state of one partition at an offset, as bytes that say themselves what they are.

The same bytes lie in the state directory and in the snapshots topic. They are shortcuts: restoring from the
log alone gives the same state, and whatever is wrong with a snapshot costs time and no candle. Whoever may write
there may write anything: no number of it is believed before it is checked, and no size before it is bounded.
"""

import zlib

import msgspec
import zstandard

from streamingcandle.candles.book import FORMAT_VERSION
from streamingcandle.candles.commit import NUMBER_MAX, Fingerprint
from streamingcandle.errors import SettingsError

MAGIC = b"SCSN"
VERSION = FORMAT_VERSION
"""One number for these bytes and the kernel's inside: raised with either, older ones stay readable."""
_HEAD_BYTES = len(MAGIC) + 2 + 4
_COMPRESSION_LEVEL = 1
SNAPSHOT_BYTES_MAX = 1_000_000_000
"""Packed. That of a million instruments has some 400 MB."""
_STATE_BYTES_MAX = 4_000_000_000
_RATIO_MAX = 1_000
"""How often a state is greater than it is packed, ten times what was ever seen."""


class UnusableError(Exception):
    """A snapshot of no use to us; the text says why."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """State after every record below `offset`. `book` is the kernel's own dump."""

    partition: int
    offset: int
    rules: str
    fingerprint: Fingerprint
    """Which log it is a state of: the last record before `offset`."""
    written_ms: int
    book: bytes
    commit: str = ""
    """Metadata of the commit at `offset`, for the day on which the group's offsets are lost; of older programs none."""

    def encode(self) -> bytes:
        """Magic, version, checksum of the version and the rest, the rest: so far alike in every version."""
        body = zstandard.ZstdCompressor(_COMPRESSION_LEVEL).compress(msgspec.msgpack.encode(self))
        version = VERSION.to_bytes(2, "little")
        return b"".join((MAGIC, version, _checksum(version, body), body))

    @classmethod
    def decode(cls, data: bytes) -> "Snapshot":
        """Raises UnusableError for bytes that are damaged, SettingsError where a newer program wrote them."""
        if not is_whole(data):
            is_ours = data.startswith(MAGIC) and len(data) >= _HEAD_BYTES
            raise UnusableError("damaged: checksum" if is_ours else "no snapshot, or cut off")
        # Checked before the version is believed: a flipped bit there must not stop the service.
        version, body = int.from_bytes(data[4:6], "little"), data[_HEAD_BYTES:]
        if version > VERSION:
            message = (
                f"snapshot of format {version}, this program reads up to {VERSION}: a newer streamingcandle ran here; "
                "start that one, or delete the snapshots to begin from the log"
            )
            raise SettingsError(message)
        try:
            snapshot = msgspec.msgpack.decode(_unpacked(body), type=cls)
        except (zstandard.ZstdError, msgspec.DecodeError, ValueError, RecursionError, MemoryError) as error:
            raise UnusableError(f"damaged: {str(error) or type(error).__name__}") from error
        if not snapshot.is_sound():
            raise UnusableError("damaged: numbers that no partition arrives at")
        return snapshot

    def is_sound(self) -> bool:
        """Whether its numbers can be those of a state: it is one behind the record that it names."""
        is_placed = 0 <= self.partition < 2**31 and self.fingerprint.is_sound() and 0 <= self.written_ms <= NUMBER_MAX
        return is_placed and self.fingerprint.offset < self.offset <= NUMBER_MAX


def is_whole(data: bytes) -> bool:
    """Whether these are a snapshot's bytes as they were written, of whatever version and log."""
    is_ours = data.startswith(MAGIC) and len(data) >= _HEAD_BYTES
    return is_ours and _checksum(data[4:6], memoryview(data)[_HEAD_BYTES:]) == data[6:_HEAD_BYTES]


def _unpacked(body: bytes) -> bytes:
    """The size that it claims is what the library would set aside before it looks further."""
    size_bytes = zstandard.get_frame_parameters(body).content_size
    if size_bytes > min(_STATE_BYTES_MAX, _RATIO_MAX * len(body)):
        raise UnusableError(f"damaged: {len(body)} bytes that claim to be {size_bytes}")
    # Where it claims nothing this raises: all of ours do.
    return zstandard.ZstdDecompressor().decompress(body, allow_extra_data=False)


def _checksum(version: bytes, body: bytes | memoryview) -> bytes:
    return zlib.crc32(body, zlib.crc32(version)).to_bytes(4, "little")
