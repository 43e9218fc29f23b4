"""A live feed: how late candles come when everybody's windows close, what memory stays, how fast it is back."""

import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import process_time
from typing import Self

from confluent_kafka import Consumer, TopicPartition

from benchmarks.feed import TICKS_A_MINUTE, new_producer, tick
from benchmarks.figure import Figure
from benchmarks.job import PARTITIONS, SERVER_JVM
from broker import Broker
from program import PROGRAM, environment, percentile, resident_mb, run_well
from streamingcandle.candles.book import new_book
from streamingcandle.candles.candle import decode_candle
from streamingcandle.candles.commit import Fingerprint
from streamingcandle.clock import SystemClock
from streamingcandle.settings import load_settings
from streamingcandle.state.snapshot import Snapshot

HALF_HOUR_MS = 1_767_327_300_000
"""2026-01-02 09:45 in Kolkata: a window of every timeframe ends."""
GRACE_MS = 1_000
LEAD_S = 40
"""The feed begins so long before it: every instrument has traded."""
TAIL_S = 12
LABELS = (1, 2, 3, 5, 15, 30)
PIECE_MS = 20
BACK_TIMEOUT_S = 120
_clock = SystemClock()


class _Feed:
    """Ticks of a past day at the pace of that day, from a thread of its own."""

    def __init__(self, bootstrap: str, topic: str, instruments: int, *, began_ms: int) -> None:
        """Event times run as the wall clock does, `shift_ms` behind it."""
        self._producer = new_producer(bootstrap)
        self._topic = topic
        self._instruments = instruments
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self.shift_ms = _clock.wall_ms() - began_ms

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._is_over.set()
        self._thread.join()
        self._producer.flush(BACK_TIMEOUT_S)

    def _work(self) -> None:
        began_ms, sent = _clock.wall_ms(), 0
        while not self._is_over.wait(PIECE_MS / 1_000):
            now_ms = _clock.wall_ms()
            due = (now_ms - began_ms) * self._instruments * TICKS_A_MINUTE // 60_000
            event_ms = now_ms - self.shift_ms
            for index in range(sent, due):
                key, value = tick(index, self._instruments, event_ms=event_ms)
                self._producer.produce(self._topic, value, key, timestamp=event_ms)
            self._producer.poll(0)
            sent = due


@contextmanager
def _service(variables: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([PROGRAM, "run"], env=dict(variables), stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def bench_close(_ticks: int, runs: int) -> Iterator[Figure]:
    """Window end + grace to the hand of a read_committed consumer, where all six timeframes close at once.

    One broker for all runs: a server that has just started runs its code for the first time.
    """
    with tempfile.TemporaryDirectory() as folder, Broker(Path(folder, "broker"), jvm_flags=SERVER_JVM) as broker:
        for instruments in (1_000, 10_000):
            delays: list[list[float]] = []
            memory: list[float] = []
            for run in range(runs):
                prefix = f"bench-{instruments}-{run}"
                found, resident_mb = _half_hour(prefix, Path(folder, prefix), broker.bootstrap, instruments)
                delays.append(found)
                memory.append(resident_mb)
            name = f"close delay, everybody's 30m window, {instruments:,} instruments ({len(delays[0]):,} candles)"
            for percent, wanted in ((50, ""), (99, "250" if instruments == 10_000 else ""), (100, "")):
                yield Figure(f"{name}: p{percent}", [percentile(run, percent) for run in delays], "ms", wanted)
            wanted = "200" if instruments == 10_000 else ""
            yield Figure(f"resident memory, live, {instruments:,} instruments", memory, "MB", wanted)


def _half_hour(prefix: str, folder: Path, bootstrap: str, instruments: int) -> tuple[list[float], float]:
    variables = environment(prefix, folder, bootstrap)
    run_well(variables, "topics", "ensure", "--partitions", str(PARTITIONS))
    reader = _reader(bootstrap)
    reader.assign([TopicPartition(f"{prefix}-{n}-min-candle", p, 0) for n in LABELS for p in range(PARTITIONS)])
    seen: list[tuple[int, bytes]] = []
    with (
        _service(variables) as process,
        _Feed(bootstrap, f"{prefix}-ticks", instruments, began_ms=HALF_HOUR_MS - LEAD_S * 1_000) as feed,
    ):
        until_ms = _clock.monotonic_ms() + (LEAD_S + TAIL_S) * 1_000
        while _clock.monotonic_ms() < until_ms:
            messages = reader.consume(10_000, 0.01)
            at_ms = _clock.wall_ms()
            # Looked at afterwards: the service and the broker need the two cores now.
            seen += [(at_ms, message.value() or b"") for message in messages]
        memory_mb = resident_mb(process.pid)
    reader.close()
    candles = [(at_ms, decode_candle(value)) for at_ms, value in seen]
    delays = [
        float(at_ms - feed.shift_ms - HALF_HOUR_MS - GRACE_MS)
        for at_ms, candle in candles
        if candle.window_end_millis == HALF_HOUR_MS and not candle.revised
    ]
    wanted = instruments * len(LABELS)
    if len(delays) != wanted:
        raise RuntimeError(f"{len(delays)} candles instead of {wanted}")
    return sorted(delays), memory_mb


def bench_restore(_ticks: int, runs: int) -> Iterator[Figure]:
    """Kill -9 of 10,000 instruments in mid-session, then to the first new candle of one second."""
    instruments = 10_000
    seconds = "bench-1-sec-candle"
    with tempfile.TemporaryDirectory() as folder, Broker(Path(folder, "broker"), jvm_flags=SERVER_JVM) as broker:
        variables = environment("bench", Path(folder), broker.bootstrap) | {
            "STREAMINGCANDLE_TIMEFRAMES": "1s,1m,2m,3m,5m,15m,30m",
            "STREAMINGCANDLE_CANDLE_TOPIC_SECONDS": "bench-{n}-sec-candle",
            "STREAMINGCANDLE_SNAPSHOT_INTERVAL": "10s",
        }
        run_well(variables, "topics", "ensure", "--partitions", str(PARTITIONS))
        with _Feed(broker.bootstrap, "bench-ticks", instruments, began_ms=HALF_HOUR_MS - LEAD_S * 1_000):
            for what, wanted in (("local state", "3"), ("the topic alone", "5")):
                times = []
                for _ in range(runs):
                    with _service(variables):
                        _clock.sleep_ms(LEAD_S * 1_000)
                    if what != "local state":
                        shutil.rmtree(variables["STREAMINGCANDLE_STATE_DIR"])
                    times.append(_back_s(variables, broker.bootstrap, seconds))
                yield Figure(
                    f"kill -9 to the first new candle, {instruments:,} instruments, {what}", times, "s", wanted
                )
    yield from _snapshot_cost(instruments, runs)


def _back_s(variables: Mapping[str, str], bootstrap: str, topic: str) -> float:
    reader = _reader(bootstrap)
    places = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    for place in places:
        place.offset = reader.get_watermark_offsets(place)[1]
    reader.assign(places)
    began_ms = _clock.monotonic_ms()
    with _service(variables):
        while reader.poll(0.01) is None:
            if _clock.monotonic_ms() > began_ms + BACK_TIMEOUT_S * 1_000:
                raise RuntimeError(f"no candle within {BACK_TIMEOUT_S} s")
        took_s = (_clock.monotonic_ms() - began_ms) / 1_000
    reader.close()
    return took_s


def _snapshot_cost(instruments: int, runs: int) -> Iterator[Figure]:
    """What a snapshot of a partition takes from the loop: dump, pack, compress."""
    book = new_book(load_settings({}, {}).rules(), partition=0)
    count = instruments // PARTITIONS
    for minute in range(6):
        event_ms = HALF_HOUR_MS - (6 - minute) * 60_000
        values = [tick(index, count, event_ms=event_ms)[1] for index in range(count)]
        book.fold(values, [event_ms] * count, list(range(minute * count, (minute + 1) * count)))
    times = []
    size = 0
    for _ in range(runs):
        began = process_time()
        data = Snapshot(
            partition=0,
            offset=6 * count,
            rules="",
            fingerprint=Fingerprint(0, 0, 0, ""),
            written_ms=0,
            book=book.dump(b""),
        ).encode()
        times.append((process_time() - began) * 1_000)
        size = len(data)
    yield Figure(f"snapshot of a partition of {count:,} instruments, {size / 1_000:,.0f} kB", times, "ms CPU")


def _reader(bootstrap: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "reader",
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 10,
        }
    )
