"""A partition is taken over where the group's last commit left it: specification §6.4, the one way to restore.

The newest snapshot that is a state of this log under these rules, at or before the committed offset; without
one the log from the start of the trading day. Either way the path folds on from there, silently up to the
committed offset. Where the group has no offset, `streamingcandle.earlier` says whether it ever had one.
"""

import logging
from collections.abc import Callable, Iterator, Sequence

from streamingcandle.candles.book import judge
from streamingcandle.candles.commit import Commit
from streamingcandle.candles.feed_clock import LEAP_MS
from streamingcandle.candles.rules import Rules
from streamingcandle.earlier import Earlier
from streamingcandle.errors import OutsideError, SettingsError
from streamingcandle.interfaces import BrokerAwayError, Clock, Committed, Log, Snapshots
from streamingcandle.partition import InputPartition, PathSettings, fingerprint_of
from streamingcandle.state.snapshot import Snapshot, UnusableError

logger = logging.getLogger(__name__)

DAY_START_MARGIN_MS = 60_000
"""§6.4: so far before its event time a tick's record may be stamped, more where `future_tolerance` is more."""

ADOPT_RECORDS_MAX = 100
"""So many records before an adopted offset are looked at for a tick: control records and rejects are none."""


class Restorer:
    """Makes an `InputPartition` of what was committed."""

    def __init__(
        self, log: Log, clock: Clock, rules: Rules, settings: PathSettings, snapshots: Sequence[Snapshots]
    ) -> None:
        """`snapshots` in the order in which to look: the nearest first."""
        self._log = log
        self._clock = clock
        self._rules = rules
        self._settings = settings
        self._snapshots = snapshots
        self._earlier = Earlier(log, rules, settings)

    def take_over(self, number: int, committed: Committed | None) -> InputPartition:
        """The partition, to be read from its `position` on. SettingsError: not ours to go on with."""
        start = committed
        if committed is None:
            start, committed = self._earlier_commit(number)
        known = None if start is None else self._known(number, start)
        if known is None:
            start = Committed(max(self._start_offset(number), self._begin(number)), "")
            partition = self._partition(number, Commit(), start, committed)
            if start.offset > 0:
                partition.book.lose()
        else:
            partition = self._partition(number, *known, committed)
            partition.is_unsaid = known[1] != committed or Commit.decode(known[1].metadata) is None
            if not self._load_snapshot(partition):
                self._fold_from_day_start(partition)
            begin = self._begin(number)
            if not partition.is_restoring:
                partition.end_restore()
            partition.is_clock_to_reset = self._settings.is_clock_reset
            if partition.position < begin:
                self.skip_gone(partition, begin)
        logger.info(
            "%s: taken over at offset %d, folding from %d",
            self._name(number),
            partition.committed.offset,
            partition.position,
        )
        return partition

    def skip_gone(self, partition: InputPartition, offset: int) -> None:
        """Go on behind records that are gone before we read them. OutsideError where the setting is to stop."""
        where = f"{self._name(partition.number)}: records {partition.position} to {offset - 1} are gone from the log"
        if self._settings.is_stopped_by_gone:
            message = (
                f"{where}; bring them back, or set STREAMINGCANDLE_GONE_OFFSETS=continue to go on from what is left"
            )
            raise OutsideError(message)
        logger.error("%s: going on from %d; candles they belonged to are marked complete: false", where, offset)
        partition.skip_gone(offset)

    def _name(self, number: int) -> str:
        return f"{self._settings.topics.ticks}[{number}]"

    def _begin(self, number: int) -> int:
        return self._log.begins([number])[number]

    def _partition(self, number: int, commit: Commit, start: Committed, found: Committed | None) -> InputPartition:
        return InputPartition(
            number,
            rules=self._rules,
            commit=commit,
            start=start,
            found=found,
            is_idle_counted=not self._settings.is_until_end,
        )

    # ---- what was committed ----

    def _known(self, number: int, committed: Committed) -> tuple[Commit, Committed] | None:
        """The commit to go on from; None where it was one of another log."""
        commit = Commit.decode(committed.metadata)
        if commit is None:
            self._check_adopting(number, committed)
        elif commit.fingerprint is not None and commit.fingerprint.topic_id != self._log.topic_id():
            logger.error("%s: made anew since the group's last commit: beginning as without one", self._name(number))
            return None
        end = self._log.ends([number])[number]
        if committed.offset > end:
            logger.error(
                "%s: ends at %d, before the committed offset %d: records are lost; going on from the end",
                self._name(number),
                end,
                committed.offset,
            )
            commit = None if commit is None else commit.lowered(end)
            committed = Committed(end, committed.metadata)
        return commit or self._adopted(number, committed), committed

    def _earlier_commit(self, number: int) -> tuple[Committed | None, Committed | None]:
        """What stands in for an offset that the group has lost, None in its first life; and the group's offset."""
        found = [
            (snapshot, store.name)
            for store in self._snapshots
            for snapshot in self._found(store, number, lambda each: self._check_log(each, number))
        ]
        try:
            return self._earlier.commit(number, found), None
        except SettingsError:
            # Whoever stood still since it asked for the offset finds the proofs of a life that began meanwhile.
            committed = self._log.committed([number])[number]
            if committed is None:
                raise
            return committed, committed

    def _check_adopting(self, number: int, committed: Committed) -> None:
        if not self._settings.is_adopting:
            message = (
                f"{self._name(number)}: the group's offset {committed.offset} was not committed by streamingcandle "
                "(another program, or an offset reset); run with --adopt to go on from there, or set another "
                "STREAMINGCANDLE_APPLICATION_ID"
            )
            raise SettingsError(message)

    def _adopted(self, number: int, committed: Committed) -> Commit:
        """§6.5: go on from another program's offset, C = F = the event time there, less that program's grace."""
        at_ms = self._event_ms_before(number, committed.offset)
        if at_ms is None:
            logger.warning("%s: adopting offset %d, with no tick before it", self._name(number), committed.offset)
            return Commit()
        out_ms = at_ms - self._settings.adopt_grace_ms
        logger.warning(
            "%s: adopting offset %d, event time %d ms; windows that ended by %d ms count as published",
            self._name(number),
            committed.offset,
            at_ms,
            out_ms,
        )
        return Commit(f_ms=out_ms, e_ms=at_ms, w_ms=self._clock.wall_ms())

    def _event_ms_before(self, number: int, offset: int) -> int | None:
        """Event time of the last tick before `offset`, among the records next to it.

        Where the last one of another instrument is an hour apart, one of the two lies: the earlier time counts (§4.2).
        """
        last: tuple[str | None, int] | None = None
        for before in range(offset - 1, max(self._begin(number), offset - ADOPT_RECORDS_MAX) - 1, -1):
            record = self._log.record_at(number, before)
            if record is None:
                continue
            _, instrument, event_ms = judge(self._rules, [record.value], [record.timestamp_ms])[0]
            if event_ms is None:
                continue
            if last is None:
                last = instrument, event_ms
            elif instrument != last[0]:
                return min(last[1], event_ms) if abs(last[1] - event_ms) > LEAP_MS else max(last[1], event_ms)
        return None if last is None else last[1]

    def _start_offset(self, number: int) -> int:
        match self._settings.start:
            case "earliest":
                return self._begin(number)
            case "latest":
                return self._log.ends([number])[number]
            case "session":
                return self._log.offset_at(number, self._rules.calendar.day_start_ms(self._clock.wall_ms()))
            case timestamp_ms:
                return self._log.offset_at(number, int(timestamp_ms))

    # ---- the state there ----

    def _load_snapshot(self, partition: InputPartition) -> bool:
        """Whether a snapshot was loaded; farther stores are asked only while the newest is not found."""
        usable: list[tuple[Snapshot, str]] = []
        for store in self._snapshots:
            found = self._found(store, partition.number, lambda each: self._check(each, partition))
            usable += [(snapshot, store.name) for snapshot in found]
            usable.sort(key=lambda pair: pair[0].offset, reverse=True)
            while usable and usable[0][0].offset >= partition.commit.snapshot:
                if self._is_loaded(partition, *usable.pop(0)):
                    return True
        return any(self._is_loaded(partition, snapshot, where) for snapshot, where in usable)

    def _is_loaded(self, partition: InputPartition, snapshot: Snapshot, where: str) -> bool:
        name = f"{self._name(partition.number)}: snapshot at offset {snapshot.offset} ({where})"
        try:
            partition.load(snapshot)
        except UnusableError as error:
            logger.warning("%s skipped: %s", name, error)
            return False
        logger.info("%s restored", name)
        return True

    def _found(self, store: Snapshots, number: int, check: Callable[[Snapshot], None]) -> Iterator[Snapshot]:
        """The store's snapshots that pass every check but the kernel's own."""
        name = self._name(number)
        try:
            for data in store.load(number):
                try:
                    snapshot = Snapshot.decode(data)
                    check(snapshot)
                except UnusableError as error:
                    logger.warning("%s: a snapshot (%s) skipped: %s", name, store.name, error)
                else:
                    yield snapshot
        except BrokerAwayError:
            raise  # the same question again, rather than the whole day
        except OutsideError as error:
            logger.warning("%s: no snapshots from the %s: %s", name, store.name, error)

    def _check(self, snapshot: Snapshot, partition: InputPartition) -> None:
        """Raises UnusableError where it is not the state of this log at or before the committed offset."""
        if snapshot.partition != partition.number:
            raise UnusableError(f"of partition {snapshot.partition}")
        if snapshot.rules != self._rules.digest:
            raise UnusableError("written under other rules")
        if snapshot.offset > partition.committed.offset:
            raise UnusableError(f"ahead of the committed offset {partition.committed.offset}")
        self._check_log(snapshot, partition.number)

    def _check_log(self, snapshot: Snapshot, number: int) -> None:
        """Raises UnusableError where it is not of this log, whatever the rules and the offset."""
        if snapshot.partition != number:
            raise UnusableError(f"of partition {snapshot.partition}")
        if snapshot.fingerprint.topic_id != self._log.topic_id():
            raise UnusableError("of another topic of that name")
        record = self._log.record_at(number, snapshot.fingerprint.offset)
        if record is not None and fingerprint_of(record, snapshot.fingerprint.topic_id) != snapshot.fingerprint:
            raise UnusableError(f"of another log: the record at {snapshot.fingerprint.offset} differs")

    def _fold_from_day_start(self, partition: InputPartition) -> None:
        """§6.4: the start of the trading day that holds the earliest time a tick may still matter at."""
        commit = partition.commit
        if commit.e_ms is not None:
            earliest_ms = min(commit.e_ms - self._rules.allowed_lateness_ms, *commit.frontiers_of(self._rules))
        elif commit.claim_ms is not None:
            earliest_ms = commit.claim_ms - self._rules.allowed_lateness_ms  # nothing is out yet
        else:
            return
        if commit.w_ms > 0:
            # Where several liars lifted E and with it every C, the host's clock knew better.
            earliest_ms = min(earliest_ms, commit.w_ms)
        margin_ms = max(DAY_START_MARGIN_MS, self._rules.future_ms)
        start_ms = self._rules.calendar.day_start_ms(earliest_ms) - margin_ms
        partition.position = min(partition.committed.offset, self._log.offset_at(partition.number, start_ms))
        partition.book.freeze(start_ms)
