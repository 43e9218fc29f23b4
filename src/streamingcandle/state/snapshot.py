"""A snapshot: the state of one partition at an offset, as bytes that say themselves what they are.

The same bytes lie in the state directory and in the snapshots topic. They are shortcuts: restoring from the
log alone gives the same state, and whatever is wrong with a snapshot costs time and no candle.
"""

import zlib

import msgspec
import zstandard

from streamingcandle.candles.book import FORMAT_VERSION
from streamingcandle.candles.commit import Fingerprint
from streamingcandle.errors import SettingsError

MAGIC = b"SCSN"
VERSION = FORMAT_VERSION
"""One number for these bytes and the kernel's inside: raised with either, older ones stay readable."""
_HEAD_BYTES = len(MAGIC) + 2 + 4
_COMPRESSION_LEVEL = 1
_STATE_BYTES_MAX = 4_000_000_000


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

    def encode(self) -> bytes:
        """Magic, version, checksum of the version and the rest, the rest: so far alike in every version."""
        body = zstandard.ZstdCompressor(_COMPRESSION_LEVEL).compress(msgspec.msgpack.encode(self))
        version = VERSION.to_bytes(2, "little")
        return b"".join((MAGIC, version, _checksum(version, body), body))

    @classmethod
    def decode(cls, data: bytes) -> "Snapshot":
        """Raises UnusableError for bytes that are damaged, SettingsError where a newer program wrote them."""
        if not data.startswith(MAGIC) or len(data) < _HEAD_BYTES:
            raise UnusableError("no snapshot, or cut off")
        version, body = int.from_bytes(data[4:6], "little"), data[_HEAD_BYTES:]
        # Before the version is believed: a flipped bit there must not stop the service.
        if _checksum(data[4:6], body) != data[6:10]:
            raise UnusableError("damaged: checksum")
        if version > VERSION:
            message = (
                f"snapshot of format {version}, this program reads up to {VERSION}: a newer streamingcandle ran here; "
                "start that one, or delete the snapshots to begin from the log"
            )
            raise SettingsError(message)
        try:
            packed = zstandard.ZstdDecompressor().decompress(body, max_output_size=_STATE_BYTES_MAX)
            return msgspec.msgpack.decode(packed, type=cls)
        except (zstandard.ZstdError, msgspec.DecodeError) as error:
            raise UnusableError(f"damaged: {error}") from error


def _checksum(version: bytes, body: bytes) -> bytes:
    return zlib.crc32(body, zlib.crc32(version)).to_bytes(4, "little")
