"""What the commands' lines have in common; light, for `--help` reads it."""

import click


def examples(*lines: str) -> str:
    """What follows the options in a command's help."""
    # The backspace is how click is told to leave the lines as they are.
    return "\n".join(["\b", "Examples:", *(f"  streamingcandle {line}" for line in lines)])


as_json = click.option("--json", "is_json", is_flag=True, help="For programs: JSON instead of text.")


def time_ms(name: str, text: str | None) -> int | None:
    """Epoch ms of the text of the option `name`."""
    from streamingcandle.settings_table import start_ms  # noqa: PLC0415 - needed by few commands

    try:
        return None if text is None else start_ms(text)
    except ValueError:
        raise click.BadParameter("not a time like 2026-01-02T09:15:00+05:30", param_hint=name) from None
