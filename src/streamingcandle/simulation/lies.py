"""What a feed makes up: times far ahead, instruments that are none, snapshots of the eve sent again in the morning.

A liar is one to a partition and speaks right after somebody else has, so no leap finds a second witness: whatever it
says, the feed clock must not follow. Its own windows are all it may harm.
"""

import json
from collections.abc import Sequence
from random import Random
from typing import Literal

from streamingcandle.simulation.events import Tick

HOUR_MS = 3_600_000
LEADS_MS = (2 * HOUR_MS, 5 * HOUR_MS, 24 * HOUR_MS, 400 * 24 * HOUR_MS)
"""How far a lie is ahead: more than a leap, also from a clock that is a minute behind."""
LIAR_TOKEN, MADE_UP_TOKEN = 9_000, 1_000_000
VENUES = (("N", "C"), ("M", "D"), ("X", "Y"))
MADE_UP_EXCHANGES = ("N", "X", "Z", "QQ")

Instrument = tuple[str, str, int]
LieKind = Literal["first", "middle", "last", "all day", "jumping"]
LIES: tuple[LieKind, ...] = ("first", "middle", "last", "all day", "jumping")


def record(instrument: Instrument, event_ms: int, price: float, total: int) -> bytes:
    """A tick with all that a feed says."""
    exchange, segment, token = instrument
    fields = {
        "Exch": exchange,
        "ExchType": segment,
        "Token": token,
        "LastRate": price,
        "LastQty": 1,
        "TotalQty": total,
        "TickDt": f"/Date({event_ms})/",
        "companyName": f"P{token}",
    }
    return json.dumps(fields, separators=(",", ":")).encode()


class Liar:
    """One instrument whose clock, and whose producer's, is far ahead."""

    def __init__(self, rng: Random, partition: int, honest: Sequence[Instrument]) -> None:
        """`honest`: the instruments that speak the truth; it may be one of them, where it lies but once."""
        self._rng = rng
        self._partition = partition
        self._kind = rng.choice(LIES)
        self._instrument: Instrument = (*rng.choice(VENUES), LIAR_TOKEN + partition)
        if honest and self._kind in ("first", "middle", "last") and rng.random() < 0.4:  # more often a stranger
            self._instrument = rng.choice(honest)
        self._lead_ms = rng.choice(LEADS_MS)
        self._total = 0

    def lies(self, heard_ms: Sequence[int], start_ms: int, end_ms: int) -> list[Tick]:
        """Its records of a market that lasts so long; `heard_ms`: when others have spoken for sure."""
        rng = self._rng
        match self._kind:
            case "first":
                times_ms = [start_ms]
            case "last":
                times_ms = [end_ms]
            case "middle":
                times_ms = [at_ms + 1 for at_ms in rng.sample(heard_ms, 1)] if heard_ms else []
            case _:
                times_ms = [at_ms + 1 for at_ms in heard_ms if rng.random() < 0.3]  # now and then another does
        return [self._lie(at_ms) for at_ms in times_ms]

    def _lie(self, at_ms: int) -> Tick:
        rng = self._rng
        lead_ms = rng.choice(LEADS_MS) + rng.randrange(HOUR_MS) if self._kind == "jumping" else self._lead_ms
        self._total += 1
        value = record(self._instrument, at_ms + lead_ms, 100.0 + rng.randrange(5), self._total)
        return Tick(at_ms=at_ms, partition=self._partition, timestamp_ms=at_ms + lead_ms, value=value)


class MadeUp:
    """Instruments that nobody trades: each says one thing, or comes again."""

    def __init__(self, rng: Random, partition: int) -> None:
        """None yet."""
        self._rng = rng
        self._partition = partition
        self._count = 0

    def tick(self, at_ms: int) -> Tick:
        """A record of one that is new, as most are, or was there before."""
        rng = self._rng
        if self._count == 0 or rng.random() < 0.7:
            self._count += 1
        token = MADE_UP_TOKEN + 1_000 * self._partition + (self._count if rng.random() < 0.8 else 1)
        exchange = MADE_UP_EXCHANGES[token % len(MADE_UP_EXCHANGES)]
        value = record((exchange, "Y", token), at_ms, 1.0, 1)
        return Tick(at_ms=at_ms, partition=self._partition, timestamp_ms=at_ms, value=value)
