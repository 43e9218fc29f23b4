"""Timeframes: whole seconds, minutes, hours, or the trading day (specification §2.2)."""

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
    """Read `30s`, `5m`, `2h` or `1d`; anything else is a SettingsError that names the nearest choice.

    A length has one label, that of the greatest unit which divides it: `60m` is `1h`.
    """
    typed = text.strip()
    if typed == "1d":
        return Timeframe(label=typed, length_ms=0)
    nearest = get_close_matches(typed.lower(), _SUGGESTED, n=1, cutoff=0.0)[0]
    match = re.fullmatch(r"([1-9][0-9]{0,4})([smh])", typed, re.ASCII)
    if match is not None:
        length_ms = int(match[1]) * UNIT_MS[match[2]]
        if length_ms < DAY_MS:
            return Timeframe(label=_label(length_ms), length_ms=length_ms)
        nearest = "1d"
    message = (
        f"timeframe {text!r}: not whole seconds, minutes, hours below a day (30s, 5m, 2h) or 1d; nearest: {nearest}"
    )
    raise SettingsError(message)


def parse_timeframes(text: str) -> tuple[Timeframe, ...]:
    """Read a comma-separated list, shortest first whatever the order given; no length twice."""
    by_length: dict[int, tuple[str, Timeframe]] = {}
    for part in text.split(","):
        typed, timeframe = part.strip(), parse_timeframe(part)
        length_ms = timeframe.length_ms or DAY_MS
        if length_ms in by_length:
            message = f"timeframes {text!r}: {by_length[length_ms][0]} and {typed} are the same length; name it once"
            raise SettingsError(message)
        by_length[length_ms] = typed, timeframe
    return tuple(by_length[length_ms][1] for length_ms in sorted(by_length))


def _label(length_ms: int) -> str:
    unit = next(unit for unit in ("h", "m", "s") if length_ms % UNIT_MS[unit] == 0)
    return f"{length_ms // UNIT_MS[unit]}{unit}"
