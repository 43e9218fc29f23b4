"""Bugs to plant: each is put in the place of one or two methods, and stories must find it.

`python -m simulation.bugs` (`make simulate BUGS=1`) looks for each anew and prints how many seeds that took.
"""

import json
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from streamingcandle import partition as partition_module
from streamingcandle.candles import feed_clock
from streamingcandle.candles.book import judge, new_book
from streamingcandle.candles.commit import Commit, Fingerprint
from streamingcandle.candles.feed_clock import LEAP_MS, FeedClock
from streamingcandle.candles.rules import Rules
from streamingcandle.interfaces import Records
from streamingcandle.partition import LAST_MS, InputPartition, Topics
from streamingcandle.pipeline import Doubt, Path
from streamingcandle.restore import Restorer
from streamingcandle.simulation.log import SimulatedLog
from streamingcandle.simulation.search import cores, findings, pin
from streamingcandle.state.snapshot import Snapshot

SEEDS_MAX = 2_000

Sheet = list[tuple[bytes, bytes]]
Patch = tuple[Any, str, Any]

_assigned, _commit, _fold, _close, _candles, _updated = (
    Path.assigned,
    Path.commit,
    InputPartition.fold,
    InputPartition.close,
    InputPartition.candles,
    Commit.updated,
)


# ---- the feed clock


def _commit_f_read_again(self: Path, *, is_flush: bool = False) -> bool:
    now_ms = self.clock.monotonic_ms()
    for partition in self.partitions.values():
        arrived_ms = partition.clock._arrived_ms  # noqa: SLF001
        partition.f_again_ms = partition.clock.f_ms  # type: ignore[attr-defined]
        if arrived_ms is not None and partition.clock.e_ms is not None:
            again_ms = partition.clock.e_ms + now_ms - arrived_ms
            partition.f_again_ms = max(again_ms, partition.clock.f_ms)  # type: ignore[attr-defined]
    return _commit(self, is_flush=is_flush)


def _close_f_read_again(self: InputPartition, **how: Any) -> Commit:
    self.commit_once = commit = _close(self, **how)  # type: ignore[attr-defined]
    f_ms = self.f_again_ms  # type: ignore[attr-defined]
    graces_ms = zip(self.rules.timeframes, self.rules.grace_ms, strict=True)
    reached_ms = {timeframe.label: f_ms - grace_ms for timeframe, grace_ms in graces_ms}
    frontiers_ms = {label: max(c_ms, reached_ms.get(label, 0)) for label, c_ms in commit.frontiers_ms.items()}
    return msgspec.structs.replace(commit, f_ms=f_ms, frontiers_ms=frontiers_ms)


def _candles_f_read_once(self: InputPartition, _commit: Commit, *, is_flush: bool) -> Iterator[Sheet]:
    return _candles(self, self.commit_once, is_flush=is_flush)  # type: ignore[attr-defined]


def _commit_w_taken(self: Path, *, is_flush: bool = False) -> bool:
    for partition in self.partitions.values():
        partition.clock.w_ms = self.clock.wall_ms()
    return _commit(self, is_flush=is_flush)


def _reach_anything(self: FeedClock, position: int, *, held_f_ms: int) -> None:
    if self._asked is not None:
        self._asked = (position, *self._asked[1:])
    _reach(self, position, held_f_ms=held_f_ms)


_reach = FeedClock.reach


def _stable_ends(self: SimulatedLog, partitions: Sequence[int]) -> Mapping[int, int]:
    self._host.reach("ends")
    return {number: self._broker.ticks[number].stable_end for number in partitions}


def _rise_without_anchor(self: FeedClock, e_ms: int | None, *, now_ms: int, wall_ms: int) -> None:
    if e_ms is not None and (self.e_ms is None or e_ms > self.e_ms):
        self.w_ms, self._arrived_ms, self.e_ms = wall_ms, now_ms, e_ms
        self._f_ms = max(self._f_ms, e_ms)


def _believes_anything(self: FeedClock, _claim_ms: int, *, wall_ms: int) -> bool:
    return self._is_idle_counted and wall_ms > 0


def _believes_what_is_to_come(self: FeedClock, claim_ms: int, *, wall_ms: int) -> bool:
    return self._is_idle_counted and abs(claim_ms - wall_ms) <= LEAP_MS


def _reach_unbounded(self: FeedClock, position: int, *, held_f_ms: int) -> None:
    _reach(self, position, held_f_ms=max(held_f_ms, LAST_MS))


def _begin_never_anew(_self: FeedClock, **_when: int) -> None:
    pass


def _close_reset_without_c(self: InputPartition, **how: Any) -> Commit:
    commit = _close(self, **how)
    frontiers_ms = {label: max(c_ms, commit.frontiers_ms[label]) for label, c_ms in self.commit.frontiers_ms.items()}
    return msgspec.structs.replace(commit, frontiers_ms=commit.frontiers_ms | frontiers_ms)


# ---- what a commit says


def _frontiers_by_grace(self: Commit, rules: Rules) -> list[int]:
    return [self.f_ms - grace_ms for grace_ms in rules.grace_ms]


def _frontiers_from_zero(self: Commit, rules: Rules) -> list[int]:
    return [self.frontiers_ms.get(timeframe.label, 0) for timeframe in rules.timeframes]


def _updated_forgetful(self: Commit, rules: Rules, **how: Any) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    frontiers_ms, offsets, flushed = _updated(self, rules, **how)
    return frontiers_ms, {timeframe.label: offsets[timeframe.label] for timeframe in rules.timeframes}, flushed


def _close_flush_raises_c(self: InputPartition, *, is_flush: bool, **how: Any) -> Commit:
    commit = _close(self, is_flush=is_flush, **how)
    if is_flush:
        frontiers_ms = dict(commit.frontiers_ms)
        for timeframe, sheet in zip(self.rules.timeframes, _candles(self, commit, is_flush=True), strict=True):
            ends_ms = [json.loads(value)["windowEndMillis"] for _, value in sheet]
            frontiers_ms[timeframe.label] = max([frontiers_ms[timeframe.label], *ends_ms])
        commit = msgspec.structs.replace(commit, frontiers_ms=frontiers_ms)
    return commit


def _candles_without_revisions(self: InputPartition, commit: Commit, *, is_flush: bool) -> Iterator[Sheet]:
    sheets = _candles(self, commit, is_flush=is_flush)
    if not self.has_due() and not is_flush:
        return ([] for _ in sheets)
    return sheets


# ---- who owns what


def _revoked_kept(self: Path, partitions: Sequence[int]) -> None:
    kept = self.__dict__.setdefault("kept", {})
    for number in partitions:
        kept[number] = self.partitions.pop(number)


def _assigned_kept(self: Path, partitions: Sequence[int]) -> Mapping[int, int]:
    kept = self.__dict__.setdefault("kept", {})
    positions = dict(_assigned(self, [number for number in partitions if number not in kept]))
    for number in partitions:
        if number in kept:
            self.partitions[number] = kept.pop(number)
            positions[number] = self.partitions[number].position
    return positions


def _not_settled(self: Path, _doubt: Doubt) -> bool:
    self._doubt = None
    return False


def _believed_landed(self: Path, doubt: Doubt) -> bool:
    self.log.settle()
    self._doubt = None
    for partition in doubt.partitions:
        partition.adopt(doubt.commits[partition.number], doubt.transaction.offsets[partition.number])
    return True


# ---- the book


def _fold_from_open(self: Restorer, partition: InputPartition) -> None:
    schedule = self._rules.calendar.schedule("N", "C")
    e_ms = partition.commit.e_ms
    if e_ms is not None:
        earliest_ms = min(e_ms - self._rules.allowed_lateness_ms, *partition.commit.frontiers_of(self._rules))
        open_ms = schedule.sessions(schedule.trading_day(earliest_ms))[0][0]
        partition.position = min(partition.committed.offset, self._log.offset_at(partition.number, open_ms))
        partition.book.set_event_ms(e_ms)
        partition.book.freeze(open_ms)


def _fold_forgetting(self: InputPartition, records: Records, topics: Topics, **when: int) -> None:
    _fold(self, records, topics, **when)
    frontiers_ms, flushed = self.commit.frontiers_of(self.rules), self.commit.flushed_of(self.rules)
    self.book.committed(frontiers_ms=frontiers_ms, offsets=[self.position] * len(flushed), flushed=flushed)
    self._tell_book()


def _adopt_with_letters(self: InputPartition, commit: Commit, committed: Any) -> None:
    self.commit, self.committed = commit, committed
    self._tell_book()


def _check_all_but_log(self: Restorer, snapshot: Snapshot, partition: InputPartition) -> None:
    fingerprint = Fingerprint(-1, 0, 0, self._log.topic_id())
    _check(self, msgspec.structs.replace(snapshot, fingerprint=fingerprint), partition)


def _check_all_but_offset(self: Restorer, snapshot: Snapshot, partition: InputPartition) -> None:
    offset = min(snapshot.offset, partition.committed.offset)
    _check(self, msgspec.structs.replace(snapshot, offset=offset), partition)


_check = Restorer._check  # noqa: SLF001


class _OneTotal:
    """A book that lets only those totals count that the shortest timeframe is in time for."""

    def __init__(self, rules: Rules, partition: int) -> None:
        shortest = msgspec.structs.replace(rules, timeframes=rules.timeframes[:1], grace_ms=rules.grace_ms[:1])
        self._shortest = new_book(shortest, partition=partition)
        self._book = new_book(rules, partition=partition)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._book, name)

    def fold(self, values: Sequence[bytes | None], timestamps_ms: Sequence[int], offsets: Sequence[int]) -> Any:
        late = {index for index, _ in self._shortest.fold(values, timestamps_ms, offsets)[1]}
        passed = [
            value.replace(b'"TotalQty"', b'"Total"') if value and index in late else value
            for index, value in enumerate(values)
        ]
        return self._book.fold(passed, timestamps_ms, offsets)


class _RecordByRecord:
    """A book that folds each record by itself, and may think about it."""

    def __init__(self, rules: Rules, *, partition: int) -> None:
        self._rules = rules
        self._book = new_book(rules, partition=partition)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._book, name)

    def fold(self, values: Sequence[bytes | None], timestamps_ms: Sequence[int], offsets: Sequence[int]) -> Any:
        sorts: Any = ([], [], [])
        for index, (value, timestamp_ms, offset) in enumerate(zip(values, timestamps_ms, offsets, strict=True)):
            found = self._fold_one(value, timestamp_ms, offset)
            for sort, more in zip(sorts, found, strict=True):
                sort += [(index, what) for _, what in more]
        return sorts

    def _fold_one(self, value: bytes | None, timestamp_ms: int, offset: int) -> Any:
        return self._book.fold([value], [timestamp_ms], [offset])


class _CredulousOfE(_RecordByRecord):
    """A leap of E needs no witness."""

    def _fold_one(self, value: bytes | None, timestamp_ms: int, offset: int) -> Any:
        found = super()._fold_one(value, timestamp_ms, offset)
        claim_ms = self._book.claim_ms()
        if claim_ms is not None:
            self._book.set_event_ms(claim_ms)
        return found


class _CredulousOfLateness(_RecordByRecord):
    """A leap of an instrument's own clock needs none: what is older than it by far is too late."""

    def __init__(self, rules: Rules, *, partition: int) -> None:
        super().__init__(rules, partition=partition)
        self._greatest_ms: dict[str, int] = {}
        longest_ms = max(timeframe.length_ms for timeframe in rules.timeframes)
        self._late_ms = rules.allowed_lateness_ms + longest_ms
        self._labels = ",".join(timeframe.label for timeframe in rules.timeframes)

    def _fold_one(self, value: bytes | None, timestamp_ms: int, offset: int) -> Any:
        reason, instrument, event_ms = judge(self._rules, [value], [timestamp_ms])[0]
        if reason is None and instrument is not None and event_ms is not None:
            greatest_ms = self._greatest_ms[instrument] = max(event_ms, self._greatest_ms.get(instrument, 0))
            if event_ms + self._late_ms <= greatest_ms:
                self._book.fold([None], [timestamp_ms], [offset])
                return [], [(0, self._labels)], []
        return super()._fold_one(value, timestamp_ms, offset)


def _book_of_one_total(rules: Rules, *, partition: int) -> Any:
    return _OneTotal(rules, partition)


BUGS: dict[str, tuple[Patch, ...]] = {
    "F read again at the commit": (
        (Path, "commit", _commit_f_read_again),
        (InputPartition, "close", _close_f_read_again),
        (InputPartition, "candles", _candles_f_read_once),
    ),
    "W taken at the commit": ((Path, "commit", _commit_w_taken),),
    "idle time counted while lagging": ((FeedClock, "reach", _reach_anything),),
    "the last stable offset believed to be the end": ((SimulatedLog, "ends", _stable_ends),),
    "another host's clock believed to the millisecond": ((feed_clock, "RESTART_MARGIN_MS", 0),),
    "C ignored when the grace changes": ((Commit, "frontiers_of", _frontiers_by_grace),),
    "a new timeframe begins with all that was": ((Commit, "frontiers_of", _frontiers_from_zero),),
    "a removed timeframe's O not kept": ((Commit, "updated", _updated_forgetful),),
    "a flush raises C": ((InputPartition, "close", _close_flush_raises_c),),
    "revisions withheld where nothing is due": ((InputPartition, "candles", _candles_without_revisions),),
    "an old book kept under a fresh epoch": ((Path, "revoked", _revoked_kept), (Path, "assigned", _assigned_kept)),
    "the producer kept after a commit in doubt": ((Path, "_settle", _not_settled),),
    "a settled commit believed to have landed": ((Path, "_settle", _believed_landed),),
    "the fold started at the session's open": ((Restorer, "_fold_from_day_start", _fold_from_open),),
    "a snapshot of another log believed": ((Restorer, "_check", _check_all_but_log),),
    "a snapshot ahead of the offset believed": ((Restorer, "_check", _check_all_but_offset),),
    "a window forgotten within a batch": ((InputPartition, "fold", _fold_forgetting),),
    "letters kept over a commit": ((InputPartition, "adopt", _adopt_with_letters),),
    "one running total over all timeframes": ((partition_module, "new_book", _book_of_one_total),),
    "E without a witness": ((partition_module, "new_book", _CredulousOfE),),
    "lateness without a witness": ((partition_module, "new_book", _CredulousOfLateness),),
    "any claim believed from the host's clock": ((FeedClock, "believes", _believes_anything),),
    "a claim believed before its time": ((FeedClock, "believes", _believes_what_is_to_come),),
    "idle time beyond the windows held": ((FeedClock, "reach", _reach_unbounded),),
    "the anchor of a leap not kept": ((FeedClock, "rise", _rise_without_anchor),),
    "the W of a wrong clock believed": ((FeedClock, "_begin_anew", _begin_never_anew),),
    "a reset that leaves C where it is": ((InputPartition, "close", _close_reset_without_c),),
}


@contextmanager
def planted(name: str) -> Iterator[None]:
    """The product with this bug."""
    before = [(owner, attribute, getattr(owner, attribute)) for owner, attribute, _ in BUGS[name]]
    try:
        for owner, attribute, value in BUGS[name]:
            setattr(owner, attribute, value)
        yield
    finally:
        for owner, attribute, value in before:
            setattr(owner, attribute, value)


def search(name: str) -> tuple[str, int | None, str]:
    """The first seed that finds a bug, and what it finds."""
    with planted(name):
        for seed in range(SEEDS_MAX):
            found = findings(seed)
            if found:
                return name, seed, found[0].what
    return name, None, ""


def main() -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(len(os.sched_getaffinity(0)), pin, (cores(context),)) as pool:
        for name, seed, what in pool.imap(search, BUGS):
            print(f"{name:50} {'not found' if seed is None else f'seed {seed}, {what}'}", flush=True)


if __name__ == "__main__":
    main()
