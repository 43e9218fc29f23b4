"""Snapshots are written by a thread of their own: no candle waits for a disk or a broker."""

from collections.abc import Callable, Mapping
from threading import Condition, Thread

from streamingcandle.errors import OutsideError
from streamingcandle.state.snapshot import SNAPSHOT_BYTES_MAX

CLOSE_TIMEOUT_S = 1.0
"""For what is under way at a stop, which is over in 5 s."""

Write = Callable[[Mapping[int, bytes]], Mapping[int, str]]
"""Writes snapshots by partition; returns why some are not written."""


class Background:
    """What waits to be written, the newest of each partition, and what went wrong with the last one."""

    def __init__(self, write: Write) -> None:
        """The thread begins with the first snapshot."""
        self._write = write
        self._waiting: dict[int, bytes] = {}
        self._is_writing = False
        self._errors: dict[int, str] = {}
        self._changed = Condition()
        self._writer: Thread | None = None

    def save(self, partition: int, snapshot: bytes) -> None:
        """Have it written; raises OutsideError of the partition's former one until a write goes well."""
        if len(snapshot) > SNAPSHOT_BYTES_MAX:
            raise OutsideError(f"a snapshot of {len(snapshot)} bytes is above {SNAPSHOT_BYTES_MAX}")
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

    def is_done(self, timeout_s: float) -> bool:
        """Whether all of it is written or has failed, at the latest after this time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._is_writing, timeout_s)

    def errors(self) -> set[str]:
        """Why some of the last ones are not written."""
        with self._changed:
            return set(self._errors.values())

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting))
                waiting, self._waiting = self._waiting, {}
                self._is_writing = True
            errors = self._write(waiting)
            with self._changed:
                self._errors = {n: text for n, text in self._errors.items() if n not in waiting} | dict(errors)
                self._is_writing = False
                self._changed.notify_all()
            del waiting  # the next may be long in coming
