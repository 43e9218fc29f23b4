"""One partition of the tick topic in our hands: its book, its clock, its last commit."""

import logging
import zlib
from bisect import bisect_left
from collections.abc import Iterator, Sequence

import msgspec

from streamingcandle.candles.book import Book, new_book
from streamingcandle.candles.commit import Commit, Fingerprint
from streamingcandle.candles.feed_clock import LEAP_MS, FeedClock
from streamingcandle.candles.rules import Rules
from streamingcandle.interfaces import Committed, Letter, Origin, Records
from streamingcandle.letters import OWN_HEADERS, ours
from streamingcandle.state.snapshot import Snapshot, UnusableError

logger = logging.getLogger(__name__)

LAST_MS = 2**62
"""After every window's end."""


class Topics(msgspec.Struct, frozen=True, kw_only=True):
    """Where things go. `candles` is in the order of the rules' timeframes."""

    ticks: str
    candles: tuple[str, ...]
    dead_letters: str
    late: str


LETTER_BYTES = 1_000
"""What a letter takes in memory beside key, value and the record's own headers."""
HEADER_BYTES = 150


def _size(letter: Letter) -> int:
    own = sum(len(name) + len(text or b"") + HEADER_BYTES for name, text in letter.headers[:-OWN_HEADERS])
    return len(letter.value or b"") + len(letter.key or b"") + own + LETTER_BYTES


def fingerprint_of(record: Origin, topic_id: str) -> Fingerprint:
    """What names a log: this record at its place, and the topic's id."""
    return Fingerprint(record.offset, record.timestamp_ms, zlib.crc32(record.value or b""), topic_id)


class PathSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the path needs to know beside the rules. `start`: earliest, latest, session or epoch ms."""

    topics: Topics
    start: str | int = "earliest"
    commit_interval_ms: int = 1_000
    candles_max: int = 60_000
    """Candles in one transaction (about 30 MB): more would hold up readers and risk its timeout."""
    snapshot_interval_ms: int = 30_000
    is_adopting: bool = False
    is_publishing_again: bool = False
    """Whether a group whose offsets are lost begins at `start`, whatever it has published."""
    adopt_grace_ms: int = 0
    """How long after a window's end the program whose offsets are adopted published it."""
    is_until_end: bool = False
    is_flush: bool = False
    is_split_accepted: bool = False
    """Whether ticks of one instrument in several partitions are warned of and not refused."""
    is_clock_reset: bool = False
    """Whether a feed clock that stands ahead of the feed is brought back to it, once, as partitions are taken over."""
    is_stopped_by_gone: bool = False
    """Whether offsets gone from the log before we read them end the run."""


class InputPartition:
    """One partition of the tick topic in our hands: its book, its clock, its last commit."""

    def __init__(
        self,
        number: int,
        *,
        rules: Rules,
        commit: Commit,
        start: Committed,
        found: Committed | None,
        is_idle_counted: bool,
    ) -> None:
        """Nothing is folded yet; publishing begins at `start.offset`, reading there or where a restore sets it."""
        self.number = number
        self.rules = rules
        self.commit = commit
        self.committed = start
        self.position = start.offset
        self.found = found
        """What the group had committed when we took over; another than `committed` where that was of another log."""
        self.is_unsaid = False
        """Whether what we go on from is still to be committed: another's offset, or one that the group has lost."""
        self.letters: list[tuple[int, Letter]] = []
        """With the offset of each one's record."""
        self.letter_bytes = 0
        self.rejects: Sequence[tuple[int, str]] = ()
        """Of the batch folded last: index and reason, without records that a former commit has."""
        self.notes: Sequence[tuple[int, str]] = ()
        """As `rejects`, index and kind: the first accepted tick of each kind of oddity that the ledger counts."""
        self.foreign_since_ms: int | None = None
        self.snapshot_offset = commit.snapshot
        self.snapshot_at_ms = 0
        self.is_behind_gap = False
        self.is_clock_to_reset = False
        """Whether F and C stand ahead of the feed and the operator wants them back (§6.6)."""
        self._is_clock_reset = False
        self.book: Book = new_book(rules, partition=number)
        self._is_idle_counted = is_idle_counted
        self.clock = self._clock(commit.f_ms, commit.e_ms, commit.w_ms, arrived_ms=None)
        self._last: Origin | None = None
        self._tell_book()

    def _clock(self, f_ms: int, e_ms: int | None, w_ms: int, *, arrived_ms: int | None) -> FeedClock:
        is_counted = self._is_idle_counted
        return FeedClock(f_ms=f_ms, e_ms=e_ms, w_ms=w_ms, arrived_ms=arrived_ms, is_idle_counted=is_counted)

    @property
    def is_restoring(self) -> bool:
        """Still folding what was committed before: nothing of it is published again."""
        return self.position < self.committed.offset

    @property
    def is_publishing(self) -> bool:
        """May take part in a commit."""
        return not self.is_restoring and self.foreign_since_ms is None

    @property
    def has_news(self) -> bool:
        """Whether a commit would say something new, be there no window due."""
        return self.position > self.committed.offset or self.is_unsaid

    def fold(self, records: Records, topics: Topics, *, now_ms: int, wall_ms: int) -> None:
        """Fold a batch; keep rejects and late ticks for the commit, unless a former commit has them."""
        self.rejects = self.notes = ()
        count = len(records.values)
        if self.is_restoring and records.next_offset >= self.committed.offset:
            known = bisect_left(records.offsets, self.committed.offset)
            self._fold(records, topics, 0, known)
            self.end_restore()
            self._fold(records, topics, known, count)
        else:
            self._fold(records, topics, 0, count)
        self.position = records.next_offset
        if not self.is_restoring:
            self.take_time(now_ms=now_ms, wall_ms=wall_ms)

    def _fold(self, records: Records, topics: Topics, begin: int, end: int) -> None:
        if begin == end:
            return
        values, timestamps_ms, offsets = records.values, records.timestamps_ms, records.offsets
        if (begin, end) != (0, len(values)):
            values, timestamps_ms, offsets = values[begin:end], timestamps_ms[begin:end], offsets[begin:end]
        rejects, late, notes = self.book.fold(values, timestamps_ms, offsets)
        if offsets[0] >= self.committed.offset:
            self.rejects = [(begin + index, reason) for index, reason in rejects]
            self.notes = [(begin + index, kind) for index, kind in notes]
        for index, reason in rejects:
            self._keep(topics, records.origin(begin + index), topics.dead_letters, "reason", reason)
        for index, timeframes in late:
            self._keep(topics, records.origin(begin + index), topics.late, "timeframes", timeframes)
        self._last = records.origin(end - 1)
        self.is_behind_gap = False

    def take_time(self, *, now_ms: int, wall_ms: int) -> None:
        """What the ticks read up to now say of the time; in live use the host's clock may be a leap's witness."""
        claim_ms = self.book.claim_ms()
        if claim_ms is not None and self.clock.believes(claim_ms, wall_ms=wall_ms):
            self.book.set_event_ms(claim_ms)
        self.clock.rise(self.book.event_ms(), now_ms=now_ms, wall_ms=wall_ms)
        self.clock.reach(self.position, held_f_ms=self._held_f_ms())

    def reset_clock(self, *, now_ms: int, wall_ms: int) -> None:
        """Bring E and F back to what half of the instruments say; the next commit does so with C, and flushes.

        So what was published early counts as published, and is published again only when it changes.
        """
        self.is_clock_to_reset = False
        usual_ms, e_ms = self.book.usual_ms(), self.clock.e_ms
        if usual_ms is None or e_ms is None or e_ms <= usual_ms + LEAP_MS:
            logger.info("partition %d: the feed clock is not ahead of the feed; it stays", self.number)
            return
        logger.warning("partition %d: the feed clock goes back from %d ms to %d ms", self.number, e_ms, usual_ms)
        self.book.set_event_ms(usual_ms)
        self.clock = self._clock(usual_ms, usual_ms, wall_ms, arrived_ms=now_ms)
        self._is_clock_reset = True

    def end_restore(self) -> None:
        """E is what the commit says, also where the fold began after the tick that set it, or it was brought back."""
        if self.commit.e_ms is not None and self.book.event_ms() != self.commit.e_ms:
            self.book.set_event_ms(self.commit.e_ms)

    def skip_gone(self, offset: int) -> None:
        """Go on at `offset`: what lay before it is gone from the log, and the candles it touched are not complete."""
        self.position = offset
        self.is_behind_gap = True
        if not self.is_restoring:
            self.end_restore()
        self.book.lose()

    def load(self, snapshot: Snapshot) -> None:
        """Take the state of a snapshot; UnusableError, and nothing has changed, when it is none for us."""
        try:
            self.book.load(snapshot.book)
        except ValueError as error:
            raise UnusableError(str(error)) from error
        self.position = self.snapshot_offset = snapshot.offset

    def snapshot(self, *, wall_ms: int) -> Snapshot | None:
        """The state as committed; None between commits, before the first record, and before the first behind a gap."""
        fingerprint = self.commit.fingerprint
        if fingerprint is None or self.position != self.committed.offset or self.is_behind_gap:
            return None
        return Snapshot(
            partition=self.number,
            offset=self.position,
            rules=self.rules.digest,
            fingerprint=fingerprint,
            written_ms=wall_ms,
            book=self.book.dump(b""),
            commit=self.commit.encode(),
        )

    def _keep(self, topics: Topics, origin: Origin, topic: str, name: str, value: str) -> None:
        if origin.offset < self.committed.offset:
            return
        headers = ours(origin, name, value, topic=topics.ticks, partition=self.number)
        letter = Letter(topic, origin.key, origin.value, headers)
        self.letters.append((origin.offset, letter))
        self.letter_bytes += _size(letter)

    def due_ms(self) -> list[int]:
        """C' per timeframe: the frontier, or F less the grace where that is later."""
        f_ms = self.clock.f_ms
        frontiers_ms = self.commit.frontiers_of(self.rules)
        return [max(c_ms, f_ms - grace_ms) for c_ms, grace_ms in zip(frontiers_ms, self.rules.grace_ms, strict=True)]

    def next_due_f_ms(self) -> int | None:
        """The feed time at which the next window is due, if any is held."""
        ends_ms = zip(self.book.next_ends_ms(), self.rules.grace_ms, strict=True)
        return min((end_ms + grace_ms for end_ms, grace_ms in ends_ms if end_ms is not None), default=None)

    def _held_f_ms(self) -> int:
        """The feed time at which the last window held is due, 0 without any."""
        ends_ms = zip(self.book.last_ends_ms(), self.rules.grace_ms, strict=True)
        return max((end_ms + grace_ms for end_ms, grace_ms in ends_ms if end_ms is not None), default=0)

    def has_due(self) -> bool:
        """Whether a window is due that is not out, or a timeframe came back and may have changed since it last ran."""
        due_f_ms = self.next_due_f_ms()
        offsets = self.commit.offsets_of(self.rules, offset=self.committed.offset)
        is_due = due_f_ms is not None and due_f_ms <= self.clock.f_ms
        return is_due or self._is_clock_reset or min(offsets) < self.committed.offset

    def is_flushed(self, offset: int) -> bool:
        """Whether the windows of the records before `offset` are out, open ones too."""
        return self.commit.is_flushed(self.rules, offset)

    def close(self, *, is_flush: bool, candles_max: int, topic_id: str, partitions: int, topics: str) -> Commit:
        """What a commit at this position says, `topics` being the marks of those it goes to; changes nothing here."""
        is_flush = is_flush or self._is_clock_reset
        frontiers_ms = self.book.close(due_ms=self.due_ms(), flush=is_flush, candles_max=candles_max)
        if self._is_clock_reset:
            frontiers_ms = [self.clock.f_ms - grace_ms for grace_ms in self.rules.grace_ms]
        updated = self.commit.updated(self.rules, frontiers_ms=frontiers_ms, offset=self.position, is_flush=is_flush)
        last = self._last
        fingerprint = self.commit.fingerprint if last is None else fingerprint_of(last, topic_id)
        return Commit(
            f_ms=self.clock.f_ms,
            e_ms=self.clock.e_ms,
            claim_ms=self.book.claim_ms(),
            w_ms=self.clock.w_ms,
            frontiers_ms=updated[0],
            offsets=updated[1],
            flushed=updated[2],
            rules=self.rules.digest,
            fingerprint=fingerprint,
            partitions=partitions,
            open_windows=self.book.count_due([LAST_MS] * len(frontiers_ms)) - self.book.count_due(frontiers_ms),
            snapshot=self.snapshot_offset,
            topics=topics,
        ).bounded(self.rules)

    def candles(self, commit: Commit, *, is_flush: bool) -> Iterator[list[tuple[bytes, bytes]]]:
        """What that commit publishes, `(key, value)` per timeframe; each timeframe is encoded as it is asked for."""
        is_flush = is_flush or self._is_clock_reset
        for place, frontier_ms in enumerate(commit.frontiers_of(self.rules)):
            yield self.book.candles(timeframe=place, frontier_ms=frontier_ms, flush=is_flush)

    def adopt(self, commit: Commit, committed: Committed) -> None:
        """The commit is in the log: what it held is out."""
        self.commit = commit
        self._is_clock_reset = False
        self.committed = committed
        self.is_unsaid = False
        # A doubt settled late: what was read since is not in that commit.
        self.letters = [(offset, letter) for offset, letter in self.letters if offset >= committed.offset]
        self.letter_bytes = sum(_size(letter) for _, letter in self.letters)
        self._tell_book()

    def _tell_book(self) -> None:
        self.book.committed(
            frontiers_ms=self.commit.frontiers_of(self.rules),
            offsets=self.commit.offsets_of(self.rules, offset=self.committed.offset),
            flushed=self.commit.flushed_of(self.rules),
        )
