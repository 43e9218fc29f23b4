"""The ticks of a story: mostly a feed, and whatever else may stand in a topic."""

import json
from random import Random

import msgspec

from streamingcandle.simulation.events import Tick
from streamingcandle.simulation.lies import Instrument

VENUES = (("N", "C"), ("N", "C"), ("N", "D"), ("M", "D"), ("N", "U"), ("X", "Y"), ("X", "Y"))
GARBAGE = (None, b"", b"{", b"[]", b'{"Exch":"N"}', b"\xff", b'{"a":1,}')
WIDE_MS = 70_000
"""How far a tick of the future is ahead: more than any setting of the stories allows."""


class _Paper(msgspec.Struct):
    """An instrument and what its feed says of it."""

    exchange: str
    segment: str
    token: int
    total: float
    price: float
    name: str | None
    rate: float
    """How often it ticks, as a weight."""
    event_ms: int = 0
    last: bytes = b""
    eve: bytes = b""
    """What it said last on the first day."""


class Mood(msgspec.Struct, frozen=True):
    """What kinds of ticks a story is rich in, as weights over a plain tick's 1."""

    behind: float
    late: float
    repeat: float
    odd: float
    ahead: float


class Habits(msgspec.Struct, frozen=True):
    """What some feeds do all the time."""

    is_resending: bool = False
    """In the morning the last snapshots of the eve come again."""
    is_fractional: bool = False
    """Quantities have decimals."""
    is_sparse: bool = False
    """One trade a day."""


def mood(rng: Random) -> Mood:
    """Some stories are calm, some are not."""
    weights = [0.0, 0.02, 0.1, 0.4]
    return Mood(*(rng.choice(weights) for _ in range(5)))


class Feed:
    """One partition's instruments."""

    def __init__(
        self,
        rng: Random,
        partition: int,
        *,
        horizon_ms: int,
        lengths_ms: list[int],
        is_long: bool,
        habits: Habits,
    ) -> None:
        """`is_long`: the story spans days, so what a restart forgets of the day before must not show."""
        self._rng = rng
        self.number = partition
        self._horizon_ms = horizon_ms
        self._lengths_ms = lengths_ms
        self._is_long = is_long
        self._mood = mood(rng)
        self.habits = habits
        self.heard: int | None = None
        """The token of the last tick, where it was a plain one."""
        self._papers = [
            _Paper(*rng.choice(VENUES), 100 * partition + index, 0, 100.0, f"P{index}", rng.choice((1.0, 1.0, 0.1)))
            for index in range(rng.randint(1, 4))
        ]
        for paper in self._papers:
            paper.total = rng.choice((0, 1_000, 5_000_000_000))

    @property
    def instruments(self) -> list[Instrument]:
        """Who trades."""
        return [(paper.exchange, paper.segment, paper.token) for paper in self._papers]

    def tick(self, at_ms: int, floor_ms: int) -> Tick:
        """A record appended at this time; no event time lies before `floor_ms`."""
        rng, how = self._rng, self._mood
        paper = rng.choices(self._papers, [each.rate for each in self._papers])[0]
        timestamp_ms = at_ms - rng.choice((0, 0, 5, 50, 900))
        kinds = ("plain", "behind", "late", "repeat", "odd", "ahead")
        kind = rng.choices(kinds, (1.0, how.behind, how.late, how.repeat, how.odd, how.ahead))[0]
        if self._is_after_eve(floor_ms) and kind in ("late", "ahead"):
            kind = "plain"
        self.heard = paper.token if kind == "plain" else None
        if kind == "repeat" and paper.last and not self._is_long:
            return self._record(at_ms, timestamp_ms, paper.last)
        if kind == "odd" and rng.random() < 0.3:  # the rest is odd in its fields
            return self._record(at_ms, timestamp_ms, rng.choice(GARBAGE))
        event_ms = self._event_ms(kind, timestamp_ms, paper, floor_ms)
        value = self._value(kind, paper, event_ms)
        if kind != "odd":
            paper.last = value
        return self._record(at_ms, timestamp_ms, value)

    def eve(self, at_ms: int) -> list[Tick]:
        """The last snapshots of a day."""
        for paper in self._papers:
            paper.eve = self._value("eve", paper, at_ms)
        return self.resent(at_ms)

    def resent(self, at_ms: int) -> list[Tick]:
        """Those snapshots again."""
        return [self._record(at_ms, at_ms, paper.eve) for paper in self._papers]

    def plain(self, at_ms: int) -> Tick:
        """A plain tick of any instrument."""
        return self._record(at_ms, at_ms, self._value("plain", self._rng.choice(self._papers), at_ms))

    def closing(self, at_ms: int) -> Tick:
        """A plain tick that raises the greatest event time."""
        paper = self._papers[0]
        return self._record(at_ms, at_ms, self._value("plain", paper, at_ms))

    def _is_after_eve(self, floor_ms: int) -> bool:
        """Whether snapshots of the eve may come: what a restart forgot of the day before decides what is late then."""
        return self.habits.is_resending and floor_ms > 0

    def _record(self, at_ms: int, timestamp_ms: int, value: bytes | None) -> Tick:
        gap = self._rng.choice((0,) * 30 + (1, 7))
        return Tick(at_ms=at_ms, partition=self.number, timestamp_ms=timestamp_ms, value=value, gap=gap)

    def _event_ms(self, kind: str, timestamp_ms: int, paper: _Paper, floor_ms: int) -> int:
        rng = self._rng
        event_ms = timestamp_ms - rng.choice((0, 10, 200, timestamp_ms % 1_000))
        if kind == "behind":
            event_ms -= rng.randint(0, 6_000)
        elif kind == "late":
            event_ms -= rng.choice(
                (
                    rng.randint(0, self._horizon_ms),
                    self._horizon_ms + rng.randint(-5_000, 30_000),
                    rng.choice(self._lengths_ms) + rng.randint(0, 3_000),
                )
            )
        elif kind == "ahead":
            event_ms += rng.choice((500, 2_000, 2_001, 10_000, 60_000, WIDE_MS))
        event_ms = max(event_ms, floor_ms)
        if rng.random() < 0.1 and not self._is_after_eve(floor_ms):  # two ticks of one moment
            event_ms = max(floor_ms, paper.event_ms or event_ms)
        paper.event_ms = event_ms
        return event_ms

    def _value(self, kind: str, paper: _Paper, event_ms: int) -> bytes:
        rng = self._rng
        quantity = rng.choice((0, 0.25, 1.25, 12.5) if self.habits.is_fractional else (0, 1, 5, 50))
        moves = (
            "adds"
            if kind == "eve"
            else rng.choice(("adds",) * 12 + ("stays", "stays", "leaps", "falls", "none", "zero", "anew"))
        )
        total = {
            "adds": paper.total + quantity,
            "leaps": paper.total + 777,
            "falls": paper.total // 2,
            "anew": quantity,
        }.get(moves, paper.total)
        paper.total = total
        paper.price = max(0.05, round(paper.price + rng.choice((0, 0, 0.05, -0.05)), 2))
        fields: dict[str, object] = {
            "Exch": paper.exchange,
            "ExchType": paper.segment,
            "Token": paper.token,
            "LastRate": paper.price,
            "LastQty": quantity,
            "TotalQty": 0 if moves == "zero" else total,
            "TickDt": f"/Date({event_ms})/",
        }
        if moves == "none":
            del fields["TotalQty"]
        if self._is_long or rng.random() < 0.8:  # most say their name
            fields["companyName"] = paper.name
        if kind == "odd":
            fields |= rng.choice(
                (
                    {"LastRate": 0},
                    {"LastRate": -1},
                    {"LastRate": None},
                    {"TickDt": None},
                    {"TickDt": "/Date(0)/"},
                    {"Token": "x"},
                    {"LastQty": "x"},
                    {"ScripCode": "005"},
                    {"companyName": None if self._is_long else "Q"},
                )
            )
        return json.dumps(fields, separators=(",", ":")).encode()
