"""`dead-letters`: what was rejected, found again, and put back on the tick topic, each record once."""

import hashlib
from collections.abc import Callable, Iterator

import msgspec

from streamingcandle.letters import Letters, Place, StoredLetter, marked, read_letter, retry_of

RETRY_RECORDS_MAX = 500
RETRY_BYTES_MAX = 4_000_000
"""Of one transaction: far below what its timeout of 10 s lets through."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which letters; None is any. Times are those of the records as they came, `to_ms` excluded."""

    reason: str | None = None
    partition: int | None = None
    offset: int | None = None
    from_ms: int | None = None
    to_ms: int | None = None

    def takes(self, letter: StoredLetter) -> bool:
        """Whether this is one of them."""
        return (
            self.reason in (None, letter.reason)
            and self.partition in (None, letter.source.partition)
            and self.offset in (None, letter.source.offset)
            and (self.from_ms is None or letter.timestamp_ms >= self.from_ms)
            and (self.to_ms is None or letter.timestamp_ms < self.to_ms)
        )


class Retried(msgspec.Struct, kw_only=True):
    """What became of the letters asked for. `lost` were cut, and their records are gone from the tick topic."""

    put_back: int = 0
    before: int = 0
    lost: list[Place] = []


class Mailbox:
    """The letters that a topic has now."""

    def __init__(self, letters: Letters) -> None:
        """Everything is read once, for the marks: which letters were put back is said behind them."""
        self._letters = letters
        self._ends = letters.ends()
        self._marked = {place for _, record in letters.read(self._ends) for place in marked(record)}

    def find(self, wanted: Wanted) -> Iterator[tuple[StoredLetter, bool]]:
        """Those wanted, and whether each was put back; in order of their topic, and none is held."""
        for place, record in self._letters.read(self._ends):
            letter = read_letter(place, record)
            if letter is not None and wanted.takes(letter):
                yield letter, place in self._marked

    def retry(self, wanted: Wanted, *, is_dry_run: bool, is_stopping: Callable[[], bool]) -> Retried:
        """Put back those wanted that were not; a stop leaves the rest for the next time."""
        told = Retried()
        batch, size_bytes = [], 0
        for letter, is_done in self.find(wanted):
            if is_stopping():
                break
            if is_done:
                told.before += 1
                continue
            whole = self._whole(letter)
            if whole is None:
                told.lost.append(letter.source)
                continue
            if is_dry_run:
                told.put_back += 1
                continue
            batch.append(retry_of(whole, whole.value))
            size_bytes += letter.size_bytes
            if len(batch) >= RETRY_RECORDS_MAX or size_bytes >= RETRY_BYTES_MAX:
                told.put_back += self._letters.put_back(batch)
                batch, size_bytes = [], 0
        if batch:
            told.put_back += self._letters.put_back(batch)
        return told

    def _whole(self, letter: StoredLetter) -> StoredLetter | None:
        """With all of the record, of a cut letter as the tick topic still has it; None where it is gone from there."""
        if not letter.is_cut:
            return letter
        record = self._letters.record_at(letter.topic, letter.source)
        if record is None or hashlib.sha256(record.value or b"").hexdigest() != letter.sha256:
            return None
        return msgspec.structs.replace(letter, key=record.key, value=record.value, headers=record.headers)
