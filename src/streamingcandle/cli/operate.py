"""`run`, `topics`, `demo`."""

import logging
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.live import Live
from rich.table import Table

from streamingcandle import pipeline
from streamingcandle.candles.candle import Candle, decode_candle
from streamingcandle.cli.options import as_json, examples
from streamingcandle.cli.progress import restore_progress
from streamingcandle.cli.workers import run_as_worker, run_workers
from streamingcandle.cli.world import World, stop_on_signals
from streamingcandle.embedded.log import EmbeddedLog
from streamingcandle.embedded.store import EmbeddedStore
from streamingcandle.errors import MissingTopicError, OutsideError
from streamingcandle.interfaces import Log
from streamingcandle.kafka.topics import ensure_topics, partition_counts
from streamingcandle.ops import memory
from streamingcandle.partition import PathSettings
from streamingcandle.simulation.market import Market, day_number, session_open_ms, ticks

logger = logging.getLogger(__name__)

TOPIC_PROBE_MS = 250
HOLD_MS = 1_000
"""How often the place among the processes of this host is seen to."""
DEMO_INSTRUMENTS = 40
DEMO_DAY_MS = 1_767_312_000_000
"""2026-01-02, a Friday on which NSE and MCX traded."""
DEMO_SPEED = 120
"""Market seconds a second."""
DEMO_RATE = 20.0
"""Ticks a market second."""


@click.command("run", epilog=examples("run", "run --until-end --flush", "run --workers 4"))
@click.option("--until-end", is_flag=True, help="Stop when everything now in the log is committed.")
@click.option("--flush", is_flag=True, help="With --until-end: also publish the windows still open.")
@click.option("--adopt", is_flag=True, help="Go on from offsets that another program committed for this group.")
@click.option("--instance", type=click.IntRange(0, 63), help="Be this instance of the host; refused while another is.")
@click.option(
    "--workers", type=click.IntRange(1, 64), help="So many processes that share the partitions, kept running."
)
@click.option("--worker", type=int, nargs=2, hidden=True, help="Number and link, given by the parent of workers.")
@click.pass_obj
def run_command(
    world: World,
    *,
    until_end: bool,
    flush: bool,
    adopt: bool,
    instance: int | None,
    workers: int | None,
    worker: tuple[int, int] | None,
) -> int:
    """Make candles: ticks in, candles out, each exactly once.

    Goes on until SIGTERM, through lost brokers and rebalances.
    """
    if flush and not until_end:
        raise click.UsageError("--flush goes with --until-end")
    if workers is not None:
        if instance is not None:
            raise click.UsageError("--instance goes without --workers: each worker is an instance of its own")
        flags = {"--until-end": until_end, "--flush": flush, "--adopt": adopt}
        return run_workers(world, workers, [name for name, is_set in flags.items() if is_set], is_until_end=until_end)

    def run(is_stopping: Callable[[], bool], turned: Callable[[Log], None]) -> None:
        path = world.settings.path(is_until_end=until_end, is_flush=flush, is_adopting=adopt)
        _run(world, instance, path, is_stopping, turned)

    if worker is not None:
        return run_as_worker(world, *worker, run)
    run(stop_on_signals(), lambda _: None)
    return 0


def _run(
    world: World,
    instance: int | None,
    path: PathSettings,
    is_stopping: Callable[[], bool],
    turned: Callable[[Log], None],
) -> None:
    memory.settle()
    log, claimed = world.open_log(instance, is_stopping)
    next_ms = 0

    def is_over() -> bool:
        nonlocal next_ms
        turned(log)
        if (now_ms := world.clock.monotonic_ms()) >= next_ms:
            next_ms = now_ms + HOLD_MS
            claimed.hold()
        return is_stopping()

    try:
        _await_topic(world, log, is_stopping)
        snapshots = world.open_snapshots(claimed, log)
        with restore_progress(world.clock, is_alone=world.worker is None) as tell:
            pipeline.run(log, world.clock, world.settings.rules(), path, is_over, snapshots, tell)
        for store in snapshots:
            store.close()
    finally:
        log.close()
        claimed.release()


def _await_topic(world: World, log: Log, is_stopping: Callable[[], bool]) -> None:
    """Return when the tick topic is there; MissingTopicError after the setting `wait`."""
    until_ms = world.clock.monotonic_ms() + world.settings.duration_ms("wait")
    is_told = False
    while not is_stopping():
        try:
            log.partitions()
        except MissingTopicError as error:
            if world.clock.monotonic_ms() >= until_ms:
                raise
            if not is_told:
                logger.warning("waiting up to %s: %s", world.settings.text("wait"), error)
                is_told = True
            world.clock.sleep_ms(TOPIC_PROBE_MS)
        else:
            return


@click.group("topics")
def topics_group() -> None:
    """The topics this service reads and writes."""


def _names(world: World) -> list[str]:
    topics = world.settings.topics()
    return [topics.ticks, *topics.candles, topics.dead_letters, topics.late]


@topics_group.command("ensure", epilog=examples("topics ensure", "topics ensure --partitions 12 --replication 3"))
@click.option(
    "--partitions", type=click.IntRange(1, 10_000), help="For topics made now (default: setting `partitions`)."
)
@click.option("--replication", type=click.IntRange(-1, 10), default=-1, help="Default: the broker's.")
@click.pass_obj
def ensure_command(world: World, partitions: int | None, replication: int) -> None:
    """Make what is missing; what is there stays as it is."""
    count = partitions or int(world.settings.text("partitions"))
    names = _names(world)
    if world.settings.bootstrap_servers is None:
        store = EmbeddedStore(world.store_path)
        there = dict(store.topics())
        for name in names:
            store.ensure_topic(name, count)
            click.echo(f"{name}\t{'there' if name in there else 'made'}")
        return
    for name, state in ensure_topics(world.kafka(), names, partitions=count, replication=replication):
        click.echo(f"{name}\t{state}")


@topics_group.command("describe", epilog=examples("topics describe", "topics describe --json"))
@as_json
@click.pass_obj
def describe_command(world: World, *, is_json: bool) -> None:
    """Each topic and its partitions; exit 1 when one is missing."""
    is_embedded = world.settings.bootstrap_servers is None
    there = dict(world.embedded_store().topics()) if is_embedded else partition_counts(world.kafka())
    names = _names(world)
    if is_json:
        rows = [{"topic": name, "partitions": there.get(name)} for name in names]
        click.echo(msgspec.json.encode({"topics": rows}))
    else:
        for name in names:
            click.echo(f"{name}\t{there.get(name, 'missing')}")
    if any(name not in there for name in names):
        click.get_current_context().exit(1)


class _Board:
    """The latest candle of each instrument in one timeframe, and counts of all."""

    def __init__(self, topics: tuple[str, ...]) -> None:
        self.topics = topics
        self.latest: dict[str, Candle] = {}
        self.counts: Counter[str] = Counter()
        self._positions = dict.fromkeys(topics, 0)

    def read(self, store: EmbeddedStore) -> None:
        for topic in self.topics:
            if topic not in dict(store.topics()):
                continue
            for record in store.read(topic, 0, self._positions[topic], 100_000):
                self._positions[topic] = record.offset + 1
                candle = decode_candle(record.value or b"")
                self.counts[candle.timeframe] += 1
                self.counts["revised"] += candle.revised
                if topic == self.topics[0]:
                    self.latest[candle.company_name or candle.scrip_code] = candle

    def table(self, rows_max: int) -> Table:
        summary = ", ".join(f"{count} {name}" for name, count in self.counts.items())
        table = Table(title="1m candles of a simulated day", caption=f"candles so far: {summary or 'none yet'}")
        for column in ("instrument", "window", "open", "high", "low", "close", "volume"):
            table.add_column(column, justify="left" if column in ("instrument", "window") else "right", no_wrap=True)
        for name, candle in sorted(self.latest.items())[: max(1, rows_max)]:
            colour = "green" if candle.close >= candle.open else "red"
            prices = [f"{price:.2f}" for price in (candle.open, candle.high, candle.low, candle.close)]
            window = candle.human_readable_start_time[11:16]
            table.add_row(name, window, *prices, str(candle.volume), style=colour)
        return table


@click.command("demo", epilog=examples("demo", "demo --seconds 60"))
@click.option("--seconds", type=click.FloatRange(1, 3_600), default=20.0, show_default=True, help="How long.")
@click.pass_obj
def demo_command(world: World, seconds: float) -> None:
    """A simulated market to candles, live on screen.

    A past day, played fast, in a log of its own: nothing to configure, nothing left behind.
    """
    world.settings.rules()
    is_stopping = stop_on_signals()
    console = Console()
    with tempfile.TemporaryDirectory(prefix="streamingcandle-demo-") as folder:
        path = Path(folder) / "log.sqlite3"
        over = threading.Event()
        failures: list[BaseException] = []
        board = _Board(world.settings.topics().candles)
        store = EmbeddedStore(path)
        store.ensure_topic(world.settings.text("tick_topic"), 1)

        def aggregate() -> None:
            try:
                log = EmbeddedLog(
                    EmbeddedStore(path), group="demo", topic=world.settings.text("tick_topic"), clock=world.clock
                )
                settings = msgspec.structs.replace(world.settings.path(), commit_interval_ms=250)
                pipeline.run(log, world.clock, world.settings.rules(), settings, over.is_set)
                log.close()
            except BaseException as error:  # noqa: BLE001 - told by the thread that waits for it
                failures.append(error)

        worker = threading.Thread(target=aggregate, name="candles")
        worker.start()
        try:
            with Live(console=console, auto_refresh=False, transient=not console.is_terminal) as live:
                for _ in _play(world, store, seconds):
                    board.read(store)
                    if console.is_terminal:
                        live.update(board.table(console.height - 8), refresh=True)
                    if is_stopping() or failures:
                        break
        finally:
            over.set()
            worker.join()
        board.read(store)
        store.close()
    if failures:
        raise OutsideError(f"demo: {failures[0]}") from failures[0]
    console.print(board.table(DEMO_INSTRUMENTS))


def _play(world: World, store: EmbeddedStore, seconds: float) -> Iterator[None]:
    """Append ticks as market time passes, yielding about ten times a second."""
    calendar = world.settings.rules().calendar
    start_ms = session_open_ms(calendar, day_number(DEMO_DAY_MS))
    feed = ticks(Market(DEMO_INSTRUMENTS, seed=1), start_ms=start_ms, rate_per_s=DEMO_RATE)
    began_ms = world.clock.monotonic_ms()
    while (passed_ms := world.clock.monotonic_ms() - began_ms) < seconds * 1_000:
        now_ms = start_ms + passed_ms * DEMO_SPEED
        batch = []
        for tick in feed:
            batch.append((tick.key, tick.value, tick.at_ms, ()))
            if tick.at_ms >= now_ms:
                break
        store.append(world.settings.text("tick_topic"), batch)
        yield
        world.clock.sleep_ms(100)


COMMANDS = (run_command, topics_group, demo_command)
