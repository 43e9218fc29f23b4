"""The table of settings: of each its name, its default, how its text is read, and what it is for; and the profiles.

`docs/settings.md` is made from it.
"""

import re
from collections.abc import Callable
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path

import msgspec
import platformdirs

from streamingcandle.candles.timeframe import DEFAULT, parse_timeframe, parse_timeframes
from streamingcandle.errors import SettingsError
from streamingcandle.state.directory import INSTANCES_MAX

_DURATION_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")


def duration_ms(text: str) -> int:
    """`250ms`, `1s`, `10m`, `2h`; a bare number is seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)?", text.strip())
    if match is None:
        raise ValueError("not a duration like 250ms, 1s, 10m")
    return round(float(match[1]) * _DURATION_MS[match[2] or "s"])


def _duration(text: str) -> str:
    duration_ms(text)
    return text


def _topic(text: str) -> str:
    if not _TOPIC.fullmatch(text):
        raise ValueError("not a topic name: letters, digits, '.', '_' and '-', at most 249")
    return text


def _pattern(text: str) -> str:
    if text.count("{n}") != 1 or not _TOPIC.fullmatch(text.replace("{n}", "1")):
        raise ValueError("not a topic pattern: one {n} among letters, digits, '.', '_' and '-', like {n}-min-candle")
    return text


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            nearest = get_close_matches(text, choices, n=1, cutoff=0.0)[0]
            raise ValueError(f"not one of {', '.join(choices)}; nearest: {nearest}")
        return text

    return read


def _start(text: str) -> str:
    if text not in ("earliest", "latest", "session"):
        start_ms(text)
    return text


def start_ms(text: str) -> int:
    """Epoch ms of an ISO 8601 time with offset, or of an epoch number in ms."""
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise ValueError("not earliest, session, latest or a time like 2026-01-02T09:15:00+05:30")
    return round(at.timestamp() * 1_000)


def _whole(text: str) -> str:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= PARTITIONS_MAX):
        raise ValueError("not a whole number above 0")
    return text


def _instruments(text: str) -> str:
    is_whole = text.isascii() and text.isdigit() and len(text) <= len(str(INSTRUMENTS_MAX))
    if not is_whole or not 0 < int(text) <= INSTRUMENTS_MAX:
        raise ValueError(f"not a whole number of 1 to {INSTRUMENTS_MAX}")
    return text


def _instance(text: str) -> str:
    if text.isascii() and text.isdigit():
        if int(text) >= INSTANCES_MAX:
            raise ValueError(f"not below {INSTANCES_MAX}")
        return str(int(text))
    try:
        return parse_timeframe(text).label if text else ""
    except SettingsError as error:
        raise ValueError(f"neither a number below {INSTANCES_MAX} nor a timeframe: {error}") from None


def _any(text: str) -> str:
    return text


PARTITIONS_MAX = 10_000
INSTRUMENTS_MAX = 10_000_000
"""Some 30 GB of one partition: more is a slip of the pen."""


class Setting(msgspec.Struct, frozen=True):
    """One row of the table. `read` raises ValueError with what is wrong."""

    default: str | None
    read: Callable[[str], str]
    what: str


def _user_dir(name: str) -> str:
    return str(Path(platformdirs.user_data_dir("streamingcandle")) / name)


SETTINGS: dict[str, Setting] = {
    "application_id": Setting(
        "candle-processor-ticktooneminprocessor", _topic, "group id, and prefix of all internal names"
    ),
    "instance": Setting(
        "",
        _instance,
        "who this is among several: a number, as `run --instance`; or a timeframe: it alone is run, with `-1m` "
        "(or the other's name) added to `application_id`",
    ),
    "start": Setting(
        "earliest",
        _start,
        "where a group without offsets begins: `earliest`, `session` (the day's open), `latest`, a time",
    ),
    "wait": Setting("60s", _duration, "how long a start waits for a broker or a topic"),
    "tick_topic": Setting("forwardtesting-data", _topic, "ticks in"),
    "candle_topic": Setting("{n}-min-candle", _pattern, "candles of n minutes out"),
    "candle_topic_seconds": Setting("{n}-sec-candle", _pattern, "candles of n seconds out"),
    "candle_topic_hours": Setting("{n}-hour-candle", _pattern, "candles of n hours out"),
    "candle_topic_days": Setting("{n}-day-candle", _pattern, "candles of n days out"),
    "timeframes": Setting(
        ",".join(DEFAULT),
        lambda text: ",".join(t.label for t in parse_timeframes(text)),
        "whole seconds, minutes, hours, or `1d`",
    ),
    "grace": Setting("1s", _any, "how long after its end a window is published; `1s,5m=2s` gives 5m its own"),
    "late_horizon": Setting(
        "10m", _duration, "a tick whose window ended so long ago changes nothing; above every grace"
    ),
    "commit_interval": Setting("1s", _duration, "how often what is due is published"),
    "snapshot_interval": Setting("30s", _duration, "how often the state is written, for quick restarts"),
    "adopt_grace": Setting("0s", _duration, "`run --adopt`: the grace of the program before"),
    "partition_check": Setting(
        "refuse", _one_of("refuse", "warn"), "a tick without key, an instrument in two partitions: `refuse` or `warn`"
    ),
    "gone_offsets": Setting(
        "continue", _one_of("continue", "stop"), "ticks deleted before they were read: `continue` or `stop`"
    ),
    "future_tolerance": Setting("60s", _duration, "a tick so far after its record's timestamp is rejected"),
    "after_close": Setting("1s", _duration, "a tick so short after the close belongs to the last window"),
    "quantity_decimals": Setting(
        "8", _one_of(*map(str, range(19))), "quantities are rounded to so many decimals, 0 to 18"
    ),
    "instruments_max": Setting(
        "50000", _instruments, "instruments held of one partition; a new one beyond is rejected as `limit`"
    ),
    "outside_session": Setting(
        "skip", _one_of("skip", "keep"), "ticks outside the session: `skip`, or `keep` in windows of their own"
    ),
    "since_zero": Setting("", _any, "exchanges whose first window counts its volume from zero; `*` for all"),
    "sessions": Setting("", _any, "a CSV file of sessions, laid over the shipped ones: [sessions.md](sessions.md)"),
    "fields": Setting("", _any, "other JSON names: `price=ltp,token=instrument_token`"),
    "partitions": Setting("6", _whole, "of topics that `topics ensure` makes"),
    "state_dir": Setting(_user_dir("state"), _any, "snapshots and locks"),
    "data_dir": Setting(_user_dir("data"), _any, "the embedded log and store"),
    "log_format": Setting("auto", _one_of("auto", "text", "json"), "`text`, `json`, or `auto`: text on a terminal"),
}
PROFILES: dict[str, dict[str, str]] = {
    "development": {},
    # As production, beside it on one host where need be, and not going on where production would with a loss.
    "staging": {
        "gone_offsets": "stop",
        "state_dir": "/var/lib/kafka-streams/streamingcandle-staging",
        "data_dir": "/var/lib/kafka-streams/streamingcandle-staging/data",
        "log_format": "json",
    },
    # A service's user has no home: all of its files are in one folder.
    "production": {
        "state_dir": "/var/lib/kafka-streams/streamingcandle",
        "data_dir": "/var/lib/kafka-streams/streamingcandle/data",
        "log_format": "json",
    },
}
DEFAULT_PROFILE = "development"
