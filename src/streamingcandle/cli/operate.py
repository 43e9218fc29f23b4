"""`run` and `topics`."""

import logging
import os
from collections.abc import Callable

import click
import msgspec

from streamingcandle import pipeline
from streamingcandle.cli.options import as_json, examples
from streamingcandle.cli.progress import restore_progress
from streamingcandle.cli.workers import run_as_worker, run_workers
from streamingcandle.cli.world import World, stop_on_signals
from streamingcandle.embedded.store import EmbeddedStore
from streamingcandle.errors import MissingTopicError
from streamingcandle.interfaces import Log
from streamingcandle.kafka.log import KafkaLog
from streamingcandle.kafka.neighbours import CURE, neighbours
from streamingcandle.kafka.snapshots import CONFIG as SNAPSHOTS_CONFIG
from streamingcandle.kafka.topics import ensure_topics, partition_counts
from streamingcandle.ops import memory
from streamingcandle.ops.systemd import Supervisor
from streamingcandle.ops.turn import Turn, TurnFile, Watcher, progress_of
from streamingcandle.partition import PathSettings

logger = logging.getLogger(__name__)

TOPIC_PROBE_MS = 250
HOLD_MS = 1_000
"""How often the place among the processes of this host is seen to."""
GIVE_BACK_MS = 60_000
"""How often memory that is free goes back to the system."""


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
    supervisor = Supervisor(os.environ)
    if workers is not None:
        if instance is not None or world.settings.instance_number is not None:
            raise click.UsageError("--instance goes without --workers: each worker is an instance of its own")
        flags = {"--until-end": until_end, "--flush": flush, "--adopt": adopt}
        options = [name for name, is_set in flags.items() if is_set]
        return run_workers(world, workers, options, is_until_end=until_end, supervisor=supervisor)

    def run(is_stopping: Callable[[], bool], watcher: Watcher) -> None:
        path = world.settings.path(is_until_end=until_end, is_flush=flush, is_adopting=adopt)
        number = world.settings.instance_number if instance is None else instance
        _run(world, number, path, is_stopping, watcher)

    if worker is not None:
        return run_as_worker(world, *worker, run)
    is_asked = stop_on_signals()

    def is_stopping() -> bool:
        if is_asked():
            supervisor.stopping()
        return is_asked()

    try:
        run(is_stopping, supervisor)
    finally:
        supervisor.stopping()
    return 0


def _run(
    world: World,
    instance: int | None,
    path: PathSettings,
    is_stopping: Callable[[], bool],
    watcher: Watcher,
) -> None:
    memory.settle()
    turn = Turn(world.clock)
    turn.watch(watcher)

    def is_waiting_over() -> bool:
        turn.waited()
        return is_stopping()

    log, claimed = world.open_log(instance, is_waiting_over)
    if claimed.path is not None:
        turn.watch(TurnFile(claimed.path))
    hold_at_ms = give_back_at_ms = 0

    def turned(path: pipeline.Path) -> None:
        if turn.is_due:
            is_shared = log.has_share if isinstance(log, KafkaLog) else bool(path.partitions)
            ends = log.known_ends(path.partitions)
            held = path.partitions.values()
            turn.turned(progress_of(held, ends, wall_ms=world.clock.wall_ms(), is_shared=is_shared))

    def is_over() -> bool:
        nonlocal hold_at_ms, give_back_at_ms
        now_ms = world.clock.monotonic_ms()
        if now_ms >= hold_at_ms:
            hold_at_ms = now_ms + HOLD_MS
            claimed.hold()
        if now_ms >= give_back_at_ms:
            give_back_at_ms = now_ms + GIVE_BACK_MS
            memory.give_back()
        return is_stopping()

    try:
        _await_topics(world, log, is_waiting_over)
        _tell_neighbours(world, log)
        snapshots = world.open_snapshots(claimed, log)
        with restore_progress(world.clock, is_alone=world.worker is None) as tell:
            pipeline.run(log, world.clock, world.settings.rules(), path, is_over, snapshots, tell, turned)
        for store in snapshots:
            store.close()
    finally:
        log.close()
        claimed.release()


def _tell_neighbours(world: World, log: Log) -> None:
    """Say once, by one of several workers, who makes the same candles."""
    if world.settings.bootstrap_servers is None or world.worker not in (None, 1):
        return
    candles = world.settings.topics().candles
    for neighbour in neighbours(world.kafka(), candles, log.partitions(), world.clock):
        logger.error("%s; %s", neighbour, CURE)


def _await_topics(world: World, log: Log, is_stopping: Callable[[], bool]) -> None:
    """Return when every topic is there; MissingTopicError after the setting `wait`."""
    until_ms = world.clock.monotonic_ms() + world.settings.duration_ms("wait")
    topics = world.settings.topics()
    names = [*topics.candles, topics.dead_letters, topics.late]
    is_told = False
    while not is_stopping():
        try:
            log.partitions()
            log.check_topics(names)
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
    names = [topics.ticks, *topics.candles, topics.dead_letters, topics.late]
    # The embedded log needs none: its states lie on the same disk.
    return names if world.settings.bootstrap_servers is None else [*names, world.snapshots_topic]


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
    own = {world.snapshots_topic: SNAPSHOTS_CONFIG}
    for name, state in ensure_topics(world.kafka(), names, partitions=count, replication=replication, own=own):
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


COMMANDS = (run_command, topics_group)
