"""Stories in pairs: a feed, and the same feed with lies in it. What its neighbours get must be the same."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import msgspec

from streamingcandle import pipeline
from streamingcandle.candles.candle import Candle, decode_candle
from streamingcandle.pipeline import Path
from streamingcandle.simulation.events import Event, Kill, Night, Plan, Spoil, Start, Stop, Story, Tick
from streamingcandle.simulation.lies import Instrument, record
from streamingcandle.simulation.run import Outcome, play

FRIDAY_MS = 1_767_325_500_000
"""2026-01-02 09:15 in India, where N opens."""
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
YEAR_MS = 365 * DAY_MS
GRACE_MS = 1_000
PLAN = Plan(timeframes=("10s", "1m"), grace_ms=GRACE_MS, slow_calls=0.0, snapshot_interval_ms=5_000)
REPLAY = msgspec.structs.replace(PLAN, is_until_end=True)
A: Instrument = ("N", "C", 1)
B: Instrument = ("N", "C", 2)
LIAR: Instrument = ("N", "C", 9)
OTHER_LIAR: Instrument = ("M", "D", 8)

Lie = Callable[[Sequence[Tick]], Sequence[Tick]]
"""What is added to these ticks."""


def tick(at_ms: int, instrument: Instrument, total: int, *, event_ms: int | None = None, lead_ms: int = 0) -> Tick:
    """A record appended at `at_ms`; `lead_ms`: how far both its times are ahead."""
    event_ms = (at_ms if event_ms is None else event_ms) + lead_ms
    value = record(instrument, event_ms, 100.0 + total % 7, total)
    return Tick(at_ms=at_ms, partition=0, timestamp_ms=at_ms + lead_ms, value=value)


def feed(start_ms: int = FRIDAY_MS, *, count: int = 40, every_ms: int = 2_500) -> list[Tick]:
    """Two instruments take turns; no tick falls between the end of a window and when it is out."""
    return [tick(start_ms + 500 + every_ms * turn, (A, B)[turn % 2], 10 + turn) for turn in range(count)]


def one(place: int, instrument: Instrument = LIAR, lead_ms: int = YEAR_MS) -> Lie:
    """One record: the first (0), the last (-1), or right after the tick at a place."""

    def lies(ticks: Sequence[Tick]) -> list[Tick]:
        at_ms = ticks[place].at_ms + (-1 if place == 0 else 1)
        return [tick(at_ms, instrument, 1, lead_ms=lead_ms)]

    return lies


def all_day(*leads_ms: int) -> Lie:
    """The liar speaks after each tick, by these leads in turn."""
    return lambda ticks: [
        tick(each.at_ms + 1, LIAR, 1 + turn, lead_ms=leads_ms[turn % len(leads_ms)]) for turn, each in enumerate(ticks)
    ]


def made_up(ticks: Sequence[Tick]) -> list[Tick]:
    """After each tick an instrument that nobody trades."""
    return [tick(each.at_ms + 1, ("QQ", "Y", 1_000 + turn), 1) for turn, each in enumerate(ticks)]


LIES: dict[str, Lie] = {
    "first, a year ahead": one(0),
    "first, hours ahead": one(0, lead_ms=5 * HOUR_MS),
    "first, by who is honest then": one(0, A),
    "in the middle, a year ahead": one(17),
    "in the middle, a day ahead": one(17, lead_ms=DAY_MS),
    "in the middle, by who is honest": one(17, A),
    "last, a year ahead": one(-1),
    "last, by who was honest": one(-1, B),
    "all day, a year ahead": all_day(YEAR_MS),
    "all day, hours ahead": all_day(5 * HOUR_MS),
    "all day, jumping": all_day(2 * HOUR_MS, YEAR_MS, DAY_MS, 5 * HOUR_MS),
    "made-up instruments": made_up,
}


def _lies_ms(ticks: Sequence[Tick]) -> tuple[int, int]:
    return ticks[0].at_ms, ticks[-1].at_ms


def live(ticks: Sequence[Tick]) -> list[Event]:
    """One process from before the first tick on."""
    return [start(_lies_ms(ticks)[0] - 1_000)]


def restarted(ticks: Sequence[Tick]) -> list[Event]:
    """It stops in mid-window and another goes on, from its snapshot."""
    middle_ms = sum(_lies_ms(ticks)) // 2
    return [*live(ticks), Stop(at_ms=middle_ms, instance="i0"), start(middle_ms + 3_000)]


def without_snapshots(ticks: Sequence[Tick]) -> list[Event]:
    """It is killed and every snapshot lost; another folds from the day's start."""
    middle_ms = sum(_lies_ms(ticks)) // 2
    lost = [Spoil(at_ms=middle_ms + 1_000, instance=name, partition=0, how="lost") for name in ("", "i0")]
    return [*live(ticks), Kill(at_ms=middle_ms, instance="i0", calls=1), *lost, start(middle_ms + 3_000)]


def restarted_at_the_end(ticks: Sequence[Tick]) -> list[Event]:
    """It stops with the last record read, its window open, and another closes it."""
    end_ms = _lies_ms(ticks)[1]
    return [*live(ticks), Stop(at_ms=end_ms + 500, instance="i0"), start(end_ms + 3_000)]


def replayed(ticks: Sequence[Tick]) -> list[Event]:
    """Weeks later, without idle time, up to the end."""
    return [start(_lies_ms(ticks)[1] + 30 * DAY_MS, REPLAY)]


WAYS = {way.__name__: way for way in (live, restarted, without_snapshots, restarted_at_the_end, replayed)}


def start(at_ms: int, plan: Plan = PLAN) -> Start:
    """A process begins."""
    return Start(at_ms=at_ms, instance="i0", plan=plan)


class Said(NamedTuple):
    """A candle as published, and when."""

    candle: Candle
    said_ms: int


Published = dict[tuple[str, str, int], list[Said]]


@contextmanager
def set_to(owner: object, name: str, value: object) -> Iterator[None]:
    """An attribute is another for a while."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _wait_long_s(self: Path) -> float:
    """A process that has nothing to do sleeps till something comes: through a night it would ask twice a second."""
    partitions = self.partitions.values()
    if not partitions or any(each.position != each.committed.offset for each in partitions):
        return _wait_s(self)
    with set_to(pipeline, "POLL_MAX_MS", HOUR_MS):
        return _wait_s(self)


_wait_s = Path.wait_s


def played(
    events: Sequence[Event], *, is_flushed: bool = False, is_patient: bool = False, instruments_max: int = 50_000
) -> Outcome:
    """Play these; a process that still runs goes on for a while after the last event.

    `is_patient`: it may run for weeks.
    """
    if is_patient:
        with set_to(Path, "wait_s", _wait_long_s):
            return played(events, is_flushed=is_flushed, instruments_max=instruments_max)
    story = Story(
        seed=0,
        start_ms=min(event.at_ms for event in events),
        partitions=1,
        instances=("i0",),
        timeframes=PLAN.timeframes,
        allowed_lateness_ms=30_000,
        future_ms=60_000,
        is_flushed=is_flushed,
        has_steps=False,
        has_liars=True,
        instruments_max=instruments_max,
        final=PLAN,
        events=tuple(sorted(events, key=lambda event: event.at_ms)),
    )
    outcome = play(story)
    assert outcome.faults == []
    return outcome


def published(outcome: Outcome) -> Published:
    """Every candle by its window, in the order of publication, without what a record more shifts."""
    found: Published = defaultdict(list)
    for transaction in outcome.broker.landed:
        for topic, written in transaction.records:
            if topic.endswith("-candle"):
                candle = decode_candle(written.value or b"")
                window = ((written.key or b"").decode(), candle.timeframe, candle.window_start_millis)
                plain = msgspec.structs.replace(candle, source_offset=0)
                found[window].append(Said(plain, transaction.ended_ms))
    return dict(found)


def of_neighbours(found: Published, *, before_ms: int = 1 << 62) -> Published:
    """Those of A and B, without those that begin at `before_ms` or later: lies claim them."""
    names = {":".join(map(str, honest)) for honest in (A, B)}
    return {window: said for window, said in found.items() if window[0] in names and window[2] < before_ms}


def candles(found: Published) -> dict[tuple[str, str, int], list[Candle]]:
    """Without when."""
    return {window: [each.candle for each in said] for window, said in found.items()}


def delay_ms(found: Published) -> int:
    """How long the latest first publication of a window was after it was due."""
    return max(said[0].said_ms - said[0].candle.window_end_millis - GRACE_MS for said in found.values())


def night(at_ms: int) -> Night:
    """All that runs ends."""
    return Night(at_ms=at_ms)
