"""The world of the simulated log: a pretended broker, here in real time and for any thread."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from threading import RLock

from contract.world import Member, Published, Tick
from streamingcandle.candles.murmur2 import partition_of
from streamingcandle.clock import SystemClock
from streamingcandle.interfaces import Log
from streamingcandle.simulation.broker import Broker, Upstream
from streamingcandle.simulation.log import Fate, SimulatedLog

STEP_MS = 2
RECORDS_MAX = 10_000
_numbers = count(1)


class RealHost:
    """Implements `simulation.log.Host`: a process that nothing happens to."""

    identity = "i0"
    producer = "i0"

    def __init__(self, clock: SystemClock) -> None:
        self._clock = clock

    def reach(self, point: str) -> None:
        pass

    def wait(self, duration_ms: int, is_over: Callable[[], bool]) -> None:
        until_ms = self._clock.monotonic_ms() + duration_ms
        while not is_over() and (left_ms := until_ms - self._clock.monotonic_ms()) > 0:
            self._clock.sleep_ms(min(STEP_MS, left_ms))

    def fate(self) -> Fate:
        return "lands"

    def late_ms(self) -> int:
        return 0

    def is_arrived(self) -> bool:
        return False

    def is_away(self) -> bool:
        return False

    def records_max(self) -> int:
        return RECORDS_MAX


class SimulatedWorld:
    """Implements `LogWorld`."""

    topic = "ticks"
    candle_topic = "1-min-candle"
    letter_topic = "dead-letters"
    counts_open = True

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        self._clock = SystemClock()
        self._broker = Broker(partitions, self._clock.wall_ms, f"topic-{next(_numbers)}")
        self._lock = RLock()
        self._logs: list[Log] = []
        self._spread = count()

    def append(self, ticks: Iterable[Tick]) -> None:
        """See `LogWorld`."""
        self._append(ticks, {})

    def append_aborted(self, ticks: Iterable[Tick]) -> None:
        """See `LogWorld`."""
        with self._open(ticks, "aborted"):
            pass

    @contextmanager
    def append_open(self, ticks: Iterable[Tick]) -> Iterator[None]:
        """See `LogWorld`."""
        with self._open(ticks, "committed"):
            yield

    @contextmanager
    def _open(self, ticks: Iterable[Tick], state: str) -> Iterator[None]:
        written = list(ticks)
        numbers = {self._partition(tick) for tick in written}
        upstreams = {number: self._broker.ticks[number].begin() for number in numbers}
        self._append(written, upstreams)
        yield
        for number, upstream in upstreams.items():
            self._broker.ticks[number].decide(upstream, state, appended_ms=self._clock.wall_ms())

    def _partition(self, tick: Tick) -> int:
        if tick.key is None:
            return next(self._spread) % self.partitions
        return partition_of(tick.key, self.partitions)

    def _append(self, ticks: Iterable[Tick], upstreams: dict[int, Upstream]) -> None:
        with self._lock:
            for tick in ticks:
                number = self._partition(tick)
                self._broker.ticks[number].append(
                    tick.key,
                    tick.value,
                    timestamp_ms=tick.timestamp_ms,
                    appended_ms=self._clock.wall_ms(),
                    headers=tick.headers,
                    upstream=upstreams.get(number),
                )

    def open_log(self) -> Log:
        """See `LogWorld`."""
        log: Log = SimulatedLog(self._broker, RealHost(self._clock))
        self._logs.append(log)
        return log

    def contend(self, first: Member) -> None:
        """See `LogWorld`; here `first` is fenced and the second goes on."""
        Member(self.open_log()).join()
        first.poll_until(lambda: False)

    def read_topic(self, name: str) -> list[Published]:
        """See `LogWorld`."""
        sheets = self._broker.read_topic(name)
        return [
            Published(number, record.key, record.value, record.headers)
            for number, sheet in enumerate(sheets)
            for record in sheet
        ]

    def close(self) -> None:
        """See `LogWorld`."""
        for log in self._logs:
            log.close()
