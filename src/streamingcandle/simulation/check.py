"""What must hold when a story has ended. Every finding is one line; a good story has none."""

from collections import Counter, defaultdict
from collections.abc import Iterator

import msgspec

from streamingcandle.candles.candle import Candle, decode_candle
from streamingcandle.candles.commit import Commit
from streamingcandle.candles.feed_clock import LEAP_MS
from streamingcandle.candles.reference import CLOCK_LEAD_MS, Verdict
from streamingcandle.candles.session import DAY_MS
from streamingcandle.interfaces import Committed
from streamingcandle.simulation.broker import Entry, Transaction
from streamingcandle.simulation.process import Process
from streamingcandle.simulation.run import DEAD_LETTERS, LATE, Outcome, candle_topic
from streamingcandle.simulation.story import GRACES_MS, RECOVERY_MS
from streamingcandle.simulation.truth import TrueClock, Truth, Versions, Window, record_of

BOUND_MS = 6_000
"""From the moment a candle is due in quiet times to its commit: 2 s for another host's clock, twice 0.9 s for how wrong
these clocks may be, and what polls, fetches and commits take."""
GRACE_MS_MAX = max(GRACES_MS)
SMALL_COMMITS_MS = 15_000
"""More, where a commit may hold but a few candles and many are due at once."""

Published = tuple[Window, Candle, Transaction]


class Finding(msgspec.Struct, frozen=True):
    """Something that must not be."""

    what: str
    where: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.what}: {self.where}"


def check(outcome: Outcome) -> list[Finding]:
    """All findings, the faults seen while it was played first."""
    found = [Finding("went wrong", fault) for fault in outcome.faults]
    for number in range(outcome.story.partitions):
        found += _Audit(outcome, number).findings()
    return found


class _Audit:
    """One partition, commit by commit, then its end."""

    def __init__(self, outcome: Outcome, number: int) -> None:
        self.outcome = outcome
        self.story = outcome.story
        self.number = number
        self.truth = Truth(outcome.broker.ticks[number])
        self.versions = Versions(self.story.rules(self.story.final), number)
        self.clock = TrueClock()
        self.visible_ms: dict[int, int] = {}
        self.read = 0
        self.commit = Commit()
        self.offset = 0
        self.candles = self._published()
        self.newcomers: dict[str, tuple[int, int]] = {}
        """Timeframes added later: C and O they began with."""
        self.letters: Counter[tuple[str, int, str]] = Counter()
        self.said_ms: dict[tuple[Window, int], int] = {}
        self.resent: set[int] = set()
        """Offsets of ticks of days before: whether they are late may depend on what a restart forgot (§6.4, frozen)."""
        self.claims: set[int] = set()
        """Offsets of the first day's lies in a story of two: a restart on the second may not read them again."""

    def findings(self) -> list[Finding]:
        found: list[Finding] = []
        for transaction in self.outcome.broker.landed:
            if self.number in transaction.offsets:
                found += self._commit(transaction, transaction.offsets[self.number])
        found += self._fold_to(self.truth.end, None, self.outcome.calm_end_ms)
        for label in self.story.timeframes:
            if label not in self.commit.frontiers_ms:
                self.newcomers[label] = (self.commit.f_ms, self.offset)
        found += self._caught_up()
        found += self._last_candles()
        found += self._letters()
        found += self._in_time()
        return found

    def _finding(self, what: str, where: object) -> Finding:
        return Finding(what, f"partition {self.number}, {where}")

    def _published(self) -> dict[int, list[Published]]:
        """The candles of this partition, by the transaction they were committed in."""
        found: dict[int, list[Published]] = defaultdict(list)
        for transaction in self.outcome.broker.landed:
            for topic, record in transaction.records:
                if topic in (DEAD_LETTERS, LATE):
                    continue
                candle = decode_candle(record.value or b"")
                if candle.source_partition == self.number:
                    window = ((record.key or b"").decode(), candle.timeframe, candle.window_start_millis)
                    found[id(transaction)].append((window, candle, transaction))
        return found

    # ---- a commit

    def _commit(self, transaction: Transaction, committed: Committed) -> Iterator[Finding]:
        where = f"commit at {committed.offset}, {transaction.ended_ms - self.story.start_ms} ms into the story"
        commit = Commit.decode(committed.metadata)
        if commit is None:
            yield self._finding("metadata unreadable", where)
            return
        author = transaction.author
        assert isinstance(author, Process)
        before, before_offset = self.commit, self.offset
        if committed.offset < before_offset:
            yield self._finding("offset fell", f"{where} after {before_offset}")
        for name, old, new in (
            ("F", {"": before.f_ms}, {"": commit.f_ms}),
            ("C", before.frontiers_ms, commit.frontiers_ms),
            ("O", before.offsets, commit.offsets),
            ("flushed", before.flushed, commit.flushed),
        ):
            fallen = [label for label, value in old.items() if new.get(label, -1) < value]
            if fallen:
                yield self._finding(f"{name} fell", f"{where}: {fallen} {old} {new}")
        yield from self._fold_to(committed.offset, author.plan.timeframes, transaction.ended_ms)
        yield from self._clock(transaction, commit, committed.offset, where)
        for label in author.plan.timeframes:
            yield from self._timeframe(transaction, commit, label, where)
        self.commit, self.offset = commit, committed.offset

    def _fold_to(self, offset: int, labels: tuple[str, ...] | None, read_ms: int) -> Iterator[Finding]:
        """Fold the reference; the commit at `read_ms`, which has these records' letters, ran these timeframes."""
        while self.read < len(self.truth.records) and self.truth.records[self.read].offset < offset:
            entry = self.truth.records[self.read]
            self.read += 1
            verdict = self.versions.fold(record_of(entry))
            self.visible_ms[entry.offset] = self.truth.visible_ms(entry)
            self.clock.take(entry, self.versions, read_ms)
            yield from self._note(entry, verdict)
            if labels is None:
                continue
            if verdict.kind == "rejected":
                self.letters[DEAD_LETTERS, entry.offset, verdict.reason or ""] += 1
            late = [label for label in labels if label in verdict.late_for]
            if late:
                self.letters[LATE, entry.offset, ",".join(late)] += 1

    def _note(self, entry: Entry, verdict: Verdict) -> Iterator[Finding]:
        """What is out of the ordinary about a record; no single liar's word moves E (§4.2)."""
        is_first_day = entry.appended_ms < self.story.events[-1].at_ms - DAY_MS
        lead_ms = 0 if verdict.event_ms is None else verdict.event_ms - entry.appended_ms
        if lead_ms < -DAY_MS:
            self.resent.add(entry.offset)
        elif lead_ms > LEAP_MS + CLOCK_LEAD_MS and is_first_day:
            self.claims.add(entry.offset)
        e_ms = self.versions.event_ms
        if e_ms is not None and e_ms > entry.appended_ms + LEAP_MS:
            yield self._finding("E led astray", f"@{entry.offset}: by {e_ms - entry.appended_ms} ms")

    def _clock(self, transaction: Transaction, commit: Commit, offset: int, where: str) -> Iterator[Finding]:
        """F is what was read and confirmed, and no further: nothing at or behind the offset was there yet."""
        next_ms = self.truth.next_appended_ms(offset)
        until_ms = transaction.ended_ms if next_ms is None else min(transaction.ended_ms, next_ms)
        greatest_ms = max(self.clock.greatest_ms(until_ms), self.commit.f_ms)
        if commit.f_ms > greatest_ms and not self.story.has_steps:
            yield self._finding("F ahead of confirmed time", f"{where}: by {commit.f_ms - greatest_ms} ms")
        # Whatever the hosts' clocks say: idle time closes the windows there are, and goes no further (§4.3).
        closing_ms = (
            max(candle.window_end_millis for candle in self.versions.latest.values()) if self.versions.latest else 0
        )
        bound_ms = max(self.commit.f_ms, self.versions.event_ms or 0, closing_ms + GRACE_MS_MAX)
        if commit.f_ms > bound_ms:
            yield self._finding("F ahead of the windows held", f"{where}: by {commit.f_ms - bound_ms} ms")

    def _timeframe(self, transaction: Transaction, commit: Commit, label: str, where: str) -> Iterator[Finding]:
        """A commit publishes what is pending by the last one's word, no more and no less (§6.2)."""
        author = transaction.author
        assert isinstance(author, Process)
        before = self.commit
        if label not in before.frontiers_ms:
            self.newcomers[label] = (before.f_ms, self.offset)
        was_ms, is_ms = before.frontiers_ms.get(label, before.f_ms), commit.frontiers_ms.get(label, 0)
        since, flushed = before.offsets.get(label, self.offset), before.flushed.get(label, 0)
        if is_ms > max(was_ms, commit.f_ms - author.plan.grace_ms):
            yield self._finding("C ahead of F", f"{where}: {label}")
        until_ms = is_ms if commit.flushed.get(label, 0) == flushed else 1 << 62
        wanted = {}
        for window, candle in self.versions.latest.items():
            end_ms, source = candle.window_end_millis, candle.source_offset
            is_pending = end_ms <= until_ms and source >= (since if end_ms <= was_ms else flushed)
            if window[1] == label and is_pending:
                wanted[window] = candle
        published = [each for each in self.candles[id(transaction)] if each[0][1] == label]
        for window, candle, _ in published:
            self.said_ms.setdefault((window, candle.source_offset), transaction.ended_ms)
            expected = wanted.pop(window, None)
            if expected is None:
                yield self._finding("published without need", f"{where}: {window} @{candle.source_offset}")
            elif _plain(candle) != _plain(expected):
                yield self._finding("published wrong", f"{where}: {_plain(candle)} instead of {_plain(expected)}")
        for window, candle in wanted.items():
            if candle.source_offset not in self.claims:
                yield self._finding("not published", f"{where}: {window}")

    # ---- the end

    def _caught_up(self) -> Iterator[Finding]:
        if self.offset != self.truth.end:
            yield self._finding("not caught up", f"{self.offset} of {self.truth.end}")

    def _expected(self) -> Iterator[tuple[Window, Candle]]:
        """What a reader must have in the end."""
        for window, candle in self.versions.latest.items():
            label, end_ms = window[1], candle.window_end_millis
            from_ms, offset = self.newcomers.get(label, (0, 0))
            is_older = end_ms <= from_ms and candle.source_offset < offset
            if candle.source_offset in self.claims:
                continue
            if not is_older and (self.story.is_flushed or end_ms <= self.commit.frontiers_ms.get(label, 0)):
                yield window, candle

    def _last_candles(self) -> Iterator[Finding]:
        """Read the candle topics as a consumer does: the later record wins; none comes without a change."""
        last: dict[Window, Candle] = {}
        for label in self.story.timeframes:
            for sheet in self.outcome.broker.read_topic(candle_topic(label)):
                for record in sheet:
                    candle = decode_candle(record.value or b"")
                    if candle.source_partition != self.number:
                        continue
                    window = ((record.key or b"").decode(), candle.timeframe, candle.window_start_millis)
                    if window in last and last[window].source_offset >= candle.source_offset:
                        yield self._finding("published again", f"{window} @{candle.source_offset}")
                    last[window] = candle
        for window, candle in self._expected():
            found = last.get(window)
            if found is None or _plain(found) != _plain(candle):
                yield self._finding("reader has", f"{found and _plain(found)} instead of {_plain(candle)}")

    def _letters(self) -> Iterator[Finding]:
        """Each reject and each late tick is there once."""
        found: Counter[tuple[str, int, str]] = Counter()
        for topic in (DEAD_LETTERS, LATE):
            for sheet in self.outcome.broker.read_topic(topic):
                for record in sheet:
                    headers = dict(record.headers)
                    if headers["source.partition"] == str(self.number).encode():
                        said = headers["reason" if topic == DEAD_LETTERS else "timeframes"] or b""
                        found[topic, int(headers["source.offset"] or b""), said.decode()] += 1
        for what, surplus in (("too many", found - self.letters), ("missing", self.letters - found)):
            for letter, count in surplus.items():
                if letter[1] not in self.resent:
                    yield self._finding(f"letter {what}", f"{letter} {count}")

    def _in_time(self) -> Iterator[Finding]:
        """After the trouble every candle is out soon after it is due, and every revision soon after its tick."""
        quiet_ms = self.outcome.healed_ms + RECOVERY_MS
        if self.story.has_steps:
            quiet_ms = max(quiet_ms, self.story.events[-1].at_ms)
        bound_ms = BOUND_MS + self.story.final.commit_interval_ms
        if self.story.final.candles_max < self.story.partitions * len(self.versions.latest):
            bound_ms += SMALL_COMMITS_MS
        for window, candle in self.versions.latest.items():
            from_ms, offset = self.newcomers.get(window[1], (0, 0))
            end_ms = candle.window_end_millis
            is_older = end_ms <= from_ms and candle.source_offset < offset
            if is_older or candle.source_offset in self.claims:
                continue
            due_ms = self.clock.reaches_ms(end_ms + self.story.final.grace_ms, self.truth, quiet_ms=quiet_ms)
            if due_ms is None:
                continue
            seen_ms = self.visible_ms[candle.source_offset]
            limit_ms = self.truth.unblocked_ms(max(due_ms, seen_ms, quiet_ms)) + bound_ms
            said_ms = self.said_ms.get((window, candle.source_offset), self.outcome.calm_end_ms)
            if limit_ms < min(self.outcome.calm_end_ms, said_ms):
                yield self._finding("published late", f"{window}: {said_ms - limit_ms} ms")


def _plain(candle: Candle) -> Candle:
    """Without what describes the publication."""
    return msgspec.structs.replace(candle, complete=True, revised=False)
