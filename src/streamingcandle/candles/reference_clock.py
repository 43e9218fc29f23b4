"""Whose time counts, as the reference sees it (specification §4.1): a leap ahead needs a witness."""

from typing import NamedTuple

from streamingcandle.candles.instrument import Instrument

LEAP_MS = 3_600_000
OWN_LEAPS_MIN = 2
"""After so many leaps with nobody else heard in between an instrument is its own witness for E."""


class Clock(NamedTuple):
    """A time that is believed, and a later one that somebody claims; None where there is none."""

    value_ms: int | None = None
    claim_ms: int | None = None

    def is_leap(self, event_ms: int) -> bool:
        """Tell whether a tick of this time would have to be believed by way of a claim."""
        return self.value_ms is None or event_ms > self.value_ms + LEAP_MS

    def after(self, event_ms: int, *, claim_is_witness: bool = True) -> "Clock":
        """Return what the clock is after a tick of this time (rule 5)."""
        if not self.is_leap(event_ms):
            said_before = self.value_ms is not None and event_ms <= self.value_ms
            return self if said_before else Clock(event_ms, None)
        if self.claim_ms is None or not claim_is_witness:
            return Clock(self.value_ms, event_ms)
        earlier_ms, later_ms = min(self.claim_ms, event_ms), max(self.claim_ms, event_ms)
        if later_ms <= earlier_ms + LEAP_MS:
            return Clock(later_ms, None)
        return Clock(earlier_ms, event_ms if later_ms == event_ms else None)


class FeedTime:
    """E of §4.2, moved by every accepted tick; a claim on it is witnessed by another instrument."""

    def __init__(self) -> None:
        """Nothing was heard yet."""
        self.clock = Clock()
        self.first_ms: int | None = None
        """E as it first rose."""
        self._claimant: Instrument | None = None
        self._ever_held: set[Instrument] = set()
        self._heard_last: Instrument | None = None
        self._leaps_since_another = 0

    def take(self, named: Instrument, event_ms: int, *, leapt: bool) -> None:
        """Take an accepted tick; `leapt`: it gave its instrument's own clock a new value by way of a claim."""
        self._ever_held.add(named)
        if named != self._heard_last:
            self._heard_last = named
            self._leaps_since_another = 0
        self._leaps_since_another += leapt
        no_other_was_heard = self._ever_held == {named} or self._leaps_since_another >= OWN_LEAPS_MIN
        witness = self._claimant != named or no_other_was_heard
        before, self.clock = self.clock, self.clock.after(event_ms, claim_is_witness=witness)
        if self.clock != before:
            self._claimant = None if self.clock.claim_ms is None else named
        self._note_first()

    def witness(self, event_ms: int) -> None:
        """Believe a time because the host's clock bears it out (rule 7)."""
        before_ms = event_ms if self.clock.value_ms is None else self.clock.value_ms
        self.clock = Clock(max(event_ms, before_ms), None)
        self._claimant = None
        self._note_first()

    def _note_first(self) -> None:
        if self.first_ms is None:
            self.first_ms = self.clock.value_ms
