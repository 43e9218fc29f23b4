"""`completion`: the script that lets a shell complete."""

import click
from click.shell_completion import get_completion_class

from streamingcandle.cli.options import examples

NAME = "streamingcandle"


@click.command(
    "completion",
    epilog=examples(
        "completion bash > ~/.local/share/bash-completion/completions/streamingcandle",
        "completion zsh > ~/.zfunc/_streamingcandle",
        "completion fish > ~/.config/fish/completions/streamingcandle.fish",
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion_command(context: click.Context, shell: str) -> None:
    """Print the script that lets a shell complete what you type.

    bash reads it from that file by itself; zsh with ~/.zfunc in its fpath; fish by itself.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, NAME, f"_{NAME.upper()}_COMPLETE").source())


COMMANDS = (completion_command,)
