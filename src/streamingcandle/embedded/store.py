"""Topics, records and committed offsets in one SQLite file.

WAL with synchronous=FULL: what was said to be in the log is there after a power cut too. NORMAL would be
right for the fold alone (the last commits are lost whole, candles with their offsets), but not for who
was told: a feed that has been thanked for its ticks, an archive that has read past the end left over.
It costs one fsync a commit, 0.4 ms on the disk this was measured on.
"""

import itertools
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from streamingcandle.candles.murmur2 import partition_of
from streamingcandle.errors import MissingTopicError, OutsideError

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS topics (name TEXT PRIMARY KEY, partitions INTEGER NOT NULL, id TEXT NOT NULL)",
    """CREATE TABLE IF NOT EXISTS records (
        topic TEXT NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL, timestamp_ms INTEGER NOT NULL,
        key BLOB, value BLOB, headers BLOB,
        PRIMARY KEY (topic, partition, offset)
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS offsets (
        member_group TEXT NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL,
        metadata TEXT NOT NULL,
        PRIMARY KEY (member_group, topic, partition)
    )""",
)
BUSY_TIMEOUT_MS = 3_000
"""How long a writer waits for another: less than the 5 s in which a stop has to be heeded."""
APPEND_RECORDS_MAX = 200_000
"""In one transaction (1.3 s): the others wait for its end, and only `BUSY_TIMEOUT_MS`."""
READ_BYTES_MAX = 64_000_000
"""Of one partition at once: big records come in smaller batches."""
PAGE_RECORDS = 10_000
"""Of a partition that is read from one end to the other: enough that asking for a page costs nothing."""
WAL_BYTES_MAX = 64_000_000
"""The write-ahead file is cut back to this after a bigger transaction."""

TOPICS_TOLD = 8
"""The nearest of those that are there, where one is missing."""

_CURES = {
    sqlite3.SQLITE_FULL: "free some space there",
    sqlite3.SQLITE_IOERR: "look for the disk's errors (`dmesg`) and its free space",
    sqlite3.SQLITE_READONLY: "make the file and its folder writable",
    sqlite3.SQLITE_CANTOPEN: "set STREAMINGCANDLE_DATA_DIR to a writable folder",
    sqlite3.SQLITE_PERM: "set STREAMINGCANDLE_DATA_DIR to a writable folder",
    sqlite3.SQLITE_BUSY: f"another process has been writing for {BUSY_TIMEOUT_MS // 1_000} s: wait for it or stop it",
    sqlite3.SQLITE_CORRUPT: "it is damaged: move it away, or bring a copy back",
    sqlite3.SQLITE_NOTADB: "it is something else: move it away, or set another STREAMINGCANDLE_DATA_DIR",
}
"""What to do about the world's failures, by SQLite's primary code; every other one is our bug."""

Headers = Sequence[tuple[str, bytes | None]]
NewRecord = tuple[bytes | None, bytes | None, int, Headers]
"""Key, value, timestamp in epoch ms, headers."""


class StoredRecord(msgspec.Struct, frozen=True):
    """One record as it was appended."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class EmbeddedStore:
    """One connection to the file, for one thread at a time, which need not be the one that made it.

    Other threads and processes open their own. Every method raises OutsideError for what the disk or another
    writer does not let us do: then nothing of it was done.
    """

    def __init__(self, path: Path) -> None:
        """Make the file where it is missing."""
        self.path = path
        self._turns = itertools.count()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"embedded log {path}: {error.strerror}; set STREAMINGCANDLE_DATA_DIR to a writable folder"
            raise OutsideError(message) from error
        with self._telling():
            self.connection = sqlite3.connect(
                path, timeout=BUSY_TIMEOUT_MS / 1_000, isolation_level=None, check_same_thread=False
            )
        try:
            self._set_up()
        except BaseException:
            self.connection.close()
            raise

    def _set_up(self) -> None:
        with self._telling():
            mode = self._one("PRAGMA journal_mode=WAL")
            if mode != "wal":
                message = (
                    f"embedded log {self.path}: no shared memory in this file system (a network share?); "
                    "set STREAMINGCANDLE_DATA_DIR to a local folder"
                )
                raise OutsideError(message)
            self.connection.execute("PRAGMA synchronous=FULL")
            self.connection.execute(f"PRAGMA journal_size_limit={WAL_BYTES_MAX}")
        # Who only reads need not wait for a writer's end.
        if self._one("SELECT count(*) FROM sqlite_master") == 0:
            with self.transaction():
                for statement in _SCHEMA:
                    self.connection.execute(statement)

    @contextmanager
    def _telling(self, path: Path | None = None) -> Iterator[None]:
        """Say what SQLite says of the world as OutsideError: what, where (by default our file), what to do."""
        try:
            yield
        except sqlite3.Error as error:
            cure = _CURES.get(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF)
            if cure is None:
                raise
            raise OutsideError(f"embedded log {path or self.path}: {error}; {cure}") from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write all that is written inside, or nothing; visible to all others when it returns."""
        with self._telling():
            self._begin()
            try:
                yield
                self.connection.execute("COMMIT")
            finally:
                # A full disk has rolled back by itself; a bug of ours or a stop in between has not.
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")

    def _begin(self) -> None:
        """Take the write lock, trying every millisecond.

        SQLite's own waiting tries ever less often, down to every 100 ms, and hardly meets the short gaps that a feed
        leaves which appends without a pause: commits waited 2 s for their turn, now some milliseconds.
        """
        self.connection.execute("PRAGMA busy_timeout=1")
        try:
            for _ in range(BUSY_TIMEOUT_MS - 1):
                try:
                    self.connection.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError as error:
                    if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                        raise
                else:
                    return
            self.connection.execute("BEGIN IMMEDIATE")
        finally:
            self.connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")

    def ensure_topic(self, name: str, partitions: int) -> int:
        """Make a topic where it is missing; its number of partitions."""
        with self._telling():
            self.connection.execute(
                "INSERT OR IGNORE INTO topics VALUES (?, ?, ?)", (name, partitions, uuid.uuid4().hex)
            )
        return self.topic(name)[0]

    def topic(self, name: str) -> tuple[int, str]:
        """Partitions and id. MissingTopicError where it is missing."""
        rows = self._rows("SELECT partitions, id FROM topics WHERE name = ?", name)
        if not rows:
            raise MissingTopicError(f"topic {name} in {self.path}: missing; {self._instead_of(name)}")
        partitions, topic_id = rows[0]
        return partitions, topic_id

    def _instead_of(self, name: str) -> str:
        make = "make it with `streamingcandle topics ensure`, or fill it with `ingest` or `simulate`"
        there = [topic for topic, _ in self.topics()]
        nearest = get_close_matches(name, there, n=TOPICS_TOLD, cutoff=0.0)
        if not there:
            return make
        return f"there {'is' if len(there) == 1 else 'are'} {', '.join(nearest)}: correct the name, or {make}"

    def topics(self) -> list[tuple[str, int]]:
        """Names and partitions, by name."""
        return self._rows("SELECT name, partitions FROM topics ORDER BY name")

    def append(self, topic: str, records: Iterable[NewRecord]) -> int:
        """Append in one transaction, each by its key's partition, without a key in turn; how many."""
        # All of them before the lock is taken: a slow feed may hold nobody up.
        batch = list(records)
        if len(batch) > APPEND_RECORDS_MAX:
            raise ValueError(f"{len(batch)} records in one append, at most {APPEND_RECORDS_MAX}")
        with self.transaction():
            return self.append_within(topic, batch)

    def append_within(self, topic: str, records: Iterable[NewRecord], partition: int | None = None) -> int:
        """The same within a `transaction` that the caller has begun; all into `partition`, or each by its key."""
        partitions, _ = self.topic(topic)
        ends = [self.end(topic, partition) for partition in range(partitions)]
        rows = []
        for key, value, timestamp_ms, headers in records:
            place = partition
            if place is None:
                place = next(self._turns) % partitions if key is None else partition_of(key, partitions)
            packed = msgspec.msgpack.encode(headers) if headers else None
            rows.append((topic, place, ends[place], timestamp_ms, key, value, packed))
            ends[place] += 1
        self.connection.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        return len(rows)

    def read(
        self, topic: str, partition: int, offset: int, records_max: int, *, bytes_max: int = READ_BYTES_MAX
    ) -> list[StoredRecord]:
        """Records from `offset` on, in order; fewer than `records_max` at the end or where they are big."""
        found: list[StoredRecord] = []
        size_bytes = 0
        with self._telling(), closing(self.connection.cursor()) as cursor:
            cursor.execute(
                "SELECT offset, timestamp_ms, key, value, headers FROM records"
                " WHERE topic = ? AND partition = ? AND offset >= ? ORDER BY offset LIMIT ?",
                (topic, partition, offset, records_max),
            )
            for at, timestamp_ms, key, value, headers in cursor:
                found.append(StoredRecord(at, timestamp_ms, key, value, _unpacked(headers)))
                size_bytes += len(value or b"")
                if size_bytes >= bytes_max:
                    break
        return found

    def read_to_end(self, topic: str, partition: int) -> Iterator[StoredRecord]:
        """All records up to the end now, in order; a page of them is held at once."""
        position, end = 0, self.end(topic, partition)
        while position < end:
            found = self.read(topic, partition, position, min(PAGE_RECORDS, end - position))
            if not found:
                return
            yield from found
            position = found[-1].offset + 1

    def end(self, topic: str, partition: int) -> int:
        """The offset after the last record."""
        last = self._one("SELECT max(offset) FROM records WHERE topic = ? AND partition = ?", topic, partition)
        return 0 if last is None else last + 1

    def begin(self, topic: str, partition: int) -> int:
        """The first offset there is, or the end."""
        first = self._one("SELECT min(offset) FROM records WHERE topic = ? AND partition = ?", topic, partition)
        return 0 if first is None else first

    def offset_at(self, topic: str, partition: int, timestamp_ms: int) -> int:
        """The first offset whose record's timestamp is at or after this, else the end.

        Looks at each record before it (0.2 µs): timestamps need not rise, so no order could be searched.
        """
        found = self._one(
            "SELECT min(offset) FROM records WHERE topic = ? AND partition = ? AND timestamp_ms >= ?",
            topic,
            partition,
            timestamp_ms,
        )
        return self.end(topic, partition) if found is None else found

    def commit_offset(self, group: str, topic: str, partition: int, *, offset: int, metadata: str) -> None:
        """Within a `transaction`: where the group goes on, in the former one's place."""
        self.connection.execute(
            "INSERT OR REPLACE INTO offsets VALUES (?, ?, ?, ?, ?)", (group, topic, partition, offset, metadata)
        )

    def committed(self, group: str, topic: str) -> dict[int, tuple[int, str]]:
        """Offset and metadata of each partition that the group has committed."""
        rows = self._rows(
            "SELECT partition, offset, metadata FROM offsets WHERE member_group = ? AND topic = ?", group, topic
        )
        return {partition: (offset, metadata) for partition, offset, metadata in rows}

    def is_blank(self) -> bool:
        """Whether nothing was ever appended or committed here."""
        return not self._one("SELECT EXISTS (SELECT 1 FROM records) OR EXISTS (SELECT 1 FROM offsets)")

    def copy_to(self, path: Path) -> None:
        """Copy everything as it is at one moment into an empty file; who writes meanwhile does not wait.

        OutsideError where the disk there does not take it.
        """
        with self._telling(path):
            self.connection.execute("VACUUM INTO ?", (str(path),))

    def copy_from(self, path: Path) -> None:
        """Become what `copy_to` wrote, in one transaction: all of it or, whatever happens, nothing."""
        with self._telling(), closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as source:
            source.backup(self.connection)

    def change_mark(self) -> int:
        """Another number after another connection wrote."""
        mark: int = self._one("PRAGMA data_version")
        return mark

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def _rows(self, query: str, *arguments: str | int) -> list[Any]:
        with self._telling():
            return self.connection.execute(query, arguments).fetchall()

    def _one(self, query: str, *arguments: str | int) -> Any:  # noqa: ANN401 - whatever the query asks for
        return self._rows(query, *arguments)[0][0]


def _unpacked(headers: bytes | None) -> Headers:
    return msgspec.msgpack.decode(headers, type=list[tuple[str, bytes | None]]) if headers else ()
