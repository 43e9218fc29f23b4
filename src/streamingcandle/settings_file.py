"""The settings file: TOML, with client properties under `[kafka]` and profiles under `[profile.NAME]`."""

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from streamingcandle.errors import SettingsError
from streamingcandle.kafka.properties import is_known, nearest
from streamingcandle.masking import cut
from streamingcandle.text_file import read_text

FILE_MAX_BYTES = 256_000
"""All settings with a page of comment on each have a third."""
PARTS_MAX = 64
"""Of a name with dots; Python's own reader of TOML takes hours for one of a hundred thousand."""


def read_settings_file(
    path: str | None, keys: Collection[str]
) -> tuple[dict[str, str], dict[str, dict[str, str]], dict[str, str]]:
    """Settings, profiles and client properties of a TOML file; `keys`: the settings there are. SettingsError."""
    if not path:
        return {}, {}, {}
    try:
        return _read(path, keys)
    except OSError as error:
        raise SettingsError(f"settings file {path}: {error.strerror}; name a file that can be read") from error
    except RecursionError:
        # Python's own reader of TOML goes down with each level, and so do we.
        message = f"settings file {path}: tables or lists in one another, too deep; no setting needs more than two"
        raise SettingsError(message) from None


def _read(path: str, keys: Collection[str]) -> tuple[dict[str, str], dict[str, dict[str, str]], dict[str, str]]:
    try:
        text = read_text(Path(path), FILE_MAX_BYTES)
        # A line of dots in a comment is no name.
        names = re.split(r"[,:;=\n]", re.sub(r"\.{2,}", "", text))
        if any(name.count(".") >= PARTS_MAX for name in names):
            raise RecursionError
        data = tomllib.loads(text)
    except ValueError as error:
        raise SettingsError(f'settings file {path}: {error}; write TOML, like grace = "1s"') from error
    profiles = {name: _section(path, section, keys) for name, section in _table(path, data, "profile").items()}
    kafka = dict(_dotted(path, _table(path, data, "kafka")))
    for name in kafka:
        if not is_known(name):
            raise SettingsError(
                f"settings file {path}: unknown client property {cut(name)!r}; nearest: {nearest(cut(name))}"
            )
    return _section(path, data, keys), profiles, kafka


def _table(path: str, data: dict[str, Any], name: str) -> dict[str, Any]:
    table = data.pop(name, {})
    if not isinstance(table, dict):
        example = "[profile.NAME]" if name == "profile" else f"[{name}]"
        raise SettingsError(f"settings file {path}: {name} is no table; write {example} over its keys")
    return table


def _section(path: str, data: object, keys: Collection[str]) -> dict[str, str]:
    if not isinstance(data, dict):
        raise SettingsError(f"settings file {path}: profile is no table; write [profile.NAME] over its keys")
    for name in data:
        if name not in keys:
            if isinstance(data[name], dict):
                where = f"settings file {path}: unknown key {cut(name)!r}"
                raise SettingsError(f"{where}; client properties like bootstrap.servers stand below [kafka]")
            close = get_close_matches(cut(name), keys, n=1, cutoff=0.0)[0]
            raise SettingsError(f"settings file {path}: unknown key {cut(name)!r}; nearest: {close}")
    return {name: _text(path, name, value) for name, value in data.items()}


def _dotted(path: str, table: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """`ssl.ca.location = …` is tables in a table where the name has no quotes."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{rest}", text) for rest, text in _dotted(path, value))
        else:
            yield name, _text(path, name, value)


def _text(path: str, name: str, value: object) -> str:
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return ",".join(value)
    if isinstance(value, list | dict):
        what = "a table" if isinstance(value, dict) else "a list of other things than texts"
        raise SettingsError(f'settings file {path}: {name} is {what}; write text, like grace = "1s,5m=2s"')
    return str(value).lower() if isinstance(value, bool) else str(value)
