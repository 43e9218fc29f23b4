"""`run` and `topics`."""

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import TypeVar

import click
import msgspec

from streamingcandle import pipeline
from streamingcandle.aside import begin
from streamingcandle.cli.doctor import deployment
from streamingcandle.cli.options import as_json, examples
from streamingcandle.cli.progress import restore_progress
from streamingcandle.cli.workers import check_workers, run_as_worker, run_workers
from streamingcandle.cli.world import World, stop_on_signals
from streamingcandle.embedded.store import EmbeddedStore
from streamingcandle.errors import MissingTopicError
from streamingcandle.interfaces import Clock, Log
from streamingcandle.kafka.exposure import exposures
from streamingcandle.kafka.log import KafkaLog
from streamingcandle.kafka.neighbours import CURE, neighbours
from streamingcandle.kafka.snapshots import CONFIG as SNAPSHOTS_CONFIG
from streamingcandle.kafka.topics import ensure_topics, partition_counts
from streamingcandle.ops import memory
from streamingcandle.ops.doctor.at_start import look
from streamingcandle.ops.status import Status
from streamingcandle.ops.systemd import Supervisor
from streamingcandle.ops.turn import Progress, Turn, TurnFile, Watcher, progress_of
from streamingcandle.partition import PathSettings
from streamingcandle.state.background import CLOSE_TIMEOUT_S

logger = logging.getLogger(__name__)
Answer = TypeVar("Answer")

TOPIC_PROBE_MS = 250
HOLD_MS = 1_000
"""How often the place among the processes of this host is seen to."""
END_S = 10.0
"""So long a run that ends by itself waits for the last snapshots."""
LOOK_S = 3.0
"""A run that ends sooner waits so long for what is to be said of the tick topic."""
GIVE_BACK_MS = 60_000
"""How often memory that is free goes back to the system."""


PATH_OPTIONS = {
    "until_end": "is_until_end",
    "flush": "is_flush",
    "adopt": "is_adopting",
    "publish_again": "is_publishing_again",
    "reset_clock": "is_clock_reset",
}
"""What each flag of `run` is to the path."""


@click.command("run", epilog=examples("run", "run --until-end --flush", "run --workers 4"))
@click.option("--until-end", is_flag=True, help="Stop when everything now in the log is committed.")
@click.option("--flush", is_flag=True, help="With --until-end: also publish the windows still open.")
@click.option("--adopt", is_flag=True, help="Go on from another program's offsets, or from the newest snapshot.")
@click.option("--publish-again", is_flag=True, help="Begin at `start` although candles are out and the offsets lost.")
@click.option("--reset-clock", is_flag=True, help="Bring a feed clock back that false times lifted ahead of the feed.")
@click.option("--instance", type=click.IntRange(0, 63), help="Be this instance of the host; refused while another is.")
@click.option(
    "--workers", type=click.IntRange(1, 64), help="So many processes that share the partitions, kept running."
)
@click.option("--worker", type=int, nargs=2, hidden=True, help="Number and link, given by the parent of workers.")
@click.pass_obj
def run_command(
    world: World,
    /,
    *,
    instance: int | None,
    workers: int | None,
    worker: tuple[int, int] | None,
    **flags: bool,
) -> int:
    """Make candles: ticks in, candles out, each exactly once.

    Goes on until SIGTERM, through lost brokers and rebalances.
    """
    if flags["flush"] and not flags["until_end"]:
        raise click.UsageError("--flush goes with --until-end")
    supervisor = Supervisor(os.environ)
    if workers is not None:
        if instance is not None or world.settings.instance_number is not None:
            raise click.UsageError("--instance goes without --workers: each worker is an instance of its own")
        options = [f"--{name.replace('_', '-')}" for name, is_set in flags.items() if is_set]
        check_workers(world)
        _say_where(world)
        return run_workers(world, workers, options, is_until_end=flags["until_end"], supervisor=supervisor)

    def run(is_stopping: Callable[[], bool], watcher: Watcher) -> None:
        path = world.settings.path(**{option: flags[name] for name, option in PATH_OPTIONS.items()})
        number = world.settings.instance_number if instance is None else instance
        _run(world, number, path, is_stopping, watcher)

    if worker is not None:
        return run_as_worker(world, *worker, run)
    _say_where(world)
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
    turn, status = Turn(world.clock), Status(world.clock)
    turn.watch(watcher)

    def is_waiting_over() -> bool:
        turn.waited()
        return is_stopping()

    opened = _await_topic(world, lambda: world.open_log(instance, is_waiting_over), is_waiting_over)
    if opened is None:
        return
    log, claimed = opened
    if claimed.path is not None:
        turn.watch(TurnFile(claimed.path))
    chores = _regularly(world.clock, (HOLD_MS, claimed.hold), (GIVE_BACK_MS, memory.give_back))

    looks = _Looks(world)

    def turned(path: pipeline.Path) -> None:
        looks.turned(log, path)
        if turn.is_due:
            progress = _progress(world, log, path)
            turn.turned(progress)
            status.turned(path, progress)

    def is_over() -> bool:
        chores()
        return is_stopping()

    try:
        names = [*path.topics.candles, path.topics.dead_letters, path.topics.late]
        if _await_topic(world, lambda: _check_topics(log, names), is_waiting_over) is None:
            return
        snapshots = world.open_snapshots(claimed, log)
        with restore_progress(world.clock, is_alone=world.worker is None) as tell:
            pipeline.run(log, world.clock, world.settings.rules(), path, is_over, snapshots, tell, turned)
        for store in snapshots:
            store.close(CLOSE_TIMEOUT_S if is_stopping() else END_S)
        if path.is_until_end:
            looks.begin(log)  # all may have been done in the first turn
            looks.wait()
    finally:
        log.close()
        claimed.release()


class _Looks:
    """At what no error tells: beside the loop, and once it has begun, so that no candle waits for them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._begun: list[Future[None]] = []

    def turned(self, log: Log, path: pipeline.Path) -> None:
        if path.partitions:
            self.begin(log)

    def begin(self, log: Log) -> None:
        """Where they have not begun."""
        if not self._begun:
            everybody = list(log.partitions())
            self._begun = [
                begin(lambda: _look(self._world)),
                begin(lambda: _tell_neighbours(self._world, everybody)),
            ]

    def wait(self) -> None:
        """Let those end that are under way; a run that ends by itself may be shorter than they."""
        wait(self._begun, LOOK_S)


def _regularly(clock: Clock, *chores: tuple[int, Callable[[], None]]) -> Callable[[], None]:
    """For every turn of the loop: each chore as often as its ms say."""
    due_ms = [0] * len(chores)

    def do_what_is_due() -> None:
        now_ms = clock.monotonic_ms()
        for index, (every_ms, chore) in enumerate(chores):
            if now_ms >= due_ms[index]:
                due_ms[index] = now_ms + every_ms
                chore()

    return do_what_is_due


def _progress(world: World, log: Log, path: pipeline.Path) -> Progress:
    is_shared = log.has_share if isinstance(log, KafkaLog) else bool(path.partitions)
    ends = log.known_ends(path.partitions)
    return progress_of(path.partitions.values(), ends, wall_ms=world.clock.wall_ms(), is_shared=is_shared)


def _look(world: World) -> None:
    """Say what is wrong with the tick topic and no error tells; of workers one says it for all."""
    if world.settings.bootstrap_servers is None or world.worker not in (None, 1):
        return
    for finding in look(world.kafka(), deployment(world)):
        logger.warning("%s; %s; `streamingcandle doctor` has more", finding.what, finding.do)


def _tell_neighbours(world: World, partitions: Sequence[int]) -> None:
    """Say once, by one of several workers, who makes the same candles."""
    if world.settings.bootstrap_servers is None or world.worker not in (None, 1):
        return
    candles = world.settings.topics().candles
    for neighbour in neighbours(world.kafka(), candles, partitions, world.clock):
        logger.error("%s; %s", neighbour, CURE)


def _check_topics(log: Log, names: Sequence[str]) -> bool:
    """MissingTopicError where one that is read or written is missing."""
    log.partitions()
    log.check_topics(names)
    return True


def _await_topic(world: World, ask: Callable[[], Answer], is_stopping: Callable[[], bool]) -> Answer | None:
    """The answer once the topics are there; MissingTopicError after the setting `wait`, None at a stop."""
    until_ms = world.clock.monotonic_ms() + world.settings.duration_ms("wait")
    is_told = False
    while not is_stopping():
        try:
            return ask()
        except MissingTopicError as error:
            if world.clock.monotonic_ms() >= until_ms:
                raise
            if not is_told:
                logger.warning("waiting up to %s: %s", world.settings.text("wait"), error)
                is_told = True
            world.clock.sleep_ms(TOPIC_PROBE_MS)
    return None


def _say_where(world: World) -> None:
    """Where this run reads, writes and keeps: a setting that did not arrive is seen here."""
    settings, topics = world.settings, world.settings.topics()
    brokers = settings.bootstrap_servers
    place = f"the embedded log {world.store_path}" if brokers is None else f"the brokers {brokers}"
    application_id = settings.text("application_id")
    logger.info(
        "reads %s of %s as group %s; writes %s; keeps its state in %s",
        topics.ticks,
        place,
        application_id,
        ", ".join(topics.candles),
        Path(settings.text("state_dir"), application_id),
    )
    for exposure in exposures(settings.kafka_settings(application_id)):
        logger.warning("%s; %s", exposure.what, exposure.do)


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
