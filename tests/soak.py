"""`make soak MINUTES=n`: a live feed, three processes, two of them struck in turn; then the comparison.

The topic is unguarded, and the feed has liars in it: one instrument a partition a year ahead, by its records' own
timestamps too, and made-up exchanges and tokens, more than may be held. Now and then the broker stands still and
commits fail.

Prints what an operator would ask: how long until candles came again, how late they were over time, what memory
and disk were taken. Exit 1 when a candle differs from the reference or came twice.
"""

import json
import random
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import Consumer, Message, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource  # type: ignore[attr-defined]

from broker import Broker
from disturbance import Deployment, Service
from program import Key, differences, percentile, read_topic, records_of, resident_mb, run_well, values
from streamingcandle.candles.candle import Candle, decode_candle
from streamingcandle.candles.reference import Record, Reference
from streamingcandle.clock import SystemClock
from streamingcandle.settings import load_settings
from streamingcandle.simulation.market import Market, MarketTick

RULES = {
    "STREAMINGCANDLE_TIMEFRAMES": "1s,1m,2m,3m,5m,15m,30m",
    "STREAMINGCANDLE_OUTSIDE_SESSION": "keep",
    "STREAMINGCANDLE_INSTRUMENTS_MAX": "100",
}
PARTITIONS = 6
INSTRUMENTS = 60
RATE_PER_S = 100
EVERY_MS = 7_000
FREEZE_MS = 9_000
"""Longer than the session: the others take over."""
STILL_MS = 15_000
"""The broker stands still for longer than a transaction may take."""
LIE_MS = 365 * 86_400_000
LIE_EVERY = 500
"""Ticks to a lie in each partition: one in five seconds."""
MADE_UP_EVERY = 20
GRACE_MS = 1_000
QUARTERS = 4


class Sample(NamedTuple):
    """One look at the survivor and the disk."""

    at_ms: int
    memory_mb: float
    state_mb: float


class Seen(NamedTuple):
    """A candle of one second as a reader got it."""

    partition: int
    end_ms: int
    at_ms: int


class Soak:
    """The deployment under stress."""

    def __init__(self, broker: Broker, deployment: Deployment, seconds_topic: str, minutes: float) -> None:
        """Nothing runs yet."""
        self._broker = broker
        self._deployment = deployment
        self._clock = SystemClock()
        self._rng = random.Random(1)
        self._seconds_topic = seconds_topic
        self._until_ms = self._clock.monotonic_ms() + int(minutes * 60_000)
        self._is_over = threading.Event()
        self.seen: list[Seen] = []
        self.samples: list[Sample] = []
        self.strikes: list[tuple[str, int]] = []

    def run(self) -> None:
        """Until the time is over; then all has been sent and every process has ended."""
        threads = [threading.Thread(target=self._feed), threading.Thread(target=self._read)]
        survivor = self._deployment.start()
        victims = [self._deployment.start() for _ in range(2)]
        self._deployment.await_partitions()
        for thread in threads:
            thread.start()
        try:
            while self._clock.monotonic_ms() < self._until_ms:
                self._clock.sleep_ms(EVERY_MS)
                victims = [victims[1], self._strike(victims[0])]
                self._sample(survivor)
        finally:
            self._is_over.set()
            for thread in threads:
                thread.join()
        for service in (survivor, *victims):
            service.await_line("taken over")
        self._deployment.stop_all()

    def _strike(self, victim: Service) -> Service:
        kind = self._rng.choices(["kill", "terminate", "freeze", "broker stands still"], [15, 2, 2, 1])[0]
        self.strikes.append((kind, self._clock.wall_ms()))
        if kind == "broker stands still":
            self._broker.freeze()
            self._clock.sleep_ms(STILL_MS)
            self._broker.thaw()
            return victim
        if kind == "freeze":
            victim.freeze()
            self._clock.sleep_ms(FREEZE_MS)
            victim.thaw()
            return victim
        if kind == "kill":
            victim.kill()
        elif victim.stop() != 0:
            raise AssertionError(victim.text[-3_000:])
        return self._deployment.start()

    def _sample(self, survivor: Service) -> None:
        state = Path(self._deployment.variables["STREAMINGCANDLE_STATE_DIR"])
        size = sum(path.stat().st_size for path in state.rglob("snapshot-*") if path.is_file())
        self.samples.append(Sample(self._clock.wall_ms(), resident_mb(survivor.process.pid), size / 1e6))

    def _feed(self) -> None:
        market = Market(INSTRUMENTS, seed=7)
        began_ms, sent = self._clock.wall_ms(), 0
        while not self._is_over.is_set():
            due = (self._clock.wall_ms() - began_ms) * RATE_PER_S // 1_000
            numbers = range(sent + 1, due + 1)
            ticks = [market.tick(self._clock.wall_ms()) for _ in numbers]
            self._deployment.feed([*ticks, *(self._made_up() for number in numbers if number % MADE_UP_EVERY == 0)])
            if any(number % LIE_EVERY == 0 for number in numbers):
                self._lie()
            sent = due
            self._is_over.wait(0.02)

    def _lie(self) -> None:
        """One lying instrument in each partition: two of one partition that agree would be believed."""
        for number in range(PARTITIONS):
            at_ms = self._clock.wall_ms() + LIE_MS + self._rng.randrange(100)
            tick = _tick("N", "C", 900_000 + number, at_ms, 100.0 + self._rng.randrange(100))
            self._deployment.feed([tick], partition=number)

    def _made_up(self) -> MarketTick:
        """Every second one with a price that is none: of that nothing may stay."""
        rng = self._rng
        exchange, token = rng.choice(("N", f"Z{rng.randrange(10**6)}")), 10**6 + rng.randrange(10**9)
        return _tick(exchange, "C", token, self._clock.wall_ms(), rng.choice((-1.0, 5.0)))

    def _read(self) -> None:
        deployment = self._deployment
        consumer = Consumer(
            {
                "bootstrap.servers": deployment.bootstrap,
                "group.id": f"{deployment.prefix}-soak",
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 10,
            }
        )
        consumer.assign([TopicPartition(self._seconds_topic, number, 0) for number in range(PARTITIONS)])
        while not self._is_over.is_set():
            message = consumer.poll(0.1)
            if message is not None and message.error() is None:
                candle = decode_candle(message.value() or b"")
                if not candle.revised:
                    at_ms = self._clock.wall_ms()
                    self.seen.append(Seen(candle.source_partition, candle.window_end_millis, at_ms))
        consumer.close()

    # ---- what is told

    def resumed_ms(self) -> list[int]:
        """For each kill: until every partition had a candle of after it."""
        found = []
        for kind, at_ms in self.strikes:
            first = [
                min((s.at_ms for s in self.seen if s.partition == p and s.end_ms > at_ms), default=0)
                for p in range(PARTITIONS)
            ]
            if kind == "kill" and all(first):
                found.append(max(first) - at_ms - GRACE_MS)
        return sorted(found)

    def tell(self) -> None:
        """Print the table."""
        counts = Counter(kind for kind, _ in self.strikes)
        print(f"{self._deployment.sent} ticks; " + ", ".join(f"{kind} {count}" for kind, count in counts.items()))
        resumed = self.resumed_ms()
        print(f"kill to candles of every partition, less the grace: p50 {percentile(resumed, 50)} max {resumed[-1]} ms")
        began_ms, ended_ms = self.seen[0].at_ms, self.seen[-1].at_ms + 1
        length_ms = (ended_ms - began_ms) / QUARTERS
        for quarter in range(QUARTERS):
            from_ms, to_ms = began_ms + quarter * length_ms, began_ms + (quarter + 1) * length_ms
            delays = sorted(s.at_ms - s.end_ms - GRACE_MS for s in self.seen if from_ms <= s.at_ms < to_ms)
            samples = [sample for sample in self.samples if from_ms <= sample.at_ms < to_ms]
            memory = sorted(sample.memory_mb for sample in samples)
            print(
                f"quarter {quarter + 1}: "
                f"close delay p50 {percentile(delays, 50)} p99 {percentile(delays, 99)} max {delays[-1]} ms; "
                f"survivor's memory p50 {percentile(memory, 50):.1f} ({memory[0]:.0f} to {memory[-1]:.0f}) MB; "
                f"state {max(sample.state_mb for sample in samples):.1f} MB"
            )


def _tick(exchange: str, segment: str, token: int, at_ms: int, price: float) -> MarketTick:
    fields = {"Exch": exchange, "ExchType": segment, "Token": token, "LastRate": price, "LastQty": 1, "TickDt": at_ms}
    return MarketTick(at_ms, str(token).encode(), json.dumps(fields).encode())


def _unguard(broker: Broker, topic: str) -> None:
    """Take the brokers' guard off: its own timestamps may be as false as a record's times."""
    entry = ConfigEntry("message.timestamp.after.max.ms", str(2**62), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": broker.inside_bootstrap})
    for done in admin.incremental_alter_configs([resource]).values():
        done.result(10)


def _reference(number: int, records: list[Record]) -> dict[Key, Candle]:
    reference = Reference(load_settings({}, RULES).rules(), number)
    for record in records:
        reference.fold(record)
    return reference.candles()


def _by_partition(messages: list[Message]) -> dict[int, list[Record]]:
    found: dict[int, list[Record]] = {}
    for number, record in records_of(messages):
        found.setdefault(number, []).append(record)
    return found


def _compare(deployment: Deployment, topics: Sequence[str]) -> int:
    """How many candles differ from the reference or came twice."""
    run_well(deployment.variables, "run", "--until-end", "--flush")
    deployment.await_settled()
    records = _by_partition(read_topic(deployment.bootstrap, deployment.tick_topic))
    with ProcessPoolExecutor() as pool:
        wanted: dict[Key, Candle] = {}
        for part in pool.map(_reference, records, records.values()):
            wanted |= part
    found: dict[Key, Candle] = {}
    times: Counter[tuple[object, ...]] = Counter()
    for topic in topics:
        for message in read_topic(deployment.bootstrap, topic):
            candle = decode_candle(message.value() or b"")
            name = ((message.key() or b"").decode(), candle.timeframe, candle.window_start_millis)
            found[name] = candle
            times[name, values(candle)] += 1
    twice = [one for one, count in times.items() if count > 1]
    different = differences(found, wanted)
    print(f"{sum(times.values())} candles of {len(wanted)} windows: {len(different)} differ, {len(twice)} twice")
    for found_wrong in [*different, *twice][:10]:
        print("  ", found_wrong)
    return len(different) + len(twice)


def main() -> int:
    """Exit code."""
    minutes = float(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder, Broker(Path(folder, "broker")) as broker:
        settings = RULES | {"STREAMINGCANDLE_CANDLE_TOPIC_SECONDS": "soak-{n}-sec-candle"}
        with Deployment(broker, "soak", Path(folder), partitions=PARTITIONS, settings=settings) as deployment:
            _unguard(broker, deployment.tick_topic)
            soak = Soak(broker, deployment, "soak-1-sec-candle", minutes)
            soak.run()
            soak.tell()
            return min(1, _compare(deployment, [*deployment.candle_topics, "soak-1-sec-candle"]))


if __name__ == "__main__":
    sys.exit(main())
