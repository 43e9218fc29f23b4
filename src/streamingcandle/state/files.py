"""Snapshots in the state directory: two files a partition, written in turn, each whole or not at all."""

import logging
import os
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path

from streamingcandle.errors import OutsideError

logger = logging.getLogger(__name__)

SLOTS = 2
"""While one is written the other stays, whatever happens."""
CLOSE_TIMEOUT_S = 3.0
PART_SUFFIX = ".part"
"""A file still being written, or left by a crash."""


def snapshot_path(folder: Path, partition: int, slot: int) -> Path:
    """Where a partition's snapshot lies."""
    return folder / f"snapshot-{partition}-{slot}"


class FileSnapshots:
    """Implements `interfaces.Snapshots` on an instance's folder; a slow disk holds no candle up."""

    name = "state directory"

    def __init__(self, folder: Path) -> None:
        """The folder is made when it is first written to, also after somebody deleted it."""
        self._folder = folder
        self._writer = ThreadPoolExecutor(1, "snapshot-writer")
        self._writing: Future[None] | None = None

    def save(self, partition: int, snapshot: bytes) -> None:
        """See `interfaces.Snapshots`; while the disk still has one in hand the new one is left out."""
        if self._writing is not None:
            if not self._writing.done():
                return
            writing, self._writing = self._writing, None
            writing.result()
        self._writing = self._writer.submit(self._write, partition, snapshot)

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
        if self._writing is not None:
            done, _ = wait([self._writing], CLOSE_TIMEOUT_S)
            for error in filter(None, (writing.exception() for writing in done)):
                logger.warning("the last snapshot was not written: %s", error)

    def _write(self, partition: int, snapshot: bytes) -> None:
        path = self._by_age(partition)[-1]
        part = path.with_name(path.name + PART_SUFFIX)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                file.write(snapshot)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            with suppress(OSError):
                part.unlink()
            raise OutsideError(f"{path}: {error.strerror}") from error

    def _by_age(self, partition: int) -> list[Path]:
        """Youngest first, those not there last."""
        paths = [snapshot_path(self._folder, partition, slot) for slot in range(SLOTS)]
        return sorted(paths, key=_written_ns, reverse=True)


def _written_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
