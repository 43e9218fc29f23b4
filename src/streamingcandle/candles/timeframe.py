"""Timeframes: whole seconds, minutes, hours, or the trading day (semantics §2)."""

import re
from difflib import get_close_matches

import msgspec

from streamingcandle.errors import SettingsError

UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000}
DAY_MS = 86_400_000
DEFAULT = ("1m", "2m", "3m", "5m", "15m", "30m")
_SUGGESTED = (*DEFAULT, "1s", "5s", "10s", "30s", "10m", "1h", "2h", "4h", "1d")


class Timeframe(msgspec.Struct, frozen=True):
    """One candle length. `length_ms` is 0 for `1d`, whose windows are whole trading days."""

    label: str
    length_ms: int

    @property
    def count(self) -> int:
        """The number in the label: 5 of `5m`."""
        return int(self.label[:-1])

    @property
    def unit(self) -> str:
        """The unit in the label: `s`, `m`, `h` or `d`."""
        return self.label[-1]


def parse_timeframe(text: str) -> Timeframe:
    """Read `30s`, `5m`, `2h` or `1d`; anything else is a SettingsError that names the nearest choice."""
    label = text.strip()
    if label == "1d":
        return Timeframe(label=label, length_ms=0)
    match = re.fullmatch(r"([1-9][0-9]{0,4})([smh])", label, re.ASCII)
    if match is not None:
        length_ms = int(match[1]) * UNIT_MS[match[2]]
        if length_ms < DAY_MS:
            return Timeframe(label=label, length_ms=length_ms)
    nearest = get_close_matches(label.lower(), _SUGGESTED, n=1, cutoff=0.0)[0]
    message = (
        f"timeframe {text!r}: not whole seconds, minutes, hours below a day (30s, 5m, 2h) or 1d; nearest: {nearest}"
    )
    raise SettingsError(message)


def parse_timeframes(text: str) -> tuple[Timeframe, ...]:
    """Read a comma-separated list, shortest first whatever the order given; no length twice."""
    timeframes = [parse_timeframe(part) for part in text.split(",")]
    by_length: dict[int, Timeframe] = {}
    for timeframe in timeframes:
        twin = by_length.setdefault(timeframe.length_ms or DAY_MS, timeframe)
        if twin is not timeframe:
            message = f"timeframes {text!r}: {timeframe.label} and {twin.label} are the same length; name it once"
            raise SettingsError(message)
    return tuple(by_length[length_ms] for length_ms in sorted(by_length))
