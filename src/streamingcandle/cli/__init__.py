"""The command line: parses, builds the parts, runs. The only place where they meet."""

import logging
import os
import sys

import click

from streamingcandle import __version__
from streamingcandle.cli import candles, feed, operate, show, state, watch
from streamingcandle.cli.world import World, examples
from streamingcandle.errors import StreamingCandleError

logger = logging.getLogger("streamingcandle")


class _Commands(click.Group):
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
@click.option("--config", metavar="FILE", help="Settings file (TOML).")
@click.option("--profile", metavar="NAME", help="development, staging, production or one of the settings file.")
@click.option("--debug", is_flag=True, help="Tracebacks and debug messages.")
@click.version_option(__version__, prog_name="streamingcandle")
@click.pass_context
def cli(context: click.Context, config: str | None, profile: str | None, *, debug: bool) -> None:
    """OHLCV candles from a Kafka tick topic: right, on time, each exactly once.

    Settings come from STREAMINGCANDLE_... variables or a file: `streamingcandle config show` lists them.
    """
    context.obj = World({"config": config, "profile": profile}, is_debug=debug)


for command in (*operate.COMMANDS, *watch.COMMANDS, *feed.COMMANDS, *candles.COMMANDS, *state.COMMANDS, *show.COMMANDS):
    cli.add_command(command)


def _tell(error: click.ClickException) -> None:
    """One line, as our own errors are, in place of click's three."""
    said = " ".join(error.format_message().split()).removesuffix(".")
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context is not None else "streamingcandle"
    click.echo(f"{path}: {said}; see `{path} --help`", err=True)


def main() -> None:
    """Entry point: our errors are one line on stderr and their exit code."""
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
        click.echo(f"streamingcandle: {error}", err=True)
        sys.exit(error.exit_code)
    sys.exit(code if isinstance(code, int) else 0)
