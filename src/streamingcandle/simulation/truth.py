"""What a story's commits ought to say, worked out from the tick log alone: the reference, and true confirmed time."""

from bisect import bisect_left
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from streamingcandle.candles.feed_clock import LEAP_MS
from streamingcandle.candles.reference import Record, Reference
from streamingcandle.candles.rules import Rules
from streamingcandle.simulation.broker import Entry, TickPartition

if TYPE_CHECKING:
    from streamingcandle.candles.candle import Candle
    from streamingcandle.candles.reference import _Instrument, _Window

Window = tuple[str, str, int]
"""Instrument, timeframe label, start."""


ASKED_MS = 3_000
"""A tick that comes shortly before idle time would be confirmed takes its place."""


class Versions(Reference):
    """The reference, with every window as it stands at hand."""

    def __init__(self, rules: Rules, partition: int) -> None:
        """Begin with nothing."""
        super().__init__(rules, partition)
        self.latest: dict[Window, Candle] = {}

    def _settle(self, instrument: "_Instrument", windows: "dict[int, _Window]", day: int, offset: int) -> None:
        super()._settle(instrument, windows, day, offset)
        for (timeframe, _), held in instrument.windows.items():
            if held is not windows:
                continue
            for window in windows.values():
                if window.source_offset == offset:
                    key = (str(instrument.named), timeframe.label, window.start_ms)
                    self.latest[key] = self._candle(instrument, timeframe, window)


class Truth:
    """One partition: what its records are, when each could be read, and how far the feed clock can have come."""

    def __init__(self, partition: TickPartition) -> None:
        """The partition as it is at the story's end; every upstream transaction is decided."""
        self.entries = partition.entries
        self.end = partition.end
        self._decisions = [each for each in self.entries if each.origin is None and each.upstream is not None]
        self.records = partition.records()
        self._offsets = [entry.offset for entry in self.entries]
        self.blocked_ms = self._blocked()
        """Stretches of time in which an open upstream transaction kept the confirmed end out of reach."""

    def _blocked(self) -> list[tuple[int, int]]:
        found = []
        for entry in self._decisions:
            if entry.upstream is not None:
                from_ms = self.next_appended_ms(entry.upstream.first_offset)
                found.append((entry.appended_ms if from_ms is None else from_ms, entry.appended_ms))
        return sorted(found)

    def unblocked_ms(self, at_ms: int) -> int:
        """The instant itself, or the first after it at which no open transaction is in the way."""
        for from_ms, to_ms in self.blocked_ms:
            if from_ms <= at_ms <= to_ms:
                at_ms = to_ms
        return at_ms

    def visible_ms(self, entry: Entry) -> int:
        """When a reader of committed records could have it."""
        waited_for = (
            decision.appended_ms
            for decision in self._decisions
            if decision.upstream and decision.upstream.first_offset <= entry.offset < decision.offset
        )
        return max([entry.appended_ms, *waited_for])

    def next_appended_ms(self, offset: int) -> int | None:
        """When the first entry at or after this offset was appended."""
        index = bisect_left(self._offsets, offset)
        return self.entries[index].appended_ms if index < len(self.entries) else None


class _Step(NamedTuple):
    """A tick that raised E."""

    event_ms: int
    appended_ms: int
    read_ms: int
    """When at the latest: with the first commit behind it."""
    is_anchored: bool = False
    """Whether it was a leap that idle time had counted already: it goes on from where that had come."""


_NEVER = _Step(0, 1 << 62, 1 << 62)


class TrueClock:
    """F by the ticks alone: how far anybody can have confirmed it, and when a service in quiet times has it."""

    def __init__(self) -> None:
        """No tick yet."""
        self._steps: list[_Step] = []

    def take(self, entry: Entry, reference: Reference, read_ms: int) -> None:
        """Take the next record in log order, which the reference has just folded.

        What a tick claims is believed where the hosts' clocks, which are nearly right, say the same (§4.2).
        """
        claim_ms = reference.claim_ms
        if claim_ms is not None and abs(claim_ms - entry.appended_ms) <= LEAP_MS:
            reference.witness(claim_ms)
        event_ms = reference.event_ms
        if event_ms is not None and (not self._steps or event_ms > self._steps[-1].event_ms):
            self._steps.append(self._anchored(_Step(event_ms, entry.appended_ms, read_ms)))

    def _anchored(self, step: "_Step") -> "_Step":
        """A leap that idle time had counted already counts as arrived when idle time passed it (§4.3)."""
        if self._steps:
            before = self._steps[-1]
            leap_ms = step.event_ms - before.event_ms
            if leap_ms > LEAP_MS and before.appended_ms + leap_ms <= step.appended_ms:
                return step._replace(appended_ms=before.appended_ms + leap_ms, is_anchored=True)
        return step

    def greatest_ms(self, at_ms: int) -> int:
        """F at this time, had all been read and confirmed at once."""
        greatest_ms = 0
        for step, following in pairwise([*self._steps, _NEVER]):
            if step.appended_ms <= at_ms:
                until_ms = self._read_apart_ms(step) if step.is_anchored else following.appended_ms
                greatest_ms = max(greatest_ms, step.event_ms + min(at_ms, until_ms) - step.appended_ms)
        return greatest_ms

    def _read_apart_ms(self, step: _Step) -> int:
        """When the first tick came that was not read together with this one, and so has an arrival of its own."""
        return next(each.appended_ms for each in [*self._steps, _NEVER] if each.appended_ms > step.read_ms)

    def reaches_ms(self, f_ms: int, truth: Truth, *, quiet_ms: int) -> int | None:
        """When F comes to this value, without a further tick than there are; None before the first.

        A partition's first tick is believed by whoever reads it or takes it over, and counts from then: `quiet_ms`
        is when the last one may have.
        """
        for place, (step, following) in enumerate(pairwise([*self._steps, _NEVER])):
            if step.event_ms >= f_ms:
                return step.read_ms
            arrived_ms = step.read_ms if place else max(step.read_ms, quiet_ms)
            reached_ms = truth.unblocked_ms(arrived_ms + f_ms - step.event_ms)
            if reached_ms + ASKED_MS < following.appended_ms:
                return reached_ms
        return None


def record_of(entry: Entry) -> Record:
    """As the reference takes it."""
    assert entry.origin is not None
    return Record(entry.origin.value, entry.origin.timestamp_ms, entry.offset)
