"""`watch` and `demo`: candles as they form, on a terminal or as lines."""

import logging
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import click
import msgspec

from streamingcandle import pipeline
from streamingcandle.candles.candle import Candle, decode_candle
from streamingcandle.candles.instrument import parse_instrument
from streamingcandle.cli.options import examples
from streamingcandle.cli.world import World, stop_on_signals
from streamingcandle.embedded.log import EmbeddedLog
from streamingcandle.embedded.store import EmbeddedStore, NewRecord
from streamingcandle.embedded.tail import EmbeddedTail
from streamingcandle.errors import OutsideError
from streamingcandle.ops.watch import Watch
from streamingcandle.simulation.market import Market, day_number, first_session, mishaps, ticks

DEMO_INSTRUMENTS = 40
DEMO_DAY_MS = 1_767_312_000_000
"""2026-01-02, a Friday on which NSE and MCX traded."""
DEMO_SPEED = 60
"""Market seconds a second: a candle of one minute each second, NSE's day in six minutes."""
DEMO_RATE = 20.0
"""Ticks a market second: a day of them takes 300 MB of the temporary folder."""
DEMO_SECONDS = 20.0
"""Without a terminal, where nobody presses q."""
FEED_MS = 50
"""How often the market's ticks are appended."""
READ_MAX = 100_000


@click.command("watch", epilog=examples("watch", "watch N:C:2885 M:D:458305 --timeframe 5m", "watch N:C:2885 --json"))
@click.argument("instruments", nargs=-1, metavar="[INSTRUMENT]...")
@click.option("--timeframe", metavar="TIMEFRAME", show_default="the shortest", help="One of those that are run.")
@click.option(
    "--json",
    "is_json",
    is_flag=True,
    help="JSON lines, on a terminal too: a candle's fields, its instrument and state.",
)
@click.pass_obj
def watch_command(world: World, instruments: Sequence[str], timeframe: str | None, *, is_json: bool) -> None:
    """Candles as they form, live: of all instruments, or of each INSTRUMENT like N:C:2885.

    It folds the tick topic itself, beside the service: it joins no group, commits nothing and keeps nothing.
    Without a terminal: a line for each candle that changed, until it is stopped.
    """
    from streamingcandle.cli import live, terminal  # noqa: PLC0415 - what draws is not needed by other commands

    chosen = 0 if timeframe is None else world.timeframe(timeframe)
    named = [parse_instrument(text) for text in instruments] or None
    shown = live.Shown(title="streamingcandle", rules=world.settings.rules(), chosen=chosen, instruments=named)
    is_stopping = stop_on_signals()
    log = world.open_tail(is_stopping)
    try:
        log.partitions()  # waits for a broker as `run` does, and tells of a missing topic first
        watch = Watch(log, world.clock, shown.rules, world.settings.path(), world.found_snapshots(), named)
        if terminal.is_usable() and not is_json:
            live.show_table(watch, shown, world.clock, is_stopping=is_stopping)
        else:
            live.tell_lines(watch, shown, world.clock, is_stopping=is_stopping, is_json=is_json)
    finally:
        log.close()


class _Counts:
    """How many candles the service has published."""

    def __init__(self, topics: Sequence[str]) -> None:
        self.latest: dict[str, Candle] = {}
        """Of each instrument, in the first topic."""
        self._topics = topics
        self._counts: Counter[str] = Counter()
        self._revised = 0

    def read(self, store: EmbeddedStore) -> None:
        there = dict(store.topics())
        for topic in self._topics:
            position = 0
            while topic in there and (records := store.read(topic, 0, position, READ_MAX)):
                position = records[-1].offset + 1
                for candle in (decode_candle(record.value or b"") for record in records):
                    self._counts[candle.timeframe] += 1
                    self._revised += candle.revised
                    if topic == self._topics[0]:
                        self.latest[candle.company_name or candle.scrip_code] = candle

    def __str__(self) -> str:
        said = ", ".join(f"{count:,} {name}" for name, count in self._counts.items())
        return f"candles so far: {said}, {self._revised:,} revised" if said else "candles so far: none yet"


class _Demo:
    """A market and a service in threads of their own, on a log in `folder`."""

    def __init__(self, world: World, folder: str) -> None:
        self.path = Path(folder) / "log.sqlite3"
        self.topic = world.settings.text("tick_topic")
        self.is_day_over = False
        self._world = world
        self._over = threading.Event()
        self._failures: list[BaseException] = []
        with closing(EmbeddedStore(self.path)) as store:
            store.ensure_topic(self.topic, 1)
        work = {"market": self._feed, "candles": self._aggregate}
        self._threads = [threading.Thread(target=self._run, args=[do], name=name) for name, do in work.items()]
        for thread in self._threads:
            thread.start()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - told by the thread that waits for it
            self._failures.append(error)

    def _aggregate(self) -> None:
        clock, settings = self._world.clock, self._world.settings
        log = EmbeddedLog(EmbeddedStore(self.path), group="demo", topic=self.topic, clock=clock)
        # The mishaps are the demo's own, and its summary tells of them.
        for name in ("streamingcandle.report", "streamingcandle.account"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        with closing(log):
            path = msgspec.structs.replace(settings.path(), commit_interval_ms=250)
            pipeline.run(log, clock, settings.rules(), path, self._over.is_set)

    def _feed(self) -> None:
        """Append ticks as market time passes, until the exchange closes."""
        calendar, clock = self._world.settings.rules().calendar, self._world.clock
        open_ms, close_ms = first_session(calendar, day_number(DEMO_DAY_MS))
        feed = mishaps(ticks(Market(DEMO_INSTRUMENTS, seed=1), start_ms=open_ms, rate_per_s=DEMO_RATE), seed=1)
        began_ms, now_ms = clock.monotonic_ms(), open_ms
        with closing(EmbeddedStore(self.path)) as store:
            while not self._over.is_set() and now_ms < close_ms:
                now_ms = open_ms + (clock.monotonic_ms() - began_ms) * DEMO_SPEED
                batch: list[NewRecord] = []
                for tick in feed:
                    batch.append((tick.key, tick.value, tick.at_ms, ()))
                    if tick.at_ms >= now_ms:
                        break
                store.append(self.topic, batch)
                clock.sleep_ms(FEED_MS)
        self.is_day_over = now_ms >= close_ms

    @property
    def has_failed(self) -> bool:
        """Whether there is no use in going on."""
        return bool(self._failures)

    def stop(self) -> None:
        """The service publishes what is due first."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def check(self) -> None:
        """OutsideError tells of what failed."""
        if self._failures:
            raise OutsideError(f"demo: {self._failures[0]}") from self._failures[0]


@click.command("demo", epilog=examples("demo", "demo --seconds 60"))
@click.option(
    "--seconds",
    type=click.FloatRange(1, 3_600),
    show_default="until q on a terminal, else 20",
    help="How long.",
)
@click.pass_obj
def demo_command(world: World, seconds: float | None) -> None:
    """A simulated market to candles, live on screen.

    A past day of forty instruments, played fast, late ticks and broken records among them. In a log of its own:
    nothing to configure, nothing left behind.
    """
    from streamingcandle.cli import live, terminal  # noqa: PLC0415 - what draws is not needed by other commands

    shown = live.Shown(title="streamingcandle demo", rules=world.settings.rules(), chosen=0)
    is_stopping = stop_on_signals()
    clock, is_drawn = world.clock, terminal.is_usable()
    limit_s = seconds or (None if is_drawn else DEMO_SECONDS)
    until_ms = None if limit_s is None else clock.monotonic_ms() + limit_s * 1_000
    counts = _Counts(world.settings.topics().candles)
    with tempfile.TemporaryDirectory(prefix="streamingcandle-demo-") as folder:
        demo = _Demo(world, folder)

        def is_over() -> bool:
            return is_stopping() or demo.has_failed or (until_ms is not None and clock.monotonic_ms() >= until_ms)

        try:
            if is_drawn:
                tail = EmbeddedTail(EmbeddedStore(demo.path), group="demo", topic=demo.topic, clock=clock)
                with closing(tail):
                    watch = Watch(tail, clock, shown.rules, world.settings.path(), ())
                    end = "the market has closed · q quit"
                    live.show_table(
                        watch, shown, clock, is_stopping=is_over, remark=lambda: end if demo.is_day_over else ""
                    )
            while not is_drawn and not is_over():
                clock.sleep_ms(FEED_MS)
        finally:
            demo.stop()
        with closing(EmbeddedStore(demo.path)) as store:
            counts.read(store)
    demo.check()
    if not is_drawn:
        _print_latest(counts)
    click.echo(counts)


def _print_latest(counts: _Counts) -> None:
    click.echo(f"{'instrument':<20} {'window':<6} {'open':>10} {'high':>10} {'low':>10} {'close':>10} {'volume':>10}")
    for name, candle in sorted(counts.latest.items()):
        prices = " ".join(f"{price:>10.2f}" for price in (candle.open, candle.high, candle.low, candle.close))
        click.echo(f"{name:<20} {candle.human_readable_start_time[11:16]:<6} {prices} {candle.volume:>10}")


COMMANDS = (demo_command, watch_command)
