"""A backup: one file, a tar under zstd, that is there whole or not at all.

    manifest.json      whose instance it is, its committed offsets with metadata, size and SHA-256 of each part below
    manifest.sha256    of the manifest, as `sha256sum -c` reads it
    settings.toml      what was set, without secrets; `sessions.csv` beside it where the sessions were the user's own
    snapshots/N        the state of partition N, as it lies in the state directory
    log.sqlite3        the embedded log, where there is no Kafka

It is written beside its name, fsynced and renamed. What a killed backup leaves has a name of its own, which the
next backup of that name takes over under a lock.
"""

import errno
import fcntl
import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

import msgspec
import zstandard

from streamingcandle.errors import CheckError, OutsideError, OwnedError, SettingsError
from streamingcandle.state.files import PART_SUFFIX

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

FORMAT = 1
MANIFEST = "manifest.json"
MANIFEST_SUM = "manifest.sha256"
SETTINGS = "settings.toml"
SESSIONS = "sessions.csv"
LOG = "log.sqlite3"
MODE = 0o600
LEVEL = 3
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
BLOCK_BYTES = 1 << 20
PACKED_BYTES = 1 << 12
"""So few packed bytes are unpacked at once: they are 128 MB at most, whatever they claim."""
MANIFEST_BYTES_MAX = 64_000_000
"""Offsets with metadata are 5 KB a partition, and there are at most 10,000 partitions."""
PART_BYTES_MAX = 1_000_000_000
"""What is held in memory: a snapshot of a million instruments has some 400 MB. The log goes to a file."""


class Offset(msgspec.Struct, frozen=True):
    """A committed offset, as `interfaces.Committed`."""

    offset: int
    metadata: str


class Part(msgspec.Struct, frozen=True):
    """One file of a backup."""

    size_bytes: int
    sha256: str


class _Format(msgspec.Struct, frozen=True):
    format: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup says of itself. `log` is kafka or embedded."""

    format: int = FORMAT
    made: str
    by: str
    host: str
    log: str
    application_id: str
    tick_topic: str
    topic_id: str
    """Which topic of that name: another cluster's has another."""
    partitions: int
    rules: str
    settings: dict[str, str]
    left_out: list[str]
    """Secrets that were set: to be set again."""
    offsets: dict[int, Offset]
    parts: dict[str, Part] = {}

    @classmethod
    def decode(cls, data: bytes, where: str) -> Self:
        """SettingsError where a newer program wrote it, CheckError for what is no manifest."""
        try:
            version = msgspec.json.decode(data, type=_Format).format
            if version <= FORMAT:
                return msgspec.json.decode(data, type=cls)
        except msgspec.DecodeError as error:
            raise _damaged(where, str(error)) from error
        message = f"{where}: of format {version}, this program reads up to {FORMAT}"
        raise SettingsError(f"{message}: restore it with the newer streamingcandle that made it")


def snapshot_name(partition: int) -> str:
    """The part that holds a partition's snapshot."""
    return f"snapshots/{partition}"


# ---- writing ----


class Writing:
    """A backup on its way; made by `writing`."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        """`file`: locked, empty, under another name than `path`."""
        self._path = path
        self._file = file
        self.scratch = _beside(path, ".log")
        """A file of this user alone for the log's copy: empty now, removed at the end."""
        self.is_done = False

    def finish(self, manifest: Manifest, contents: Mapping[str, bytes | Path]) -> int:
        """Write all of it; it has its name when this returns the size in bytes. OSError as it comes."""
        parts = {name: _measured(content) for name, content in contents.items()}
        told = msgspec.json.format(msgspec.json.encode(msgspec.structs.replace(manifest, parts=parts)), indent=1)
        summed = f"{hashlib.sha256(told).hexdigest()}  {MANIFEST}\n".encode()
        compressor = zstandard.ZstdCompressor(LEVEL, write_checksum=True)
        with (
            compressor.stream_writer(self._file, closefd=False) as packed,
            tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
        ):
            for name, content in {MANIFEST: told, MANIFEST_SUM: summed, **contents}.items():
                _add(tar, name, content)
        self._file.flush()
        os.fsync(self._file.fileno())
        size_bytes = self._file.tell()
        _remove(self.scratch)  # while the lock still says that it is ours
        _part_of(self._path).replace(self._path)
        self.is_done = True
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return size_bytes


@contextmanager
def writing(path: Path) -> Iterator[Writing]:
    """Make room for a backup of this name.

    OutsideError where the disk does not let us, SettingsError where something else has the name, OwnedError while
    another backup of that name is being written. Nothing is left behind, but by a kill.
    """
    part, scratch = _part_of(path), _beside(path, ".log")
    backup: Writing | None = None
    try:
        _check_name(path)
        with os.fdopen(_taken(part), "wb") as file:
            try:
                _remove(scratch)
                os.close(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE))
                backup = Writing(path, file)
                yield backup
            finally:
                # Once renamed, what has these names is the next backup's.
                if backup is None or not backup.is_done:
                    with suppress(OSError):
                        _remove(scratch)
                        part.unlink(missing_ok=True)
    except OSError as error:
        cure = "free some space there, or" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "as the service's user,"
        raise OutsideError(f"backup {path}: {error.strerror}; {cure} name a file in a folder you may write") from error


def _check_name(path: Path) -> None:
    """A name may be an older backup's, and nothing else's."""
    try:
        with path.open("rb") as file:
            head = file.read(len(ZSTD_MAGIC))
    except FileNotFoundError:
        return
    if head != ZSTD_MAGIC:
        raise SettingsError(f"backup {path}: there already, and no backup; name another file")


def _taken(part: Path) -> int:
    """A descriptor of the file under that name, new or left by a kill, locked and empty."""
    while True:
        found = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, MODE)
        try:
            fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(found), part.stat()):
                os.fchmod(found, MODE)
                os.ftruncate(found, 0)
                return found
        except BlockingIOError:
            os.close(found)
            raise OwnedError(f"backup {part}: another process is writing it; let that one end") from None
        except FileNotFoundError:
            pass  # renamed or removed by its writer just now
        except BaseException:
            os.close(found)
            raise
        os.close(found)


def _remove(scratch: Path) -> None:
    """With the journal that SQLite leaves beside a copy that failed: it would be played into the next one."""
    for path in (scratch, scratch.with_name(f"{scratch.name}-journal")):
        path.unlink(missing_ok=True)


def _part_of(path: Path) -> Path:
    return _beside(path, "")


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f"{path.name}{what}{PART_SUFFIX}")


def _measured(content: bytes | Path) -> Part:
    if isinstance(content, bytes):
        return Part(len(content), hashlib.sha256(content).hexdigest())
    with content.open("rb") as file:
        return Part(content.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def _add(tar: tarfile.TarFile, name: str, content: bytes | Path) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode = MODE
    if isinstance(content, bytes):
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
        return
    entry.size = content.stat().st_size
    with content.open("rb") as file:
        tar.addfile(entry, file)


# ---- reading ----


class _Unpacked(io.RawIOBase):
    """What one zstd frame holds, which must be the whole file: the library's own reader takes a cut one for its end."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._waiting = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """0 behind the frame's own checksum and the file's end alone; EOFError where they are not one place."""
        while not self._waiting and not self._frame.eof:
            block = self._file.read(PACKED_BYTES)
            if not block:
                raise EOFError("cut off")
            self._waiting = memoryview(self._frame.decompress(block))
        if not self._waiting and (self._frame.unused_data or self._file.read(1)):
            raise EOFError("more behind its end")
        room = memoryview(buffer)
        taken = self._waiting[: len(room)]
        room[: len(taken)] = taken
        self._waiting = self._waiting[len(taken) :]
        return len(taken)


def read_backup(path: Path, *, log_into: Path | None) -> tuple[Manifest, dict[str, bytes]]:
    """A backup, every checksum right; the log goes to the file `log_into`, or is only looked at.

    CheckError for a damaged one, SettingsError for a newer program's, OutsideError where it cannot be read, or
    `log_into` not be written.
    """
    where = f"backup {path}"
    try:
        with path.open("rb") as file:
            unpacked = _Unpacked(file)
            with tarfile.open(fileobj=unpacked, mode="r|") as tar:
                found = _read_parts(tar, where, log_into)
            while unpacked.read(BLOCK_BYTES):
                pass  # up to the checksum at its end
    except (zstandard.ZstdError, tarfile.TarError, EOFError) as error:
        raise _damaged(where, str(error)) from error
    except OSError as error:
        raise OutsideError(f"{error.filename or path}: {error.strerror}; see to its room and rights") from error
    manifest, contents = found
    missing = manifest.parts.keys() - contents.keys() - {LOG}
    if missing:
        raise _damaged(where, f"{min(missing)} is missing")
    return manifest, contents


def _read_parts(tar: tarfile.TarFile, where: str, log_into: Path | None) -> tuple[Manifest, dict[str, bytes]]:
    told = _next(tar, MANIFEST, where)
    if _next(tar, MANIFEST_SUM, where).split()[:1] != [hashlib.sha256(told).hexdigest().encode()]:
        raise _damaged(where, f"checksum of {MANIFEST}")
    manifest = Manifest.decode(told, where)
    contents: dict[str, bytes] = {}
    has_log = False
    while (entry := tar.next()) is not None:
        part = manifest.parts.get(entry.name)
        if part is None or entry.size != part.size_bytes:
            raise _damaged(where, f"{entry.name} is not what the manifest says")
        digest = hashlib.sha256()
        if entry.name == LOG:
            has_log = True
            _copy(tar, entry, log_into or Path(os.devnull), digest.update)
        else:
            if entry.size > PART_BYTES_MAX:
                raise _damaged(where, f"{entry.name} has {entry.size} bytes")
            contents[entry.name] = _content(tar, entry)
            digest.update(contents[entry.name])
        if digest.hexdigest() != part.sha256:
            raise _damaged(where, f"checksum of {entry.name}")
    if LOG in manifest.parts and not has_log:
        raise _damaged(where, f"{LOG} is missing")
    return manifest, contents


def _next(tar: tarfile.TarFile, name: str, where: str) -> bytes:
    entry = tar.next()
    if entry is None or entry.name != name or entry.size > MANIFEST_BYTES_MAX:
        raise _damaged(where, f"{name} is not where a backup has it")
    return _content(tar, entry)


def _content(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(entry)
    if file is None:
        raise tarfile.ReadError(f"{entry.name} is no file")
    return file.read()


def _copy(tar: tarfile.TarFile, entry: tarfile.TarInfo, into: Path, seen: Callable[[bytes], None]) -> None:
    """To a file of this user alone, telling `seen` of each block."""
    source = tar.extractfile(entry)
    if source is None:
        raise tarfile.ReadError(f"{entry.name} is no file")
    with os.fdopen(os.open(into, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, MODE), "wb") as file:
        while block := source.read(BLOCK_BYTES):
            seen(block)
            file.write(block)


def _damaged(where: str, reason: str) -> CheckError:
    return CheckError(f"{where}: damaged, or no backup: {reason}; take another one")
