"""Snapshots in the state directory: two files a partition, written in turn, each whole or not at all."""

import errno
import logging
import os
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from streamingcandle.errors import OutsideError
from streamingcandle.state.background import CLOSE_TIMEOUT_S, Background
from streamingcandle.state.snapshot import SNAPSHOT_BYTES_MAX, is_whole

logger = logging.getLogger(__name__)

SLOTS = 2
"""While one is written the other stays, whatever happens."""
PART_SUFFIX = ".part"
"""A file still being written, or left by a crash."""


def snapshot_path(folder: Path, partition: int, slot: int) -> Path:
    """Where a partition's snapshot lies."""
    return folder / f"snapshot-{partition}-{slot}"


def write_whole(path: Path, data: bytes) -> None:
    """Written beside, fsynced, renamed: a reader sees the former file or this one. OSError as it comes."""
    part = path.with_name(path.name + PART_SUFFIX)
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError:
        with suppress(OSError):
            part.unlink()
        raise


class FileSnapshots:
    """Implements `interfaces.Snapshots` on an instance's folder; a slow or hanging disk holds nothing up."""

    name = "state directory"

    def __init__(self, folder: Path) -> None:
        """The folder is made when it is first written to, also after somebody deleted it."""
        self._folder = folder
        self._background = Background(self._write_all)
        self._newest: dict[int, tuple[Path, list[int]]] = {}
        """What we wrote last, by partition, and the files' times then: a clock that steps back misleads nobody."""

    def save(self, partition: int, snapshot: bytes) -> None:
        """See `interfaces.Snapshots`; written in the background, a failure is told until a write goes well."""
        self._background.save(partition, snapshot)

    def load(self, partition: int) -> Iterable[bytes]:
        """See `interfaces.Snapshots`; a file that cannot be read is told of after what can be."""
        trouble: OSError | None = None
        for path in self._by_age(partition):
            try:
                data = _read(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                trouble = trouble or OSError(error.errno, error.strerror, str(path))
            else:
                yield data
        if trouble is not None:
            raise OutsideError(f"{trouble.filename}: {trouble.strerror}") from trouble

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """See `interfaces.Snapshots`."""
        if not self._background.is_done(timeout_s):
            logger.warning("the disk under %s does not answer: the last snapshots are not written", self._folder)
        for error in self._background.errors():
            logger.warning("the last snapshots are not all written: %s", error)

    def _write_all(self, snapshots: Mapping[int, bytes]) -> dict[int, str]:
        errors = {}
        for partition, snapshot in snapshots.items():
            try:
                self._write(partition, snapshot)
            except OSError as error:
                # Without the file's name: the same trouble of all partitions is one.
                errors[partition] = f"{self._folder}: {error.strerror}"
        return errors

    def _write(self, partition: int, snapshot: bytes) -> None:
        """Over the one that is no loss: a damaged one, else the older."""
        self._folder.mkdir(parents=True, exist_ok=True)
        newest, times_ns = self._newest.get(partition, (None, []))
        if newest is None or times_ns != self._times_ns(partition):
            newest = max(self._by_age(partition), key=_is_usable)
        path = next(path for path in reversed(self._by_age(partition)) if path != newest)
        write_whole(path, snapshot)
        self._newest[partition] = path, self._times_ns(partition)

    def _times_ns(self, partition: int) -> list[int]:
        return [_written_ns(snapshot_path(self._folder, partition, slot)) for slot in range(SLOTS)]

    def _by_age(self, partition: int) -> list[Path]:
        """Youngest first, those not there last."""
        paths = [snapshot_path(self._folder, partition, slot) for slot in range(SLOTS)]
        return sorted(paths, key=_written_ns, reverse=True)


def _read(path: Path) -> bytes:
    """OSError where it is no file, or one that no snapshot's size would fill memory with."""
    # A pipe under that name would have us wait for its writer.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "no plain file")
        if status.st_size > SNAPSHOT_BYTES_MAX:
            raise OSError(errno.EFBIG, f"{status.st_size} bytes, and no snapshot has so many")
        return file.read(SNAPSHOT_BYTES_MAX)


def _is_usable(path: Path) -> bool:
    try:
        return is_whole(_read(path))
    except OSError:
        return False


def _written_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
