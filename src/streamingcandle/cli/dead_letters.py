"""`dead-letters`: what was rejected, and back on the tick topic with it after a fix."""

import base64
import re
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import click
import msgspec

from streamingcandle.candles.rules import Rules
from streamingcandle.candles.why import explain
from streamingcandle.cli.options import as_json, examples, say, say_json, time_ms
from streamingcandle.cli.world import World, stop_on_signals
from streamingcandle.errors import CheckError, SettingsError
from streamingcandle.letters import StoredLetter
from streamingcandle.ops.dead_letters import Mailbox, Wanted
from streamingcandle.printable import printable, printable_lines

BEGINNING_BYTES = 60
ROWS_MAX = 1_000
"""A table holds its rows; --json holds none and has no limit."""
HEX_WIDTH = 16
PIPE_WIDTH = 160
Command = TypeVar("Command", bound=Callable[..., Any])
as_late = click.option("--late", is_flag=True, help="Of the ticks that came too late instead.")


def _filters(command: Command) -> Command:
    for option in (
        click.option("--to", "to_text", metavar="TIME", help="Records with an earlier time."),
        click.option(
            "--from", "from_text", metavar="TIME", help="Records of this time or later, ISO 8601 with offset."
        ),
        click.option(
            "--source", metavar="P[@OFFSET]", help="Records of this partition of the tick topic, or this one."
        ),
        click.option("--reason", help="json, instrument, price, time, future, empty, tombstone."),
    ):
        command = option(command)
    return command


def _wanted(reason: str | None, source: str | None, from_text: str | None, to_text: str | None) -> Wanted:
    partition, offset = (None, None) if source is None else _place("--source", source)
    from_ms, to_ms = time_ms("--from", from_text), time_ms("--to", to_text)
    return Wanted(reason=reason, partition=partition, offset=offset, from_ms=from_ms, to_ms=to_ms)


def _place(name: str, text: str) -> tuple[int, int | None]:
    match = re.fullmatch(r"(\d{1,9})(?:@(\d{1,18}))?", text, re.ASCII)
    if match is None:
        raise click.BadParameter(f"{text!r} is no partition like 3, nor a record like 3@120", param_hint=name)
    return int(match[1]), None if match[2] is None else int(match[2])


@contextmanager
def _mailbox(world: World, *, is_late: bool = False, is_writing: bool = False) -> Iterator[Mailbox]:
    topics = world.settings.topics()
    letters = world.open_letters(topics.late if is_late else topics.dead_letters)
    try:
        if is_writing:
            letters.begin()
        yield Mailbox(letters)
    finally:
        letters.close()


def _what(letter: StoredLetter, rules: Rules) -> str:
    """Which field, and what stood there; nothing of a record that was cut, for the end of it decides as well."""
    return "" if letter.is_cut else explain(rules, letter.reason, letter.value, letter.timestamp_ms)


def _described(letter: StoredLetter, rules: Rules, *, is_done: bool) -> dict[str, object]:
    return {
        "source": str(letter.source),
        "source_topic": letter.topic,
        "timestamp_ms": letter.timestamp_ms,
        "kept_ms": letter.kept_ms,
        "reason": letter.reason,
        "what": _what(letter, rules),
        "key": None if letter.key is None else letter.key.decode(errors="replace"),
        "size_bytes": letter.size_bytes,
        "is_cut": letter.is_cut,
        "is_put_back": is_done,
    }


def _time(at_ms: int) -> str:
    try:
        return "-" if at_ms < 0 else f"{datetime.fromtimestamp(at_ms / 1_000, UTC):%Y-%m-%d %H:%M:%S}Z"
    except (ValueError, OverflowError):  # whoever made the record may have written any number
        return f"{at_ms} ms"


def _beginning(letter: StoredLetter) -> str:
    text = (letter.value or b"")[:BEGINNING_BYTES].decode(errors="replace")
    return "".join(character if character.isprintable() else "·" for character in text)


@click.group("dead-letters")
def dead_letters_group() -> None:
    """What was rejected, by reason; put back on the tick topic after a fix."""


@dead_letters_group.command(
    "ls",
    epilog=examples(
        "dead-letters ls",
        "dead-letters ls --reason price --from 2026-01-02T09:15:00+05:30",
        "dead-letters ls --late --source 3 --json",
    ),
)
@as_late
@_filters
@as_json
@click.pass_obj
def ls_command(
    world: World,
    *,
    late: bool,
    reason: str | None,
    source: str | None,
    from_text: str | None,
    to_text: str | None,
    is_json: bool,
) -> None:
    """The rejected records: where each was, when, why, and how it begins.

    Times are the records' own. With --late the reasons are the timeframes that a tick was too late for, like 1m,2m.
    """
    wanted = _wanted(reason, source, from_text, to_text)
    counts: Counter[str] = Counter()
    done = 0
    rules = world.settings.rules()
    rows: deque[tuple[str, ...]] = deque(maxlen=ROWS_MAX)
    with _mailbox(world, is_late=late) as mailbox:
        for letter, is_done in mailbox.find(wanted):
            counts[letter.reason] += 1
            done += is_done
            if is_json:
                say_json(msgspec.json.encode(_described(letter, rules, is_done=is_done)))
                continue
            state = "put back" if is_done else "cut" if letter.is_cut else ""
            size = f"{letter.size_bytes:,}"
            rows.append(
                (str(letter.source), _time(letter.timestamp_ms), letter.reason, size, state, _beginning(letter))
            )
        there = {letter.reason for letter, _ in mailbox.find(Wanted())} if reason and not counts else set()
    if rows:
        _print_table(rows)
    total = counts.total()
    parts = [", ".join(f"{count} {printable(name)}" for name, count in counts.most_common()) or "none"]
    if done:
        parts.append(f"{done} of {total} put back")
    if there:
        parts.append(f"reasons there: {', '.join(map(printable, sorted(there)))}")
    if not is_json and total > ROWS_MAX:
        parts.append(f"shown are the last {ROWS_MAX}, --json has all")
    click.echo("; ".join(parts), err=True)


def _print_table(rows: deque[tuple[str, ...]]) -> None:
    from rich.console import Console  # noqa: PLC0415 - takes as long as all the rest
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table()
    for column in ("source", "time", "reason", "bytes", "", "begins with"):
        table.add_column(column, justify="right" if column == "bytes" else "left", no_wrap=True)
    for row in rows:
        # What others wrote is no markup.
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table)


@dead_letters_group.command(
    "show",
    epilog=examples("dead-letters show 3@120", "dead-letters show 3@120 --as raw", "dead-letters show 0@7 --json"),
)
@click.argument("source")
@as_late
@click.option(
    "--as",
    "form",
    type=click.Choice(["text", "hex", "base64", "raw"]),
    help="The record's bytes; raw: nothing else. Default: text, or hex for what is none.",
)
@as_json
@click.pass_obj
def show_command(world: World, source: str, form: str | None, *, late: bool, is_json: bool) -> None:
    """One letter whole: why it is here, by which field, its headers and its bytes.

    SOURCE is where the record was in the tick topic, partition@offset.
    """
    partition, offset = _place("SOURCE", source)
    if offset is None:
        raise click.BadParameter(
            f"{source} is a partition; give a record of it, like {source}@120", param_hint="SOURCE"
        )
    with _mailbox(world, is_late=late) as mailbox:
        found = list(mailbox.find(Wanted(partition=partition, offset=offset)))
    if not found:
        raise CheckError(
            f"no letter of {source}; `streamingcandle dead-letters ls{' --late' if late else ''}` lists them"
        )
    rules = world.settings.rules()
    for letter, is_done in found:
        if form == "raw":
            _check_raw(letter)
            click.echo(letter.value or b"", nl=False)
        elif is_json:
            say_json(msgspec.json.encode(_whole(letter, rules, is_done=is_done)))
        else:
            _print_letter(letter, rules, form, is_done=is_done)


def _whole(letter: StoredLetter, rules: Rules, *, is_done: bool) -> dict[str, object]:
    """Everything; bytes that are no text are base64."""
    said = _described(letter, rules, is_done=is_done) | {"sha256": letter.sha256}
    said["headers"] = [[name, None if text is None else text.decode(errors="replace")] for name, text in letter.headers]
    try:
        return said | {"text": None if letter.value is None else letter.value.decode()}
    except UnicodeDecodeError:
        return said | {"base64": base64.b64encode(letter.value or b"").decode()}


def _print_letter(letter: StoredLetter, rules: Rules, form: str | None, *, is_done: bool) -> None:
    key = None if letter.key is None else letter.key.decode(errors="backslashreplace")
    lines = [
        ("source", f"{printable(letter.topic)}[{letter.source.partition}]@{letter.source.offset}"),
        ("time", _time(letter.timestamp_ms)),
        ("kept", _time(letter.kept_ms)),
        ("reason", printable(letter.reason)),
        *([("what", what)] if (what := _what(letter, rules)) else []),
        ("put back", "yes" if is_done else "no"),
        ("key", "none" if key is None else printable(key)),
        *(
            (f"header {printable(name)}", printable((text or b"").decode(errors="backslashreplace")))
            for name, text in letter.headers
        ),
    ]
    value = letter.value or b""
    size = f"{letter.size_bytes} bytes"
    lines.append(("size", f"{size}, cut to {len(value)}, sha256 {letter.sha256}" if letter.is_cut else size))
    for name, text in lines:
        say(f"{name}\t{text}")
    click.echo()
    shown = _shown(value, form or ("text" if _is_text(value) else "hex"))
    click.echo(printable_lines(shown) if sys.stdout.isatty() else shown, color=True)


def _check_raw(letter: StoredLetter) -> None:
    """SettingsError where a terminal would obey what is in there."""
    if sys.stdout.isatty() and not _is_text(letter.value or b""):
        raise SettingsError(
            f"--as raw: {letter.source} has bytes that a terminal obeys; send it to a file with `>`, or take --as hex"
        )


def _is_text(value: bytes) -> bool:
    try:
        return all(character.isprintable() or character in "\t\n\r" for character in value.decode())
    except UnicodeDecodeError:
        return False


def _shown(value: bytes, form: str) -> str:
    if form == "text":
        return value.decode(errors="backslashreplace")
    if form == "base64":
        return base64.b64encode(value).decode()
    rows = (value[at : at + HEX_WIDTH] for at in range(0, len(value), HEX_WIDTH))
    return "\n".join(f"{at * HEX_WIDTH:08x}  {row.hex(' ')}" for at, row in enumerate(rows))


@dead_letters_group.command(
    "retry",
    epilog=examples(
        "dead-letters retry --dry-run", "dead-letters retry --reason price", "dead-letters retry --source 3@120"
    ),
)
@_filters
@click.option("--dry-run", is_flag=True, help="Say what would be put back; change nothing.")
@as_json
@click.pass_obj
def retry_command(
    world: World,
    *,
    reason: str | None,
    source: str | None,
    from_text: str | None,
    to_text: str | None,
    dry_run: bool,
    is_json: bool,
) -> None:
    """Put rejected records back on the tick topic: bytes, key and time as they were, each once.

    What was put back is marked in the same transaction; typing it again, after a crash too, puts nothing back twice.
    A record that is rejected again is a new letter. Too-late ticks are not for this: their longer windows have them.
    """
    wanted = _wanted(reason, source, from_text, to_text)
    is_stopping = stop_on_signals()
    with _mailbox(world, is_writing=not dry_run) as mailbox:
        told = mailbox.retry(wanted, is_dry_run=dry_run, is_stopping=is_stopping)
    topic = world.settings.text("tick_topic")
    if is_json:
        lost = [str(source) for source in told.lost]
        said = {"put_back": told.put_back, "before": told.before, "lost": lost, "is_dry_run": dry_run}
        click.echo(msgspec.json.encode(said))
    else:
        verb = "would be put back" if dry_run else "put back"
        ending = "; stopped before the end" if is_stopping() else ""
        click.echo(f"{told.put_back} {verb} on {topic}, {told.before} were before{ending}", err=True)
    if told.lost:
        message = f"{len(told.lost)} not put back, {told.lost[0]} the first: too large to be kept whole"
        raise CheckError(f"{message}, and gone from {topic}; ask the feed for them")


COMMANDS = (dead_letters_group,)
