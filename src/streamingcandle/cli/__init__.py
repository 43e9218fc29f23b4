"""The command line: parses, builds the parts, runs. The only place where they meet.

A command's module is read when the command is typed, not before: Kafka's client alone takes longer than `--help` may.
"""

import logging
import os
import sys
from importlib import import_module
from typing import NoReturn

import click

from streamingcandle.cli.options import examples
from streamingcandle.errors import OutsideError, StreamingCandleError
from streamingcandle.masking import clean, clean_tracebacks
from streamingcandle.printable import printable

logger = logging.getLogger("streamingcandle")

MODULES = {
    "run": ("operate", "Make candles: ticks in, candles out, each exactly once."),
    "topics": ("operate", "The topics this service reads and writes."),
    "demo": ("watch", "A simulated market to candles, live on screen."),
    "ingest": ("feed", "Put tick records into the tick topic, keyed by token."),
    "simulate": ("feed", "Put a realistic feed into the tick topic."),
    "watch": ("watch", "Candles as they form, live: of all instruments, or of each INSTRUMENT like N:C:2885."),
    "candles": ("candles", "Read the candles of each INSTRUMENT, like N:C:2885 or RELIANCE."),
    "dead-letters": ("dead_letters", "What was rejected, by reason; put back on the tick topic after a fix."),
    "doctor": (
        "doctor",
        "Check everything that `run` needs, one line each with what to do; exit 1 when there is a fault.",
    ),
    "state": ("state", "The state directory: shortcuts for restarts."),
    "sessions": ("show", "Trading sessions."),
    "config": ("show", "Settings."),
    "version": ("show", "Versions of this program and of what it stands on."),
    "completion": ("completion", "Print the script that lets a shell complete what you type."),
}
"""Each command's module, and the first sentence of its help."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        """In alphabetical order, as click does."""
        del ctx
        return sorted(MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Read the command's module."""
        del ctx
        if cmd_name not in MODULES:
            return None
        module = import_module(f"{__name__}.{MODULES[cmd_name][0]}")
        found: dict[str, click.Command] = {command.name: command for command in module.COMMANDS}
        return found[cmd_name]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """From the table, without a module."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, MODULES[name][1].removesuffix(".")) for name in self.list_commands(ctx)])

    def invoke(self, ctx: click.Context) -> object:
        """Click's own answer to a reader that went away (`| head`) is exit 1: "a check found something"."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # What is still buffered goes nowhere, or the interpreter would fail on it at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=examples("demo", "topics ensure", "run"),
)
@click.option("--config", type=click.Path(), metavar="FILE", help="Settings file (TOML).")
@click.option("--profile", metavar="NAME", help="development, staging, production or one of the settings file.")
@click.option("--debug", is_flag=True, help="Tracebacks and debug messages.")
@click.version_option(package_name="streamingcandle", prog_name="streamingcandle")
@click.pass_context
def cli(context: click.Context, config: str | None, profile: str | None, *, debug: bool) -> None:
    """OHLCV candles from a Kafka tick topic: right, on time, each exactly once.

    Settings come from STREAMINGCANDLE_... variables or a file: `streamingcandle config show` lists them.
    """
    from streamingcandle.cli.world import World  # noqa: PLC0415 - not for --help

    context.obj = World({"config": config, "profile": profile}, is_debug=debug)


def _say(line: str) -> None:
    """One line, without secrets and without what a terminal would obey."""
    click.echo(printable(clean(line)), err=True)


def _tell(error: click.ClickException) -> None:
    """One line, as our own errors are, in place of click's three."""
    said = " ".join(error.format_message().split()).removesuffix(".")
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context is not None else "streamingcandle"
    _say(f"{path}: {said}; see `{path} --help`")


def _leave(code: int) -> NoReturn:
    """End the process, at once where the client library is loaded.

    Its threads may be in the middle of a TLS handshake, and what OpenSSL does at a process's usual end pulls it
    from under them (seen: a segmentation fault where a broker refused us).
    """
    if "confluent_kafka" not in sys.modules:
        sys.exit(code)
    try:
        sys.stdout.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            click.echo(f"streamingcandle: what was printed is not whole: {error.strerror}", err=True)
            code = code or OutsideError.exit_code
    os._exit(code)


def main() -> None:
    """Entry point: our errors are one line on stderr and their exit code."""
    clean_tracebacks()
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _tell(error)
        sys.exit(error.exit_code)
    except StreamingCandleError as error:
        if "--debug" in sys.argv:
            raise
        _say(f"streamingcandle: {error}")
        _leave(error.exit_code)
    except OSError as error:
        if "--debug" in sys.argv:
            raise
        where = f"{error.filename}: " if error.filename else ""
        _say(f"streamingcandle: {where}{error.strerror or error}; make room or access, --debug tells where")
        _leave(OutsideError.exit_code)
    _leave(code if isinstance(code, int) else 0)
