"""`candles`: read candle topics."""

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TextIO

import click
import msgspec

from streamingcandle.candles.candle import Candle, decode_candle
from streamingcandle.candles.instrument import parse_instrument
from streamingcandle.candles.murmur2 import partition_of
from streamingcandle.cli.options import examples, time_ms
from streamingcandle.cli.world import World
from streamingcandle.errors import OutsideError, SettingsError
from streamingcandle.kafka.feed import read_key

PIPE_WIDTH = 160


def _values(world: World, topic: str, key: bytes) -> Iterable[bytes]:
    if world.settings.bootstrap_servers is not None:
        return read_key(world.kafka(), topic, key)
    store = world.embedded_store()
    partitions = dict(store.topics()).get(topic)
    if partitions is None:
        return []
    records = store.read(topic, partition_of(key, partitions), 0, sys.maxsize)
    return [record.value or b"" for record in records if record.key == key]


@click.command(
    "candles",
    epilog=examples(
        "candles N:C:2885 --timeframe 5m",
        "candles N:C:2885 --from 2026-01-02T09:15:00+05:30 --format json",
        "candles N:C:2885 --format parquet --output candles.parquet",
    ),
)
@click.argument("instrument")
@click.option("--timeframe", default="1m", show_default=True, metavar="TIMEFRAME", help="One of those that are run.")
@click.option("--from", "from_text", metavar="TIME", help="Windows that start at or after this, ISO 8601 with offset.")
@click.option("--to", "to_text", metavar="TIME", help="Windows that start before this.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "csv", "parquet"]),
    default="table",
    show_default=True,
    help="parquet needs --output.",
)
@click.option("--output", type=click.Path(), metavar="FILE", show_default="stdout", help="Written whole or not at all.")
@click.pass_obj
def candles_command(
    world: World,
    instrument: str,
    timeframe: str,
    from_text: str | None,
    to_text: str | None,
    form: str,
    output: str | None,
) -> None:
    """Read the candles of INSTRUMENT, like N:C:2885.

    Each window as it was published last, in order of time.
    """
    path = None if output in (None, "-") else Path(output)
    if form == "parquet" and path is None:
        raise SettingsError("--format parquet: is no text for stdout; give --output FILE")
    render = _parquet(world) if form == "parquet" else None
    key = str(parse_instrument(instrument)).encode()
    place = world.timeframe(timeframe)
    from_ms, to_ms = time_ms("--from", from_text), time_ms("--to", to_text)
    topic = world.settings.topics().candles[place]
    latest: dict[int, Candle] = {}
    for value in _values(world, topic, key):
        candle = decode_candle(value)
        latest[candle.window_start_millis] = candle
    chosen = [
        candle
        for start, candle in sorted(latest.items())
        if (from_ms is None or start >= from_ms) and (to_ms is None or start < to_ms)
    ]
    if path is None:
        _write(chosen, form, sys.stdout)
        # Here a reader that has gone away is noticed and no failure; at the exit it would be one.
        sys.stdout.flush()
    elif render is not None:
        _replace(path, render(chosen))
    else:
        text = io.StringIO(newline="")
        _write(chosen, form, text)
        _replace(path, text.getvalue().encode())


def _parquet(world: World) -> Callable[[list[Candle]], bytes]:
    try:
        from streamingcandle.cli.parquet import as_parquet  # noqa: PLC0415 - an optional extra
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"--format parquet: {error.name} is not installed; `pip install 'streamingcandle[parquet]'`"
        ) from error
    is_whole = world.settings.text("quantity_decimals") == "0"
    return lambda candles: as_parquet(candles, is_whole=is_whole)


def _replace(path: Path, data: bytes) -> None:
    """Whoever reads the file meanwhile has the old one or the new one, never a part."""
    try:
        if path.exists() and not path.is_file():
            # A device or a pipe has nothing to be replaced.
            path.write_bytes(data)
            return
        # The file behind a link is replaced, not the link.
        path = path.resolve()
        part = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            part.write_bytes(data)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise OutsideError(f"{path}: {error.strerror}; name a file that can be written") from error


def _write(candles: list[Candle], form: str, out: TextIO) -> None:
    if form == "json":
        out.writelines(msgspec.json.encode(candle).decode() + "\n" for candle in candles)
        return
    rows = [json.loads(msgspec.json.encode(candle)) for candle in candles]
    if form == "csv":
        names = [field.encode_name for field in msgspec.structs.fields(Candle)]
        writer = csv.DictWriter(out, names)
        writer.writeheader()
        writer.writerows(rows)
        return
    from rich.console import Console  # noqa: PLC0415 - takes as long as all the rest
    from rich.table import Table  # noqa: PLC0415

    table = Table()
    for column in ("start", "end", "open", "high", "low", "close", "volume", "ticks", "complete", "revised"):
        table.add_column(column, justify="right", no_wrap=True)
    for candle in candles:
        prices = (candle.open, candle.high, candle.low, candle.close, candle.volume, candle.ticks)
        marks = ("yes" if mark else "no" for mark in (candle.complete, candle.revised))
        start, end = candle.human_readable_start_time[:19], candle.human_readable_end_time[11:19]
        table.add_row(start, end, *map(str, prices), *marks)
    # Nobody's terminal sets the width of a file: there every column is whole.
    Console(file=out, width=None if out.isatty() else PIPE_WIDTH).print(table)


COMMANDS = (candles_command,)
