"""`state`: what lies in the state directory."""

from pathlib import Path

import click
import msgspec

from streamingcandle.cli.backup import backup_command, restore_command
from streamingcandle.cli.options import as_json, examples, say
from streamingcandle.cli.world import World
from streamingcandle.errors import CheckError
from streamingcandle.ops import state as ops

BYTES_STEP = 1_024


@click.group("state")
def state_group() -> None:
    """The state directory: shortcuts for restarts. Whatever is missing there is made anew from the log."""


def _look(world: World, *, is_all: bool) -> list[ops.InstanceState]:
    application_id = None if is_all else world.settings.text("application_id")
    return ops.look(Path(world.settings.text("state_dir")), application_id)


@state_group.command("ls", epilog=examples("state ls", "state ls --json"))
@as_json
@click.pass_obj
def ls_command(world: World, *, is_json: bool) -> None:
    """The instances of every application: live or free, owner, snapshots and their age."""
    states = _look(world, is_all=True)
    if is_json:
        click.echo(msgspec.json.encode({"instances": states}))
        return
    for state in states:
        standing = "live" if state.is_owned else "free"
        columns = (f"{state.application_id}/{state.number}", standing, _owner(state), _ages(state, world))
        say("\t".join(columns))


def _owner(state: ops.InstanceState) -> str:
    if state.owner is None:
        return "-"
    return f"{state.owner}, version {state.owner.version}" + ("" if state.is_owned else ": gone without a word")


def _ages(state: ops.InstanceState, world: World) -> str:
    now_ms = world.clock.wall_ms()
    newest: dict[int, int] = {}
    for file in state.files:
        if file.partition is not None:
            newest[file.partition] = max(newest.get(file.partition, 0), file.written_ms)
    if not newest:
        return "no snapshots"
    partitions = ",".join(map(str, sorted(newest)))
    ages_s = sorted((now_ms - written_ms) // 1_000 for written_ms in newest.values())
    return f"snapshots of partitions {partitions}, {_seconds(ages_s)} old"


def _seconds(ages_s: list[int]) -> str:
    return f"{ages_s[0]} s" if ages_s[0] == ages_s[-1] else f"{ages_s[0]} to {ages_s[-1]} s"


@state_group.command("alive", epilog=examples("state alive", "state alive --json"))
@as_json
@click.pass_obj
def alive_command(world: World, *, is_json: bool) -> None:
    """Whether a process of this application is alive here: it has its instance, and its loop turned within 30 s.

    For health checks: exit 0, or 1 and why not. It asks neither the broker nor the process.
    """
    now_ms = world.clock.wall_ms()
    found = [ops.pulse(state, now_ms) for state in _look(world, is_all=False)]
    if is_json:
        click.echo(msgspec.json.encode({"is_alive": any(pulse.is_alive for pulse in found), "instances": found}))
    best = max(found, key=lambda pulse: (pulse.is_alive, pulse.is_owned), default=None)
    if best is None:
        application_id, folder = world.settings.text("application_id"), world.settings.text("state_dir")
        raise CheckError(f"no instance of {application_id} in {folder}; start `run` with these settings")
    line = f"{best.application_id}/{best.number}: {best.reason}"
    if not best.is_alive:
        raise CheckError(line)
    if not is_json:
        click.echo(line)


@state_group.command("du", epilog=examples("state du"))
@as_json
@click.pass_obj
def du_command(world: World, *, is_json: bool) -> None:
    """Sizes of the instances of every application, and in total."""
    states = _look(world, is_all=True)
    total_bytes = sum(state.size_bytes for state in states)
    if is_json:
        sizes = [{"path": state.path, "size_bytes": state.size_bytes} for state in states]
        click.echo(msgspec.json.encode({"instances": sizes, "size_bytes": total_bytes}))
        return
    for state in states:
        click.echo(f"{_size(state.size_bytes)}\t{state.path}")
    click.echo(f"{_size(total_bytes)}\ttotal")


def _size(size_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size_bytes < BYTES_STEP:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= BYTES_STEP
    return f"{size_bytes:.1f} GiB"


@state_group.command("gc", epilog=examples("state gc --dry-run", "state gc"))
@click.option("--dry-run", is_flag=True, help="Say what would go; change nothing.")
@click.pass_obj
def gc_command(world: World, *, dry_run: bool) -> None:
    """Remove what no process of this application owns and no restart needs.

    That is: snapshots that are damaged or that another instance has newer, files left half written by a crash,
    and the folders that hold nothing else. The newest snapshot of each partition stays.
    """
    freed_bytes = 0
    for found in ops.remains(_look(world, is_all=False)):
        if not dry_run and not ops.remove(found):
            click.echo(f"{found.path}\ttaken by a process just now: left alone")
            continue
        for file in found.files:
            freed_bytes += file.size_bytes
            click.echo(f"{Path(found.path, file.name)}\t{_size(file.size_bytes)}")
        if found.is_all:
            click.echo(f"{found.path}\tfolder")
    click.echo(f"{_size(freed_bytes)} {'would be freed' if dry_run else 'freed'}", err=True)


@state_group.command("verify", epilog=examples("state verify"))
@as_json
@click.pass_obj
def verify_command(world: World, *, is_json: bool) -> None:
    """Read every snapshot of this application as a restart would; exit 1 if one is damaged or from a newer program."""
    verdicts = ops.verify(_look(world, is_all=False), world.settings.rules())
    if is_json:
        click.echo(msgspec.json.encode({"snapshots": verdicts}))
    else:
        for found in verdicts:
            offset = "-" if found.offset is None else f"offset {found.offset}"
            click.echo(f"{found.path}\t{found.verdict}\t{offset}" + (f"\t{found.reason}" if found.reason else ""))
    bad = [found for found in verdicts if found.verdict in ("damaged", "newer")]
    if bad:
        message = f"{len(bad)} of {len(verdicts)} snapshots cannot be used"
        raise CheckError(
            f"{message}; a damaged one is passed over at a restart and replaced by the next, or by `state gc`"
        )


state_group.add_command(backup_command)
state_group.add_command(restore_command)
COMMANDS = (state_group,)
