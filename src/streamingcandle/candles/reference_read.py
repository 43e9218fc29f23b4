"""How the reference reads a record: JSON, then its fields (specification §1), exactly by their decimal digits."""

import json
import re
from datetime import date
from typing import NamedTuple

import msgspec

from streamingcandle.candles.instrument import TOKEN_MAX, Instrument
from streamingcandle.candles.session import DAY_MS, Schedule

WHOLE_MAX = TOKEN_MAX
QUANTITY_PLACES_MAX = 19
"""Quantities and totals have at most so many digits before the point: they are below 10^19."""
NAME_BYTES_MAX = 64
"""Of an exchange, of a segment: so every key fits any broker's limit."""
TEXT_BYTES_MAX = 256
"""Of a company name, of a scrip code."""
DAYS_IN_400_YEARS = 146_097
YEAR_2000_MS = 946_684_800_000
YEAR_10000_MS = 253_402_300_800_000

# ---- JSON (RFC 8259), any depth, numbers as they are written


class Number(str):
    """A JSON number as it stands in the text."""

    __slots__ = ()


class Unusable(msgspec.Struct, frozen=True):
    """A value of no type that a field may have: true, false, a list, an object, a string with half a character."""


Value = str | Number | Unusable | None

_NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_TOKEN = re.compile(
    r"[ \t\n\r]*(?:(?P<mark>[{}\[\],:])|(?P<number>" + _NUMBER + r")|(?P<word>true|false|null)"
    r'|(?P<string>"[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*"))'
)


def read_object(value: bytes) -> dict[str, Value] | None:
    """Return the members of a record that is one JSON object, the last of equal names; None for anything else."""
    try:
        text = value.decode("utf-8").rstrip(" \t\n\r")
    except UnicodeDecodeError:
        return None
    members: dict[str, Value] = {}
    name = ""
    containers: list[str] = []
    expected = "value"
    position = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            return None
        position = token.end()
        kind = token["mark"] or ("string" if token["string"] else "scalar")
        innermost = containers[-1] if containers else ""
        following = _GRAMMAR.get((expected, kind, innermost))
        if following is None:
            return None
        if expected in ("name", "name or }") and kind == "string" and len(containers) == 1:
            name = json.loads(token["string"])
        if kind in "{[":
            containers.append(kind)
        elif kind in "}]":
            containers.pop()
        if following == "more" and containers == ["{"]:
            members[name] = _value(token)
        expected = following
    return members if expected == "more" and not containers else None


def _grammar() -> dict[tuple[str, str, str], str]:
    """Tabulate (what is expected, what comes, innermost container) -> what is expected then."""
    table = {("value", "{", ""): "name or }"}
    for inside in "{[":
        for expected in ("value", "value or ]"):
            table |= {(expected, kind, inside): "more" for kind in ("string", "scalar")}
            table |= {(expected, "{", inside): "name or }", (expected, "[", inside): "value or ]"}
    for expected in ("name", "name or }"):
        table[expected, "string", "{"] = ":"
    table |= {(":", ":", "{"): "value", ("more", ",", "{"): "name", ("more", ",", "["): "value"}
    table |= {(expected, "}", "{"): "more" for expected in ("name or }", "more")}
    table |= {(expected, "]", "["): "more" for expected in ("value or ]", "more")}
    return table


_GRAMMAR = _grammar()


def _value(token: re.Match[str]) -> Value:
    if token["number"]:
        return Number(token["number"])
    if token["string"]:
        text: str = json.loads(token["string"])
        return Unusable() if re.search("[\ud800-\udfff]", text) else text
    return None if token["word"] == "null" else Unusable()


# ---- fields (§1)


def read_text(value: Value, bytes_max: int = TEXT_BYTES_MAX) -> str | None:
    """Return a string of at most so many bytes; None for a longer one, or for a number."""
    if not isinstance(value, str) or isinstance(value, Number):
        return None
    return value if len(value.encode()) <= bytes_max else None


def read_instrument(exchange: Value, segment: Value, token: Value) -> Instrument | None:
    """Return the instrument of two names without a colon and a whole number; None where one of them is none."""
    names = [read_text(name, NAME_BYTES_MAX) for name in (exchange, segment)]
    number = read_whole(token)
    if number is None or not all(name and ":" not in name for name in names):
        return None
    return Instrument(str(names[0]), str(names[1]), number)


def read_price(value: Value) -> float | None:
    """Return the nearest double, 0.0 for a quote; None for what is no price."""
    if not isinstance(value, str) or not re.fullmatch(_NUMBER, value):
        return None
    price = float(value)
    return price if 0 <= price < float("inf") else None


class _Decimals(NamedTuple):
    """A number exactly: `digits` as an integer, without zeros at either end, times ten to the `exponent`."""

    negative: bool
    digits: str
    exponent: int


def _decimals(value: Value) -> _Decimals | None:
    if not isinstance(value, str) or not re.fullmatch(_NUMBER, value):
        return None
    mantissa, _, power = value.lower().partition("e")
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    # Ten digits of an exponent are as good as more, and int() refuses thousands of them.
    size = int(power.lstrip("+-").lstrip("0")[:10] or "0")
    exponent = (-size if power.startswith("-") else size) - len(fraction)
    digits = (whole + fraction).lstrip("0")
    trimmed = digits.rstrip("0")
    return _Decimals(mantissa.startswith("-"), trimmed, exponent + len(digits) - len(trimmed))


def read_whole(value: Value) -> int | None:
    """Return a whole number of 0 to 2^63-1; None for any other."""
    number = _decimals(value)
    if number is None:
        return None
    if not number.digits:
        return 0
    if number.negative or number.exponent < 0 or len(number.digits) + number.exponent > len(str(WHOLE_MAX)):
        return None
    whole = int(number.digits) * 10**number.exponent
    return whole if whole <= WHOLE_MAX else None


def read_quantity(value: Value, decimals: int) -> int | None:
    """Return a quantity without its sign in units of 10^-decimals, halves rounded up; None from 10^19 on."""
    number = _decimals(value)
    if number is None:
        return None
    places = len(number.digits) + number.exponent  # digits before the point: 19 is below 10^19
    if not number.digits or places + decimals < 0:
        return 0
    if places > QUANTITY_PLACES_MAX:
        return None
    kept = places + decimals
    units = int(number.digits[:kept].ljust(kept, "0") or "0")
    return units + (number.digits[kept : kept + 1] >= "5")


def read_total(value: Value, decimals: int) -> int | None:
    """Return a total as a quantity is read; None below zero."""
    number = _decimals(value)
    if number is not None and number.negative and number.digits:
        return None
    return read_quantity(value, decimals)


def read_scrip_code(value: Value) -> str | None:
    """Return a string as it is, a whole number in digits."""
    if isinstance(value, Number):
        whole = read_whole(value)
        return None if whole is None else str(whole)
    return read_text(value)


_DOTNET = re.compile(r"/Date\((-?[0-9]{1,19})(?:[+-][0-9]{4})?\)/")
_WRITTEN = re.compile(
    r"(?P<year>[0-9]{4})-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})(?P<by>[Tt ])"
    r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2})(?P<seconds>:(?P<second>[0-9]{2})(?:\.(?P<fraction>[0-9]+))?)?"
    r"(?P<zone>[Zz]|(?P<sign>[+-])(?P<zone_hour>[0-9]{2})(?::?(?P<zone_minute>[0-9]{2}))?)?"
)


def read_time(value: Value, schedule: Schedule) -> int | None:
    """Return an event time in ms, local text in the schedule's zone; at most the year 10000; None: unreadable.

    What is not after 1970 may come out as any time that is not.
    """
    if not isinstance(value, str):
        return None
    event_ms: int | None
    number = _decimals(value)
    if number is not None:
        event_ms = _epoch_number_ms(number)
    elif match := _DOTNET.fullmatch(value):
        event_ms = int(match[1])
    elif match := _WRITTEN.fullmatch(value):
        event_ms = _written_ms(match, schedule)
    else:
        return None
    return None if event_ms is None else min(event_ms, YEAR_10000_MS)


def _epoch_number_ms(number: _Decimals) -> int:
    """Take a number for seconds, ms, µs or ns by its size: below 1e11, 1e14, 1e17, or not; below zero: zero."""
    if number.negative or not number.digits:
        return 0
    places = len(number.digits) + number.exponent  # digits before the point: 11 is below 1e11
    shift = next((shift for limit, shift in ((11, 3), (14, 0), (17, -3)) if places <= limit), -6)
    kept = places + shift  # digits before the point, in ms
    if kept > len(str(YEAR_10000_MS)):
        return YEAR_10000_MS
    return int(number.digits[:kept].ljust(kept, "0")) if kept > 0 else 0


def _written_ms(match: re.Match[str], schedule: Schedule) -> int | None:
    local = match["zone"] is None
    hour, minute, second = int(match["hour"]), int(match["minute"]), int(match["second"] or 0)
    if max(hour - 23, minute - 59, second - 59) > 0 or (local and not match["seconds"]):
        return None
    # Python's calendar begins with the year 1; it repeats itself after 400 years.
    cycles, year = divmod(int(match["year"]), 400)
    try:
        written = date(year + 400, int(match["month"]), int(match["day"]))
    except ValueError:
        return None
    day = written.toordinal() + (cycles - 1) * DAYS_IN_400_YEARS - date(1970, 1, 1).toordinal()
    ms = int((match["fraction"] or "")[:3].ljust(3, "0"))
    written_ms = day * DAY_MS + ((hour * 60 + minute) * 60 + second) * 1_000 + ms
    if local:
        return schedule.utc_ms(written_ms)
    zone_hour, zone_minute = int(match["zone_hour"] or 0), int(match["zone_minute"] or 0)
    if max(zone_hour - 23, zone_minute - 59) > 0:
        return None
    ahead_ms = (zone_hour * 60 + zone_minute) * 60_000
    return written_ms + ahead_ms if match["sign"] == "-" else written_ms - ahead_ms
