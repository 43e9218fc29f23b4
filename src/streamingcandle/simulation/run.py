"""Play a story: every process runs the product's own loop, on the pretended broker, in virtual time."""

import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from random import Random

import msgspec

from streamingcandle import pipeline
from streamingcandle.account import StoppedError
from streamingcandle.candles.book import Book
from streamingcandle.errors import OwnedError
from streamingcandle.interfaces import BrokerAwayError, Listener, Records, Transaction
from streamingcandle.partition import PathSettings, Topics
from streamingcandle.simulation.broker import Broker
from streamingcandle.simulation.broker import Upstream as OpenUpstream
from streamingcandle.simulation.clock import VirtualTime
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
    Tick,
    Upstream,
)
from streamingcandle.simulation.log import SimulatedLog
from streamingcandle.simulation.process import Process
from streamingcandle.simulation.snapshots import Shelf, SimulatedSnapshots, harm

SESSION_MS = 4_000
"""A member that is not heard of for this long loses its place."""
TAIL_MS = 45_000
"""How long the story goes on after the last event, RECOVERY_MS included."""
SPINS_MAX = 50
STOP_MS_MAX = 20_000
FLUSH_MS_MAX = 60_000
DEAD_LETTERS, LATE = "dead-letters", "late"


class Outcome(msgspec.Struct):
    """What is left when a story has ended, for the checks."""

    story: Story
    broker: Broker
    healed_ms: int
    calm_end_ms: int
    """Until then the service ran undisturbed; what came after was its end."""
    faults: list[str]
    """What was seen to be wrong already."""


def candle_topic(label: str) -> str:
    """The candle topic of a timeframe."""
    return f"{label}-candle"


class Witness(SimulatedLog):
    """A log that holds each commit to the ledger: every record delivered since the fold's start has its place."""

    def __init__(self, broker: Broker, host: Process, faults: list[str]) -> None:
        """`faults` gets what does not balance."""
        super().__init__(broker, host)
        self._faults = faults
        self._who = f"{host.instance} life {host.life}"
        self._spins = 0
        self._loaded: dict[int, int] = {}
        """By partition: how many records are in the snapshot that was restored."""

    def _joined(self, partitions: Sequence[int]) -> None:
        for number in partitions:
            self._loaded[number] = self._book(number).ledger()["read"]

    def _book(self, number: int) -> Book:
        assert isinstance(self.listener, pipeline.Path)
        return self.listener.partitions[number].book

    def poll(self, timeout_s: float, listener: Listener, *, is_held: bool = False) -> Iterable[Records]:
        """See `interfaces.Reader`. Who asks again and again without waiting, for nothing, wastes a core."""
        batches = list(super().poll(timeout_s, listener, is_held=is_held))
        self._spins = 0 if batches or timeout_s > 0 else self._spins + 1
        if self._spins == SPINS_MAX:
            self._faults.append(f"{self._who}: polls without waiting, and without need")
        return batches

    def commit(self, transaction: Transaction) -> None:
        """See `interfaces.Publisher`."""
        self._spins = 0
        for number in transaction.offsets:
            ledger = self._book(number).ledger()
            kinds = sum(ledger[kind] for kind in ("folded", "quotes", "outside", "late", "rejected"))
            delivered = self.delivered[number] + self._loaded[number]
            if not ledger["read"] == kinds == delivered:
                self._faults.append(f"{self._who}, partition {number}: ledger of {delivered} records: {ledger}")
        super().commit(transaction)


class Stage:
    """A story being played."""

    def __init__(self, story: Story) -> None:
        """Nothing has happened yet."""
        self.story = story
        self.time = VirtualTime(story.start_ms)
        self.broker = Broker(story.partitions, lambda: self.time.now_ms)
        self.faults: list[str] = []
        self.healed_ms = 0
        self._processes: dict[str, Process] = {}
        self._all: list[Process] = []
        self._lives: Counter[str] = Counter()
        self._upstreams: dict[int, OpenUpstream] = {}
        self._shelves: defaultdict[str, Shelf] = defaultdict(Shelf)
        """By instance the folder's, and under no name the topic's."""

    def play(self) -> Outcome:
        """From the first event to the end, when every process has gone."""
        for event in self.story.events:
            self.time.run_until(event.at_ms)
            self._happen(event)
        self.time.run_until(self.time.now_ms + TAIL_MS)
        calm_end_ms = self.time.now_ms
        self._close()
        return Outcome(self.story, self.broker, self.healed_ms, calm_end_ms, self.faults)

    def _happen(self, event: Event) -> None:
        match event:
            case Tick() | Upstream():
                self._append(event)
                for each in self._all:
                    each.nudge()
            case Start(instance=instance, plan=plan):
                self._start(instance, plan)
            case Share() | Outage() | Spoil() | Store() | Night():
                self._happen_around(event)
            case Heal(plan=plan):
                self._heal(plan)
            case _:
                process = self._processes.get(event.instance)
                if process is not None and process.is_alive:
                    self._disturb(process, event)

    def _disturb(self, process: Process, event: Event) -> None:
        match event:
            case Stop():
                process.is_stopping = True
            case Kill(calls=calls):
                process.kill_at_call = process.calls + calls
            case Freeze(calls=calls, duration_ms=duration_ms):
                process.freeze = (process.calls + calls, duration_ms)
            case Doubt(fates=fates):
                process.fates.extend(fates)
            case Lag(records_max=records_max):
                process.records_limit = records_max
            case Step(wall_error_ms=wall_error_ms):
                process.clock.wall_error_ms = wall_error_ms
            case _:
                raise ValueError(event)

    def _happen_around(self, event: Share | Outage | Spoil | Store | Night) -> None:
        """What is no single process's matter."""
        match event:
            case Share(number=number):
                names = sorted(self.broker.group.identities())
                Random(number).shuffle(names)
                self.broker.group.share_out(names)
            case Outage(instance=instance, duration_ms=duration_ms):
                self._cut_off(instance, duration_ms)
            case Spoil() | Store():
                self._harm(event)
            case Night():
                for each in list(self._all):
                    each.end()

    def _cut_off(self, instance: str, duration_ms: int) -> None:
        """Who alone is cut off loses its place in the group; brokers that are down expel nobody."""
        for process in self._all:
            if instance in ("", process.instance):
                process.away_until_ms = self.time.now_ms + duration_ms
                if instance:
                    self._watch(process)

    def _harm(self, event: Spoil | Store) -> None:
        shelf = self._shelves[event.instance]
        if isinstance(event, Store):
            shelf.is_failing = event.is_failing
            return
        process = self._processes.get(event.instance or self.story.instances[0])
        rules = self.story.rules(process.plan if process else self.story.final)
        ticks = self.broker.ticks[event.partition]
        harm(shelf, event.how, event.partition, ticks, rules, self.broker.topic_id, Random(event.at_ms))

    # ---- the tick topic

    def _append(self, event: Tick | Upstream) -> None:
        partition, now_ms = self.broker.ticks[event.partition], self.time.now_ms
        if isinstance(event, Tick):
            partition.skip(event.gap)
            partition.append(
                b"key",
                event.value,
                timestamp_ms=event.timestamp_ms,
                appended_ms=now_ms,
                upstream=None if event.upstream is None else self._upstreams.get(event.upstream),
            )
        elif event.state == "open":
            self._upstreams[event.number] = partition.begin()
        elif self._upstreams[event.number].state == "open":
            partition.decide(self._upstreams[event.number], event.state, appended_ms=now_ms)

    # ---- processes

    def _start(self, instance: str, plan: Plan) -> Process:
        self._lives[instance] += 1
        life = self._lives[instance]
        rng = Random(f"process-{self.story.seed}-{instance}-{life}")
        process = Process(
            self.time,
            instance=instance,
            life=life,
            plan=plan,
            rng=rng,
            on_end=self._ended,
            on_freeze=self._watch,
        )
        self._processes[instance] = process
        self._all.append(process)
        process.start(self._run)
        return process

    def _run(self, process: Process) -> None:
        plan = process.plan
        log = Witness(self.broker, process, self.faults)
        process.log = log
        settings = PathSettings(
            topics=Topics(
                ticks="ticks",
                candles=tuple(candle_topic(label) for label in plan.timeframes),
                dead_letters=DEAD_LETTERS,
                late=LATE,
            ),
            commit_interval_ms=plan.commit_interval_ms,
            candles_max=plan.candles_max,
            snapshot_interval_ms=plan.snapshot_interval_ms,
            is_until_end=plan.is_until_end,
            is_flush=plan.is_flush,
            is_clock_reset=plan.is_clock_reset,
        )
        snapshots = [
            SimulatedSnapshots("folder", self._shelves[process.instance], process),
            SimulatedSnapshots("topic", self._shelves[""], process),
        ]
        rules = self.story.rules(plan)
        pipeline.run(log, process.clock, rules, settings, lambda: process.is_stopping, snapshots)
        log.close()

    def _ended(self, process: Process) -> None:
        self._all.remove(process)
        allowed = OwnedError | BrokerAwayError | StoppedError
        if process.failure is not None and not isinstance(process.failure, allowed):
            self.faults.append(f"{process.instance} life {process.life} failed: {process.failure!r}")
        self.time.at(self.time.now_ms + SESSION_MS, partial(self._expel, process))

    def _watch(self, process: Process) -> None:
        """A member that is frozen or cut off for a session's length is one no more."""
        session_end_ms = self.time.now_ms + SESSION_MS
        self.time.at(session_end_ms, lambda: self._expel(process) if process.is_unheard() else None)

    def _expel(self, process: Process) -> None:
        if process.log is not None and process.log.token is not None:
            self.broker.group.leave(process.log.token)

    # ---- the end

    def _heal(self, plan: Plan) -> None:
        """End all trouble: one process an instance, under the last plan, and nothing undecided upstream."""
        self.healed_ms = self.time.now_ms
        for shelf in self._shelves.values():
            shelf.is_failing = False
        for number, upstream in self._upstreams.items():
            if upstream.state == "open":
                partition = next(each for each in self.broker.ticks if each.has_open(upstream))
                state = "committed" if number % 2 else "aborted"
                partition.decide(upstream, state, appended_ms=self.time.now_ms)
        for process in list(self._all):
            if process is self._processes[process.instance] and process.plan == plan and not process.is_stopping:
                process.heal()
            else:
                process.end()
        for instance in self.story.instances:
            if not self._processes.get(instance) or not self._processes[instance].is_alive:
                self._start(instance, plan)

    def _close(self) -> None:
        """Stop everybody, flush where the story says so."""
        self._stop_all()
        if self.story.is_flushed:
            plan = msgspec.structs.replace(self.story.final, is_until_end=True, is_flush=True)
            process = self._start(self.story.instances[0], plan)
            until_ms = self.time.now_ms + FLUSH_MS_MAX
            while process.is_alive and self.time.now_ms < until_ms:
                self.time.run_until(self.time.now_ms + 1_000)
            if process.is_alive:
                self.faults.append("a flush does not end")
        for process in list(self._all):
            process.end()
        self.broker.pass_time()

    def _stop_all(self) -> None:
        for process in self._all:
            process.is_stopping = True
        until_ms = self.time.now_ms + STOP_MS_MAX
        while self._all and self.time.now_ms < until_ms:
            self.time.run_until(self.time.now_ms + 1_000)
        self.faults.extend(f"{process.instance} life {process.life} does not stop" for process in self._all)


def play(story: Story) -> Outcome:
    """Play a story to its end; no process of it is left."""
    stage = Stage(story)
    with _quiet():
        return stage.play()


@contextmanager
def _quiet() -> Iterator[None]:
    """One core, so that handing the baton over costs little; no log lines, which thousands of stories would drown."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        os.sched_setaffinity(0, cores)
