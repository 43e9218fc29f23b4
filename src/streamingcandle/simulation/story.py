"""One seed, one story: what is traded, who runs when, and what goes wrong."""

from collections.abc import Sequence
from random import Random

import msgspec

from streamingcandle.candles.session import DAY_MS
from streamingcandle.candles.timeframe import parse_timeframe
from streamingcandle.simulation.events import (
    Doubt,
    Event,
    Freeze,
    Heal,
    Kill,
    Lag,
    Night,
    Outage,
    Plan,
    Share,
    Spoil,
    Start,
    Step,
    Stop,
    Store,
    Story,
    Upstream,
)
from streamingcandle.simulation.feed import Feed, Habits
from streamingcandle.simulation.lies import Liar, MadeUp
from streamingcandle.simulation.log import Fate
from streamingcandle.simulation.snapshots import Harm

MIDNIGHT_MS = 1_767_292_200_000
"""Friday, 2026-01-02, 00:00 in India."""
MOMENTS = ("08:58", "09:14", "09:14", "11:00", "11:00", "15:28", "15:29", "23:53", "05:29")
"""Where something begins or ends, in India; at 05:30 it is midnight UTC."""
LENGTHS = ("5s", "10s", "10s", "30s", "1m", "1m", "2m", "5m")
HORIZONS_MS = (15_000, 30_000, 60_000, 600_000)
GRACES_MS = (0, 500, 1_000, 1_000, 3_000, 10_000)
NEXT_MORNING_MS = (9 * 60 + 14) * 60_000
"""A minute before the open."""
NEXT_FLOOR_MS = (5 * 60 + 30) * 60_000
"""No tick of the second act may lie before: a restart without snapshots begins there, as the specification says."""
NIGHTS_DAYS = (3, 3, 3, 31)
"""From the Friday to a Monday: the next, or one after a month of silence."""
RECOVERY_MS = 15_000
"""After the trouble has ended: sessions run out, transactions left open as well, books are restored."""
FATES: tuple[Fate, ...] = ("aborts", "lands unsaid", "is lost", "lands later")
HARMS: tuple[Harm, ...] = ("lost", "newest lost", "damaged", "cut off", "foreign", "ahead")
NIGHT_MS = 20_000
"""After an act whoever has not stopped by himself is ended."""
MINUTE_MS = 60_000
YEAR_MS = 365 * DAY_MS
INSTRUMENTS_MAX = 50_000
"""Where nothing is made up: more than there are."""


def tell(seed: int) -> Story:
    """The story of a seed."""
    return _Teller(seed).story()


def prefix(story: Story, length: int) -> Story:
    """The story's first events; all trouble ends right after them."""
    events = story.events[:length]
    if any(isinstance(event, Heal) for event in events):
        return msgspec.structs.replace(story, events=events)
    at_ms = events[-1].at_ms if events else story.start_ms
    return msgspec.structs.replace(story, events=(*events, Heal(at_ms=at_ms + 1, plan=story.final)))


class _Teller:
    def __init__(self, seed: int) -> None:
        self._rng = rng = Random(f"story-{seed}")
        self._seed = seed
        self._events: list[Event] = []
        self._upstreams = 0
        self._partitions = rng.choice((1, 1, 2, 3))
        self._instances = tuple(f"i{number}" for number in range(rng.choice((1, 1, 1, 2, 2, 3, 4))))
        self._timeframes = self._order(set(rng.sample(LENGTHS, rng.randint(1, 4))))
        self._horizon_ms = rng.choice(HORIZONS_MS)
        self._is_long = rng.random() < 0.15  # most stories are of one day
        self._has_steps = rng.random() < 0.15  # and have honest clocks
        self._is_static = rng.random() < 0.7  # the default of the product is the most told
        self._lying = lying = Random(f"lies-{seed}")
        self._next_day_ms = MIDNIGHT_MS + lying.choice(NIGHTS_DAYS) * DAY_MS
        # Each bends what a restart may forget, or the time, in its own way: a story has one of them.
        makes = lying.choices(("liars", "made up", "eve", ""), (3, 3, 1, 3))[0]
        self._has_liars = makes == "liars" and not self._has_steps
        self._has_made_up = makes == "made up" and not self._has_steps
        self._is_resending = makes == "eve" and self._is_long
        lengths_ms = [parse_timeframe(label).length_ms for label in self._timeframes]
        self._feeds = [
            Feed(
                rng,
                number,
                horizon_ms=self._horizon_ms,
                lengths_ms=lengths_ms,
                is_long=self._is_long,
                habits=Habits(
                    is_resending=self._is_resending,
                    is_fractional=lying.random() < 0.1,  # most exchanges trade whole lots
                    is_sparse=lying.random() < 0.05,  # and most instruments more than once a day
                ),
            )
            for number in range(self._partitions)
        ]
        self._liar_day = lying.randrange(2)
        """In a story of two days each liar has one: told in a row on both, its lies would be their own witnesses."""
        is_first_day = self._is_long and self._liar_day == 0  # a restart on the next one forgets who lied
        self._liars = [Liar(lying, feed.number, () if is_first_day else feed.instruments) for feed in self._feeds]
        self._made_up = [MadeUp(lying, number) for number in range(self._partitions)]
        self._eve_made_up_max = lying.randint(1, 3)
        self._instruments_max = self._limit() if self._has_made_up else INSTRUMENTS_MAX
        self._trouble = rng.choice((0.3, 1.0, 1.0, 2.0))
        self._plan = Plan(
            timeframes=self._timeframes,
            grace_ms=self._grace_ms(),
            commit_interval_ms=rng.choice((300, 1_000, 1_000, 5_000)),
            candles_max=rng.choice((20_000, 20_000, 20_000, 3)),
            snapshot_interval_ms=rng.choice((300, 2_000, 10_000, 3_600_000)),
            is_static=self._is_static,
            slow_calls=rng.choice((0.0, 0.05, 0.3)),
        )

    def _limit(self) -> int:
        """How many instruments are held.

        In a story of two days there is room for all of the first, so that none is refused on the second before the
        feed clock knows that it is another day.
        """
        if self._is_long:
            return max(len(feed.instruments) for feed in self._feeds) + self._eve_made_up_max
        return self._lying.randint(1, 6)

    def _order(self, labels: set[str]) -> tuple[str, ...]:
        return tuple(sorted(labels, key=lambda label: parse_timeframe(label).length_ms))

    def _grace_ms(self) -> int:
        return self._rng.choice([grace_ms for grace_ms in GRACES_MS if grace_ms < self._horizon_ms])

    def _host_plan(self) -> Plan:
        """The plan of the day, on a host whose clock is nearly right; where clocks go wrong it may be a year ahead."""
        error_ms = self._rng.randint(-900, 900)
        if self._has_steps and self._lying.random() < 0.1:  # one start in ten
            error_ms = YEAR_MS
        return msgspec.structs.replace(self._plan, wall_error_ms=error_ms)

    def story(self) -> Story:
        rng = self._rng
        clock = "15:29" if self._is_long else rng.choice(MOMENTS)
        start_ms = MIDNIGHT_MS + (int(clock[:2]) * 60 + int(clock[3:])) * MINUTE_MS + rng.randrange(30_000)
        self._plan = self._changed_plan() if rng.random() < 0.3 else self._plan  # some begin with less
        end_ms = self._act(start_ms, floor_ms=0, length_ms=rng.randint(20_000, 80_000))
        if self._is_long:
            for instance in self._instances:
                self._add(rng.choice((Stop(at_ms=end_ms, instance=instance), self._kill(end_ms, instance))))
            self._add(Night(at_ms=end_ms + NIGHT_MS))
            monday_ms = self._next_day_ms + NEXT_MORNING_MS + rng.randrange(50_000)
            floor_ms = self._next_day_ms + NEXT_FLOOR_MS
            end_ms = self._act(monday_ms, floor_ms=floor_ms, length_ms=rng.randint(20_000, 80_000))
        final = msgspec.structs.replace(self._plan, timeframes=self._timeframes, grace_ms=self._grace_ms())
        self._add(Heal(at_ms=end_ms, plan=final))
        self._calm(end_ms + 1, floor_ms=self._next_day_ms + NEXT_FLOOR_MS if self._is_long else 0)
        return Story(
            seed=self._seed,
            start_ms=start_ms,
            partitions=self._partitions,
            instances=self._instances,
            timeframes=self._timeframes,
            allowed_lateness_ms=self._horizon_ms,
            future_ms=60_000,
            is_flushed=rng.random() < 0.5,  # the others end as services do
            has_steps=self._has_steps,
            has_liars=self._has_liars,
            instruments_max=self._instruments_max,
            final=final,
            events=tuple(sorted(self._events, key=lambda event: event.at_ms)),
        )

    def _add(self, event: Event) -> None:
        self._events.append(event)

    def _act(self, start_ms: int, *, floor_ms: int, length_ms: int) -> int:
        """A stretch of time with a market and with trouble; returns its end."""
        rng = self._rng
        end_ms = start_ms + length_ms
        is_silent = rng.random() < 0.4  # the trouble goes on when the feed has stopped
        silent_ms = rng.randint(start_ms + length_ms // 2, end_ms) if is_silent else end_ms
        for number in range(self._partitions):
            self._market(number, start_ms, silent_ms, floor_ms=floor_ms)
        for instance in self._instances:
            self._add(Start(at_ms=start_ms + rng.choice((0, 0, 10_000)), instance=instance, plan=self._host_plan()))
        at_ms = float(start_ms)
        while (at_ms := at_ms + rng.expovariate(self._trouble / 8_000)) < end_ms:
            self._trouble_at(int(at_ms))
        # Who would come back later does not: between the acts and after the trouble it is quiet.
        self._events = [event for event in self._events if event.at_ms <= end_ms]
        return end_ms

    def _calm(self, start_ms: int, *, floor_ms: int) -> None:
        """After the trouble: the market goes on for a while, or each partition sees one last tick, or nothing comes."""
        rng = self._rng
        if rng.random() < 0.5:  # half of the time the feed has ended
            for number in range(self._partitions):
                self._market(number, start_ms, start_ms + RECOVERY_MS + 20_000, floor_ms=floor_ms)
        if self._has_steps:
            for feed in self._feeds:
                self._add(feed.closing(start_ms + RECOVERY_MS + 20_001))

    # ---- the market

    def _market(self, number: int, start_ms: int, end_ms: int, *, floor_ms: int) -> None:
        rng, feed = self._rng, self._feeds[number]
        if feed.habits.is_sparse:
            self._add(feed.plain(rng.randint(start_ms, end_ms)))
            return
        heard: list[tuple[int, int]] = []
        upstream: Upstream | None = None
        pause_ms = rng.choice((250, 700, 2_000))
        is_transactional = rng.random() < 0.3  # most feeds know no transactions
        at_ms = float(start_ms)
        while (at_ms := at_ms + rng.expovariate(1 / pause_ms)) < end_ms:
            now_ms = int(at_ms)
            if rng.random() < 0.01:  # now and then nothing comes for a while
                at_ms += rng.randint(1_000, 30_000)
            tick = feed.tick(now_ms, floor_ms)
            if upstream is not None and rng.random() < 0.1:  # ten ticks a transaction
                self._decide(upstream, now_ms)
                upstream = None
            elif is_transactional and upstream is None and rng.random() < 0.2:  # not all of them
                self._upstreams += 1
                upstream = Upstream(at_ms=now_ms, partition=number, number=self._upstreams, state="open")
                self._add(upstream)
            if upstream is not None and rng.random() < 0.8:  # another program writes there too
                tick = msgspec.structs.replace(tick, upstream=upstream.number)
            elif feed.heard is not None:
                heard.append((now_ms, feed.heard))
            self._add(tick)
        if upstream is not None:
            self._decide(upstream, end_ms)
        self._make_up(number, heard, start_ms, end_ms, is_next_day=floor_ms > 0)

    def _make_up(
        self, number: int, heard: Sequence[tuple[int, int]], start_ms: int, end_ms: int, *, is_next_day: bool
    ) -> None:
        """What this market brings that is not true; `heard`: when who spoke plainly, for sure."""
        lying, times_ms = self._lying, [at_ms for at_ms, _ in heard]
        if self._has_liars and (not self._is_long or self._liar_day == is_next_day):
            self._events += self._liars[number].lies(times_ms, start_ms, end_ms)
        elif self._has_made_up and self._is_long:
            tokens = [token for _, token in heard]
            # On the next day nobody new comes before two have told the feed clock which day it is.
            first = next((place for place, token in enumerate(tokens) if token != tokens[0]), len(tokens))
            places = range(first, len(tokens)) if is_next_day else range(len(tokens))
            chosen = sorted(lying.sample(places, min(len(places), 8 if is_next_day else self._eve_made_up_max)))
            self._events += [self._made_up[number].tick(times_ms[place] + 1) for place in chosen]
        elif self._has_made_up:
            self._events += [self._made_up[number].tick(at_ms + 1) for at_ms in times_ms if lying.random() < 0.2]
        elif self._is_resending and not is_next_day:
            self._events += self._feeds[number].eve(end_ms)
        elif self._is_resending:
            first_ms = times_ms[:5] or [start_ms]
            self._events += [tick for at_ms in first_ms for tick in self._feeds[number].resent(at_ms)]

    def _decide(self, upstream: Upstream, at_ms: int) -> None:
        state = self._rng.choice(("committed", "committed", "aborted"))
        self._add(msgspec.structs.replace(upstream, at_ms=at_ms, state=state))

    # ---- the trouble

    def _kill(self, at_ms: int, instance: str) -> Kill:
        return Kill(at_ms=at_ms, instance=instance, calls=self._rng.randint(1, 12))

    def _trouble_at(self, at_ms: int) -> None:
        kinds = {
            self._end: 6, self._freeze: 3, self._doubt: 6, self._lag: 2, self._twin: 1, self._share: 2, self._leave: 1,
            self._spoil: 2, self._outage: 2, self._store: 1, self._deploy: 3, self._roll: 1, self._flush: 1,
            self._step: 3 if self._has_steps else 0,
        }  # fmt: skip
        self._rng.choices(list(kinds), list(kinds.values()))[0](at_ms, self._rng.choice(self._instances))

    def _end(self, at_ms: int, instance: str) -> None:
        rng = self._rng
        self._add(
            rng.choice((self._kill(at_ms, instance), self._kill(at_ms, instance), Stop(at_ms=at_ms, instance=instance)))
        )
        self._start(at_ms + rng.choice((1_000, 1_000, 5_000, 12_000)), instance)

    def _start(self, at_ms: int, instance: str) -> None:
        self._add(Start(at_ms=at_ms, instance=instance, plan=self._host_plan()))

    def _freeze(self, at_ms: int, instance: str) -> None:
        calls, duration_ms = self._rng.randint(1, 12), self._rng.choice((1_000, 5_000, 5_000, 8_000, 20_000))
        self._add(Freeze(at_ms=at_ms, instance=instance, calls=calls, duration_ms=duration_ms))

    def _doubt(self, at_ms: int, instance: str) -> None:
        chosen = tuple(self._rng.choice(FATES) for _ in range(self._rng.choice((1, 1, 2, 3))))
        self._add(Doubt(at_ms=at_ms, instance=instance, fates=chosen))

    def _lag(self, at_ms: int, instance: str) -> None:
        self._add(Lag(at_ms=at_ms, instance=instance, records_max=self._rng.choice((0, 1, 1, 2))))
        self._add(Lag(at_ms=at_ms + self._rng.randint(2_000, 20_000), instance=instance, records_max=200))

    def _twin(self, at_ms: int, instance: str) -> None:
        """Another process of the instance, while the one before runs still."""
        self._start(at_ms, instance)

    def _leave(self, at_ms: int, instance: str) -> None:
        self._add(Stop(at_ms=at_ms, instance=instance))

    def _share(self, at_ms: int, _instance: str) -> None:
        self._add(Share(at_ms=at_ms, number=self._rng.randrange(1_000)))

    def _step(self, at_ms: int, instance: str) -> None:
        error_ms = self._rng.choice((0, 3_000, -3_000, MINUTE_MS, -MINUTE_MS, 60 * MINUTE_MS, YEAR_MS))
        self._add(Step(at_ms=at_ms, instance=instance, wall_error_ms=error_ms))

    def _outage(self, at_ms: int, instance: str) -> None:
        duration_ms = self._rng.choice((500, 2_000, 8_000, 20_000))
        self._add(Outage(at_ms=at_ms, instance=self._rng.choice((instance, "")), duration_ms=duration_ms))

    def _spoil(self, at_ms: int, instance: str) -> None:
        """Something becomes of snapshots; mostly it shows at once, to who takes the partition over next."""
        rng = self._rng
        number, where = rng.randrange(self._partitions), rng.choice((instance, ""))
        self._add(Spoil(at_ms=at_ms, instance=where, partition=number, how=rng.choice(HARMS)))
        if rng.random() < 0.7:
            self._add(self._kill(at_ms, instance))
            self._start(at_ms + 1_000, instance)

    def _store(self, at_ms: int, instance: str) -> None:
        where = self._rng.choice((instance, ""))
        self._add(Store(at_ms=at_ms, instance=where, is_failing=True))
        self._add(Store(at_ms=at_ms + self._rng.randint(1_000, 20_000), instance=where, is_failing=False))

    def _changed_plan(self) -> Plan:
        rng = self._rng
        count = rng.randint(1, len(self._timeframes))
        return msgspec.structs.replace(
            self._plan,
            timeframes=self._order(set(rng.sample(self._timeframes, count))),
            grace_ms=self._grace_ms(),
        )

    def _deploy(self, at_ms: int, _instance: str) -> None:
        """All restart under changed rules."""
        self._plan = self._changed_plan()
        self._restart(at_ms, self._instances)

    def _roll(self, at_ms: int, _instance: str) -> None:
        """Some do; the others still run under the old ones."""
        self._plan = self._changed_plan()
        self._restart(at_ms, [instance for instance in self._instances if self._rng.random() < 0.5])

    def _flush(self, at_ms: int, _instance: str) -> None:
        """All stop, one runs to the end and flushes, all go on."""
        flushing = msgspec.structs.replace(self._host_plan(), is_until_end=True, is_flush=True)
        self._restart(at_ms, self._instances, flushing)

    def _restart(self, at_ms: int, instances: Sequence[str], between: Plan | None = None) -> None:
        rng = self._rng
        back_ms = at_ms + rng.choice((1_000, 6_000))
        if between is not None:
            self._add(Start(at_ms=back_ms, instance=self._instances[0], plan=between))
            back_ms += rng.choice((2_000, 10_000))
        for instance in instances:
            self._add(rng.choice((Stop(at_ms=at_ms, instance=instance), self._kill(at_ms, instance))))
            self._start(back_ms, instance)
