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
APPLICATION_ID_MAX = 249 - len("-dead-letters")
"""Its longest topic is within Kafka's limit of 249, and its folder within the file system's of 255."""
TIMEFRAMES_MAX = 32
"""The kernel's (`rust/src/bindings.rs`): it keeps them as bits of a word."""
TIMEFRAMES_MAX_CHARACTERS = 1_000
"""So many with blanks and to spare."""
PATH_MAX = 4_096
"""The system's."""
_DAY_MS = 86_400_000
_START_MAX_MS = 253_402_300_799_999
"""The end of the year 9999, the last that a time can be told of."""


def duration_ms(text: str) -> int:
    """`250ms`, `1s`, `10m`, `2h`; a bare number is seconds."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?)\s*(ms|s|m|h)?", text.strip(), re.ASCII)
    if match is None:
        raise ValueError("not a duration like 250ms, 1s, 10m")
    return round(float(match[1]) * _DURATION_MS[match[2] or "s"])


class Duration(msgspec.Struct, frozen=True):
    """Reads a duration from `least` to `most`; what is beyond would start well and never do what was meant."""

    least: str
    most: str

    def __call__(self, text: str) -> str:
        """The text as it is. ValueError beyond."""
        if not duration_ms(self.least) <= duration_ms(text) <= duration_ms(self.most):
            raise ValueError(f"not from {self.least} to {self.most}")
        return text


def _grace(text: str) -> str:
    """The durations alone; which timeframes there are is not known here."""
    for part in text.split(","):
        GRACE(part.rpartition("=")[2])
    return text


def _timeframes(text: str) -> str:
    if len(text) > TIMEFRAMES_MAX_CHARACTERS:
        raise ValueError("not timeframes like 1m,5m,1h: too long")
    count = text.count(",") + 1
    if count > TIMEFRAMES_MAX:
        raise ValueError(f"{count} timeframes, at most {TIMEFRAMES_MAX}: leave some to another deployment")
    return ",".join(timeframe.label for timeframe in parse_timeframes(text))


def _topic(text: str) -> str:
    """Kafka's own rule."""
    if not _TOPIC.fullmatch(text) or text in (".", ".."):
        raise ValueError("not a topic name: letters, digits, '.', '_' and '-', at most 249, and not . or ..")
    return text


def _application_id(text: str) -> str:
    """A beginning of topic names and one folder, so what holds for both."""
    _topic(text)
    if len(text) > APPLICATION_ID_MAX:
        raise ValueError(f"{len(text)} characters, at most {APPLICATION_ID_MAX}: names of topics begin with it")
    return text


def _pattern(text: str) -> str:
    # The longest number that a timeframe can have.
    if text.count("{n}") != 1 or not _TOPIC.fullmatch(text.replace("{n}", "99999")):
        raise ValueError(
            "not a topic pattern: one {n} among letters, digits, '.', '_' and '-', at most 247, like {n}-min-candle"
        )
    return text


def _folder(text: str) -> str:
    if not text or not text.isprintable() or len(text.encode(errors="surrogateescape")) > PATH_MAX:
        raise ValueError("not a folder's path: empty, too long, or with characters that cannot be shown")
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
    if re.fullmatch(r"\d{1,15}", text, re.ASCII) and int(text) <= _START_MAX_MS:
        return int(text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None or at.timestamp() < 0:
        raise ValueError("not earliest, session, latest or a time like 2026-01-02T09:15:00+05:30")
    return round(at.timestamp() * 1_000)


def _whole(text: str) -> str:
    if not (re.fullmatch(r"\d{1,9}", text, re.ASCII) and 0 < int(text) <= PARTITIONS_MAX):
        raise ValueError(f"not a whole number from 1 to {PARTITIONS_MAX}")
    return text


def _instruments(text: str) -> str:
    is_whole = text.isascii() and text.isdigit() and len(text) <= len(str(INSTRUMENTS_MAX))
    if not is_whole or not 0 < int(text) <= INSTRUMENTS_MAX:
        raise ValueError(f"not a whole number of 1 to {INSTRUMENTS_MAX}")
    return text


def _instance(text: str) -> str:
    if re.fullmatch(r"\d+", text, re.ASCII):
        text = text.lstrip("0") or "0"
        if len(text) > len(str(INSTANCES_MAX)) or int(text) >= INSTANCES_MAX:
            raise ValueError(f"not below {INSTANCES_MAX}")
        return text
    try:
        return parse_timeframe(text).label if text else ""
    except SettingsError as error:
        raise ValueError(f"neither a number below {INSTANCES_MAX} nor a timeframe: {error}") from None


def _any(text: str) -> str:
    return text


PARTITIONS_MAX = 10_000
INSTRUMENTS_MAX = 10_000_000
"""Some 30 GB of one partition: more is a slip of the pen."""
WAIT = Duration("0s", "24h")
"""Who waits longer for a broker is a supervisor."""
GRACE = Duration("0s", "24h")
"""No session is longer: a candle that comes after the next day's open serves nobody."""
HORIZON = Duration("1ms", "168h")
"""Windows are held so long, and a restart without a snapshot folds as many days: a week."""
COMMIT = Duration("1ms", "1h")
"""What is due waits so long, and a crash folds as much again."""
SNAPSHOT = Duration("1ms", "24h")
"""A restart folds as much: more than a day is no snapshot."""
FUTURE = Duration("0s", "1000000h")
"""A hundred years: as good as no check, for records without times of their own."""
AFTER_CLOSE = Duration("0s", "1h")
"""The next session of the same exchange opens as soon after (Diwali's evening)."""


class Setting(msgspec.Struct, frozen=True):
    """One row of the table. `read` raises ValueError with what is wrong."""

    default: str | None
    read: Callable[[str], str]
    what: str


def _user_dir(name: str) -> str:
    return str(Path(platformdirs.user_data_dir("streamingcandle")) / name)


SETTINGS: dict[str, Setting] = {
    "application_id": Setting(
        "candle-processor-ticktooneminprocessor",
        _application_id,
        "group id, and prefix of all internal names; at most 236 characters",
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
    "wait": Setting("60s", WAIT, "how long a start waits for a broker or a topic"),
    "tick_topic": Setting("forwardtesting-data", _topic, "ticks in"),
    "candle_topic": Setting("{n}-min-candle", _pattern, "candles of n minutes out"),
    "candle_topic_seconds": Setting("{n}-sec-candle", _pattern, "candles of n seconds out"),
    "candle_topic_hours": Setting("{n}-hour-candle", _pattern, "candles of n hours out"),
    "candle_topic_days": Setting("{n}-day-candle", _pattern, "candles of n days out"),
    "timeframes": Setting(
        ",".join(DEFAULT),
        _timeframes,
        "whole seconds, minutes, hours, or `1d`; at most 32",
    ),
    "grace": Setting(
        "1s", _grace, "how long after its end a window is published, at most 24h; `1s,5m=2s` gives 5m its own"
    ),
    "allowed_lateness": Setting(
        "10m", HORIZON, "a tick whose window ended so long ago changes nothing; above every grace"
    ),
    "commit_interval": Setting("1s", COMMIT, "how often what is due is published"),
    "snapshot_interval": Setting("30s", SNAPSHOT, "how often the state is written, for quick restarts"),
    "adopt_grace": Setting("0s", GRACE, "`run --adopt`: the grace of the program before"),
    "partition_check": Setting(
        "refuse", _one_of("refuse", "warn"), "a tick without key, an instrument in two partitions: `refuse` or `warn`"
    ),
    "gone_offsets": Setting(
        "continue", _one_of("continue", "stop"), "ticks deleted before they were read: `continue` or `stop`"
    ),
    "future_tolerance": Setting("60s", FUTURE, "a tick so far after its record's timestamp is rejected"),
    "after_close": Setting("1s", AFTER_CLOSE, "a tick so short after the close belongs to the last window"),
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
    "state_dir": Setting(_user_dir("state"), _folder, "snapshots and locks"),
    "data_dir": Setting(_user_dir("data"), _folder, "the embedded log and store"),
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
