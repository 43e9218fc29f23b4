"""A deployment to disturb: processes of the service, a feed, and what must hold at the end whatever happened.

What must hold: of each window the last candle published is the reference's, no candle and no dead letter is
there twice, and every tick is committed.
"""

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]
from confluent_kafka.cimpl import NewPartitions

from broker import Broker, spawn
from program import (
    LABELS,
    PROGRAM,
    Key,
    differences,
    environment,
    folded,
    read_topic,
    records_of,
    run_well,
    values,
)
from streamingcandle.candles.candle import Candle, decode_candle
from streamingcandle.clock import SystemClock
from streamingcandle.kafka.brokers import PASSING
from streamingcandle.simulation.market import Market, MarketTick, ticks

OPEN_MS = 1_767_325_500_000
"""2026-01-02 09:15 in Kolkata."""
RATE_PER_S = 5
LIMIT_S = 60.0
"""For what must come: takes seconds at most on an idle machine."""
PROBE_MS = 50
STOP_LIMIT_S = 5.0
WORDS_MAX = 10_000
GARBAGE_EVERY = 250
QUICK = {
    "STREAMINGCANDLE_KAFKA_SESSION_TIMEOUT_MS": "6000",
    "STREAMINGCANDLE_KAFKA_HEARTBEAT_INTERVAL_MS": "500",
}
"""A member that went away is noticed within seconds."""

Answer = TypeVar("Answer")

_clock = SystemClock()
_references: dict[str, dict[Key, Candle]] = {}


def market(count: int, *, instruments: int = 60, seed: int = 11) -> list[MarketTick]:
    """Ticks of a past session, 1 % of them out of order, and some garbage among them."""
    found = list(ticks(Market(instruments, seed=seed), start_ms=OPEN_MS, rate_per_s=RATE_PER_S, count=count))
    for index in range(GARBAGE_EVERY - 1, count, GARBAGE_EVERY):
        found[index] = MarketTick(found[index].at_ms, found[index].key, b"garbage %d" % index)
    return found


def await_that(
    is_so: Callable[[], bool], what: str | Callable[[], str], *, limit_s: float = LIMIT_S, probe_ms: int = PROBE_MS
) -> float:
    """Return when it is so, and after how many seconds. `what`, where it is asked for, is asked for at the end."""
    began_ms = _clock.monotonic_ms()
    while not is_so():
        if _clock.monotonic_ms() >= began_ms + limit_s * 1_000:
            raise AssertionError(f"after {limit_s:.0f} s still not: {what if isinstance(what, str) else what()}")
        _clock.sleep_ms(probe_ms)
    return (_clock.monotonic_ms() - began_ms) / 1_000


def kill_retries(variables: Mapping[str, str], end: Callable[[], int], *, seed: int, late_ms: int) -> int:
    """Four times `dead-letters retry`, killed within `late_ms` of the first tick past `end`; how many had not ended."""
    rng = random.Random(seed)
    kills = 0
    for _ in range(4):
        before = end()

        def is_past(before: int = before) -> bool:
            return end() > before

        with subprocess.Popen([PROGRAM, "dead-letters", "retry"], env=variables, stderr=subprocess.PIPE) as process:
            await_that(is_past, "a tick put back", probe_ms=1)
            _clock.sleep_ms(rng.randrange(late_ms))
            process.kill()
            kills += process.wait() != 0
    return kills


def _answer(ask: Callable[[], Answer]) -> Answer:
    """The answer, also of a leader or a coordinator that has just come up."""
    answers: list[Answer] = []

    def is_answered() -> bool:
        try:
            answers.append(ask())
        except KafkaException as error:
            if error.args[0].code() not in PASSING:
                raise
        return bool(answers)

    await_that(is_answered, "an answer of the broker")
    return answers[0]


class Service:
    """One process of the service; whoever starts it ends it."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    @property
    def text(self) -> str:
        """What it has said so far."""
        return self.log.read_text(encoding="utf-8")

    def await_line(self, text: str, *, count: int = 1, limit_s: float = LIMIT_S) -> float:
        """Until it has said that so often; after how many seconds."""
        return await_that(
            lambda: self.text.count(text) >= count, lambda: f"{text!r} in {self.text[-3_000:]}", limit_s=limit_s
        )

    def await_end(self, limit_s: float = LIMIT_S) -> int:
        """Its exit code."""
        return self.process.wait(limit_s)

    def stop(self) -> int:
        """SIGTERM; its exit code, which must come in time."""
        self.process.terminate()
        return self.process.wait(STOP_LIMIT_S)

    def last_words(self) -> str:
        """What it has said, and where each of its threads stands: it ends with that."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGABRT)
            self.thaw()
            self.process.wait(LIMIT_S)
        return f"{self.log.name}, exit code {self.process.returncode}:\n{self.text[-WORDS_MAX:]}"

    def kill(self) -> None:
        """SIGKILL, frozen or not."""
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        """SIGSTOP; returns when every thread stands."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)


class Deployment:
    """A tick topic, its candle topics, and processes over them. Leaving it ends what is left of those."""

    def __init__(
        self,
        broker: Broker,
        prefix: str,
        folder: Path,
        *,
        partitions: int = 3,
        through: str | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """`through`: where the service finds the brokers, if not at the broker's own port; the rest goes inside."""
        self.bootstrap = broker.inside_bootstrap
        self.partitions = partitions
        self.prefix = prefix
        self.folder = folder
        self.variables = environment(prefix, folder, through or broker.bootstrap) | QUICK | dict(settings or {})
        self.tick_topic = f"{prefix}-ticks"
        self.candle_topics = [f"{prefix}-{label[:-1]}-min-candle" for label in LABELS]
        self.letter_topic = f"{prefix}-app-dead-letters"
        self._published = [*self.candle_topics, self.letter_topic]
        self.sent = 0
        self.garbage = 0
        self._undelivered: list[KafkaError] = []
        self._services: list[Service] = []
        self._producer = self._new_producer()
        inside = self.variables | {"STREAMINGCANDLE_KAFKA_BOOTSTRAP_SERVERS": self.bootstrap}
        run_well(inside, "topics", "ensure", "--partitions", str(partitions))
        self._asker = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": f"{prefix}-app",
                "isolation.level": "read_committed",
                "log_level": 0,
            }
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for service in self._services:
            if error is not None:
                sys.stdout.write(service.last_words())
            service.kill()
        self._asker.close()

    # ---- processes

    def start(self, *arguments: str, settings: Mapping[str, str] | None = None) -> Service:
        """Start `run`; it need not be ready when this returns."""
        log = self.folder / f"service-{len(self._services)}.log"
        variables = self.variables | dict(settings or {})
        ours = [f"{name}={value}" for name, value in variables.items() if os.environ.get(name) != value]
        with log.open("wb") as output:
            process = spawn(
                ["/usr/bin/env", "PYTHONFAULTHANDLER=1", *ours, PROGRAM, "run", *arguments],
                cwd=self.folder,
                output=output,
            )
        service = Service(process, log)
        self._services.append(service)
        return service

    def stop_all(self) -> None:
        """SIGTERM to all that run; each must end well."""
        running = [service for service in self._services if service.process.poll() is None]
        for service in running:
            assert service.stop() == 0, service.text[-3_000:]

    # ---- the feed

    def _new_producer(self) -> Producer:
        return Producer(
            {
                "bootstrap.servers": self.bootstrap,
                "enable.idempotence": True,
                "max.in.flight.requests.per.connection": 1,
                "partitioner": "murmur2_random",
                "log_level": 0,
            }
        )

    def widen(self, partitions: int) -> None:
        """Add partitions to the tick topic; there for everybody when it returns."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        admin.create_partitions([NewPartitions(self.tick_topic, partitions)])[self.tick_topic].result(LIMIT_S)
        self.partitions = partitions
        await_that(lambda: len(self._places([self.tick_topic])) == partitions, "the partitions added")
        self._ends([self.tick_topic], IsolationLevel.READ_UNCOMMITTED)  # answered when each has its leader
        self._producer = self._new_producer()  # the one before may not look for minutes

    def begin_anew(self, *topics: str) -> None:
        """Delete topics, the tick topic among them or not, and make them again, empty."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        for future in admin.delete_topics(list(topics)).values():
            future.result(LIMIT_S)
        await_that(lambda: not set(topics) & set(admin.list_topics(timeout=LIMIT_S).topics), "the topics gone")
        run_well(self.variables, "topics", "ensure", "--partitions", str(self.partitions))
        if self.tick_topic in topics:
            self.sent = self.garbage = 0
            self._producer = self._new_producer()  # the one before goes on counting where the broker begins

    def feed(self, feed: Sequence[MarketTick], *, partition: int | None = None) -> None:
        """Append, by key if not all to one partition; there when it returns."""
        for tick in feed:
            self._append(tick, partition)
        self._flush()

    @contextmanager
    def feeding(self, feed: Sequence[MarketTick], *, rate_per_s: int) -> Iterator[threading.Thread]:
        """Append at a rate, in the background; all of it is there when the context is left."""
        over = threading.Event()

        def work() -> None:
            began_ms = _clock.monotonic_ms()
            for index, tick in enumerate(feed):
                due_ms = began_ms + index * 1_000 // rate_per_s
                if not over.is_set() and due_ms > _clock.monotonic_ms():
                    self._producer.poll(0)
                    over.wait((due_ms - _clock.monotonic_ms()) / 1_000)
                self._append(tick)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield thread
        finally:
            over.set()
            thread.join()
            self._flush()

    def _append(self, tick: MarketTick, partition: int | None = None) -> None:
        place = -1 if partition is None else partition  # -1: by key
        self._producer.produce(
            self.tick_topic, tick.value, tick.key, place, timestamp=tick.at_ms, on_delivery=self._delivered
        )
        self.sent += 1
        self.garbage += tick.value.startswith(b"garbage")

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._undelivered.append(error)

    def _flush(self) -> None:
        assert self._producer.flush(LIMIT_S) == 0
        assert self._undelivered == []

    # ---- what there is

    def committed(self) -> int:
        """How many ticks the group has committed: the topic has no other records."""
        asked = [TopicPartition(self.tick_topic, number) for number in range(self.partitions)]
        found = _answer(lambda: self._asker.committed(asked, timeout=LIMIT_S))
        return sum(max(0, partition.offset) for partition in found)

    def await_committed(self, count: int | None = None, *, limit_s: float = LIMIT_S) -> float:
        """Until the group has committed so many ticks, or all that were sent; after how many seconds."""
        if count is None:
            ends = self._ends([self.tick_topic], IsolationLevel.READ_UNCOMMITTED)
            assert sum(ends.values()) == self.sent, f"the broker itself does not have what was fed: {ends}"
        wanted = self.sent if count is None else count
        return await_that(lambda: self.committed() >= wanted, f"{wanted} ticks committed", limit_s=limit_s)

    def await_partitions(self) -> None:
        """Until the processes have taken over every partition."""
        wanted = [f"{self.tick_topic}[{number}]: taken over" for number in range(self.partitions)]

        def is_so() -> bool:
            said = "".join(service.text for service in self._services)
            return all(line in said for line in wanted)

        await_that(is_so, "all partitions taken over")

    def candle_count(self) -> int:
        """How far a reader of committed candles sees, in all topics; marks of transactions are counted as well."""
        return sum(self._ends(self._published, IsolationLevel.READ_COMMITTED).values())

    def await_candle(self, count: int) -> float:
        """Until there are more than `count`; after how many seconds."""
        return await_that(lambda: self.candle_count() > count, "a new candle")

    def unsettled(self) -> list[tuple[str, int]]:
        """Where readers of committed records do not see the end: a commit is answered before its marks are written."""
        ends = self._ends(self._published, IsolationLevel.READ_UNCOMMITTED)
        seen = self._ends(self._published, IsolationLevel.READ_COMMITTED)
        return [place for place, end in ends.items() if seen[place] != end]

    def _places(self, names: Sequence[str]) -> list[TopicPartition]:
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        topics = _answer(lambda: admin.list_topics(timeout=LIMIT_S)).topics
        return [TopicPartition(topic, number) for topic in names for number in topics[topic].partitions]

    def _ends(self, names: Sequence[str], isolation: IsolationLevel) -> dict[tuple[str, int], int]:
        # A client that asked before the broker was restarted would ask the leaders it knew then.
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        asked = {place: OffsetSpec.latest() for place in self._places(names)}  # type: ignore[no-untyped-call]

        def ask() -> dict[tuple[str, int], int]:
            answers = admin.list_offsets(asked, isolation_level=isolation, request_timeout=LIMIT_S)
            return {(place.topic, place.partition): answer.result().offset for place, answer in answers.items()}

        return _answer(ask)

    def await_settled(self) -> None:
        """Until every transaction has ended in every topic."""
        await_that(lambda: not self.unsettled(), "all transactions ended")

    # ---- what must hold

    def check(self) -> None:
        """A last run commits what is left and publishes the windows still open; then compare."""
        inside = self.variables | {"STREAMINGCANDLE_KAFKA_BOOTSTRAP_SERVERS": self.bootstrap}
        run_well(inside, "run", "--until-end", "--flush")
        assert self.committed() == self.sent
        self.await_settled()
        found: dict[Key, Candle] = {}
        seen: Counter[tuple[object, ...]] = Counter()
        for message in read_topic(self.bootstrap, *self.candle_topics):
            candle = decode_candle(message.value() or b"")
            key = ((message.key() or b"").decode(), candle.timeframe, candle.window_start_millis)
            found[key] = candle
            seen[key, values(candle)] += 1
        assert [key for key, count in seen.items() if count > 1] == []
        wanted = reference(read_topic(self.bootstrap, self.tick_topic))
        assert [(found.get(key), wanted.get(key)) for key in differences(found, wanted)] == []
        letters = Counter(map(_source_of, read_topic(self.bootstrap, self.letter_topic)))
        assert set(letters.values()) <= {1}
        assert len(letters) == self.garbage, sorted(letters)


def _source_of(letter: Message) -> tuple[object, ...]:
    headers = dict(letter.headers() or [])
    return headers["source.partition"], headers["source.offset"], letter.value()


def reference(messages: Sequence[Message]) -> dict[Key, Candle]:
    """What the reference makes of these ticks: computed once for tests that feed the same."""
    records = records_of(messages)
    digest = hashlib.sha256(repr(records).encode()).hexdigest()
    if digest not in _references:
        _references[digest] = folded(records)
    return _references[digest]
