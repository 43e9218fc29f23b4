"""What `run` says of the records it reads: what is wrong with them, once, and then by the minute.

The first record of each kind with its place, more of the kind at most once a minute with their number. Loudly, where
all records are rejected or no record has a name that the setting `fields` says. At the end one line of ledger.
Records before the committed offset, which a restore folds again, were spoken of when they were committed: only the
ledger counts them. Nothing here changes a candle, and a batch without rejects costs a few comparisons.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from streamingcandle.candles.naming import Names
from streamingcandle.candles.rules import Rules
from streamingcandle.candles.why import OPTIONAL_UNREADABLE, TIME_FALLBACK, VOLUME_STUCK, explain
from streamingcandle.interfaces import Clock, Records
from streamingcandle.partition import InputPartition

logger = logging.getLogger(__name__)

AGAIN_MS = 60_000
"""A kind is said so often at most."""
LOOK_MS = 1_000
"""The ledgers are read so often: a table of a partition each time."""
FIRST_RECORDS = 1_000
MINUTE_RECORDS_MIN = 100
"""So many records that are all rejected are a feed that cannot be read; fewer in a minute may be a bad moment."""

_KINDS: Mapping[str, str] = {
    TIME_FALLBACK: "no time that can be used, the record's own timestamp taken",
    OPTIONAL_UNREADABLE: "an optional field cannot be read and counts as absent",
    VOLUME_STUCK: "trades on below the day's greatest total, which was too high, so its volume stands still",
}
_REJECTED = "rejected_"
_ACCEPTED = ("folded", "outside", "late")
_BEHIND = "behind"


class _Kind(msgspec.Struct):
    """One kind of trouble. `count`: records since it was last said; `place`: of the last of them."""

    first: str
    said_at_ms: int
    count: int = 0
    place: str = ""


class _Held(msgspec.Struct):
    """A partition of ours; its ledger as we got it, and what of it was said or counted to be said."""

    partition: InputPartition
    begun: Counter[str]
    seen: Counter[str]
    is_restoring: bool
    minute: Counter[str] = msgspec.field(default_factory=Counter)
    """What its ledger grew by in this minute."""


class Nobody:
    """Hears what the path tells, and says nothing: for who only looks."""

    def taken(self, partition: InputPartition) -> None:
        """It is ours, as a restore found it; nothing of it is read yet."""

    def folded(self, partition: InputPartition, records: Records) -> None:
        """A batch is in the partition's book."""

    def given_up(self, partition: InputPartition) -> None:
        """It is no longer ours."""


class Report(Nobody):
    """Hears what the path tells, and says it to the log."""

    def __init__(self, clock: Clock, rules: Rules, ticks: str) -> None:
        """`ticks`: the topic's name."""
        self._clock = clock
        self._rules = rules
        self._ticks = ticks
        self._names: Names | None = Names(rules.fields)
        self._kinds: dict[str, _Kind] = {}
        self._reasons: Counter[str] = Counter()
        self._read = self._minute_read = self._minute_rejected = 0
        self._is_first_judged = False
        self._look_at_ms = clock.monotonic_ms() + LOOK_MS
        self._minute_at_ms = clock.monotonic_ms() + AGAIN_MS
        self._held: dict[int, _Held] = {}
        self._total: Counter[str] = Counter()
        """Of partitions given up."""

    # ---- told by the path ----

    def taken(self, partition: InputPartition) -> None:
        """See `Nobody`."""
        ledger = Counter(partition.book.ledger())
        self._held[partition.number] = _Held(partition, ledger, Counter(ledger), partition.is_restoring)

    def folded(self, partition: InputPartition, records: Records) -> None:
        """See `Nobody`."""
        if self._names is not None:
            self._look_at_names(self._names, records)
        if partition.is_restoring:
            return
        self._read += len(records.values)
        self._minute_read += len(records.values)
        if partition.rejects:
            self._rejected(partition.number, records, partition.rejects)
        held = self._held.get(partition.number)
        for index, kind in partition.notes:
            if held is not None and kind not in self._kinds:
                held.seen[kind] += 1
                self._say_record(kind, partition.number, records, index, _KINDS.get(kind, kind))
        if held is not None and held.is_restoring:
            # What is before the committed offset was said; of the batch in which that lies, further ones go uncounted.
            held.is_restoring = False
            held.seen = Counter(partition.book.ledger())
        if not self._is_first_judged and self._read >= FIRST_RECORDS:
            self._is_first_judged = True
            self._judge_all(self._read, self._reasons.total(), "of the first")

    def given_up(self, partition: InputPartition) -> None:
        """See `Nobody`."""
        if (held := self._held.pop(partition.number, None)) is not None:
            self._look(held)
            self._total.update(_own(held))

    def turn(self) -> None:
        """The loop has come round."""
        now_ms = self._clock.monotonic_ms()
        if now_ms < self._look_at_ms:
            return
        self._look_at_ms = now_ms + LOOK_MS
        for held in self._held.values():
            self._look(held)
        for kind, told in self._kinds.items():
            if told.count and now_ms >= told.said_at_ms + AGAIN_MS:
                self._say_again(kind, told, now_ms)
        if now_ms >= self._minute_at_ms:
            self._end_minute(now_ms)

    def ended(self) -> None:
        """All that was there is committed: what is left to say, and the ledger of this run."""
        for held in self._held.values():
            self._look(held)
        for kind, told in self._kinds.items():
            if told.count:
                self._say_again(kind, told, self._clock.monotonic_ms())
        if self._names is not None:
            self._say_missed(self._names)
        if not self._is_first_judged:
            self._judge_all(self._read, self._reasons.total(), "of the")
        total = Counter(self._total)
        for held in self._held.values():
            total.update(_own(held))
        logger.info("%s: %s", self._ticks, ledger_line(total))

    # ---- said ----

    def _place(self, number: int, offset: int) -> str:
        return f"{self._ticks}[{number}]@{offset}"

    def _rejected(self, number: int, records: Records, rejects: Sequence[tuple[int, str]]) -> None:
        self._minute_rejected += len(rejects)
        counts = Counter(reason for _, reason in rejects)
        self._reasons.update(counts)
        for index, reason in rejects if any(_REJECTED + reason not in self._kinds for reason in counts) else ():
            if _REJECTED + reason not in self._kinds:
                show = f"`streamingcandle dead-letters show {number}@{records.offsets[index]}`"
                text = f"rejected as {reason}; {show} has the whole record"
                self._say_record(_REJECTED + reason, number, records, index, text)
                counts[reason] -= 1
        last = self._place(number, records.offsets[rejects[-1][0]])
        for reason, count in counts.items():
            self._count(_REJECTED + reason, count, last)

    def _look(self, held: _Held) -> None:
        """What the ledger counts beside rejects, near where we are: places it does not know."""
        if held.is_restoring:
            return
        ledger = Counter(held.partition.book.ledger())
        near = f"near {self._place(held.partition.number, held.partition.position - 1)}"
        for kind in _KINDS:
            self._count(kind, ledger[kind] - held.seen[kind], near)
        for kind in (*_ACCEPTED, _BEHIND):
            held.minute[kind] += ledger[kind] - held.seen[kind]
        held.seen = ledger

    def _say_record(self, kind: str, number: int, records: Records, index: int, text: str) -> None:
        """The first of a kind: its place, the field and what stood there, what became of it."""
        why = kind.removeprefix(_REJECTED)
        what = explain(self._rules, why, records.values[index], records.timestamps_ms[index])
        first = f"{self._place(number, records.offsets[index])}{what and f': {what}'}"
        self._kinds[kind] = _Kind(first=first, said_at_ms=self._clock.monotonic_ms())
        logger.warning("%s: %s", first, text)

    def _count(self, kind: str, count: int, place: str) -> None:
        if count > 0 and kind in self._kinds:
            self._kinds[kind].count += count
            self._kinds[kind].place = place

    def _say_again(self, kind: str, told: _Kind, now_ms: int) -> None:
        what = _KINDS.get(kind, kind)
        if kind.startswith(_REJECTED):
            reason = kind.removeprefix(_REJECTED)
            what = f"rejected as {reason}; `streamingcandle dead-letters ls --reason {reason}` has them"
        logger.warning("%s: %d more, the last %s: %s", self._ticks, told.count, told.place, what)
        told.count = 0
        told.said_at_ms = now_ms

    def _end_minute(self, now_ms: int) -> None:
        self._minute_at_ms = now_ms + AGAIN_MS
        if self._minute_read > MINUTE_RECORDS_MIN:
            self._judge_all(self._minute_read, self._minute_rejected, "of the last minute's")
            if self._names is not None:
                self._say_missed(self._names)
        self._minute_read = self._minute_rejected = 0
        for held in self._held.values():
            self._judge_clock(held)
            held.minute.clear()

    def _judge_clock(self, held: _Held) -> None:
        """Most ticks far before the feed clock are not late: it stands ahead of the feed (docs/decisions/0010)."""
        accepted, behind = sum(held.minute[kind] for kind in _ACCEPTED), held.minute[_BEHIND]
        if accepted > MINUTE_RECORDS_MIN and behind * 2 > accepted:
            logger.error(
                "%s[%d]: %d of the last minute's %d ticks lie more than an hour before the feed clock: some agree "
                "on a false time that lifted it, and candles come early and are revised; set the topic's "
                "message.timestamp.after.max.ms to 60000, then `streamingcandle run --reset-clock --until-end` once",
                self._ticks,
                held.partition.number,
                behind,
                accepted,
            )

    def _judge_all(self, read: int, rejected: int, which: str) -> None:
        """Every record rejected is a feed that cannot be read, and nobody waits for candles in vain."""
        if not read or rejected < read:
            return
        ((reason, _),) = self._reasons.most_common(1)
        logger.error(
            "%s: every one %s %d records was rejected, most of all as %s, as %s; "
            "correct the feed or the setting `fields`, then `streamingcandle dead-letters retry`",
            self._ticks,
            which,
            read,
            reason,
            self._kinds[_REJECTED + reason].first,
        )

    def _look_at_names(self, names: Names, records: Records) -> None:
        names.look(records.values)
        if names.is_done:
            self._say_missed(names)

    def _say_missed(self, names: Names) -> None:
        self._names = None
        for line in names.missed():
            logger.error("%s: %s", self._ticks, line)


def _own(held: _Held) -> Counter[str]:
    """What this run added to the partition's ledger, read again for a restore or not."""
    own = Counter(held.partition.book.ledger())
    own.subtract(held.begun)
    return own


def ledger_line(ledger: Mapping[str, int]) -> str:
    """The balance of §7, for people."""
    rejected = {name: count for name, count in ledger.items() if name.startswith(_REJECTED) and count}
    sums = {
        "folded": ledger.get("folded", 0),
        "quotes": ledger.get("quotes", 0),
        "outside the session": ledger.get("outside", 0),
        "too late": ledger.get("late", 0),
        "rejected": sum(rejected.values()),
    }
    reasons = ", ".join(f"{count:,} {name.removeprefix(_REJECTED)}" for name, count in rejected.items())
    parts = " + ".join(f"{count:,} {what}" for what, count in sums.items())
    beside = ", ".join(f"{ledger[kind]:,} {kind}" for kind in _KINDS if ledger.get(kind))
    return f"{sum(sums.values()):,} read = {parts}{reasons and f' ({reasons})'}{beside and f'; {beside}'}"
