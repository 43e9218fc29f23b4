"""Snapshots in the state directory: two files a partition, written in turn, each whole or not at all."""

import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from threading import Condition, Thread

from streamingcandle.errors import OutsideError

logger = logging.getLogger(__name__)

SLOTS = 2
"""While one is written the other stays, whatever happens."""
CLOSE_TIMEOUT_S = 1.0
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
        self._waiting: dict[int, bytes] = {}
        self._is_writing = False
        self._errors: dict[int, str | None] = {}
        self._changed = Condition()
        self._writer: Thread | None = None

    def save(self, partition: int, snapshot: bytes) -> None:
        """See `interfaces.Snapshots`; written in the background, a failure is told until a write goes well."""
        with self._changed:
            self._waiting[partition] = snapshot
            self._changed.notify_all()
            error = self._errors.get(partition)
        if self._writer is None:
            # A daemon: the process must end while a write never returns.
            self._writer = Thread(target=self._work, name="snapshot-writer", daemon=True)
            self._writer.start()
        if error is not None:
            raise OutsideError(error)

    def load(self, partition: int) -> Iterable[bytes]:
        """See `interfaces.Snapshots`."""
        for path in self._by_age(partition):
            try:
                yield path.read_bytes()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise OutsideError(f"{path}: {error.strerror}") from error

    def close(self) -> None:
        """See `interfaces.Snapshots`."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self._waiting and not self._is_writing, CLOSE_TIMEOUT_S):
                logger.warning("the disk under %s does not answer: the last snapshots are not written", self._folder)
            for error in {error for error in self._errors.values() if error}:
                logger.warning("the last snapshots are not all written: %s", error)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting))
                partition = next(iter(self._waiting))
                snapshot = self._waiting.pop(partition)
                self._is_writing = True
            error = None
            try:
                self._write(partition, snapshot)
            except OSError as failure:
                # Without the file's name: the same trouble of all partitions is one.
                error = f"{self._folder}: {failure.strerror}"
            with self._changed:
                self._errors[partition] = error
                self._is_writing = False
                self._changed.notify_all()

    def _write(self, partition: int, snapshot: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        write_whole(self._by_age(partition)[-1], snapshot)

    def _by_age(self, partition: int) -> list[Path]:
        """Youngest first, those not there last."""
        paths = [snapshot_path(self._folder, partition, slot) for slot in range(SLOTS)]
        return sorted(paths, key=_written_ns, reverse=True)


def _written_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
