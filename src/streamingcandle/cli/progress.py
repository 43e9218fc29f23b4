"""How far long work is, told on stderr: a bar on a terminal, a log line every few seconds elsewhere."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from streamingcandle.interfaces import Clock

if TYPE_CHECKING:
    from rich.console import Console

logger = logging.getLogger(__name__)

TELL_EVERY_MS = 5_000

Tell = Callable[[int, int | None], None]
"""Takes the ticks so far and how much of the total is done, None where there is no total."""


def _bar_console() -> "Console | None":
    """Where a bar can be drawn; None where it cannot."""
    if not sys.stderr.isatty():
        return None
    from rich.console import Console  # noqa: PLC0415 - it takes longer to load than the rest of the program

    # rich takes more than a terminal for one (FORCE_COLOR), and some terminals for none (TERM=dumb).
    console = Console(stderr=True)
    return console if console.is_interactive else None


@contextmanager
def progress(clock: Clock, total: int | None, what: str = "ticks") -> Iterator[Tell]:
    """Show progress towards `total`, in any unit; None where the end is not known. The bar goes at the end."""
    began_ms = clock.monotonic_ms()

    def figures(count: int) -> str:
        passed_ms = max(1, clock.monotonic_ms() - began_ms)
        return f"{count:,} {what}, {count * 1_000 // passed_ms:,} a second"

    console = _bar_console()
    with _lines(clock, total, figures) if console is None else _bar(console, total, figures) as tell:
        yield tell


@contextmanager
def _bar(console: "Console", total: int | None, figures: Callable[[int], str]) -> Iterator[Tell]:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (BarColumn(24), TaskProgressColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as shown:
        task = shown.add_task("0 ticks", total=total)
        yield lambda count, done: shown.update(task, completed=done, description=figures(count))


@contextmanager
def _lines(clock: Clock, total: int | None, figures: Callable[[int], str]) -> Iterator[Tell]:
    told_ms = clock.monotonic_ms()

    def tell(count: int, done: int | None) -> None:
        nonlocal told_ms
        if clock.monotonic_ms() - told_ms < TELL_EVERY_MS:
            return
        told_ms = clock.monotonic_ms()
        part = "" if done is None or not total else f", {done * 100 // total} %"
        logger.info("%s%s", figures(count), part)

    yield tell


@contextmanager
def restore_progress(clock: Clock, *, is_alone: bool) -> Iterator[Callable[[int], None] | None]:
    """Takes how many ticks are left to restore, again and again; None where no bar can be drawn, or many would be."""
    if not is_alone or _bar_console() is None:
        yield None
        return
    total = last = 0
    shown: Tell | None = None

    def tell(left: int) -> None:
        nonlocal total, last, shown
        if left > last:  # a beginning, or more partitions
            bar.close()
            total, shown = left, bar.enter_context(progress(clock, left, "ticks restored"))
        if shown is not None:
            shown(total - left, total - left)
        if left == 0:
            shown = None
            bar.close()
        last = left

    with ExitStack() as bar:
        yield tell
