"""`ingest` and `simulate`: ticks into the tick topic."""

import gzip
import io
import logging
from collections.abc import Callable, Iterator
from datetime import date
from itertools import islice
from pathlib import Path
from select import select
from stat import S_ISREG
from typing import IO, TYPE_CHECKING, cast

import click
import zstandard

from streamingcandle.candles.book import judge
from streamingcandle.cli.options import examples
from streamingcandle.cli.progress import progress
from streamingcandle.cli.world import World, stop_on_signals
from streamingcandle.errors import CheckError, OutsideError
from streamingcandle.simulation.market import Market, first_session, ticks

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

logger = logging.getLogger(__name__)

CHUNK_LINES = 5_000
CHUNKS_PER_S = 50
"""At a rate the feed is even, not a burst every few seconds."""
STOP_PROBE_S = 0.2
LINE_BYTES_MAX = 10_000_000
"""A longer line is no tick; it is named and passed over without being held."""


Chunk = list[tuple[int, bytes]]
"""Numbers and texts of lines."""


class _Stdin(io.FileIO):
    """Standard input, over too when we are to stop and its writer is silent."""

    def __init__(self, is_stopping: Callable[[], bool]) -> None:
        super().__init__(0, closefd=False)
        self._is_stopping = is_stopping

    def readinto(self, buffer: "WriteableBuffer") -> int | None:
        while not select([self], [], [], STOP_PROBE_S)[0]:
            if self._is_stopping():
                return 0
        return super().readinto(buffer)


def _open(name: str, is_stopping: Callable[[], bool]) -> IO[bytes]:
    try:
        return io.BufferedReader(_Stdin(is_stopping)) if name == "-" else Path(name).open("rb")
    except OSError as error:
        raise OutsideError(f"{name}: {error.strerror}; name a file that can be read") from error


def _unpacked(name: str, raw: IO[bytes]) -> IO[bytes]:
    if name.endswith(".gz"):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=raw))
    if name.endswith(".zst"):
        return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(raw))
    return raw


def _total_bytes(files: tuple[str, ...]) -> int | None:
    """Their size on disk; None where one is a pipe."""
    try:
        found = [Path(name).stat() for name in files if name != "-"]
    except OSError:  # told with its name when its turn comes
        return None
    is_known = "-" not in files and all(S_ISREG(status.st_mode) for status in found)
    return sum(status.st_size for status in found) if is_known else None


def _lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Number and text of each line, empty ones passed over, overlong ones as nothing."""
    number = 0
    while line := file.readline(LINE_BYTES_MAX + 1):
        number += 1
        if len(line) > LINE_BYTES_MAX and not line.endswith(b"\n"):
            while (rest := file.readline(LINE_BYTES_MAX)) and not rest.endswith(b"\n"):
                pass
            yield number, b""
        elif text := line.strip():
            yield number, text


@click.command(
    "ingest",
    epilog=examples(
        "ingest monday.jsonl tuesday.jsonl.gz", "ingest --rate 500 ticks.jsonl.zst", "ingest - < ticks.jsonl"
    ),
)
@click.argument("files", type=click.Path(allow_dash=True), nargs=-1, required=True, metavar="FILE...|-")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="At most this many ticks a second.")
@click.pass_obj
def ingest_command(world: World, files: tuple[str, ...], rate: float | None) -> None:
    """Put tick records into the tick topic, keyed by token.

    JSON lines; .gz and .zst are unpacked, - is standard input.

    A bad line is named with its number and passed over; then the exit code is 1.
    """
    rules, topic = world.settings.rules(), world.settings.text("tick_topic")
    is_stopping = stop_on_signals()
    sink = world.open_sink()
    taken = bad = 0
    began_ms = world.clock.monotonic_ms()
    total_bytes = _total_bytes(files)
    chunk_lines = CHUNK_LINES if rate is None else max(1, min(CHUNK_LINES, int(rate / CHUNKS_PER_S)))
    with progress(world.clock, total_bytes) as tell:
        for name, chunk, done_bytes in _chunks(files, chunk_lines, is_stopping):
            now_ms = world.clock.wall_ms()
            verdicts = judge(rules, [text for _, text in chunk], [now_ms] * len(chunk))
            records = []
            for (number, text), (reason, instrument, event_ms) in zip(chunk, verdicts, strict=True):
                if reason is not None or instrument is None:
                    bad += 1
                    logger.warning("%s:%d: %s: passed over", name, number, reason or "instrument")
                    continue
                # The record's time is the tick's, as a live feed would have it; never later than now.
                at_ms = now_ms if event_ms is None else min(event_ms, now_ms)
                records.append((instrument.rpartition(":")[2].encode(), text, at_ms))
            sink.append(records)
            taken += len(records)
            tell(taken, None if total_bytes is None else done_bytes)
            if rate is not None:
                world.clock.sleep_ms(began_ms + int(taken * 1_000 / rate) - world.clock.monotonic_ms())
        sink.flush()
    ending = "; stopped before the end" if is_stopping() else ""
    logger.info("%d ticks into %s, %d bad lines%s", taken, topic, bad, ending)
    if bad:
        raise CheckError(f"{bad} bad lines passed over, named above")


def _chunks(
    files: tuple[str, ...], lines_max: int, is_stopping: Callable[[], bool]
) -> Iterator[tuple[str, Chunk, int]]:
    """File, lines, and the bytes read of all files so far, as they lie on disk."""
    done_bytes = 0
    for name in files:
        with _open(name, is_stopping) as raw, _unpacked(name, raw) as file:
            lines = _lines(file)
            read_bytes = 0
            while not is_stopping() and (chunk := _chunk(name, lines, lines_max)):
                read_bytes = raw.tell() if raw.seekable() else 0
                yield name, chunk, done_bytes + read_bytes
            done_bytes += read_bytes


def _chunk(name: str, lines: Iterator[tuple[int, bytes]], lines_max: int) -> Chunk:
    try:
        return list(islice(lines, lines_max))
    except (OSError, EOFError, zstandard.ZstdError) as error:
        raise OutsideError(f"{name}: {error}; the file is damaged or cut off") from error


@click.command(
    "simulate",
    epilog=examples(
        "simulate", "simulate --instruments 500 --rate 2000", "simulate --date 2026-01-02 --ticks 10000 --speed 0"
    ),
)
@click.option("--instruments", type=click.IntRange(1, 100_000), default=40, show_default=True, help="How many trade.")
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), default=200.0, show_default=True, help="Ticks a second."
)
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed is the same market.")
@click.option("--date", "date_text", metavar="YYYY-MM-DD", help="A past day from its open on, instead of now.")
@click.option(
    "--speed",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="Times the clock; 0: as fast as it goes.",
)
@click.option("--ticks", "count", type=click.IntRange(min=1), help="Stop after so many.")
@click.pass_obj
def simulate_command(
    world: World, instruments: int, rate: float, seed: int, date_text: str | None, speed: float, count: int | None
) -> None:
    """Put a realistic feed into the tick topic.

    Until it is stopped or --ticks are out.
    """
    start_ms = world.clock.wall_ms()
    if date_text is not None:
        try:
            day = (date.fromisoformat(date_text) - date(1970, 1, 1)).days
        except ValueError:
            raise click.BadParameter("not a date like 2026-01-02", param_hint="--date") from None
        start_ms, _ = first_session(world.settings.rules().calendar, day)
    is_stopping = stop_on_signals()
    sink = world.open_sink()
    market = Market(instruments, seed=seed)
    began_ms, sent = world.clock.monotonic_ms(), 0
    batch_size = max(1, int(rate / CHUNKS_PER_S)) if speed else CHUNK_LINES
    feed = ticks(market, start_ms=start_ms, rate_per_s=rate, count=count)
    with progress(world.clock, count) as tell:
        while not is_stopping() and (batch := list(islice(feed, batch_size))):
            if speed:
                due_ms = began_ms + int((batch[-1].at_ms - start_ms) / speed)
                world.clock.sleep_ms(due_ms - world.clock.monotonic_ms())
            sink.append([(tick.key, tick.value, tick.at_ms) for tick in batch])
            sent += len(batch)
            tell(sent, sent if count is not None else None)
        sink.flush()
    logger.info("%d ticks into %s", sent, world.settings.text("tick_topic"))


COMMANDS = (ingest_command, simulate_command)
