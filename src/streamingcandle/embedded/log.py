"""`interfaces.Log` on the embedded store: one process is the whole group, claimed by an OS lock.

The lock is the system's and goes with the process, however that ends: nobody ever deletes its file.
"""

import fcntl
import os
import socket
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO
from urllib.parse import quote

from streamingcandle.clock import SystemClock
from streamingcandle.embedded.reader import EmbeddedReader
from streamingcandle.embedded.store import EmbeddedStore, NewRecord
from streamingcandle.errors import OutsideError, OwnedError
from streamingcandle.interfaces import NotCommittedError, Transaction


class EmbeddedLog(EmbeddedReader):
    """All partitions are this process's from the first poll on. For one thread at a time, as its store is."""

    def __init__(self, store: EmbeddedStore, *, group: str, topic: str, clock: SystemClock) -> None:
        """Claim the group; the store is this log's from now on, and closed with it.

        OwnedError while another process has the group; MissingTopicError for a missing topic: the store stays open.
        """
        super().__init__(store, group=group, topic=topic, clock=clock)
        self._lock = claim_group(store.path, group)

    def commit(self, transaction: Transaction) -> None:
        """See `interfaces.Publisher`. Topics that are missing get as many partitions as the tick topic has.

        Never InDoubtError: SQLite is in our process and answers before we go on, so there is no answer to lose.
        Where the process or the machine dies before the answer, `committed` tells the next life.
        """
        self._check_assigned(transaction.offsets)
        try:
            with self._store.transaction():
                self._publish(transaction)
        except OutsideError as error:
            if not isinstance(error.__cause__, sqlite3.OperationalError):
                raise  # a damaged file: no waiting will mend it
            raise NotCommittedError(str(error)) from error

    def _check_assigned(self, partitions: Iterable[int]) -> None:
        if os.fstat(self._lock.fileno()).st_nlink == 0:
            message = f"{self._lock.name}: deleted by somebody, so another process may run group {self._group}"
            raise OwnedError(f"{message}; stop that one and start again")
        if foreign := set(partitions) - self._positions.keys():
            raise ValueError(f"commit of partitions that are not assigned: {sorted(foreign)}")

    def _publish(self, transaction: Transaction) -> None:
        now_ms = self._clock.wall_ms()
        sheets: dict[str, list[NewRecord]] = {}
        for topic, candles in transaction.candles:
            sheets.setdefault(topic, []).extend((key, value, now_ms, ()) for key, value in candles)
        for letter in transaction.letters:
            sheets.setdefault(letter.topic, []).append((letter.key, letter.value, now_ms, letter.headers))
        for topic, records in sheets.items():
            self._store.ensure_topic(topic, self._count)
            self._store.append_within(topic, records)
        for number, committed in transaction.offsets.items():
            self._store.commit_offset(
                self._group, self._topic, number, offset=committed.offset, metadata=committed.metadata
            )

    def settle(self) -> None:
        """See `interfaces.Publisher`; at once, since nothing is ever in doubt here."""

    def close(self) -> None:
        """See `interfaces.Publisher`; the group is free for the next."""
        self._store.close()
        self._lock.close()


def claim_group(store_path: Path, group: str) -> TextIO:
    """Hold the group's lock for the life of the file object. OwnedError names who holds it now."""
    path = store_path.with_name(f"{quote(group, safe='')}.lock")
    try:
        lock = path.open("a+", encoding="utf-8")
    except OSError as error:
        message = f"{path}: {error.strerror}; set STREAMINGCANDLE_DATA_DIR to a writable folder"
        raise OutsideError(message) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.seek(0)
        owner = lock.read().strip()
        lock.close()
        if not isinstance(error, BlockingIOError):
            raise OutsideError(f"{path}: {error.strerror}; set STREAMINGCANDLE_DATA_DIR to a local folder") from error
        message = f"group {group} in {path.parent}: run by {owner or 'another process'}; stop it first"
        raise OwnedError(message) from None
    lock.truncate(0)
    lock.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
    lock.flush()
    return lock
