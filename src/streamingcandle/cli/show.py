"""`sessions`, `config`, `version`: what is, changing nothing."""

import platform
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import click
import confluent_kafka
import msgspec

from streamingcandle import __version__
from streamingcandle.cli.options import as_json, examples, say
from streamingcandle.cli.world import World
from streamingcandle.kafka.client import shown_defaults
from streamingcandle.masking import masked
from streamingcandle.settings_table import DEFAULT_PROFILE


@click.group("sessions")
def sessions_group() -> None:
    """Trading sessions."""


@sessions_group.command(
    "show", epilog=examples("sessions show", "sessions show --date 2026-01-02 --exchange N", "sessions show --json")
)
@click.option("--date", "date_text", metavar="YYYY-MM-DD", help="Default: today.")
@click.option("--exchange", help="Only this one.")
@as_json
@click.pass_obj
def sessions_command(world: World, date_text: str | None, exchange: str | None, *, is_json: bool) -> None:
    """The sessions that will be used on a day.

    By exchange and segment, in the exchange's zone.
    """
    try:
        day = date.fromisoformat(date_text) if date_text else datetime.now(UTC).date()
    except ValueError:
        raise click.BadParameter("not a date like 2026-01-02", param_hint="--date") from None
    rows: list[dict[str, Any]] = []
    for schedule in world.settings.rules().calendar.schedules():
        if exchange is not None and schedule.exchange != exchange:
            continue
        zone = ZoneInfo(schedule.zone)
        sessions = [
            "-".join(_clock(at_ms, zone, day) for at_ms in bounds)
            for bounds in schedule.sessions(day.toordinal() - 719_163)
        ]
        name = f"{schedule.exchange}:{schedule.segment}"
        rows.append({"exchange": name, "date": str(day), "sessions": sessions, "zone": schedule.zone})
    if exchange is None or not rows:
        rows.append({"exchange": exchange or "others", "date": str(day), "sessions": ["00:00-24:00"], "zone": "UTC"})
    if is_json:
        click.echo(msgspec.json.encode({"sessions": rows}))
        return
    for row in rows:
        click.echo(f"{row['exchange']}\t{row['date']}\t{' '.join(row['sessions']) or 'closed'}\t{row['zone']}")


def _clock(at_ms: int, zone: ZoneInfo, day: date) -> str:
    at = datetime.fromtimestamp(at_ms / 1_000, zone)
    return "24:00" if at.date() > day else f"{at:%H:%M}"


@click.group("config")
def config_group() -> None:
    """Settings."""


@config_group.command("show", epilog=examples("config show", "config show --profile production", "config show --json"))
@click.option("--profile", metavar="NAME", help="As if this profile were set.")
@as_json
@click.pass_obj
def config_command(world: World, profile: str | None, *, is_json: bool) -> None:
    """Each setting, its value and its origin; secrets are masked.

    Where the profile gives a setting another value than the default profile, that one's follows.
    """
    settings = world.settings if profile is None else world.settings_of(profile)
    plain = settings if settings.profile == DEFAULT_PROFILE else world.settings_of(DEFAULT_PROFILE)
    rows = [(name, masked(name, value.text), value.origin) for name, value in settings.values.items()]
    shown = [(name, masked(name, value.text), value.origin) for name, value in settings.kafka.items()]
    shown += [row for row in shown_defaults() if row[0] not in settings.kafka]
    rows += [(f"kafka.{name}", text, origin) for name, text, origin in sorted(shown)]
    others = {
        name: masked(name, value.text)
        for name, value in plain.values.items()
        if value.text != settings.values[name].text
    }
    if is_json:
        named = [dict(zip(("name", "value", "origin"), row, strict=True)) for row in rows]
        for entry in named:
            if entry["name"] in others:
                entry[DEFAULT_PROFILE] = others[entry["name"]]
        click.echo(msgspec.json.encode({"profile": settings.profile, "settings": named}))
        return
    click.echo(f"profile\t{settings.profile}")
    for row in rows:
        differs = f"\tin {DEFAULT_PROFILE}: {others[row[0]] or 'none'}" if row[0] in others else ""
        say("\t".join(row) + differs)


@click.command("version", epilog=examples("version", "version --json"))
@as_json
def version_command(*, is_json: bool) -> None:
    """Versions of this program and of what it stands on."""
    client, library = confluent_kafka.version(), confluent_kafka.libversion()[0]
    if is_json:
        versions = {"streamingcandle": __version__, "confluent_kafka": client, "librdkafka": library}
        click.echo(msgspec.json.encode(versions | {"python": platform.python_version()}))
        return
    click.echo(
        f"streamingcandle {__version__} (confluent-kafka {client}, librdkafka {library}, {platform.python_version()})"
    )


COMMANDS = (sessions_group, config_group, version_command)
