"""`candles`: read candle topics."""

import csv
import json
import sys
from collections.abc import Iterable

import click
import msgspec
from rich.console import Console
from rich.table import Table

from streamingcandle.candles.candle import Candle, decode_candle
from streamingcandle.candles.instrument import parse_instrument
from streamingcandle.candles.murmur2 import partition_of
from streamingcandle.candles.timeframe import parse_timeframe
from streamingcandle.cli.world import World
from streamingcandle.errors import SettingsError
from streamingcandle.kafka.feed import read_key
from streamingcandle.settings import start_ms

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


def _time_ms(name: str, text: str | None) -> int | None:
    try:
        return None if text is None else start_ms(text)
    except ValueError:
        raise click.BadParameter("not a time like 2026-01-02T09:15:00+05:30", param_hint=name) from None


@click.command("candles")
@click.argument("instrument")
@click.option("--timeframe", default="1m", show_default=True)
@click.option("--from", "from_text", metavar="TIME", help="First window start, ISO 8601 with offset.")
@click.option("--to", "to_text", metavar="TIME", help="Window starts before this.")
@click.option("--format", "form", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True)
@click.pass_obj
def candles_command(
    world: World, instrument: str, timeframe: str, from_text: str | None, to_text: str | None, form: str
) -> None:
    """The candles of INSTRUMENT (like N:C:2885), each window as it was published last."""
    key = str(parse_instrument(instrument)).encode()
    wanted = parse_timeframe(timeframe).label
    labels = [t.label for t in world.settings.timeframes]
    if wanted not in labels:
        raise SettingsError(
            f"timeframe {wanted}: not among those run, {', '.join(labels)}; set STREAMINGCANDLE_TIMEFRAMES"
        )
    from_ms, to_ms = _time_ms("--from", from_text), _time_ms("--to", to_text)
    topic = world.settings.topics().candles[labels.index(wanted)]
    latest: dict[int, Candle] = {}
    for value in _values(world, topic, key):
        candle = decode_candle(value)
        latest[candle.window_start_millis] = candle
    chosen = [
        candle
        for start, candle in sorted(latest.items())
        if (from_ms is None or start >= from_ms) and (to_ms is None or start < to_ms)
    ]
    _print(chosen, form)


def _print(candles: list[Candle], form: str) -> None:
    if form == "json":
        for candle in candles:
            click.echo(msgspec.json.encode(candle))
        return
    rows = [json.loads(msgspec.json.encode(candle)) for candle in candles]
    if form == "csv":
        names = [field.encode_name for field in msgspec.structs.fields(Candle)]
        writer = csv.DictWriter(sys.stdout, names)
        writer.writeheader()
        writer.writerows(rows)
        return
    table = Table()
    for column in ("start", "end", "open", "high", "low", "close", "volume", "ticks", "complete", "revised"):
        table.add_column(column, justify="right", no_wrap=True)
    for candle in candles:
        prices = (candle.open, candle.high, candle.low, candle.close, candle.volume, candle.ticks)
        marks = ("yes" if mark else "no" for mark in (candle.complete, candle.revised))
        start, end = candle.human_readable_start_time[:19], candle.human_readable_end_time[11:19]
        table.add_row(start, end, *map(str, prices), *marks)
    console = Console()
    # Nobody's terminal sets the width of a file: there every column is whole.
    Console(width=None if console.is_terminal else PIPE_WIDTH).print(table)


COMMANDS = (candles_command,)
