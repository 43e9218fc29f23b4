"""What may happen in a story. Times are epoch ms; an instance is a place that one process after the other takes."""

import msgspec

from streamingcandle.candles.rules import Rules
from streamingcandle.candles.session import Calendar, load_calendar
from streamingcandle.candles.timeframe import parse_timeframe
from streamingcandle.simulation.log import Fate
from streamingcandle.simulation.snapshots import Harm


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How one process is run: the settings, and what its host is like."""

    timeframes: tuple[str, ...]
    grace_ms: int
    commit_interval_ms: int = 1_000
    candles_max: int = 20_000
    snapshot_interval_ms: int = 30_000
    is_until_end: bool = False
    is_flush: bool = False
    is_clock_reset: bool = False
    is_static: bool = True
    """Whether its place in the group waits for it, and its successor gets it at once."""
    wall_error_ms: int = 0
    slow_calls: float = 0.1
    """How many of its calls take time."""


class TimedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happens."""

    at_ms: int


class InstanceEvent(TimedEvent, frozen=True, kw_only=True):
    """Something that happens to one instance, or to what it calls its own."""

    instance: str


class Tick(TimedEvent, frozen=True, kw_only=True, tag=True):
    """A record for the tick topic, in the upstream transaction of that number, behind a gap."""

    partition: int
    timestamp_ms: int
    value: bytes | None
    upstream: int | None = None
    gap: int = 0


class Upstream(TimedEvent, frozen=True, kw_only=True, tag=True):
    """An upstream transaction begins (`open`), or is `committed` or `aborted`."""

    partition: int
    number: int
    state: str


class Start(InstanceEvent, frozen=True, kw_only=True, tag=True):
    """A process is started; one of the same instance that runs still is not asked."""

    plan: Plan


class Stop(InstanceEvent, frozen=True, kw_only=True, tag=True):
    """SIGTERM: what is due is committed first."""


class Kill(InstanceEvent, frozen=True, kw_only=True, tag=True):
    """The process dies at one of its next calls."""

    calls: int


class Freeze(InstanceEvent, frozen=True, kw_only=True, tag=True):
    """The process stands still for a time, from one of its next calls on."""

    calls: int
    duration_ms: int


class Doubt(InstanceEvent, frozen=True, kw_only=True, tag=True):
    """What becomes of the next commits."""

    fates: tuple[Fate, ...]


class Lag(InstanceEvent, frozen=True, kw_only=True, tag=True):
    """From now on a poll brings at most so many records of a partition; 0: none at all."""

    records_max: int


class Step(InstanceEvent, frozen=True, kw_only=True, tag=True):
    """The host's wall clock is set."""

    wall_error_ms: int


class Share(TimedEvent, frozen=True, kw_only=True, tag=True):
    """The group shares the partitions out anew, in another order."""

    number: int


class Outage(InstanceEvent, frozen=True, kw_only=True, tag=True):
    """The brokers cannot be reached for a time: by one instance, or by all (`instance` is empty)."""

    duration_ms: int


class Spoil(InstanceEvent, frozen=True, kw_only=True, tag=True):
    """Something becomes of a partition's snapshots in an instance's folder, or in the topic (`instance` is empty)."""

    partition: int
    how: Harm


class Store(InstanceEvent, frozen=True, kw_only=True, tag=True):
    """A place for snapshots can be written and read no more, or can again."""

    is_failing: bool


class Night(TimedEvent, frozen=True, kw_only=True, tag=True):
    """Whatever still runs ends: a leap in time follows."""


class Heal(TimedEvent, frozen=True, kw_only=True, tag=True):
    """All trouble ends; every instance runs from now on, under one plan."""

    plan: Plan


Event = (
    Tick | Upstream | Start | Stop | Kill | Freeze | Doubt | Lag | Step | Share | Outage | Spoil | Store | Night | Heal
)


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """What a seed stands for."""

    seed: int
    start_ms: int
    partitions: int
    instances: tuple[str, ...]
    timeframes: tuple[str, ...]
    """All that any process of the story runs; the last ones run these."""
    allowed_lateness_ms: int
    future_ms: int
    is_flushed: bool
    """Whether the story ends with a flush."""
    has_steps: bool
    """Whether wall clocks go wrong by more than the specification allows for."""
    has_liars: bool = False
    """Whether records claim times far ahead; never two in one partition that a leap could take for witnesses."""
    instruments_max: int = 50_000
    final: Plan
    events: tuple[Event, ...]

    def rules(self, plan: Plan) -> Rules:
        """The rules of a process under this plan."""
        return Rules(
            timeframes=tuple(parse_timeframe(label) for label in plan.timeframes),
            grace_ms=(plan.grace_ms,) * len(plan.timeframes),
            calendar=CALENDAR,
            allowed_lateness_ms=self.allowed_lateness_ms,
            future_ms=self.future_ms,
            instruments_max=self.instruments_max,
        )


def _calendar() -> Calendar:
    rows = load_calendar().rows
    return Calendar(rows=tuple(row for row in rows if row.kind == "weekly" and row.exchange in ("N", "M", "NYSE")))


CALENDAR = _calendar()
"""The shipped sessions of the exchanges that the stories trade at."""
