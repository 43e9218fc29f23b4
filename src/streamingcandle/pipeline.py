"""THE PATH: poll -> fold -> close -> publish and commit, for every partition that is ours.

Read `run` from the top: it is the whole service. The fold itself is the kernel's (`candles/book.py`);
what is published when is decided by `InputPartition.close` after specification §4.5 and §6.2.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from streamingcandle.account import Account
from streamingcandle.candles.commit import Commit, topic_marks
from streamingcandle.candles.rules import Rules
from streamingcandle.errors import OwnedError
from streamingcandle.interfaces import (
    BrokerAwayError,
    Clock,
    Committed,
    InDoubtError,
    Log,
    NotCommittedError,
    NotMemberError,
    Records,
    Snapshots,
    Transaction,
)
from streamingcandle.partition import InputPartition, PathSettings
from streamingcandle.placement import Placement
from streamingcandle.report import Nobody, Report
from streamingcandle.restore import Restorer
from streamingcandle.saving import Saver

logger = logging.getLogger(__name__)

POLL_MAX_MS = 500
"""A stop is heeded and a rebalance noticed at least this often."""
BACKLOG_RECORDS = 5_000
"""A poll that brings as many leaves more behind: then closing waits for the interval or a full transaction."""
GATHER_MS = 30
"""What is due waits so long for partitions that will be due within as much: a transaction right behind another one
waits until the broker has written that one's marks, which takes longer (docs/decisions/0008)."""
LETTER_BYTES_MAX = 16_000_000
"""Dead letters and late ticks of all partitions, before a commit is made for their sake. Where none comes about reading
stops, as with a full transaction of candles: what is held grows by one poll more, 32 MB or so (docs/decisions/0015)."""
ASK_AGAIN_MS = 1_000
"""After a question for an end that nobody answered."""
RETRY_MS = 200
"""After an unanswered question the next one waits this long."""
STOP_TRIES = 2
"""A transaction that was aborted, or in doubt, is made once more at a stop."""
FOREIGN_MAX_MS = 60_000
"""How long a partition may stay ours while somebody else commits its offsets."""


class Doubt(msgspec.Struct, frozen=True):
    """A transaction of which nobody knows yet whether it is in the log, and whose it is."""

    transaction: Transaction
    commits: Mapping[int, Commit]
    partitions: Sequence[InputPartition]


class Path:
    """The partitions in our hands, and the steps of the loop over them."""

    def __init__(
        self,
        log: Log,
        clock: Clock,
        rules: Rules,
        settings: PathSettings,
        snapshots: Sequence[Snapshots],
        tell_restore: Callable[[int], None] | None = None,
        tell_turn: Callable[["Path"], None] = lambda _: None,
        report: Nobody | None = None,
    ) -> None:
        """Nothing is assigned yet."""
        self._report = report or Nobody()
        self._tell_turn = tell_turn
        self.log = log
        self.clock = clock
        self.rules = rules
        self.settings = settings
        self.partitions: dict[int, InputPartition] = {}
        self._saver = Saver(clock, snapshots)
        self._placement = Placement(rules, settings)
        self._restorer = Restorer(log, clock, rules, settings, snapshots)
        self._committed_at_ms = clock.monotonic_ms()
        self._due_at_ms: int | None = None
        self._ask_at_ms = 0
        self.retry_at_ms = 0
        self.is_ending = False
        self.account = Account(clock, tell_restore)
        self._doubt: Doubt | None = None
        self._topic_marks = topic_marks(settings.topics.candles)
        self._handed = 0
        """Candles of the transaction under way, or in doubt."""
        self._is_failing = False
        """Whether the last commit has not come about."""
        self._is_left = False
        """Whether the last commit was refused since the partitions are others' by now."""

    # ---- partitions come and go (called by the log, from within poll) ----

    def assigned(self, partitions: Sequence[int]) -> Mapping[int, int]:
        """Take partitions over where the group's last commit left them: the one way to restore."""
        # What the brokers tell of the topic may be older than what they give us.
        everybody = range(max([*self.log.partitions(), *partitions]) + 1)
        committed = self.log.committed(everybody)
        taken = {}
        for number in partitions:
            if committed[number] is None:
                self._placement.check_count(number, len(everybody), committed)
            taken[number] = self._restorer.take_over(number, committed[number])
            self._tell_turn(self)  # of many partitions, far from their broker, it takes longer than a watchdog waits
        self.partitions |= taken
        for partition in taken.values():
            self._report.taken(partition)
        self.account.tell_restore(self.partitions.values())
        return {number: self.partitions[number].position for number in partitions}

    def revoked(self, partitions: Sequence[int]) -> None:
        """Forget them: what was not committed is folded again by whoever has them next."""
        for number in partitions:
            if (partition := self.partitions.pop(number, None)) is not None:
                self._report.given_up(partition)
        if not self.is_ending:
            logger.info("partitions given up: %s", list(partitions))

    def gone(self, partition: int, offset: int) -> None:
        """Say it, and go on with what is left."""
        self._restorer.skip_gone(self.partitions[partition], offset)

    # ---- the steps ----

    def wait_s(self) -> float:
        """How long a poll may wait: until the next window can be due or a commit is."""
        now_ms, wall_ms = self.clock.monotonic_ms(), self.clock.wall_ms()
        if now_ms < self.retry_at_ms:
            return min(POLL_MAX_MS, self.retry_at_ms - now_ms) / 1_000
        waits_ms = [POLL_MAX_MS]
        for partition in self.partitions.values():
            if not partition.is_publishing:
                continue
            due_f_ms = partition.next_due_f_ms()
            if due_f_ms is not None and due_f_ms <= partition.clock.f_ms:
                waits_ms.append(self._gather_ms(now_ms))
            elif due_f_ms is not None:
                idle_ms = partition.clock.idle_needed_ms(due_f_ms, now_ms=now_ms, wall_ms=wall_ms)
                waits_ms.append(POLL_MAX_MS if idle_ms is None else max(idle_ms, self._ask_at_ms - now_ms))
            if partition.has_news:
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
            self._placement.check_keys(records)
            self.account.read += len(records.values)
            partition.fold(records, self.settings.topics, now_ms=now_ms, wall_ms=wall_ms)
            self._report.folded(partition, records)
            self._placement.check_new(self.partitions, records)
            if was_restoring and not partition.is_restoring:
                logger.info("partition %d: restored at offset %d", partition.number, partition.position)
        self.account.tell_restore(self.partitions.values())

    def tell_time(self) -> None:
        """Where only idle time can make a window due, and enough has passed, ask for the log's end."""
        now_ms, wall_ms = self.clock.monotonic_ms(), self.clock.wall_ms()
        waiting = []
        for partition in self.partitions.values():
            if partition.is_publishing and partition.is_clock_to_reset:
                partition.reset_clock(now_ms=now_ms, wall_ms=wall_ms)
            if partition.is_publishing and partition.book.claim_ms() is not None:
                partition.take_time(now_ms=now_ms, wall_ms=wall_ms)
            due_f_ms = partition.next_due_f_ms()
            if not partition.is_publishing or due_f_ms is None or due_f_ms <= partition.clock.f_ms:
                continue
            if partition.clock.idle_needed_ms(due_f_ms, now_ms=now_ms, wall_ms=wall_ms) == 0:
                waiting.append(partition)
        if not waiting or now_ms < self._ask_at_ms:
            return
        for partition, end in self._ends(waiting):
            partition.clock.ask(end, now_ms=now_ms, wall_ms=wall_ms)
            partition.take_time(now_ms=now_ms, wall_ms=wall_ms)

    def _ends(self, partitions: Sequence[InputPartition]) -> Iterator[tuple[InputPartition, int]]:
        """Those that can be told: a partition whose leader is away holds no other one's candles up."""
        try:
            ends = self.log.ends([partition.number for partition in partitions])
        except BrokerAwayError:
            self._ask_at_ms = self.clock.monotonic_ms() + ASK_AGAIN_MS
            if len(partitions) > 1:
                for partition in partitions:
                    yield from self._ends([partition])
            return
        for partition in partitions:
            yield partition, ends[partition.number]

    def is_commit_due(self, *, is_caught_up: bool) -> bool:
        """At the interval when anything is new; in a moment when windows are due and no backlog waits."""
        now_ms = self.clock.monotonic_ms()
        publishing = [partition for partition in self.partitions.values() if partition.is_publishing]
        if self._doubt is not None or self._letter_bytes() >= LETTER_BYTES_MAX:
            return True
        if now_ms >= self._committed_at_ms + self.settings.commit_interval_ms:
            return any(p.has_news or p.has_due() for p in publishing)
        if is_caught_up:
            if not any(partition.has_due() for partition in publishing):
                self._due_at_ms = None
                return False
            if self._due_at_ms is None:
                self._due_at_ms = now_ms
            return self._gather_ms(now_ms) == 0
        return self._due(publishing) >= self.settings.candles_max

    def is_held(self) -> bool:
        """Whether nothing may be read now: what waits for a commit is as much as one takes, and none comes about."""
        if self._letter_bytes() >= LETTER_BYTES_MAX:
            return True
        publishing = [partition for partition in self.partitions.values() if partition.is_publishing]
        return self._is_failing and self._due(publishing) >= self.settings.candles_max

    def _letter_bytes(self) -> int:
        return sum(partition.letter_bytes for partition in self.partitions.values())

    @staticmethod
    def _due(publishing: Sequence[InputPartition]) -> int:
        """How many candles."""
        return sum(partition.book.count_due(partition.due_ms()) for partition in publishing)

    def _gather_ms(self, now_ms: int) -> int:
        """How long what is due still waits for others."""
        if self._due_at_ms is None:
            return 0
        for partition in self.partitions.values():
            due_f_ms, f_ms = partition.next_due_f_ms(), partition.clock.f_ms
            if partition.is_publishing and due_f_ms is not None and f_ms < due_f_ms <= f_ms + GATHER_MS:
                return max(0, self._due_at_ms + GATHER_MS - now_ms)
        return 0

    def commit(self, *, is_flush: bool = False) -> bool:
        """One transaction over all partitions assigned now; false when it did not come about."""
        if self.clock.monotonic_ms() < self.retry_at_ms:
            return False
        self._is_failing, self._is_left = True, False
        if self._doubt is not None:
            self._settle(self._doubt)
        publishing = [partition for partition in self.partitions.values() if partition.is_publishing]
        # What is due may be out already, by a flush: then the frontier alone has to rise, or it stays due for ever.
        # And a flush of nothing is one: others wait for its mark.
        is_marking = any(p.has_due() or (is_flush and not p.is_flushed(p.position)) for p in publishing)
        if not is_marking and not any(p.has_news for p in publishing):
            self._is_failing = False
            return True
        topic_id, partitions = self.log.topic_id(), len(self.log.partitions())
        commits = dict[int, Commit]()
        room = self.settings.candles_max
        for partition in publishing:
            commits[partition.number] = commit = partition.close(
                is_flush=is_flush,
                candles_max=max(room, 1),
                topic_id=topic_id,
                partitions=partitions,
                topics=self._topic_marks,
            )
            room -= partition.book.count_due(commit.frontiers_of(self.rules))
        transaction = Transaction(
            candles=self._candles(publishing, commits, is_flush=is_flush),
            letters=[letter for partition in publishing for _, letter in partition.letters],
            offsets={p.number: Committed(p.position, commits[p.number].encode()) for p in publishing},
        )
        if not self._publish(Doubt(transaction, commits, publishing)):
            self.retry_at_ms = self.clock.monotonic_ms() + self.settings.commit_interval_ms
            return False
        self._is_failing = False
        self._committed_at_ms = self.clock.monotonic_ms()
        self._due_at_ms = None
        return True

    def _candles(
        self, partitions: Sequence[InputPartition], commits: Mapping[int, Commit], *, is_flush: bool
    ) -> Iterator[tuple[str, Sequence[tuple[bytes, bytes]]]]:
        self._handed = 0
        for partition in partitions:
            sheets = partition.candles(commits[partition.number], is_flush=is_flush)
            for topic, sheet in zip(self.settings.topics.candles, sheets, strict=True):
                if sheet:
                    self._handed += len(sheet)
                    yield topic, sheet

    def save_snapshots(self, *, is_all: bool) -> None:
        """The one longest due, or at a clean stop all."""
        self._saver.save(self.partitions, self.settings.snapshot_interval_ms, is_all=is_all)

    def _publish(self, wanted: Doubt) -> bool:
        try:
            self.log.commit(wanted.transaction)
        except NotCommittedError as error:
            self.account.aborted(str(error))
            self._is_left = isinstance(error, NotMemberError)
            return False
        except InDoubtError as error:
            logger.warning("transaction in doubt, settling it: %s", error)
            self.account.failure = str(error)
            self._doubt = wanted
            return self._settle(wanted)
        for partition in wanted.partitions:
            partition.adopt(wanted.commits[partition.number], wanted.transaction.offsets[partition.number])
        self.account.landed(self._handed, len(wanted.transaction.letters))
        return True

    def _settle(self, doubt: Doubt) -> bool:
        """True when the transaction turns out to be in the log; offsets of another's marks are noted."""
        self.log.settle()
        offsets = doubt.transaction.offsets
        committed = self.log.committed(offsets)
        self._doubt = None
        for partition in doubt.partitions:
            number = partition.number
            if self.partitions.get(number) is not partition:
                continue  # it left us meanwhile: whoever has it reads the log
            if committed[number] == offsets[number]:
                partition.adopt(doubt.commits[number], offsets[number])
            elif committed[number] not in (None, partition.committed, partition.found):
                logger.warning("partition %d: committed by another process; waiting to be told", number)
                partition.foreign_since_ms = self.clock.monotonic_ms()
        is_in = all(committed[number] == wanted for number, wanted in offsets.items())
        if is_in:
            self.account.landed(self._handed, len(doubt.transaction.letters))
        return is_in

    def has_reached(self, goal: Mapping[int, int]) -> bool:
        """Whether every partition of ours is read up to its goal."""
        return all(p.is_publishing and p.position >= goal.get(p.number, 0) for p in self.partitions.values())

    def finish(self, goal: Mapping[int, int]) -> bool:
        """Publish what is due of ours, and with `is_flush` once what is open; true when nothing is left to do.

        It waits for nobody: members that wait for each other's flush would do so for ever.
        """
        partitions = self.partitions.values()
        ends = {partition.number: goal.get(partition.number, 0) for partition in partitions}
        is_flush = self.settings.is_flush and any(not p.is_flushed(ends[p.number]) for p in partitions)
        if not is_flush and all(
            p.committed.offset >= ends[p.number] and not p.is_unsaid and not p.has_due() for p in partitions
        ):
            return True
        return self.commit(is_flush=is_flush) and not any(partition.has_due() for partition in partitions)

    def have_others_finished(self, goal: Mapping[int, int]) -> bool:
        """Whether every partition that is not ours is committed up to its goal, and with `is_flush` flushed.

        A commit alone may have left windows open: the partition must become ours, or be flushed by another.
        """
        begins = self.log.begins([number for number in goal if number not in self.partitions])
        others = [number for number, begin in begins.items() if goal[number] > begin]
        for number, committed in self.log.committed(others).items():
            if committed is None or committed.offset < goal[number]:
                return False
            commit = Commit.decode(committed.metadata)
            if self.settings.is_flush and (commit is None or not commit.is_flushed(self.rules, goal[number])):
                return False
        return True

    def stop(self) -> None:
        """Commit what is due before the end; StoppedError where that does not come about, tried once more."""
        for _ in range(STOP_TRIES):
            self.retry_at_ms = 0
            if self.commit():
                return
            if self._is_left:
                logger.info("the group has given our partitions to others, who read on from the last commit")
                return
        raise self.account.stopped(self.partitions.values())

    def tell_end(self) -> None:
        """What this run did; from here on nobody is told that partitions go."""
        self.is_ending = True
        self.account.tell_end(self.settings.topics.ticks, self.partitions.values())

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


def run(
    log: Log,
    clock: Clock,
    rules: Rules,
    settings: PathSettings,
    is_stopping: Callable[[], bool],
    snapshots: Sequence[Snapshots] = (),
    tell_restore: Callable[[int], None] | None = None,
    tell_turn: Callable[[Path], None] = lambda _: None,
) -> None:
    """Make candles until told to stop, or with `is_until_end` until all that is there now is committed.

    `tell_restore` is told how many offsets are left to restore; without it the log is, every second.
    `tell_turn` is told of every turn of the loop, whatever it brought, and of every partition taken over.
    Raises OutsideError, OwnedError, SettingsError; at a stop what is due is committed first.
    """
    report = Report(clock, rules, settings.topics.ticks)
    path = Path(log, clock, rules, settings, snapshots, tell_restore, tell_turn, report)
    goal = dict(log.ends(log.partitions())) if settings.is_until_end else None
    away: BrokerAwayError | None = None
    while not is_stopping():
        tell_turn(path)
        try:
            batches = list(log.poll(path.wait_s(), path, is_held=path.is_held()))
            path.fold(batches)
            path.tell_time()
            if path.is_commit_due(is_caught_up=sum(len(b.values) for b in batches) < BACKLOG_RECORDS) and path.commit():
                path.save_snapshots(is_all=False)
            path.check_owned()
            report.turn()
            if goal is not None and path.has_reached(goal) and path.finish(goal) and path.have_others_finished(goal):
                break
            away = None
        except BrokerAwayError as error:
            away = error
            path.retry_at_ms = clock.monotonic_ms() + RETRY_MS
    else:
        if away is not None:
            raise away
        path.stop()
    path.save_snapshots(is_all=True)
    path.tell_end()
    if goal is not None:
        report.ended()
