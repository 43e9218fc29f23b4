"""`state backup` and `state restore`: an instance into a file, and out of it on a new host or a new cluster."""

import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from streamingcandle import __version__
from streamingcandle.cli.options import as_json, examples
from streamingcandle.cli.world import World
from streamingcandle.embedded.log import claim_group
from streamingcandle.embedded.store import EmbeddedStore
from streamingcandle.errors import CheckError, OutsideError, OwnedError, SettingsError
from streamingcandle.kafka.group import check_idle, set_offsets
from streamingcandle.kafka.tail import ends_of
from streamingcandle.kafka.topics import partition_counts
from streamingcandle.masking import masked
from streamingcandle.ops import backup as ops
from streamingcandle.ops import state
from streamingcandle.settings import PREFIX, Settings
from streamingcandle.state import backup as files
from streamingcandle.state.directory import take
from streamingcandle.state.files import PART_SUFFIX, snapshot_path, write_whole

logger = logging.getLogger(__name__)

OWN_PLACES = frozenset({"state_dir", "data_dir", "log_format", "sessions"})
"""A new host has its own: no difference to tell of."""
_FILE = click.Path(dir_okay=False, path_type=Path)
Tell = Callable[[str, str], None]


# ---- backup ----


@click.command("backup", epilog=examples("state backup /backups/candles.backup", "state backup FILE --json"))
@click.argument("file", type=_FILE)
@as_json
@click.pass_obj
def backup_command(world: World, file: Path, *, is_json: bool) -> None:
    """Write all that makes this application's instance into FILE, beside a running service.

    That is: settings without secrets, sessions, committed offsets with their metadata, the newest snapshots, and the
    embedded log where there is no Kafka. An older backup of that name is replaced when the new one is whole.
    """
    with files.writing(file) as backup:
        log = world.open_tail(lambda: False)
        try:
            taken = ops.take(log, world.found_snapshots())
        finally:
            log.close()
        manifest, texts = _settings_parts(world, taken)
        contents: dict[str, bytes | Path] = {**texts}
        contents |= {files.snapshot_name(number): data for number, data in taken.snapshots.items()}
        if world.settings.bootstrap_servers is None:
            # After the offsets: it is at or past them, and past every snapshot.
            store = world.embedded_store()
            try:
                store.copy_to(backup.scratch)
            finally:
                store.close()
            contents[files.LOG] = backup.scratch
        size_bytes = backup.finish(manifest, contents)
    offsets = {number: one.offset for number, one in taken.offsets.items()}
    if is_json:
        told = {"file": str(file), "size_bytes": size_bytes, "made": manifest.made, "offsets": offsets}
        told |= {"snapshots": sorted(taken.snapshots), "left_out": manifest.left_out}
        click.echo(msgspec.json.encode({"application_id": manifest.application_id, **told}))
        return
    click.echo(f"{file}\t{size_bytes} bytes")
    click.echo(f"offsets\t{_places(offsets)}")
    click.echo(f"snapshots\t{_numbers(taken.snapshots)}")
    if manifest.left_out:
        click.echo(f"left out\tsecrets: {', '.join(manifest.left_out)}")


def _settings_parts(world: World, taken: ops.Taken) -> tuple[files.Manifest, dict[str, bytes]]:
    settings = world.settings
    left_out = []
    values, properties = {}, {}
    for name, value in settings.values.items():
        if _is_secret(name, value.text):
            left_out.append(name)
        elif value.origin != "default":
            values[name] = value.text
    for name, value in settings.kafka.items():
        if _is_secret(name, value.text):
            left_out.append(f"kafka.{name}")
        else:
            properties[name] = value.text
    texts = {}
    if sessions := settings.text("sessions"):
        texts[files.SESSIONS] = Path(sessions).read_bytes()
        values["sessions"] = files.SESSIONS
    texts[files.SETTINGS] = ops.settings_text(values, properties)
    manifest = files.Manifest(
        made=datetime.fromtimestamp(world.clock.wall_ms() / 1_000, UTC).isoformat(timespec="seconds"),
        by=__version__,
        host=socket.gethostname(),
        log=_log_of(settings),
        application_id=settings.text("application_id"),
        tick_topic=settings.text("tick_topic"),
        topic_id=taken.topic_id,
        partitions=taken.partitions,
        rules=settings.rules().digest,
        settings={name: value.text for name, value in settings.values.items() if name not in left_out},
        left_out=left_out,
        offsets=taken.offsets,
    )
    return manifest, texts


def _is_secret(name: str, text: str) -> bool:
    return masked(name, text) != text


def _log_of(settings: Settings) -> str:
    return "embedded" if settings.bootstrap_servers is None else "kafka"


def _places(offsets: Mapping[int, int]) -> str:
    return ", ".join(f"{number}@{offset}" for number, offset in sorted(offsets.items())) or "none committed yet"


def _numbers(snapshots: Mapping[int, object]) -> str:
    return f"of partitions {', '.join(map(str, sorted(snapshots)))}" if snapshots else "none: the log alone has it all"


# ---- restore ----


@click.command("restore", epilog=examples("state restore FILE --dry-run", "state restore FILE"))
@click.argument("file", type=_FILE)
@click.option("--dry-run", is_flag=True, help="Say what would be done; change nothing.")
@click.option("--replace", is_flag=True, help="Put it in the place of what is here: offsets, snapshots, embedded log.")
@click.pass_obj
def restore_command(world: World, file: Path, *, dry_run: bool, replace: bool) -> None:
    """Put back what `state backup` wrote, on a new host or beside a new cluster, while no process runs.

    Offsets and snapshots go back only where the tick topic is the one they are of, or a mirror of it with the same
    offsets. What the backup does not know is left alone.
    """

    def tell(what: str, text: str) -> None:
        click.echo(f"{what}\t{text}")

    is_kafka = world.settings.bootstrap_servers is not None
    with ExitStack() as stack:
        stack.enter_context(_told_of_the_disk())
        _check_nobody_runs(world, stack)
        if not dry_run:
            stack.enter_context(_instance_held(world))
        log_into = None if is_kafka or dry_run else stack.enter_context(_staged(world))
        manifest, contents = files.read_backup(file, log_into=log_into)
        _check_same_application(world, manifest)
        tell("backup", f"made {manifest.made} on {manifest.host} by version {manifest.by}")
        _tell_settings(world, manifest, tell)
        if is_kafka:
            plan = _kafka_plan(world, manifest, contents, tell, is_replacing=replace)
        else:
            plan = _embedded_plan(world, contents, is_replacing=replace)
        texts = _texts(world, contents)
        _check_nothing_there(world, plan, texts, is_replacing=replace)
        if log_into is not None:
            store = EmbeddedStore(world.store_path)
            stack.callback(store.close)
            store.copy_from(log_into)
        if not dry_run:
            _write_files(world, plan, texts)
            if plan.offsets:
                # The last step, one request: before it the group is as it was.
                set_offsets(world.kafka(), world.clock, plan.offsets)
        offsets = {number: one.offset for number, one in plan.offsets.items()}
        tell("offsets", f"{_places(offsets)}, {plan.reason}" if offsets else plan.reason)
        tell("snapshots", _numbers(plan.snapshots))
        for path in texts:
            tell(path.stem, f"{path}; `--config {path}` uses it" if path.name == files.SETTINGS else str(path))
    click.echo("nothing was changed" if dry_run else "restored", err=True)


# ---- who must not be there ----


def _check_nobody_runs(world: World, stack: ExitStack) -> None:
    """OwnedError while any process of the application has an instance here, the group, or the embedded log."""
    application_id = world.settings.text("application_id")
    for found in state.look(Path(world.settings.text("state_dir")), application_id):
        if found.is_owned:
            raise OwnedError(f"{found.path}: run by {found.owner or 'another process'}; stop the service first")
    if world.settings.bootstrap_servers is not None:
        check_idle(world.kafka(), world.clock)
    elif world.store_path.parent.exists():
        stack.enter_context(claim_group(world.store_path, application_id))


@contextmanager
def _instance_held(world: World) -> Iterator[None]:
    """No process of this host becomes instance 0 meanwhile."""
    folder = _folder(world) / "instance-0"
    lock = take(folder)
    if lock is None:
        raise OwnedError(f"{folder}: taken by a process just now; stop the service first")
    try:
        yield
    finally:
        os.close(lock)


@contextmanager
def _staged(world: World) -> Iterator[Path]:
    """A file beside the embedded log for the backup's; what a kill leaves the next restore takes."""
    path = world.store_path.with_name(f"restored-{world.store_path.name}{PART_SUFFIX}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def _told_of_the_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        advice = "see to its room and rights, and run this as the service's user"
        raise OutsideError(f"{error.filename}: {error.strerror}; {advice}") from error


def _folder(world: World) -> Path:
    return Path(world.settings.text("state_dir")) / world.settings.text("application_id")


# ---- what may go back ----


def _check_same_application(world: World, manifest: files.Manifest) -> None:
    settings = world.settings
    for name, there in (("application_id", manifest.application_id), ("tick_topic", manifest.tick_topic)):
        if settings.text(name) != there:
            raise SettingsError(
                f"{name} is {there} in the backup, {settings.text(name)} here; set {PREFIX}{name.upper()}={there}"
            )
    if manifest.log != _log_of(settings):
        advice = "unset" if manifest.log == "embedded" else "set"
        raise SettingsError(
            f"the backup is of {'an embedded log' if manifest.log == 'embedded' else 'a Kafka cluster'}; "
            f"{advice} {PREFIX}KAFKA_BOOTSTRAP_SERVERS"
        )


def _tell_settings(world: World, manifest: files.Manifest, tell: Tell) -> None:
    settings = world.settings
    for name, there in manifest.settings.items():
        here = settings.values.get(name)
        if name not in OWN_PLACES and here is not None and here.text != there:
            tell("differs", f"{name} = {there} in the backup, {here.text} here ({here.origin})")
    if manifest.rules != settings.rules().digest:
        tell("differs", "the rules: snapshots will be passed over, and the trading day folded anew under those here")
    if manifest.left_out:
        tell("secrets", f"not in a backup, to be set again: {', '.join(manifest.left_out)}")


def _kafka_plan(
    world: World, manifest: files.Manifest, contents: Mapping[str, bytes], tell: Tell, *, is_replacing: bool
) -> ops.Plan:
    there = partition_counts(world.kafka())
    empty = [
        name
        for name in world.settings.topics().candles
        if name not in there or not any(ends_of(world.kafka(), world.clock, name).values())
    ]
    has_candles = len(empty) < len(world.settings.timeframes)
    log = world.open_tail(lambda: False)
    try:
        plan = ops.plan(manifest, contents, log, is_replacing=is_replacing, has_candles=has_candles)
    finally:
        log.close()
    if plan.offsets and empty:
        tell("candles", f"none here in {', '.join(empty)}: those of before the backup are not made again")
    return plan


def _embedded_plan(world: World, contents: Mapping[str, bytes], *, is_replacing: bool) -> ops.Plan:
    reason = "in the embedded log"
    if world.store_path.exists():
        store = EmbeddedStore(world.store_path)
        try:
            is_blank = store.is_blank()
        finally:
            store.close()
        if not is_blank and not is_replacing:
            raise CheckError(f"embedded log {world.store_path}: not empty; --replace puts the backup's in its place")
        if not is_blank:
            reason += ", in the place of what was there"
    prefix = files.snapshot_name(0).removesuffix("0")
    snapshots = {int(name.removeprefix(prefix)): data for name, data in contents.items() if name.startswith(prefix)}
    return ops.Plan(offsets={}, snapshots=snapshots, reason=reason)


def _texts(world: World, contents: Mapping[str, bytes]) -> dict[Path, bytes]:
    """Settings and sessions, by where they go."""
    folder = _folder(world)
    found = {folder / files.SETTINGS: ops.placed(contents[files.SETTINGS], str(folder / files.SESSIONS))}
    if files.SESSIONS in contents:
        found[folder / files.SESSIONS] = contents[files.SESSIONS]
    return found


def _check_nothing_there(world: World, plan: ops.Plan, texts: Mapping[Path, bytes], *, is_replacing: bool) -> None:
    """CheckError where something of the same name would be written over, without `--replace`."""
    if is_replacing:
        return
    there = [str(path) for path, text in texts.items() if path.exists() and path.read_bytes() != text]
    if plan.snapshots:
        there += [str(path) for path in _snapshot_files(world)]
    if there:
        raise CheckError(f"{there[0]}: there already; --replace puts the backup's in its place")


def _snapshot_files(world: World) -> list[Path]:
    states = state.look(Path(world.settings.text("state_dir")), world.settings.text("application_id"))
    return [Path(found.path, file.name) for found in states for file in found.files if file.partition is not None]


# ---- writing ----


def _write_files(world: World, plan: ops.Plan, texts: Mapping[Path, bytes]) -> None:
    """Shortcuts and texts: half of them are as right as none."""
    for path, text in texts.items():
        write_whole(path, text)
    if plan.snapshots:
        for path in _snapshot_files(world):
            path.unlink(missing_ok=True)
    for number, data in plan.snapshots.items():
        write_whole(snapshot_path(_folder(world) / "instance-0", number, 0), data)
    if not plan.offsets:
        return
    topic = world.kafka_snapshots(len(plan.offsets))
    try:
        for number, data in plan.snapshots.items():
            topic.save(number, data)
        topic.close()
    except OutsideError as error:
        logger.warning("no snapshots to the topic: %s; the state directory has them", error)
