"""What the commands' lines have in common; light, for `--help` reads it."""

import sys
from datetime import datetime

import click


def examples(*lines: str) -> str:
    """What follows the options in a command's help."""
    # The backspace is how click is told to leave the lines as they are.
    return "\n".join(["\b", "Examples:", *(f"  streamingcandle {line}" for line in lines)])


def say(text: str) -> None:
    """A line of what others wrote: to a terminal nothing that it would obey, to a file or a pipe as it is."""
    from streamingcandle.printable import printable  # noqa: PLC0415 - needed by few commands

    # Click would take some escapes out of what goes elsewhere.
    click.echo("\t".join(map(printable, text.split("\t"))) if sys.stdout.isatty() else text, color=True)


def say_json(encoded: bytes) -> None:
    """A line of JSON, in the same way: its values are the same."""
    from streamingcandle.printable import printable_json  # noqa: PLC0415 - needed by few commands

    click.echo(printable_json(encoded.decode()) if sys.stdout.isatty() else encoded)


as_json = click.option("--json", "is_json", is_flag=True, help="For programs: JSON instead of text.")


def time_ms(name: str, text: str | None) -> int | None:
    """Epoch ms of the text of the option `name`."""
    from streamingcandle.settings_table import start_ms  # noqa: PLC0415 - needed by few commands

    try:
        return None if text is None else start_ms(text)
    except ValueError:
        raise click.BadParameter(_time_fault(text or ""), param_hint=name) from None


def _time_fault(text: str) -> str:
    """What is missing, with an example that would be taken. No zone is guessed: it would be another time elsewhere."""
    try:
        local = datetime.fromisoformat(text)
    except ValueError:
        return f"{text!r} is not a time like 2026-01-02T09:15:00+05:30"
    return f"{text!r} has no zone; write {local.isoformat()}+05:30 for India's time, {local.isoformat()}Z for UTC"
