"""The lines of files, plain or packed, as they come: bounded whatever a file holds, whole up to where it is damaged.

What a file is, its first bytes say and not its name: .gz of several members, .zst of several frames, or text.
Neither a packed file that swells without end nor a line without end takes memory: `PIECE_BYTES` is unpacked at once,
a line is held up to `LINE_BYTES_MAX`, a chunk is handed on at `CHUNK_BYTES_MAX`.
"""

import os
import zlib
from collections.abc import Callable, Iterator
from io import FileIO
from itertools import chain
from pathlib import Path
from select import select
from stat import S_ISREG
from types import TracebackType
from typing import Protocol, Self

import msgspec
import zstandard

from streamingcandle.errors import OutsideError

BLOCK_BYTES = 65_536
PIECE_BYTES = 1_024
"""Of a packed file, unpacked at once: at most 32 MB, as zstd makes 128 KB of 4 bytes."""
LINE_BYTES_MAX = 10_000_000
"""A longer line is no tick: brokers take records of 1 MB unless told otherwise, and our client up to 12 MB."""
ENDLESS_BYTES = 1_000_000_000
"""A line that goes on so far ends the reading (a second's worth): no file of lines has one."""
CHUNK_BYTES_MAX = 4_000_000
"""Of lines handed on at once, a single line aside."""
STOP_PROBE_S = 0.2
"""How soon a stop is noticed while a pipe is silent; what it has brought until then is handed on."""

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPED = tuple(bytes([first]) + b"\x2a\x4d\x18" for first in range(0x50, 0x60))
_PACKED = (_GZIP, _ZSTD, *_ZSTD_SKIPPED)
_MAGIC_BYTES = 4

Line = tuple[int, bytes | None]
"""Number and text; None: longer than `LINE_BYTES_MAX`."""


class Chunk(msgspec.Struct, frozen=True):
    """Lines that follow each other, without the empty ones, and how far the file is read, as it lies on disk."""

    lines: list[Line]
    done_bytes: int


class DamagedError(Exception):
    """The file is not whole, and all lines before are handed on. `str()`: which, where on disk, what is wrong."""

    def __init__(self, place: str, *, line: int) -> None:
        """`line`: the first one that was not handed on."""
        super().__init__(place)
        self.line = line


class _Frame(Protocol):
    """One member or frame: what the libraries' decompressors have in common."""

    @property
    def eof(self) -> bool:
        """Whether the member or frame is over."""

    @property
    def unused_data(self) -> bytes:
        """What came after it."""

    def decompress(self, data: bytes, /) -> bytes:
        """What more is known by these bytes."""


class _DamageError(Exception):
    """The blocks end here."""


class LineFile:
    """One file, or `-` for standard input, to be read once."""

    def __init__(self, name: str, is_stopping: Callable[[], bool]) -> None:
        """OutsideError where it cannot be opened; its reading ends early, without an error, when we are to stop."""
        self.name = name
        self._is_stopping = is_stopping
        try:
            self._file = FileIO(0, closefd=False) if name == "-" else FileIO(name)
        except OSError as error:
            raise OutsideError(f"{name}: {error.strerror}; name a file that can be read") from error
        self._is_regular = S_ISREG(os.fstat(self._file.fileno()).st_mode)
        self.done_bytes = 0
        """Read so far, as it lies on disk."""
        self._number = 1
        """Of the line that comes next."""

    def __enter__(self) -> Self:
        """Nothing more."""
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        """Close it."""
        self._file.close()

    def chunks(self, lines_max: int) -> Iterator[Chunk]:
        """All lines, so many at once at most. DamagedError after the last one that is whole."""
        held: list[Line] = []
        held_bytes = 0
        lines = self._lines()
        while True:
            damage = line = None
            try:
                line = next(lines, None)
            except (_DamageError, OSError) as error:
                damage = error
            if line is not None and line[1] != b"":
                held.append(line)
                held_bytes += len(line[1] or b"")
            is_idle = line is not None and line[0] == 0
            if held and (line is None or is_idle or len(held) >= lines_max or held_bytes >= CHUNK_BYTES_MAX):
                yield Chunk(held, self.done_bytes)
                held, held_bytes = [], 0
            if damage is not None:
                reason = damage.strerror if isinstance(damage, OSError) else damage
                raise DamagedError(f"{self.name}: byte {self.done_bytes:,}: {reason}", line=self._number) from damage
            if line is None:
                return

    def _lines(self) -> Iterator[Line]:
        """Each line with its number, empty ones as `b""`; `(0, b"")` while a pipe is silent."""
        parts: list[bytes] = []
        size_bytes = 0
        for block in self._blocks():
            if not block:
                yield 0, b""
            *ended, rest = block.split(b"\n")
            for text in ended:
                size_bytes += len(text)
                yield self._number, b"".join([*parts, text]).strip() if size_bytes <= LINE_BYTES_MAX else None
                self._number += 1
                parts, size_bytes = [], 0
            size_bytes += len(rest)
            if size_bytes <= LINE_BYTES_MAX:
                parts.append(rest)
            else:
                parts = []
            if size_bytes > ENDLESS_BYTES:
                raise _DamageError(f"line {self._number:,} has no end within {ENDLESS_BYTES:,} bytes")
        # What a stop cut in two is no line.
        if size_bytes and not self._is_stopping():
            yield self._number, b"".join(parts).strip() if size_bytes <= LINE_BYTES_MAX else None

    def _blocks(self) -> Iterator[bytes]:
        """The text in pieces of `BLOCK_BYTES` at most; an empty one while a pipe is silent."""
        head = b""
        for piece in self._pieces(_MAGIC_BYTES):
            head += piece
            if len(head) >= _MAGIC_BYTES or not any(magic.startswith(head) for magic in _PACKED):
                break
        if head.startswith(_PACKED):
            yield from self._unpacked(head)
        else:
            self._check_suffix(head)
            yield head
            yield from self._pieces(BLOCK_BYTES)

    def _check_suffix(self, head: bytes) -> None:
        """A packed file whose first bytes are gone would be a long list of bad lines; a text with its name is none."""
        suffix = Path(self.name).suffix
        if suffix in (".gz", ".zst") and not head.lstrip().startswith(b"{") and not self._is_stopping():
            kind = "begins as neither a packed file nor lines of JSON" if head else "empty, and no packed file is"
            raise _DamageError(kind)

    def _pieces(self, size_bytes: int) -> Iterator[bytes]:
        """The file as it lies on disk."""
        while not self._is_stopping():
            if not self._is_regular and not select([self._file], [], [], STOP_PROBE_S)[0]:
                yield b""
                continue
            piece = self._file.read(size_bytes)
            if not piece:
                return
            self.done_bytes += len(piece)
            yield piece

    def _unpacked(self, head: bytes) -> Iterator[bytes]:
        is_gzip = head.startswith(_GZIP)
        frame: _Frame | None = None
        for piece in chain([head], self._pieces(PIECE_BYTES)):
            rest = piece
            if not rest:
                yield b""
            # A piece may hold the end of a member, several whole ones, and the beginning of the next.
            while rest:
                if frame is None:
                    # Tapes and some tools fill up with zeros.
                    rest = rest.lstrip(b"\0") if is_gzip else rest
                    frame = (zlib.decompressobj(zlib.MAX_WBITS | 16) if is_gzip else _zstd_frame()) if rest else None
                    continue
                text, rest, is_over = _step(frame, rest)
                frame = None if is_over else frame
                for at in range(0, len(text), BLOCK_BYTES):
                    if self._is_stopping():
                        return
                    yield text[at : at + BLOCK_BYTES]
        if frame is not None and not self._is_stopping():
            raise _DamageError("ends in the middle")


def _step(frame: _Frame, data: bytes) -> tuple[bytes, bytes, bool]:
    """The text of some bytes, those of them that are left, and whether the frame is over."""
    try:
        text = frame.decompress(data)
    except (zlib.error, zstandard.ZstdError) as error:
        raise _DamageError(" ".join(str(error).split())) from error
    return text, frame.unused_data if frame.eof else b"", frame.eof


def _zstd_frame() -> _Frame:
    # A window above 128 MB (`zstd --long`) is refused by the library, and said.
    return zstandard.ZstdDecompressor().decompressobj()
