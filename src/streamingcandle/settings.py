"""Settings: flags over environment over file over profile over defaults, each with its origin.

`settings_table.py` names every setting; the environment variable is `STREAMINGCANDLE_` and the name in capitals,
the key in a TOML file the name itself.
"""

import os
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, cast

import msgspec

from streamingcandle.candles.rules import Fields, Rules
from streamingcandle.candles.session import load_calendar
from streamingcandle.candles.timeframe import Timeframe, parse_timeframes
from streamingcandle.errors import SettingsError
from streamingcandle.kafka.client import KafkaSettings
from streamingcandle.kafka.properties import is_known, known, refusal
from streamingcandle.kafka.rights import rights
from streamingcandle.masking import cut, hide, hide_within, is_any_hidden, is_secret, masked
from streamingcandle.partition import PathSettings, Topics
from streamingcandle.settings_file import read_settings_file
from streamingcandle.settings_names import nearest_name
from streamingcandle.settings_secrets import check_location, read_secrets, warn_if_open
from streamingcandle.settings_table import DEFAULT_PROFILE, PROFILES, SETTINGS, duration_ms, start_ms
from streamingcandle.settings_timeframes import above, read_graces, renamed

PREFIX = "STREAMINGCANDLE_"
KAFKA_PREFIX = PREFIX + "KAFKA_"
_CONTROL = {"profile", "config", "kafka_bootstrap_servers"}


class Value(msgspec.Struct, frozen=True):
    """A setting's text and where it came from."""

    text: str
    origin: str


class Settings(msgspec.Struct, frozen=True):
    """Everything, read and checked once. `warnings` are for the log, one line each."""

    values: dict[str, Value]
    kafka: dict[str, Value]
    profile: str
    warnings: tuple[str, ...]

    def text(self, name: str) -> str:
        """A setting as text."""
        return self.values[name].text

    def duration_ms(self, name: str) -> int:
        """A duration in ms."""
        return duration_ms(self.text(name))

    @property
    def bootstrap_servers(self) -> str | None:
        """Brokers, or None for the embedded log."""
        value = self.kafka.get("bootstrap.servers")
        return value.text if value is not None and value.text else None

    @property
    def has_secrets(self) -> bool:
        """Whether this process holds any: given here, or read by the client library from a file named here."""
        keys = ("ssl.key.location", "ssl.keystore.location")
        return is_any_hidden() or any(is_secret(name) or name in keys for name in self.kafka)

    @property
    def timeframes(self) -> tuple[Timeframe, ...]:
        """Shortest first."""
        return parse_timeframes(self.text("timeframes"))

    @property
    def instance_number(self) -> int | None:
        """Which instance of this host to be; None for the first free one."""
        text = self.text("instance")
        return int(text) if text.isdigit() else None

    def rules(self) -> Rules:
        """The rules of the fold; SettingsError where a horizon is not above a grace."""
        timeframes = self.timeframes
        is_shared = bool(self.text("instance")) and self.instance_number is None
        graces = read_graces(self.text("grace"), timeframes, is_shared=is_shared)
        longest = max(graces, key=lambda grace: grace.ms)
        horizon_ms = self.duration_ms("allowed_lateness")
        if horizon_ms <= longest.ms:
            message = (
                f"allowed_lateness {self.text('allowed_lateness')} is not above the grace {self.text('grace')}; "
                f"set it above {longest.text}, for example {above(longest)}"
            )
            raise SettingsError(message)
        override = self.text("sessions")
        return Rules(
            timeframes=timeframes,
            grace_ms=tuple(grace.ms for grace in graces),
            calendar=load_calendar(Path(override) if override else None),
            fields=self._fields(),
            allowed_lateness_ms=horizon_ms,
            future_ms=self.duration_ms("future_tolerance"),
            after_close_ms=self.duration_ms("after_close"),
            quantity_decimals=int(self.text("quantity_decimals")),
            instruments_max=int(self.text("instruments_max")),
            outside_session=cast("Literal['skip', 'keep']", self.text("outside_session")),
            since_zero=tuple(part for part in self.text("since_zero").split(",") if part),
        )

    def _fields(self) -> Fields:
        """`price=ltp,token=instrument_token`: other JSON names than 5paisa's."""
        names: dict[str, str] = {}
        known = Fields.__struct_fields__
        for part in filter(str.strip, self.text("fields").split(",")):
            meaning, name = (side.strip() for side in part.partition("=")[::2])
            if not name:
                raise SettingsError(
                    f"fields: {cut(meaning)!r} has no name in the JSON; write {cut(meaning)}=NAME, like price=ltp"
                )
            if meaning not in known:
                nearest = get_close_matches(cut(meaning), known, n=1, cutoff=0.0)[0]
                raise SettingsError(f"fields: {cut(meaning)!r} is none of {', '.join(known)}; nearest: {nearest}")
            if meaning in names:
                message = f"fields: {meaning} is {cut(names[meaning])!r} and {cut(name)!r}; give it one name"
                raise SettingsError(message)
            names[meaning] = name
        fields = Fields(**names)
        homes: dict[str, str] = {}
        for meaning in known:
            name = getattr(fields, meaning)
            first = homes.setdefault(name, meaning)
            if first != meaning:
                raise SettingsError(
                    f"fields: {first} and {meaning} would both be read from {cut(name)!r}; name one anew"
                )
        return fields

    def topics(self) -> Topics:
        """Topic names; SettingsError where two things would share one."""
        patterns = {
            "s": "candle_topic_seconds",
            "m": "candle_topic",
            "h": "candle_topic_hours",
            "d": "candle_topic_days",
        }
        candles = tuple(self.text(patterns[t.unit]).replace("{n}", str(t.count)) for t in self.timeframes)
        application_id = self.text("application_id")
        topics = Topics(
            ticks=self.text("tick_topic"),
            candles=candles,
            dead_letters=f"{application_id}-dead-letters",
            late=f"{application_id}-late",
        )
        named = [(topics.ticks, "tick_topic"), (topics.dead_letters, "application_id"), (topics.late, "application_id")]
        named[1:1] = zip(candles, (patterns[t.unit] for t in self.timeframes), strict=True)
        by_name: dict[str, str] = {}
        for name, setting in named:
            other = by_name.setdefault(name, setting)
            if other != setting:
                raise SettingsError(
                    f"topic {name} would serve two purposes, those of {other} and {setting}; change one of the two"
                )
        return topics

    def path(self, **options: bool) -> PathSettings:
        """What the loop needs."""
        start = self.text("start")
        return PathSettings(
            topics=self.topics(),
            start=start if start in ("earliest", "latest", "session") else start_ms(start),
            commit_interval_ms=self.duration_ms("commit_interval"),
            snapshot_interval_ms=self.duration_ms("snapshot_interval"),
            adopt_grace_ms=self.duration_ms("adopt_grace"),
            is_split_accepted=self.text("partition_check") == "warn",
            is_stopped_by_gone=self.text("gone_offsets") == "stop",
            **options,
        )

    def kafka_settings(self, instance: str) -> KafkaSettings:
        """For the Kafka clients."""
        properties = {name: value.text for name, value in self.kafka.items() if name != "bootstrap.servers"}
        return KafkaSettings(
            bootstrap_servers=self.bootstrap_servers or "",
            group=self.text("application_id"),
            tick_topic=self.text("tick_topic"),
            instance=instance,
            ask_ms=self.duration_ms("wait"),
            properties=properties,
            places={name: _place(name, value.origin) for name, value in self.kafka.items()},
            unset=lambda name: _place(name, "environment"),
            rights=rights(self.text("application_id"), self.topics()),
        )


def load_settings(flags: Mapping[str, str | None], environment: Mapping[str, str] | None = None) -> Settings:
    """Collect from everywhere. SettingsError is one line that names the setting, its origin and a valid choice."""
    warnings: list[str] = []
    environment, credentials = read_secrets(
        os.environ if environment is None else environment, PREFIX, _is_credential, warnings
    )
    path = flags.get("config") or environment.get(PREFIX + "CONFIG")
    file, file_profiles, file_kafka = read_settings_file(path, SETTINGS)
    for text in [*file.values(), *(text for values in file_profiles.values() for text in values.values())]:
        hide_within(text)
    for name, text in file_kafka.items():
        hide_within(text)
        if path and is_secret(name):
            for part in (text, *text.split(",")):  # a list in the file
                hide(part)
            warn_if_open(Path(path), f"{name} in the settings file", warnings)
    profile = flags.get("profile") or environment.get(PREFIX + "PROFILE") or DEFAULT_PROFILE
    if profile not in PROFILES and profile not in file_profiles:
        choices = [*PROFILES, *file_profiles]
        nearest = get_close_matches(cut(profile), choices, n=1, cutoff=0.0)[0]
        raise SettingsError(f"profile {cut(profile)!r}: none of {', '.join(choices)}; nearest: {nearest}")

    layers: list[tuple[str, Mapping[str, str]]] = [
        ("default", {name: setting.default or "" for name, setting in SETTINGS.items()}),
        (f"profile {profile}", PROFILES.get(profile, {})),
        ("file", file),
        (f"file, profile {profile}", file_profiles.get(profile, {})),
        ("credential", _from_environment(credentials, warnings)),
        ("environment", _from_environment(environment, warnings)),
        ("flag", {name: text for name, text in flags.items() if text is not None and name in SETTINGS}),
    ]
    values: dict[str, Value] = {}
    typed: dict[str, Value] = {}
    for origin, layer in layers:
        for name, text in layer.items():
            values[name] = Value(_checked(name, text, origin), origin)
            typed[name] = Value(text, origin)
    _run_one(values)
    kafka = _client_properties(file_kafka, {"credential": credentials, "environment": environment}, warnings)
    if key := kafka.get("ssl.key.location"):
        warn_if_open(Path(key.text), _place("ssl.key.location", key.origin), warnings)
    settings = Settings(values, kafka, profile, ())
    settings.rules()
    settings.topics()
    warnings += _renamed(typed, settings)
    return msgspec.structs.replace(settings, warnings=tuple(warnings))


def _renamed(typed: Mapping[str, Value], settings: Settings) -> Iterator[str]:
    """A timeframe typed as another has its candles where that one's are: in another topic than before, perhaps."""
    topics = dict(zip((t.label for t in settings.timeframes), settings.topics().candles, strict=True))
    for name in ("timeframes", "instance", "grace"):
        text, origin = typed[name].text, typed[name].origin
        if settings.values[name].origin != origin:
            continue  # an instance's own
        where = f"{PREFIX}{name.upper()}" if origin == "environment" else f"{name} ({origin})"
        for other, label in renamed(name, text):
            group = f", of the group {settings.text('application_id')}" if name == "instance" else ""
            candles = "" if name == "grace" else f": its candles are in {topics[label]}{group}"
            yield f"{where}: {other} is {label}{candles}"


def _run_one(values: dict[str, Value]) -> None:
    """A timeframe as `instance` is a deployment of its own, whatever all deployments share says of timeframes.

    An id that all have would be one group, and each candle the business of whoever has the partition.
    """
    label = values["instance"].text
    if not label or label.isdigit():
        return
    origin = f"instance {label}"
    timeframes, application_id = values["timeframes"], values["application_id"]
    if timeframes.origin == "environment" and timeframes.text != label:
        raise SettingsError(
            f"{PREFIX}TIMEFRAMES={timeframes.text!r} (environment): {origin} runs {label} alone; unset one of the two"
        )
    values["timeframes"] = Value(label, origin)
    if not application_id.text.endswith(f"-{label}"):
        text = f"{application_id.text}-{label}"
        values["application_id"] = Value(_checked("application_id", text, origin), origin)


def _checked(name: str, text: str, origin: str) -> str:
    try:
        return SETTINGS[name].read(text)
    except ValueError as error:
        where = PREFIX + name.upper() if origin == "environment" else name
        raise SettingsError(f"{where}={cut(text)!r} ({origin}): {cut(str(error))}") from None


def _from_environment(environment: Mapping[str, str], warnings: list[str]) -> dict[str, str]:
    found = {}
    for variable, text in environment.items():
        if not variable.startswith(PREFIX) or variable.startswith(KAFKA_PREFIX):
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name in SETTINGS:
            found[name] = text
        elif name not in _CONTROL:
            warnings.append(f"variable {cut(variable)} is not known, ignored; nearest: {_nearest_variable(name)}")
    return found


def _client_properties(
    file: Mapping[str, str], variables: Mapping[str, Mapping[str, str]], warnings: list[str]
) -> dict[str, Value]:
    """Each taken by the client library. An orchestrator's own variables (…_KAFKA_SERVICE_HOST) are warnings."""
    found = {name: Value(text, "file") for name, text in file.items()}
    for origin, variable, text in [(o, *item) for o, layer in variables.items() for item in layer.items()]:
        if not variable.startswith(KAFKA_PREFIX) or not text:
            continue
        name = variable.removeprefix(KAFKA_PREFIX).lower().replace("_", ".")
        if is_known(name):
            found[name] = Value(text, origin)
        else:
            near = _nearest_variable("kafka_" + name.replace(".", "_"))
            warnings.append(f"variable {cut(variable)} names no client property, ignored; nearest: {near}")
    for name, value in found.items():
        reason = refusal(name, value.text)
        if reason is not None:
            where = _place(name, value.origin)
            raise SettingsError(f"{where}={cut(masked(name, value.text))!r} ({value.origin}): {cut(reason)}")
        if name.endswith(".location"):
            check_location(_place(name, value.origin), Path(value.text))
    return found


def _nearest_variable(name: str) -> str:
    client = (f"kafka_{other.replace('.', '_')}" for other in known())
    return PREFIX + nearest_name(cut(name), [*SETTINGS, *_CONTROL, *client]).upper()


def _place(name: str, origin: str) -> str:
    """Where a client property was set: the variable, or the key in the file."""
    if origin == "file":
        return f"kafka.{name}"
    variable = KAFKA_PREFIX + name.upper().replace(".", "_")
    return variable if origin == "environment" else f"credential {variable.removeprefix(PREFIX).lower()}"


def _is_credential(name: str) -> bool:
    """Whether a credential of this name is a setting."""
    kafka = KAFKA_PREFIX.removeprefix(PREFIX).lower()
    return name in SETTINGS or (name.startswith(kafka) and is_known(name.removeprefix(kafka).replace("_", ".")))
