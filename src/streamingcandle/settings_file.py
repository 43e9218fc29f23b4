"""The settings file: TOML, with client properties under `[kafka]` and profiles under `[profile.NAME]`."""

import tomllib
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from streamingcandle.errors import SettingsError
from streamingcandle.kafka.properties import is_known, nearest


def read_settings_file(
    path: str | None, keys: Collection[str]
) -> tuple[dict[str, str], dict[str, dict[str, str]], dict[str, str]]:
    """Settings, profiles and client properties of a TOML file; `keys`: the settings there are. SettingsError."""
    if not path:
        return {}, {}, {}
    try:
        data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"settings file {path}: {error.strerror}; name a file that can be read") from error
    except ValueError as error:
        raise SettingsError(f'settings file {path}: {error}; write TOML, like grace = "1s"') from error
    profiles = {name: _section(path, section, keys) for name, section in _table(path, data, "profile").items()}
    kafka = dict(_dotted(_table(path, data, "kafka")))
    for name in kafka:
        if not is_known(name):
            raise SettingsError(f"settings file {path}: unknown client property {name!r}; nearest: {nearest(name)}")
    return _section(path, data, keys), profiles, kafka


def _table(path: str, data: dict[str, Any], name: str) -> dict[str, Any]:
    table = data.pop(name, {})
    if not isinstance(table, dict):
        example = "[profile.NAME]" if name == "profile" else f"[{name}]"
        raise SettingsError(f"settings file {path}: {name} = {table!r} is no table; write {example} over its keys")
    return table


def _section(path: str, data: object, keys: Collection[str]) -> dict[str, str]:
    if not isinstance(data, dict):
        raise SettingsError(f"settings file {path}: profile = {data!r} is no table; write [profile.NAME] over its keys")
    for name in data:
        if name not in keys:
            if isinstance(data[name], dict):
                where = f"settings file {path}: unknown key {name!r}"
                raise SettingsError(f"{where}; client properties like bootstrap.servers stand below [kafka]")
            close = get_close_matches(name, keys, n=1, cutoff=0.0)[0]
            raise SettingsError(f"settings file {path}: unknown key {name!r}; nearest: {close}")
    return {name: _text(value) for name, value in data.items()}


def _dotted(table: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """`ssl.ca.location = …` is tables in a table where the name has no quotes."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{rest}", text) for rest, text in _dotted(value))
        else:
            yield name, _text(value)


def _text(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
