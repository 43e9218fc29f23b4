"""`run --workers N`: the parent's command line and the worker's life."""

import logging
import sys
from collections.abc import Callable, Sequence

import click

from streamingcandle.cli.world import World, stop_on_signals
from streamingcandle.errors import StreamingCandleError
from streamingcandle.ops.systemd import Supervisor
from streamingcandle.ops.turn import Watcher
from streamingcandle.ops.workers import Parent, Workers

logger = logging.getLogger(__name__)


def check_workers(world: World) -> None:
    """UsageError where there can be one process only."""
    if world.settings.bootstrap_servers is None:
        raise click.UsageError("--workers goes with Kafka: one process owns the embedded log, drop the option")


def run_workers(world: World, count: int, options: Sequence[str], *, is_until_end: bool, supervisor: Supervisor) -> int:
    """Be the parent of so many processes of `run` with these options, to the end: the exit code."""
    # Without -P a file in the working directory could stand in for a module.
    command = [sys.executable, "-P", "-m", "streamingcandle", *world.arguments, "run", *options]
    workers = Workers(command, count, clock=world.clock, is_until_end=is_until_end, supervisor=supervisor)
    return workers.run(stop_on_signals())


def run_as_worker(
    world: World, number: int, descriptor: int, run: Callable[[Callable[[], bool], Watcher], None]
) -> int:
    """Be the worker with this number: `run` takes what asks for a stop and who is told of the loop's turns."""
    world.worker = number
    # A supervisor may signal the whole family, and the parent passes it on: twice is no impatience here.
    is_stopping = stop_on_signals(is_second_final=False)
    try:
        run(is_stopping, Parent(descriptor))
    except StreamingCandleError as error:
        logger.error("%s", error, exc_info=world.is_debug)  # noqa: TRY400 - one line for the operator
        return error.exit_code
    return 0
