"""Topics, records and committed offsets in one SQLite file.

WAL with synchronous=NORMAL: a power cut may lose the last commits, but each whole, candles with their
offsets, so what is folded again is published again and nothing twice.
"""

import sqlite3
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from streamingcandle.candles.murmur2 import partition_of
from streamingcandle.errors import OutsideError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS topics (name TEXT PRIMARY KEY, partitions INTEGER NOT NULL, id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS records (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL, timestamp_ms INTEGER NOT NULL,
    key BLOB, value BLOB, headers BLOB,
    PRIMARY KEY (topic, partition, offset)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS offsets (
    member_group TEXT NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL,
    metadata TEXT NOT NULL,
    PRIMARY KEY (member_group, topic, partition)
);
"""
_BUSY_TIMEOUT_S = 10.0

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
    """One connection to the file; used from the thread that first uses it."""

    def __init__(self, path: Path) -> None:
        """Make the file where it is missing. OutsideError when the disk does not let us."""
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
            self.connection.execute("PRAGMA journal_mode=WAL")
            self.connection.execute("PRAGMA synchronous=NORMAL")
            self.connection.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            message = f"embedded log {path}: {error}; set STREAMINGCANDLE_DATA_DIR to a writable folder"
            raise OutsideError(message) from error

    def ensure_topic(self, name: str, partitions: int) -> int:
        """Make a topic where it is missing; its number of partitions."""
        self.connection.execute("INSERT OR IGNORE INTO topics VALUES (?, ?, ?)", (name, partitions, uuid.uuid4().hex))
        return self.topic(name)[0]

    def topic(self, name: str) -> tuple[int, str]:
        """Partitions and id. OutsideError where it is missing."""
        row = self.connection.execute("SELECT partitions, id FROM topics WHERE name = ?", (name,)).fetchone()
        if row is None:
            message = f"topic {name} in {self.path}: missing; make it with `streamingcandle topics ensure`"
            raise OutsideError(message)
        return row[0], row[1]

    def topics(self) -> list[tuple[str, int]]:
        """Names and partitions, by name."""
        return list(self.connection.execute("SELECT name, partitions FROM topics ORDER BY name"))

    def append(self, topic: str, records: Iterable[NewRecord]) -> int:
        """Append in one transaction, each by its key's partition; how many."""
        with self.connection:
            self.connection.execute("BEGIN IMMEDIATE")
            return self.append_within(topic, records)

    def append_within(self, topic: str, records: Iterable[NewRecord]) -> int:
        """The same within a transaction that the caller has begun."""
        partitions, _ = self.topic(topic)
        ends = [self.end(topic, partition) for partition in range(partitions)]
        rows = []
        for key, value, timestamp_ms, headers in records:
            partition = partition_of(key, partitions) if key is not None else len(rows) % partitions
            packed = msgspec.msgpack.encode(headers) if headers else None
            rows.append((topic, partition, ends[partition], timestamp_ms, key, value, packed))
            ends[partition] += 1
        self.connection.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        return len(rows)

    def read(self, topic: str, partition: int, offset: int, records_max: int) -> list[StoredRecord]:
        """Records from `offset` on, in order."""
        rows = self.connection.execute(
            "SELECT offset, timestamp_ms, key, value, headers FROM records"
            " WHERE topic = ? AND partition = ? AND offset >= ? ORDER BY offset LIMIT ?",
            (topic, partition, offset, records_max),
        )
        return [
            StoredRecord(at, timestamp_ms, key, value, _unpack(headers)) for at, timestamp_ms, key, value, headers in rows
        ]

    def end(self, topic: str, partition: int) -> int:
        """The offset after the last record."""
        last = self._one("SELECT max(offset) FROM records WHERE topic = ? AND partition = ?", topic, partition)
        return 0 if last is None else last + 1

    def begin(self, topic: str, partition: int) -> int:
        """The first offset there is, or the end."""
        first = self._one("SELECT min(offset) FROM records WHERE topic = ? AND partition = ?", topic, partition)
        return 0 if first is None else first

    def offset_at(self, topic: str, partition: int, timestamp_ms: int) -> int:
        """The first offset whose record's timestamp is at or after this, else the end."""
        found = self._one(
            "SELECT min(offset) FROM records WHERE topic = ? AND partition = ? AND timestamp_ms >= ?",
            topic,
            partition,
            timestamp_ms,
        )
        return self.end(topic, partition) if found is None else found

    def _one(self, query: str, *arguments: str | int) -> int | None:
        value: int | None = self.connection.execute(query, arguments).fetchone()[0]
        return value

    def change_mark(self) -> int:
        """Another number after another connection wrote."""
        mark: int = self.connection.execute("PRAGMA data_version").fetchone()[0]
        return mark

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


def _unpack(headers: bytes | None) -> Headers:
    return msgspec.msgpack.decode(headers, type=list[tuple[str, bytes | None]]) if headers else ()
