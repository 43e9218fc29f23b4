"""`doctor`: whether everything is there that `run` needs."""

from pathlib import Path

import click
import msgspec

from streamingcandle.candles.session import DAY_MS, Calendar
from streamingcandle.cli.options import as_json, examples, say
from streamingcandle.cli.world import World
from streamingcandle.errors import CheckError, SettingsError
from streamingcandle.masking import clean
from streamingcandle.ops.doctor import check_settings, examine
from streamingcandle.ops.doctor.finding import Deployment, Finding, fault, not_made

WEEK_DAYS = 7


@click.command("doctor", epilog=examples("doctor", "doctor --json"))
@as_json
@click.pass_obj
def doctor_command(world: World, *, is_json: bool) -> None:
    """Check everything that `run` needs, one line each with what to do; exit 1 when there is a fault.

    Settings, brokers, TLS, SASL, topics, rights, group, state directory, disk, clock, memory, store. Takes a moment,
    20 s where somebody does not answer.
    """
    # A setting's own text, and what others say of an address, may hold a password.
    found = [msgspec.structs.replace(f, what=clean(f.what), do=clean(f.do)) for f in diagnose(world)]
    faults = sum(finding.state == "fault" for finding in found)
    warnings = sum(finding.state == "warning" for finding in found)
    if is_json:
        click.echo(msgspec.json.encode({"checks": found, "faults": faults, "warnings": warnings}))
    else:
        for finding in found:
            say("\t".join([finding.state, finding.check, _line(finding)]))
    if faults:
        raise CheckError(f"doctor: faults: {faults}, warnings: {warnings}; each line says what to do")


def diagnose(world: World) -> list[Finding]:
    """All findings; where the settings cannot be read, that alone."""
    try:
        settings = world.settings
        settings.path()
    except SettingsError as error:
        what, _, do = str(error).rpartition("; ")
        stopped = fault("settings", what or do, do if what else "correct it; docs/settings.md has all")
        return [stopped, not_made("all", "every other check: the settings cannot be used")]
    found = check_settings(
        profile=settings.profile, warnings=settings.warnings, is_embedded=settings.bootstrap_servers is None
    )
    return found + examine(
        deployment(world),
        None if settings.bootstrap_servers is None else settings.kafka_settings(world.doctor_identity),
        world.clock,
        state_dir=Path(settings.text("state_dir")),
        store=world.store_path,
    )


def deployment(world: World) -> Deployment:
    """What the settings say."""
    settings, topics = world.settings, world.settings.topics()
    path = settings.path()
    return Deployment(
        application_id=settings.text("application_id"),
        ticks=topics.ticks,
        candles=topics.candles,
        letters=(topics.dead_letters, topics.late),
        snapshots=world.snapshots_topic,
        partitions=int(settings.text("partitions")),
        session_ms=_longest_session_ms(settings.rules().calendar, world.clock.wall_ms()),
        is_split_accepted=path.is_split_accepted,
        is_stopped_by_gone=path.is_stopped_by_gone,
        is_production=settings.profile == "production",
    )


def _longest_session_ms(calendar: Calendar, now_ms: int) -> int:
    """Of the week to come, first open to last close of a day, over all exchanges."""
    today = now_ms // DAY_MS
    days = [schedule.sessions(day) for schedule in calendar.schedules() for day in range(today, today + WEEK_DAYS)]
    return max((sessions[-1][1] - sessions[0][0] for sessions in days if sessions), default=DAY_MS)


def _line(finding: Finding) -> str:
    return f"{finding.what}; {finding.do}" if finding.do else finding.what


COMMANDS = (doctor_command,)
