"""THE PATH: poll -> fold -> close -> publish and commit, for every partition that is ours.

Read `run` from the top: it is the whole service. The fold itself is the kernel's (`candles/book.py`);
what is published when is decided by `InputPartition.close` after semantics §4 and §6.
"""

import logging
import zlib
from collections.abc import Callable, Mapping, Sequence

import msgspec

from streamingcandle.candles.book import Book, new_book
from streamingcandle.candles.commit import Commit, Fingerprint
from streamingcandle.candles.feed_clock import FeedClock
from streamingcandle.candles.rules import Rules
from streamingcandle.errors import OwnedError, SettingsError
from streamingcandle.interfaces import (
    Clock,
    Committed,
    InDoubtError,
    Letter,
    Log,
    NotCommittedError,
    Origin,
    Records,
    Transaction,
)

logger = logging.getLogger(__name__)

DAY_START_MARGIN_MS = 60_000
"""§6: a tick's event time is at most this far after its record's timestamp."""
POLL_MAX_MS = 500
"""A stop is heeded and a rebalance noticed at least this often."""
CANDLES_MAX = 20_000
"""Candles in one transaction (about 10 MB): more would hold up readers and risk its timeout."""
BACKLOG_RECORDS = 5_000
"""A poll that brings as many leaves more behind: then closing waits for the interval or a full transaction."""
LETTER_BYTES_MAX = 8_000_000
"""Dead letters and late ticks held before a commit is made for their sake."""
FOREIGN_MAX_MS = 60_000
"""How long a partition may stay ours while somebody else commits its offsets."""


class Topics(msgspec.Struct, frozen=True, kw_only=True):
    """Where things go. `candles` is in the order of the rules' timeframes."""

    ticks: str
    candles: tuple[str, ...]
    dead_letters: str
    late: str


class PathSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the loop needs to know beside the rules. `start`: earliest, latest, session or epoch ms."""

    topics: Topics
    start: str | int = "earliest"
    commit_interval_ms: int = 1_000
    is_adopting: bool = False
    is_until_end: bool = False
    is_flush: bool = False


class InputPartition:
    """One partition of the tick topic in our hands: its book, its clock, its last commit."""

    def __init__(
        self, number: int, *, rules: Rules, commit: Commit, start: Committed, fold_from: int, is_idle_counted: bool
    ) -> None:
        """Nothing is folded yet; reading begins at `fold_from`, publishing at `start.offset`."""
        self.number = number
        self.rules = rules
        self.commit = commit
        self.committed = start
        self.position = fold_from
        self.letters: list[Letter] = []
        self.letter_bytes = 0
        self.foreign_since_ms: int | None = None
        self.book: Book = new_book(rules, partition=number)
        self.clock = FeedClock(f_ms=commit.f_ms, e_ms=commit.e_ms, w_ms=commit.w_ms, is_idle_counted=is_idle_counted)
        self._last: Origin | None = None
        self._tell_book()

    @property
    def is_restoring(self) -> bool:
        """Still folding what was committed before: nothing of it is published again."""
        return self.position < self.committed.offset

    @property
    def is_publishing(self) -> bool:
        """May take part in a commit."""
        return not self.is_restoring and self.foreign_since_ms is None

    def fold(self, records: Records, topics: Topics, *, now_ms: int, wall_ms: int) -> None:
        """Fold a batch; keep rejects and late ticks for the commit, unless a former commit has them."""
        if records.values:
            rejects, late = self.book.fold(records.values, records.timestamps_ms, records.offsets)
            for index, reason in rejects:
                self._keep(topics, records.origin(index), topics.dead_letters, "reason", reason)
            for index, timeframes in late:
                self._keep(topics, records.origin(index), topics.late, "timeframes", timeframes)
            self._last = records.origin(len(records.values) - 1)
        self.position = records.next_offset
        self.clock.rise(self.book.event_ms(), now_ms=now_ms, wall_ms=wall_ms)
        self.clock.reach(self.position)

    def _keep(self, topics: Topics, origin: Origin, topic: str, name: str, value: str) -> None:
        if origin.offset < self.committed.offset:
            return
        headers = [
            *origin.headers,
            (name, value.encode()),
            ("source.topic", topics.ticks.encode()),
            ("source.partition", str(self.number).encode()),
            ("source.offset", str(origin.offset).encode()),
            ("source.timestamp", str(origin.timestamp_ms).encode()),
        ]
        self.letters.append(Letter(topic, origin.key, origin.value, headers))
        self.letter_bytes += len(origin.value or b"") + len(origin.key or b"")

    def due_ms(self) -> list[int]:
        """C' per timeframe: the frontier, or F less the grace where that is later."""
        f_ms = self.clock.f_ms
        frontiers_ms = self.commit.frontiers_of(self.rules)
        return [max(c_ms, f_ms - grace_ms) for c_ms, grace_ms in zip(frontiers_ms, self.rules.grace_ms, strict=True)]

    def next_due_f_ms(self) -> int | None:
        """The feed time at which the next window is due, if any is held."""
        ends_ms = zip(self.book.next_ends_ms(), self.rules.grace_ms, strict=True)
        return min((end_ms + grace_ms for end_ms, grace_ms in ends_ms if end_ms is not None), default=None)

    def has_due(self) -> bool:
        """Whether a window is due that is not out."""
        due_f_ms = self.next_due_f_ms()
        return due_f_ms is not None and due_f_ms <= self.clock.f_ms

    def close(
        self, *, is_flush: bool, candles_max: int, topic_id: str
    ) -> tuple[Commit, list[list[tuple[bytes, bytes]]]]:
        """What a commit at this position says and publishes; changes nothing here."""
        due_ms = self.due_ms()
        frontiers_ms, candles = self.book.close(due_ms=due_ms, flush=is_flush, candles_max=candles_max)
        updated = self.commit.updated(self.rules, frontiers_ms=frontiers_ms, offset=self.position, is_flush=is_flush)
        last = self._last
        fingerprint = self.commit.fingerprint
        if last is not None:
            fingerprint = Fingerprint(last.offset, last.timestamp_ms, zlib.crc32(last.value or b""), topic_id)
        commit = Commit(
            f_ms=self.clock.f_ms,
            e_ms=self.clock.e_ms,
            w_ms=self.clock.w_ms,
            frontiers_ms=updated[0],
            offsets=updated[1],
            flushed=updated[2],
            rules=self.rules.digest,
            fingerprint=fingerprint,
        )
        return commit, candles

    def adopt(self, commit: Commit, committed: Committed) -> None:
        """The commit is in the log: what it held is out."""
        self.commit = commit
        self.committed = committed
        self.letters.clear()
        self.letter_bytes = 0
        self._tell_book()

    def _tell_book(self) -> None:
        self.book.committed(
            frontiers_ms=self.commit.frontiers_of(self.rules),
            offsets=self.commit.offsets_of(self.rules, offset=self.committed.offset),
            flushed=self.commit.flushed_of(self.rules),
        )


class Path:
    """The partitions in our hands, and the steps of the loop over them."""

    def __init__(self, log: Log, clock: Clock, rules: Rules, settings: PathSettings) -> None:
        """Nothing is assigned yet."""
        self.log = log
        self.clock = clock
        self.rules = rules
        self.settings = settings
        self.partitions: dict[int, InputPartition] = {}
        self._committed_at_ms = clock.monotonic_ms()
        self._retry_at_ms = 0

    # ---- partitions come and go (called by the log, from within poll) ----

    def assigned(self, partitions: Sequence[int]) -> Mapping[int, int]:
        """Take partitions over where the group's last commit left them: the one way to restore."""
        committed = self.log.committed(partitions)
        for number in partitions:
            self.partitions[number] = self._restore(number, committed[number])
        return {number: self.partitions[number].position for number in partitions}

    def revoked(self, partitions: Sequence[int]) -> None:
        """Forget them: what was not committed is folded again by whoever has them next."""
        for number in partitions:
            self.partitions.pop(number, None)
        logger.info("partitions given up: %s", list(partitions))

    def _restore(self, number: int, committed: Committed | None) -> InputPartition:
        commit = Commit() if committed is None else Commit.decode(committed.metadata)
        if commit is None:
            commit = self._adopted(number, committed)
        offset = self._start_offset(number) if committed is None else committed.offset
        fold_from, fold_start_ms = offset, None
        if committed is not None and commit.e_ms is not None:
            fold_start_ms = self._fold_start_ms(commit)
            fold_from = min(offset, self.log.offset_at(number, fold_start_ms))
        fold_from = max(fold_from, self.log.begins([number])[number])
        partition = InputPartition(
            number,
            rules=self.rules,
            commit=commit,
            start=committed or Committed(fold_from, ""),
            fold_from=fold_from,
            is_idle_counted=not self.settings.is_until_end,
        )
        if commit.e_ms is not None:
            partition.book.raise_event_ms(commit.e_ms)
        if fold_start_ms is not None:
            partition.book.freeze(fold_start_ms)
        logger.info("partition %d: taken over at offset %d, folding from %d", number, offset, fold_from)
        return partition

    def _adopted(self, number: int, committed: Committed | None) -> Commit:
        if not self.settings.is_adopting:
            message = (
                f"{self.settings.topics.ticks}[{number}]: the group's offset was committed by another program; "
                "run with --adopt to go on from there, or set another STREAMINGCANDLE_APPLICATION_ID"
            )
            raise SettingsError(message)
        offset = 0 if committed is None else committed.offset
        logger.warning("partition %d: adopting offset %d of another program", number, offset)
        return Commit()

    def _fold_start_ms(self, commit: Commit) -> int:
        """§6: the start of the trading day that holds the earliest time a tick may still matter at."""
        assert commit.e_ms is not None
        earliest_ms = min(commit.e_ms - self.rules.late_horizon_ms, *commit.frontiers_of(self.rules))
        return self.rules.calendar.day_start_ms(earliest_ms) - DAY_START_MARGIN_MS

    def _start_offset(self, number: int) -> int:
        match self.settings.start:
            case "earliest":
                return self.log.begins([number])[number]
            case "latest":
                return self.log.ends([number])[number]
            case "session":
                return self.log.offset_at(number, self.rules.calendar.day_start_ms(self.clock.wall_ms()))
            case timestamp_ms:
                return self.log.offset_at(number, int(timestamp_ms))

    # ---- the steps ----

    def wait_s(self) -> float:
        """How long a poll may wait: until the next window can be due or a commit is."""
        now_ms, wall_ms = self.clock.monotonic_ms(), self.clock.wall_ms()
        if now_ms < self._retry_at_ms:
            return min(POLL_MAX_MS, self._retry_at_ms - now_ms) / 1_000
        waits_ms = [POLL_MAX_MS]
        for partition in self.partitions.values():
            if not partition.is_publishing:
                continue
            due_f_ms = partition.next_due_f_ms()
            if due_f_ms is not None:
                idle_ms = partition.clock.idle_needed_ms(due_f_ms, now_ms=now_ms, wall_ms=wall_ms)
                waits_ms.append(POLL_MAX_MS if idle_ms is None else idle_ms)
            if partition.position > partition.committed.offset:
                waits_ms.append(self._committed_at_ms + self.settings.commit_interval_ms - now_ms)
        return max(0, min(waits_ms)) / 1_000

    def fold(self, batches: Sequence[Records]) -> None:
        """Put what was read into the books."""
        now_ms, wall_ms = self.clock.monotonic_ms(), self.clock.wall_ms()
        for records in batches:
            partition = self.partitions.get(records.partition)
            if partition is None:
                continue
            was_restoring = partition.is_restoring
            partition.fold(records, self.settings.topics, now_ms=now_ms, wall_ms=wall_ms)
            if was_restoring and not partition.is_restoring:
                logger.info("partition %d: restored at offset %d", partition.number, partition.position)

    def tell_time(self) -> None:
        """Where only idle time can make a window due, and enough has passed, ask for the log's end."""
        now_ms, wall_ms = self.clock.monotonic_ms(), self.clock.wall_ms()
        waiting = []
        for partition in self.partitions.values():
            due_f_ms = partition.next_due_f_ms()
            if not partition.is_publishing or due_f_ms is None or due_f_ms <= partition.clock.f_ms:
                continue
            if partition.clock.idle_needed_ms(due_f_ms, now_ms=now_ms, wall_ms=wall_ms) == 0:
                waiting.append(partition)
        if not waiting:
            return
        ends = self.log.ends([partition.number for partition in waiting])
        for partition in waiting:
            partition.clock.ask(ends[partition.number], now_ms=now_ms, wall_ms=wall_ms)
            partition.clock.reach(partition.position)

    def is_commit_due(self, *, is_caught_up: bool) -> bool:
        """At the interval when anything is new; at once when windows are due and no backlog waits."""
        now_ms = self.clock.monotonic_ms()
        publishing = [partition for partition in self.partitions.values() if partition.is_publishing]
        if any(partition.letter_bytes >= LETTER_BYTES_MAX for partition in publishing):
            return True
        if now_ms >= self._committed_at_ms + self.settings.commit_interval_ms:
            return any(p.position > p.committed.offset or p.has_due() for p in publishing)
        if is_caught_up:
            return any(partition.has_due() for partition in publishing)
        due = sum(partition.book.count_due(partition.due_ms()) for partition in publishing)
        return due >= CANDLES_MAX

    def commit(self, *, is_flush: bool = False) -> bool:
        """One transaction over all partitions assigned now; false when it did not come about."""
        if self.clock.monotonic_ms() < self._retry_at_ms:
            return False
        publishing = [partition for partition in self.partitions.values() if partition.is_publishing]
        topic_id = self.log.topic_id()
        candles: list[list[tuple[bytes, bytes]]] = [[] for _ in self.rules.timeframes]
        commits: dict[int, Commit] = {}
        room = CANDLES_MAX
        for partition in publishing:
            commit, closed = partition.close(is_flush=is_flush, candles_max=max(room, 1), topic_id=topic_id)
            commits[partition.number] = commit
            for sheet, records in zip(candles, closed, strict=True):
                sheet.extend(records)
                room -= len(records)
        changed = [p for p in publishing if p.position > p.committed.offset]
        if not changed and not any(candles):
            return True
        transaction = Transaction(
            candles=[
                (topic, sheet) for topic, sheet in zip(self.settings.topics.candles, candles, strict=True) if sheet
            ],
            letters=[letter for partition in publishing for letter in partition.letters],
            offsets={p.number: Committed(p.position, commits[p.number].encode()) for p in publishing},
        )
        if not self._publish(transaction):
            self._retry_at_ms = self.clock.monotonic_ms() + self.settings.commit_interval_ms
            return False
        self._committed_at_ms = self.clock.monotonic_ms()
        for partition in publishing:
            partition.adopt(commits[partition.number], transaction.offsets[partition.number])
        return True

    def _publish(self, transaction: Transaction) -> bool:
        try:
            self.log.commit(transaction)
        except NotCommittedError as error:
            logger.warning("transaction aborted, again in a moment: %s", error)
            return False
        except InDoubtError as error:
            logger.warning("transaction in doubt, settling it: %s", error)
            return self._settle(transaction)
        return True

    def _settle(self, transaction: Transaction) -> bool:
        """True when the transaction turns out to be in the log; offsets of another's marks are noted."""
        self.log.settle()
        committed = self.log.committed(transaction.offsets)
        if all(committed[number] == wanted for number, wanted in transaction.offsets.items()):
            return True
        for number in transaction.offsets:
            partition = self.partitions[number]
            found = committed[number]
            if found is not None and found != partition.committed:
                logger.warning("partition %d: committed by another process; waiting to be told", number)
                partition.foreign_since_ms = self.clock.monotonic_ms()
        return False

    def has_reached(self, goal: Mapping[int, int]) -> bool:
        """Whether every partition is read up to its goal by us, or committed up to it by another member."""
        for number, end in goal.items():
            partition = self.partitions.get(number)
            if partition is not None:
                if not partition.is_publishing or partition.position < end:
                    return False
            elif end > self.log.begins([number])[number]:
                committed = self.log.committed([number])[number]
                if committed is None or committed.offset < end:
                    return False
        return True

    def finish(self) -> bool:
        """Publish what is due, and with `is_flush` what is open; true when nothing is left to do."""
        is_done = self.commit(is_flush=self.settings.is_flush)
        return is_done and not any(partition.has_due() for partition in self.partitions.values())

    def check_owned(self) -> None:
        """A partition whose offsets somebody else commits must leave us soon."""
        now_ms = self.clock.monotonic_ms()
        for partition in self.partitions.values():
            if partition.foreign_since_ms is not None and now_ms > partition.foreign_since_ms + FOREIGN_MAX_MS:
                message = (
                    f"{self.settings.topics.ticks}[{partition.number}]: another process commits this group's offsets; "
                    "stop it or give one of the two another STREAMINGCANDLE_APPLICATION_ID"
                )
                raise OwnedError(message)


def run(log: Log, clock: Clock, rules: Rules, settings: PathSettings, is_stopping: Callable[[], bool]) -> None:
    """Make candles until told to stop, or with `is_until_end` until all that is there now is committed.

    Raises OutsideError, OwnedError, SettingsError; at a stop what is due is committed first.
    """
    path = Path(log, clock, rules, settings)
    goal = dict(log.ends(log.partitions())) if settings.is_until_end else None
    while not is_stopping():
        batches = list(log.poll(path.wait_s(), path))
        path.fold(batches)
        path.tell_time()
        if path.is_commit_due(is_caught_up=sum(len(b.values) for b in batches) < BACKLOG_RECORDS):
            path.commit()
        path.check_owned()
        if goal is not None and path.has_reached(goal) and path.finish():
            return
    path.commit()
