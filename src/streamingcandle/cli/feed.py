"""`ingest` and `simulate`: ticks into the tick topic."""

import gzip
import io
import sys
from collections.abc import Iterator
from datetime import date
from itertools import islice
from typing import IO, cast

import click
import zstandard

from streamingcandle.candles.book import judge
from streamingcandle.cli.world import World, stop_on_signals
from streamingcandle.errors import CheckError, OutsideError
from streamingcandle.simulation.market import Market, session_open_ms, ticks

CHUNK_LINES = 5_000
LINE_BYTES_MAX = 10_000_000
"""A longer line is no tick; it is named and passed over without being held."""


def _open(name: str) -> IO[bytes]:
    if name == "-":
        return sys.stdin.buffer
    try:
        if name.endswith(".gz"):
            return cast("IO[bytes]", gzip.open(name, "rb"))
        raw = click.open_file(name, "rb")
        if name.endswith(".zst"):
            return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(raw))
    except OSError as error:
        raise OutsideError(f"{name}: {error.strerror}; name a file that can be read") from error
    return raw


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


@click.command("ingest")
@click.argument("files", nargs=-1, required=True, metavar="FILE...|-")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="At most this many ticks a second.")
@click.pass_obj
def ingest_command(world: World, files: tuple[str, ...], rate: float | None) -> None:
    """Put tick records (JSON lines, .gz and .zst too) into the tick topic, keyed by token.

    A bad line is named with its number and passed over; then the exit code is 1.
    """
    rules = world.settings.rules()
    sink = world.open_sink()
    taken = bad = 0
    began_ms = world.clock.monotonic_ms()
    for name in files:
        with _open(name) as file:
            lines = _lines(file)
            while chunk := _chunk(name, lines):
                now_ms = world.clock.wall_ms()
                verdicts = judge(rules, [text for _, text in chunk], [now_ms] * len(chunk))
                records = []
                for (number, text), (reason, instrument, event_ms) in zip(chunk, verdicts, strict=True):
                    if reason is not None or instrument is None:
                        bad += 1
                        click.echo(f"{name}:{number}: {reason or 'instrument'}: passed over", err=True)
                        continue
                    # The record's time is the tick's, as a live feed would have it; never later than now.
                    at_ms = now_ms if event_ms is None else min(event_ms, now_ms)
                    records.append((instrument.rpartition(":")[2].encode(), text, at_ms))
                sink.append(records)
                taken += len(records)
                if rate is not None:
                    world.clock.sleep_ms(began_ms + int(taken * 1_000 / rate) - world.clock.monotonic_ms())
    sink.flush()
    click.echo(f"{taken} ticks into {world.settings.text('tick_topic')}, {bad} bad lines", err=True)
    if bad:
        raise CheckError(f"{bad} bad lines passed over, named above")


def _chunk(name: str, lines: Iterator[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    try:
        return list(islice(lines, CHUNK_LINES))
    except (OSError, EOFError, zstandard.ZstdError) as error:
        raise OutsideError(f"{name}: {error}; the file is damaged or cut off") from error


@click.command("simulate")
@click.option("--instruments", type=click.IntRange(1, 100_000), default=40, show_default=True)
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), default=200.0, show_default=True, help="Ticks a second."
)
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed is the same market.")
@click.option("--date", "date_text", metavar="YYYY-MM-DD", help="A past day from its open on, instead of now.")
@click.option("--speed", type=click.FloatRange(min=0), default=1.0, show_default=True, help="0: as fast as it goes.")
@click.option("--ticks", "count", type=click.IntRange(min=1), help="Stop after so many.")
@click.pass_obj
def simulate_command(
    world: World, instruments: int, rate: float, seed: int, date_text: str | None, speed: float, count: int | None
) -> None:
    """A realistic feed into the tick topic, until stopped or --ticks are out."""
    start_ms = world.clock.wall_ms()
    if date_text is not None:
        try:
            day = (date.fromisoformat(date_text) - date(1970, 1, 1)).days
        except ValueError:
            raise click.BadParameter("not a date like 2026-01-02", param_hint="--date") from None
        start_ms = session_open_ms(world.settings.rules().calendar, day)
    is_stopping = stop_on_signals()
    sink = world.open_sink()
    market = Market(instruments, seed=seed)
    began_ms, sent = world.clock.monotonic_ms(), 0
    batch_size = max(1, int(rate / 50)) if speed else CHUNK_LINES
    feed = ticks(market, start_ms=start_ms, rate_per_s=rate, count=count)
    while not is_stopping() and (batch := list(islice(feed, batch_size))):
        if speed:
            due_ms = began_ms + int((batch[-1].at_ms - start_ms) / speed)
            world.clock.sleep_ms(due_ms - world.clock.monotonic_ms())
        sink.append([(tick.key, tick.value, tick.at_ms) for tick in batch])
        sent += len(batch)
    sink.flush()
    click.echo(f"{sent} ticks into {world.settings.text('tick_topic')}", err=True)


COMMANDS = (ingest_command, simulate_command)
