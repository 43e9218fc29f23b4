"""What a story's commits ought to say, worked out from the tick log alone: the reference, and true confirmed time."""

from bisect import bisect_left
from collections.abc import Iterable
from itertools import pairwise

from streamingcandle.candles.candle import Candle
from streamingcandle.candles.reference import CLOCK_LEAD_MS, Record, Reference, Verdict
from streamingcandle.candles.reference_read import YEAR_2000_MS
from streamingcandle.candles.rules import Rules
from streamingcandle.simulation.broker import Entry, TickPartition

Window = tuple[str, str, int]
"""Instrument, timeframe label, start."""


class Versions(Reference):
    """The reference, which also tells what each record changed."""

    def __init__(self, rules: Rules, partition: int) -> None:
        """Begin with nothing."""
        super().__init__(rules, partition)
        self.latest: dict[Window, Candle] = {}
        self.changed: set[Window] = set()
        """Since whoever reads this emptied it."""

    def _settle(self, instrument, windows, day, offset):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
        super()._settle(instrument, windows, day, offset)
        for (timeframe, _), held in instrument.windows.items():
            if held is not windows:
                continue
            for window in windows.values():
                if window.source_offset == offset:
                    key = (str(instrument.named), timeframe.label, window.start_ms)
                    self.latest[key] = self._candle(instrument, timeframe, window)
                    self.changed.add(key)


class Truth:
    """One partition: what its records are, when each could be read, and how far the feed clock can have come."""

    def __init__(self, partition: TickPartition) -> None:
        """The partition as it is at the story's end; every upstream transaction is decided."""
        self.entries = partition.entries
        self.end = partition.end
        self.records = partition.records()
        self.blocked_ms = self._blocked()
        """Stretches of time in which an open upstream transaction kept the confirmed end out of reach."""
        self._offsets = [entry.offset for entry in self.entries]

    def _blocked(self) -> list[tuple[int, int]]:
        appended_ms = {entry.offset: entry.appended_ms for entry in self.entries}
        return [
            (appended_ms.get(entry.upstream.first_offset, entry.appended_ms), entry.appended_ms)
            for entry in self.entries
            if entry.origin is None and entry.upstream is not None
        ]

    def unblocked_ms(self, at_ms: int) -> int:
        """This instant, or the first after it at which no open transaction is in the way."""
        for from_ms, to_ms in sorted(self.blocked_ms):
            if from_ms <= at_ms <= to_ms:
                at_ms = to_ms
        return at_ms

    def next_appended_ms(self, offset: int) -> int | None:
        """When the first entry at or after this offset was appended."""
        index = bisect_left(self._offsets, offset)
        return self.entries[index].appended_ms if index < len(self.entries) else None


class TrueClock:
    """The greatest F that anybody can have confirmed, and the least that a live service has, over time."""

    def __init__(self) -> None:
        """No tick yet."""
        self._steps: list[tuple[int, int]] = []
        """(when appended, E), both rising."""

    def take(self, entry: Entry, verdict: Verdict) -> None:
        """Take the next record in log order."""
        if verdict.kind not in ("folded", "outside", "late") or verdict.event_ms is None or entry.origin is None:
            return
        event_ms, stamp_ms = verdict.event_ms, entry.origin.timestamp_ms
        if stamp_ms >= YEAR_2000_MS:
            event_ms = min(event_ms, stamp_ms + CLOCK_LEAD_MS)
        if not self._steps or event_ms > self._steps[-1][1]:
            self._steps.append((entry.appended_ms, event_ms))

    def greatest_ms(self, at_ms: int) -> int:
        """F at this time, had all been read and confirmed at once."""
        greatest_ms = 0
        for (from_ms, event_ms), (to_ms, _) in pairwise([*self._steps, (at_ms, 0)]):
            if from_ms <= at_ms:
                greatest_ms = max(greatest_ms, event_ms + max(0, min(at_ms, to_ms) - from_ms))
        return greatest_ms

    def reaches_ms(self, f_ms: int) -> int | None:
        """When F comes to this value, without a further tick than there are; None before the first."""
        for (from_ms, event_ms), (to_ms, _) in pairwise([*self._steps, (1 << 62, 0)]):
            if event_ms >= f_ms:
                return from_ms
            if from_ms + f_ms - event_ms < to_ms:
                return from_ms + f_ms - event_ms
        return None


def record_of(entry: Entry) -> Record:
    """As the reference takes it."""
    assert entry.origin is not None
    return Record(entry.origin.value, entry.origin.timestamp_ms, entry.offset)


def visible_ms(truth: Truth, entry: Entry) -> int:
    """When a reader of committed records could have it."""
    return max([entry.appended_ms, *_covering(truth.entries, entry)])


def _covering(entries: Iterable[Entry], entry: Entry) -> Iterable[int]:
    return (
        each.appended_ms
        for each in entries
        if each.origin is None and each.upstream and each.upstream.first_offset <= entry.offset < each.offset
    )
