"""`candles`: read candle topics."""

import csv
import io
import json
import logging
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TextIO

import click
import msgspec

from streamingcandle.candles.candle import Candle, decode_candle
from streamingcandle.candles.murmur2 import partition_of
from streamingcandle.cli.instruments import LIST_HINT, Holding, chosen, containing, holdings, is_key, printable_cell
from streamingcandle.cli.options import examples, time_ms
from streamingcandle.cli.world import World
from streamingcandle.embedded.store import EmbeddedStore
from streamingcandle.errors import CheckError, OutsideError, SettingsError
from streamingcandle.kafka.feed import read_values

logger = logging.getLogger(__name__)

PIPE_WIDTH = 160
CANDLES_MAX = 500_000
"""Held at once, for the last one of a window counts (0.5 GB): an instrument's minutes of five years."""
SUFFIXES = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
}

Read = Callable[[Collection[bytes] | None], Iterator[tuple[bytes, bytes]]]
"""Keys and values of a candle topic, of these keys or of all."""


class InstrumentCandle(Candle, frozen=True, kw_only=True, rename="camel"):
    """A candle beside those of other instruments: its fields do not tell the token where there is a scrip code."""

    instrument: str


class _Window(msgspec.Struct, rename="camel"):
    window_start_millis: int


_encoder = msgspec.json.Encoder(decimal_format="number")
_windows = msgspec.json.Decoder(_Window)


def _embedded_values(path: Path, topic: str, keys: Collection[bytes] | None) -> Iterator[tuple[bytes, bytes]]:
    # Who only looks makes neither a file nor a topic.
    store = EmbeddedStore(path) if path.exists() else None
    try:
        partitions = 0 if store is None else dict(store.topics()).get(topic, 0)
        if store is None or partitions == 0:
            raise CheckError(f"topic {topic} in {path}: no candles yet; `streamingcandle run` makes them")
        numbers = range(partitions) if keys is None else sorted({partition_of(key, partitions) for key in keys})
        for number in numbers:
            for record in store.read_to_end(topic, number):
                key = record.key or b""
                if keys is None or key in keys:
                    yield key, record.value or b""
    finally:
        if store is not None:
            store.close()


def _reader(world: World, topic: str) -> Read:
    if world.settings.bootstrap_servers is not None:
        settings = world.kafka()
        return lambda keys: read_values(settings, topic, keys)
    path = world.store_path
    return lambda keys: _embedded_values(path, topic, keys)


@click.command(
    "candles",
    epilog=examples(
        "candles N:C:2885 --timeframe 5m",
        "candles RELIANCE N:C:1594 --from 2026-01-02T09:15:00+05:30 --output candles.csv",
        "candles N:C:2885 --output candles.parquet",
        "candles --list",
    ),
)
@click.argument("instruments", nargs=-1, metavar="INSTRUMENT...")
@click.option("--timeframe", default="1m", show_default=True, metavar="TIMEFRAME", help="One of those that are run.")
@click.option("--from", "from_text", metavar="TIME", help="Windows that start at or after this, ISO 8601 with offset.")
@click.option("--to", "to_text", metavar="TIME", help="Windows that start before this.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "csv", "parquet"]),
    show_default="as the file is named, else table",
    help="parquet needs --output.",
)
@click.option("--output", type=click.Path(), metavar="FILE", show_default="stdout", help="Written whole or not at all.")
@click.option("--list", "is_list", is_flag=True, help="The instruments that have candles, or those like INSTRUMENT.")
@click.pass_obj
def candles_command(
    world: World,
    instruments: tuple[str, ...],
    timeframe: str,
    from_text: str | None,
    to_text: str | None,
    form: str | None,
    output: str | None,
    *,
    is_list: bool,
) -> None:
    """Read the candles of each INSTRUMENT, like N:C:2885 or RELIANCE.

    A name is a company's, in any case. Each window as it was published last, in order of time.
    """
    path = None if output in (None, "-") else Path(output or "")
    form = _form(form, path)
    if not instruments and not is_list:
        raise click.MissingParameter(param_type="argument", param_hint="'INSTRUMENT'", ctx=click.get_current_context())
    render = _parquet() if form == "parquet" and not is_list else None
    place = world.timeframe(timeframe)
    from_ms, to_ms = time_ms("--from", from_text), time_ms("--to", to_text)
    label = world.settings.timeframes[place].label
    read = _reader(world, world.settings.topics().candles[place])
    if is_list:
        _write_list(_listed(instruments, read), form, path)
        return
    keys = _keys(instruments, read, label)
    # One that was typed as it is needs no column of its own.
    is_named = list(instruments) != keys or len(keys) > 1
    kind = InstrumentCandle if is_named else Candle
    found = _candles(keys, read, (from_ms, to_ms), label, is_named=is_named)
    if render is not None and path is not None:
        _replace(path, render(list(found), kind))
    else:
        _put(path, lambda out: _write(found, form, out, kind))


def _form(form: str | None, path: Path | None) -> str:
    """What the file is to be: its suffix says it, and a format that says something else is a slip of the hand."""
    named = None if path is None else SUFFIXES.get(path.suffix.lower())
    if form is not None and named is not None and form != named:
        raise SettingsError(
            f"--output {path}: is {named} by its name, and --format says {form}; drop --format, or name it otherwise"
        )
    chosen_form = form or named or "table"
    if chosen_form == "parquet" and path is None:
        raise SettingsError("--format parquet: is no text for stdout; give --output FILE")
    return chosen_form


def _keys(texts: Sequence[str], read: Read, label: str) -> list[str]:
    """The instruments meant, each once; the whole topic is read only where a name is given."""
    keys = {text for text in texts if is_key(text)}
    known = {} if keys.issuperset(texts) else holdings(read(None))
    return list(dict.fromkeys(text if text in keys else _chosen(text, known, label) for text in texts))


def _chosen(text: str, known: dict[str, Holding], label: str) -> str:
    if not known:
        raise CheckError(f"{text}: no {label} candles yet, of any instrument; `streamingcandle run` makes them")
    return chosen(text, known, f"{label} candles")


def _candles(
    keys: list[str], read: Read, bounds_ms: tuple[int | None, int | None], label: str, *, is_named: bool
) -> Iterator[Candle]:
    """The last candle of each window, instrument by instrument. CheckError for an instrument that has none at all."""
    from_ms, to_ms = bounds_ms
    latest: dict[str, dict[int, bytes]] = {key: {} for key in keys}
    outside: set[str] = set()
    held = broken = 0
    for raw_key, value in read({key.encode() for key in keys}):
        try:
            start_ms = _windows.decode(value).window_start_millis
        except msgspec.DecodeError:
            broken += 1
            continue
        key = raw_key.decode()
        if (from_ms is None or start_ms >= from_ms) and (to_ms is None or start_ms < to_ms):
            held += start_ms not in latest[key]
            latest[key][start_ms] = value
        else:
            outside.add(key)
        if held > CANDLES_MAX:
            raise SettingsError(f"more than {CANDLES_MAX:,} candles; ask for less, with --from and --to or a timeframe")
    if broken:
        logger.warning("%d records that are no candles: passed over", broken)
    if missing := [key for key in keys if not latest[key] and key not in outside]:
        _chosen(missing[0], holdings(read(None)), label)
    for key in keys:
        if not latest[key]:
            logger.warning("%s: has %s candles, none of them in the time asked for; %s", key, label, LIST_HINT)
    return _decoded(latest, is_named=is_named)


def _decoded(latest: dict[str, dict[int, bytes]], *, is_named: bool) -> Iterator[Candle]:
    for key, windows in latest.items():
        for _, value in sorted(windows.items()):
            candle = decode_candle(value)
            yield InstrumentCandle(instrument=key, **msgspec.structs.asdict(candle)) if is_named else candle


def _listed(texts: Sequence[str], read: Read) -> list[Holding]:
    known = holdings(read(None))
    wanted = {held.instrument for text in texts for held in containing(text, known.values())}
    found = [held for held in known.values() if not texts or held.instrument in wanted]
    if texts and not found:
        raise CheckError(f"{', '.join(texts)}: in no instrument and no name; {LIST_HINT}")
    return found


def _write_list(found: list[Holding], form: str, path: Path | None) -> None:
    if form == "parquet":
        raise SettingsError("--list: is table, csv or json; give another --format or name of the file")
    columns = ("instrument", "companyName", "firstStart", "lastEnd")
    rows = [(held.instrument, held.company_name, held.first_start, held.last_end) for held in found]

    def write(out: TextIO) -> None:
        if form == "json":
            out.writelines(json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) + "\n" for row in rows)
        elif form == "csv":
            writer = csv.writer(out)
            writer.writerow(columns)
            writer.writerows(map(printable_cell, row) if out.isatty() else row for row in rows)
        else:
            _print_table(("instrument", "company", "first", "to"), rows, out)

    _put(path, write)


def _put(path: Path | None, write: Callable[[TextIO], None]) -> None:
    if path is None:
        write(sys.stdout)
        # Here a reader that has gone away is noticed and no failure; at the exit it would be one.
        sys.stdout.flush()
        return
    text = io.StringIO(newline="")
    write(text)
    _replace(path, text.getvalue().encode())


def _parquet() -> Callable[[list[Candle], type[Candle]], bytes]:
    try:
        from streamingcandle.cli.parquet import as_parquet  # noqa: PLC0415 - an optional extra
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"--format parquet: {error.name} is not installed; `pip install 'streamingcandle[parquet]'`"
        ) from error
    return as_parquet


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


def _write(candles: Iterable[Candle], form: str, out: TextIO, kind: type[Candle]) -> None:
    if form == "json":
        out.writelines(_encoder.encode(candle).decode() + "\n" for candle in candles)
        return
    if form == "csv":
        names = [field.encode_name for field in msgspec.structs.fields(kind)]
        writer = csv.DictWriter(out, names)
        writer.writeheader()
        for candle in candles:
            row = json.loads(_encoder.encode(candle), parse_float=Decimal)
            writer.writerow({name: printable_cell(cell) for name, cell in row.items()} if out.isatty() else row)
        return
    columns = ("start", "end", "open", "high", "low", "close", "volume", "ticks", "complete", "revised")
    rows = (_row(candle) for candle in candles)
    _print_table(columns if kind is Candle else ("instrument", *columns), rows, out)


def _row(candle: Candle) -> tuple[object, ...]:
    prices = (candle.open, candle.high, candle.low, candle.close, candle.volume, candle.ticks)
    marks = ("yes" if mark else "no" for mark in (candle.complete, candle.revised))
    times = candle.human_readable_start_time[:19], candle.human_readable_end_time[11:19]
    return (*([candle.instrument] if isinstance(candle, InstrumentCandle) else []), *times, *prices, *marks)


def _print_table(columns: Sequence[str], rows: Iterable[tuple[object, ...]], out: TextIO) -> None:
    from rich.console import Console  # noqa: PLC0415 - takes as long as all the rest
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table()
    for column in columns:
        table.add_column(column, justify="left" if column in ("instrument", "company") else "right", no_wrap=True)
    for row in rows:
        # Text, for a feed's names may hold what rich reads as colours.
        table.add_row(*(Text("" if cell is None else str(printable_cell(cell))) for cell in row))
    # Nobody's terminal sets the width of a file: there every column is whole.
    Console(file=out, width=None if out.isatty() else PIPE_WIDTH).print(table)


COMMANDS = (candles_command,)
