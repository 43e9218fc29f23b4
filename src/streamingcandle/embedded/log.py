"""`interfaces.Log` on the embedded store: one process is the whole group, claimed by an OS lock.

The lock is the system's and goes with the process, however that ends: nobody ever deletes its file.
"""

import fcntl
import os
import socket
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TextIO
from urllib.parse import quote

from streamingcandle.clock import SystemClock
from streamingcandle.embedded.store import EmbeddedStore, NewRecord, StoredRecord
from streamingcandle.errors import OutsideError, OwnedError
from streamingcandle.interfaces import Committed, Listener, NotCommittedError, Origin, Records, Transaction

POLL_RECORDS_MAX = 10_000
"""Records of one poll over all partitions."""
PROBE_MS = 10
"""How often another process's writes are looked for while nothing is there."""


class EmbeddedLog:
    """All partitions are this process's from the first poll on. For one thread at a time, as its store is."""

    def __init__(self, store: EmbeddedStore, *, group: str, topic: str, clock: SystemClock) -> None:
        """Claim the group; the store is this log's from now on, and closed with it.

        OwnedError while another process has the group; OutsideError for a missing topic: the store stays open.
        """
        self._store = store
        self._group = group
        self._topic = topic
        self._clock = clock
        self._count, self._topic_id = store.topic(topic)
        self._positions: dict[int, int] = {}
        self._lock = _claim(store.path.with_name(f"{quote(group, safe='')}.lock"), group)

    def poll(self, timeout_s: float, listener: Listener) -> Iterable[Records]:
        """See `interfaces.Reader`."""
        self._count, _ = self._store.topic(self._topic)
        fresh = [number for number in range(self._count) if number not in self._positions]
        if fresh:
            self._positions.update(listener.assigned(fresh))
        until_ms = self._clock.monotonic_ms() + int(timeout_s * 1_000)
        mark = None
        while True:
            # Nothing of ours is written while we wait: the mark moves when somebody else's is.
            if mark != (now := self._store.change_mark()):
                mark = now
                batches = self._read()
                if batches:
                    return batches
            left_ms = until_ms - self._clock.monotonic_ms()
            if left_ms <= 0:
                return []
            self._clock.sleep_ms(min(PROBE_MS, left_ms))

    def _read(self) -> list[Records]:
        """Share the poll's records out: who has little gets it all, what he leaves goes to who has more.

        Equal shares alone would make one partition's backlog look like the end of the log (`BACKLOG_RECORDS`).
        """
        behind = sorted((end - self._positions[number], number) for number, end in self.ends(self._positions).items())
        batches = []
        room = POLL_RECORDS_MAX
        for place, (waiting, number) in enumerate(behind):
            share = min(waiting, max(1, room // (len(behind) - place)))
            if share > 0:
                batches.append(self._read_share(number, share))
                room -= share
        return batches

    def _read_share(self, number: int, share: int) -> Records:
        found = self._store.read(self._topic, number, self._positions[number], share)
        self._positions[number] = found[-1].offset + 1
        return Records(
            partition=number,
            values=[record.value for record in found],
            timestamps_ms=[record.timestamp_ms for record in found],
            offsets=[record.offset for record in found],
            next_offset=self._positions[number],
            origin=_origins(found),
            keyless=[] if self._count == 1 else [index for index, record in enumerate(found) if record.key is None],
        )

    def ends(self, partitions: Iterable[int]) -> Mapping[int, int]:
        """See `interfaces.Reader`."""
        return {number: self._store.end(self._topic, number) for number in partitions}

    def begins(self, partitions: Iterable[int]) -> Mapping[int, int]:
        """See `interfaces.Reader`."""
        return {number: self._store.begin(self._topic, number) for number in partitions}

    def offset_at(self, partition: int, timestamp_ms: int) -> int:
        """See `interfaces.Reader`."""
        return self._store.offset_at(self._topic, partition, timestamp_ms)

    def record_at(self, partition: int, offset: int) -> Origin | None:
        """See `interfaces.Reader`."""
        found = self._store.read(self._topic, partition, offset, 1)
        return _origins(found)(0) if found and found[0].offset == offset else None

    def partitions(self) -> Sequence[int]:
        """See `interfaces.Reader`."""
        return range(self._count)

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

    def committed(self, partitions: Iterable[int]) -> Mapping[int, Committed | None]:
        """See `interfaces.Publisher`."""
        found = self._store.committed(self._group, self._topic)
        return {number: Committed(*found[number]) if number in found else None for number in partitions}

    def topic_id(self) -> str:
        """See `interfaces.Publisher`."""
        return self._topic_id

    def close(self) -> None:
        """See `interfaces.Publisher`; the group is free for the next."""
        self._store.close()
        self._lock.close()


def _claim(path: Path, group: str) -> TextIO:
    """Hold the group's lock for the life of the file object. OwnedError names who holds it now."""
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


def _origins(found: list[StoredRecord]) -> Callable[[int], Origin]:
    def origin(index: int) -> Origin:
        record = found[index]
        return Origin(record.key, record.value, record.timestamp_ms, record.offset, record.headers)

    return origin
