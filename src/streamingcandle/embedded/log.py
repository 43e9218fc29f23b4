"""`interfaces.Log` on the embedded store: one process is the whole group, claimed by an OS lock."""

import fcntl
import os
import socket
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TextIO

from streamingcandle.clock import SystemClock
from streamingcandle.embedded.store import EmbeddedStore, NewRecord, StoredRecord
from streamingcandle.errors import OwnedError
from streamingcandle.interfaces import Committed, Listener, NotCommittedError, Origin, Records, Transaction

POLL_RECORDS_MAX = 10_000
"""Records of one poll over all partitions."""
PROBE_MS = 10
"""How often another process's writes are looked for while nothing is there."""


class EmbeddedLog:
    """All partitions are this process's from the first poll on."""

    def __init__(self, store: EmbeddedStore, *, group: str, topic: str, clock: SystemClock) -> None:
        """Claim the group. OwnedError while another process has it; OutsideError for a missing topic."""
        self._store = store
        self._group = group
        self._topic = topic
        self._clock = clock
        self._count, self._topic_id = store.topic(topic)
        self._positions: dict[int, int] = {}
        self._lock = _claim(store, group)

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
                batches = [records for number in range(self._count) if (records := self._read(number)) is not None]
                if batches:
                    return batches
            left_ms = until_ms - self._clock.monotonic_ms()
            if left_ms <= 0:
                return []
            self._clock.sleep_ms(min(PROBE_MS, left_ms))

    def _read(self, number: int) -> Records | None:
        share = max(1, POLL_RECORDS_MAX // self._count)
        found = self._store.read(self._topic, number, self._positions[number], share)
        if not found:
            return None
        self._positions[number] = found[-1].offset + 1
        return Records(
            partition=number,
            values=[record.value for record in found],
            timestamps_ms=[record.timestamp_ms for record in found],
            offsets=[record.offset for record in found],
            next_offset=self._positions[number],
            origin=_origins(found),
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

    def partitions(self) -> Sequence[int]:
        """See `interfaces.Reader`."""
        return range(self._count)

    def commit(self, transaction: Transaction) -> None:
        """See `interfaces.Publisher`. SQLite answers for certain: nothing is ever in doubt."""
        now_ms = self._clock.wall_ms()
        connection = self._store.connection
        try:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                for topic, candles in transaction.candles:
                    self._append(topic, [(key, value, now_ms, ()) for key, value in candles])
                for letter in transaction.letters:
                    self._append(letter.topic, [(letter.key, letter.value, now_ms, letter.headers)])
                connection.executemany(
                    "INSERT OR REPLACE INTO offsets VALUES (?, ?, ?, ?, ?)",
                    [
                        (self._group, self._topic, number, committed.offset, committed.metadata)
                        for number, committed in transaction.offsets.items()
                    ],
                )
        except sqlite3.OperationalError as error:
            message = f"embedded log {self._store.path}: {error}; make room or the folder writable, it goes on by itself"
            raise NotCommittedError(message) from error

    def _append(self, topic: str, records: list[NewRecord]) -> None:
        self._store.ensure_topic(topic, self._count)
        self._store.append_within(topic, records)

    def settle(self) -> None:
        """See `interfaces.Publisher`; never needed here."""

    def committed(self, partitions: Iterable[int]) -> Mapping[int, Committed | None]:
        """See `interfaces.Publisher`."""
        rows = self._store.connection.execute(
            "SELECT partition, offset, metadata FROM offsets WHERE member_group = ? AND topic = ?",
            (self._group, self._topic),
        )
        found = {number: Committed(offset, metadata) for number, offset, metadata in rows}
        return {number: found.get(number) for number in partitions}

    def topic_id(self) -> str:
        """See `interfaces.Publisher`."""
        return self._topic_id

    def close(self) -> None:
        """See `interfaces.Publisher`; the group is free for the next."""
        self._lock.close()
        self._store.close()


def _claim(store: EmbeddedStore, group: str) -> TextIO:
    """Hold the group's lock for the life of the file object; it goes with the process."""
    path = store.path.with_name(f"{group}.lock")
    lock = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        owner = lock.read().strip()
        lock.close()
        message = f"group {group} in {store.path}: run by {owner or 'another process'}; stop it first"
        raise OwnedError(message) from None
    lock.seek(0)
    lock.truncate()
    lock.write(f"pid {os.getpid()} on {socket.gethostname()}")
    lock.flush()
    return lock


def _origins(found: list[StoredRecord]) -> Callable[[int], Origin]:
    def origin(index: int) -> Origin:
        record = found[index]
        return Origin(record.key, record.value, record.timestamp_ms, record.offset, record.headers)

    return origin
