"""docs/settings.md, from the settings themselves: `make docs` writes it, tests/unit/test_docs.py sees it current."""

from collections.abc import Sequence
from pathlib import Path

import platformdirs

from streamingcandle.kafka.client import shown_defaults
from streamingcandle.settings import KAFKA_PREFIX, PREFIX
from streamingcandle.settings_table import PROFILES, SETTINGS, Duration, Setting

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
ABOVE = f"""\
<!-- written by `make docs` -->
# Settings

Highest first: a command's own flag, the environment, the file's `[profile.NAME]`, the file, the built-in profile, the
default. `streamingcandle config show` prints every value with its origin, secrets masked.

- **Variables**: `{PREFIX}` and the name in capitals: `{PREFIX}ALLOWED_LATENESS=5m`. With `_FILE` at its end a
  variable names a file that holds the value: for secrets. A variable that is not known is a warning with the nearest.
  Credentials of systemd stand for variables as well, and below them: [security.md](security.md).
- **File**: `--config FILE` or `{PREFIX}CONFIG`. TOML, keys as below. A key that is not known is an error.
- **Profile**: `--profile NAME` or `{PREFIX}PROFILE`, a built-in one or one of the file.
- **Durations**: `250ms`, `1s`, `10m`, `2h`; a bare number is seconds.
- **Timeframes**: a length has one name, that of the greatest unit: `60m` is `1h`, wherever it is typed. Who types
  another is told at the start.

```toml
timeframes = ["1m", "5m", "1d"]
grace = "1s,1d=30s"

[kafka]
bootstrap.servers = "broker-1:9092,broker-2:9092"

[profile.staging]
application_id = "candles-staging"
```

## All

"""
PROFILES_ABOVE = """
## Built-in profiles

`streamingcandle config show --profile NAME` shows one, and marks each setting that has another value than in
`development`, the default. Everything not named here is alike in all. `production` has all files of a service in one
folder, since its user has no home, and goes on where ticks were deleted before they were read, loudly. `staging` stops
there, so that it is noticed before production meets it; its folder is its own, so that both can be on one host. Neither
names an application id or topics: on one cluster with production give staging its own `application_id`, `tick_topic`
and `candle_topic`.

"""
KAFKA = f"""
## The Kafka clients

`{KAFKA_PREFIX}BOOTSTRAP_SERVERS` (in a file `[kafka] bootstrap.servers`) names the brokers; without
it everything happens in an embedded log in `data_dir`. Every other `{KAFKA_PREFIX}X_Y` that names a property `x.y` of
librdkafka goes to the clients that it is for: `{KAFKA_PREFIX}SECURITY_PROTOCOL`,
`{KAFKA_PREFIX}SASL_PASSWORD`, `{KAFKA_PREFIX}SSL_CA_LOCATION`.
Our defaults:

"""


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _default(text: str | None) -> str:
    """As on every machine: the user's data folder is another on each."""
    own = platformdirs.user_data_dir("streamingcandle")
    return f"`{text.replace(own, '<user data folder>')}`" if text else "none"


def _what(setting: Setting) -> str:
    limits = setting.read
    return f"{setting.what}; from {limits.least} to {limits.most}" if isinstance(limits, Duration) else setting.what


def page() -> str:
    """The whole page."""
    settings = [(f"`{name}`", _default(setting.default), _what(setting)) for name, setting in SETTINGS.items()]
    profiles = [
        (f"`{name}`", ", ".join(f"`{key} = {text}`" for key, text in values.items()) or "the defaults")
        for name, values in PROFILES.items()
    ]
    kafka = [(f"`{name}`", f"`{text}`", origin.partition(", ")[2]) for name, text, origin in sorted(shown_defaults())]
    return (
        ABOVE
        + _table(("setting", "default", "what"), settings)
        + PROFILES_ABOVE
        + _table(("profile", "what it sets"), profiles)
        + KAFKA
        + _table(("property", "our default", "only for"), kafka)
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
