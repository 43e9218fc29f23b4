"""`sessions`, `config`, `version`: what is, changing nothing."""

import platform
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import click
import confluent_kafka

from streamingcandle import __version__
from streamingcandle.cli.world import World, examples
from streamingcandle.kafka.client import shown_defaults
from streamingcandle.settings import masked


@click.group("sessions")
def sessions_group() -> None:
    """Trading sessions."""


@sessions_group.command("show", epilog=examples("sessions show", "sessions show --date 2026-01-02 --exchange N"))
@click.option("--date", "date_text", metavar="YYYY-MM-DD", help="Default: today.")
@click.option("--exchange", help="Only this one.")
@click.pass_obj
def sessions_command(world: World, date_text: str | None, exchange: str | None) -> None:
    """The sessions that will be used on a day.

    By exchange and segment, in the exchange's zone.
    """
    try:
        day = date.fromisoformat(date_text) if date_text else datetime.now(UTC).date()
    except ValueError:
        raise click.BadParameter("not a date like 2026-01-02", param_hint="--date") from None
    for schedule in world.settings.rules().calendar.schedules():
        if exchange is not None and schedule.exchange != exchange:
            continue
        zone = ZoneInfo(schedule.zone)
        sessions = [
            "-".join(_clock(at_ms, zone, day) for at_ms in bounds)
            for bounds in schedule.sessions(day.toordinal() - 719_163)
        ]
        name = f"{schedule.exchange}:{schedule.segment}"
        click.echo(f"{name}\t{day}\t{' '.join(sessions) or 'closed'}\t{schedule.zone}")
    if exchange is None:
        click.echo(f"others\t{day}\t00:00-24:00\tUTC")


def _clock(at_ms: int, zone: ZoneInfo, day: date) -> str:
    at = datetime.fromtimestamp(at_ms / 1_000, zone)
    return "24:00" if at.date() == day + timedelta(days=1) else f"{at:%H:%M}"


@click.group("config")
def config_group() -> None:
    """Settings."""


@config_group.command("show", epilog=examples("config show"))
@click.pass_obj
def config_command(world: World) -> None:
    """Each setting, its value and its origin; secrets are masked."""
    settings = world.settings
    click.echo(f"profile\t{settings.profile}")
    for name, value in settings.values.items():
        click.echo(f"{name}\t{masked(name, value.text)}\t{value.origin}")
    shown = [(name, masked(name, value.text), value.origin) for name, value in settings.kafka.items()]
    shown += [row for row in shown_defaults() if row[0] not in settings.kafka]
    for row in sorted(shown):
        click.echo("kafka." + "\t".join(row))


@click.command("version", epilog=examples("version"))
def version_command() -> None:
    """Versions of this program and of what it stands on."""
    client, library = confluent_kafka.version(), confluent_kafka.libversion()[0]
    click.echo(
        f"streamingcandle {__version__} (confluent-kafka {client}, librdkafka {library}, {platform.python_version()})"
    )


COMMANDS = (sessions_group, config_group, version_command)
