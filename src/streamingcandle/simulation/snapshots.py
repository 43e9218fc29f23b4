"""Pretended snapshot stores: a folder per instance, a topic for all; and what becomes of such things."""

from collections.abc import Iterable
from random import Random
from typing import Literal

import msgspec

from streamingcandle.candles.book import new_book
from streamingcandle.candles.rules import Rules
from streamingcandle.errors import OutsideError
from streamingcandle.partition import fingerprint_of
from streamingcandle.simulation.broker import Entry, TickPartition
from streamingcandle.simulation.log import Host
from streamingcandle.state.background import CLOSE_TIMEOUT_S
from streamingcandle.state.files import SLOTS
from streamingcandle.state.snapshot import Snapshot, UnusableError, is_whole

Harm = Literal["lost", "newest lost", "damaged", "cut off", "foreign", "ahead"]


class Shelf:
    """What lies in one place, the youngest first; outlives the processes that write to it."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.slots: dict[int, list[bytes]] = {}
        self.is_failing = False
        """A full disk, a broker that refuses."""

    def put(self, partition: int, snapshot: bytes) -> None:
        """Keep it, and the newest whole one before."""
        held = self.slots.get(partition, [])
        whole = [former for former in held if is_whole(former)] or held
        self.slots[partition] = [snapshot, *whole][:SLOTS]


class SimulatedSnapshots:
    """Implements `interfaces.Snapshots` for one process."""

    def __init__(self, name: str, shelf: Shelf, host: Host) -> None:
        """`name` is for the operator."""
        self.name = name
        self._shelf = shelf
        self._host = host

    def save(self, partition: int, snapshot: bytes) -> None:
        """See `interfaces.Snapshots`."""
        self._host.reach("save")
        if self._shelf.is_failing:
            raise OutsideError(f"{self.name}: no space left")
        self._shelf.put(partition, snapshot)

    def load(self, partition: int) -> Iterable[bytes]:
        """See `interfaces.Snapshots`."""
        self._host.reach("load")
        if self._shelf.is_failing:
            raise OutsideError(f"{self.name}: not readable")
        yield from list(self._shelf.slots.get(partition, []))

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """See `interfaces.Snapshots`."""
        del timeout_s


def harm(shelf: Shelf, how: Harm, number: int, ticks: TickPartition, rules: Rules, topic_id: str, rng: Random) -> None:
    """Do something to the snapshots of one partition that lie in one place."""
    held = shelf.slots.get(number, [])
    if how == "lost":
        shelf.slots.pop(number, None)
    elif how == "newest lost":
        shelf.slots[number] = held[1:]
    elif not held:
        return  # what is of this log says that somebody had committed
    elif how == "ahead":
        shelf.put(number, _snapshot(number, ticks.records(), rules, topic_id))
    elif how == "foreign":
        records = [_altered(entry) for entry in ticks.records() if entry.offset < _offset(held[0])]
        if records:
            shelf.put(number, _snapshot(number, records, rules, topic_id))
    else:
        at = rng.randrange(len(held[0]))
        damaged = held[0][:at] + (b"" if how == "cut off" else bytes([held[0][at] ^ 1]) + held[0][at + 1 :])
        shelf.slots[number] = [damaged, *held[1:]]


def _offset(snapshot: bytes) -> int:
    """Of a snapshot that may have been damaged already."""
    try:
        return Snapshot.decode(snapshot).offset
    except UnusableError:
        return 0


def _altered(entry: Entry) -> Entry:
    """The record of another log at the same place."""
    assert entry.origin is not None
    value = (entry.origin.value or b"{}").replace(b'"LastRate":', b'"LastRate":1') + b" "
    return msgspec.structs.replace(entry, origin=msgspec.structs.replace(entry.origin, value=value))


def _snapshot(number: int, records: list[Entry], rules: Rules, topic_id: str) -> bytes:
    """What somebody would have written who had read these."""
    book = new_book(rules, partition=number)
    origins = [entry.origin for entry in records if entry.origin is not None]
    last = origins[-1]
    book.fold(
        [origin.value for origin in origins],
        [origin.timestamp_ms for origin in origins],
        [origin.offset for origin in origins],
    )
    snapshot = Snapshot(
        partition=number,
        offset=last.offset + 1,
        rules=rules.digest,
        fingerprint=fingerprint_of(last, topic_id),
        written_ms=0,
        book=book.dump(b""),
    )
    return snapshot.encode()
