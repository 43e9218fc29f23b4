"""Settings that name timeframes: the graces, and who typed `60m` for what is `1h` here."""

from collections.abc import Iterator, Sequence
from decimal import Decimal

import msgspec

from streamingcandle.candles.timeframe import Timeframe, parse_timeframe
from streamingcandle.errors import SettingsError
from streamingcandle.settings_table import duration_ms


class Grace(msgspec.Struct, frozen=True):
    """How long after its end a timeframe's window is published, as typed and in ms."""

    text: str
    ms: int


def read_graces(text: str, timeframes: Sequence[Timeframe], *, is_shared: bool) -> tuple[Grace, ...]:
    """`1s`, or with timeframes of their own `1s,5m=2s`: one for each of `timeframes`. SettingsError.

    `is_shared`: deployments of one timeframe each read the same text, and what it says of the others is theirs.
    """
    found: dict[str, tuple[str, Grace]] = {}
    for part in text.split(","):
        typed, is_own, duration = (piece.strip() for piece in part.rpartition("="))
        try:
            label = parse_timeframe(typed).label if is_own else ""
            grace = Grace(duration, duration_ms(duration))
        except (ValueError, SettingsError) as error:
            raise SettingsError(f"grace {text!r}: {error}") from None
        if label in found:
            twin, other = found[label]
            twice = f"{twin} and {typed} are the same timeframe; name it once"
            if not label:
                twice = f"{other.text} and {duration} are both for all timeframes; give one"
            raise SettingsError(f"grace {text!r}: {twice}")
        found[label] = (typed, grace)
    run = {"", *(timeframe.label for timeframe in timeframes)}
    unknown = [typed for label, (typed, _) in found.items() if label not in run]
    if unknown and not is_shared:
        raise SettingsError(f"grace {text!r}: {', '.join(sorted(unknown))} is not among the timeframes")
    default = found.get("", ("", Grace("1s", 1_000)))
    return tuple(found.get(timeframe.label, default)[1] for timeframe in timeframes)


def above(grace: Grace) -> str:
    """A duration above this one, in the unit it was typed in."""
    number = grace.text.rstrip("ms h")
    doubled = f"{Decimal(number) * 2:f}{grace.text.removeprefix(number)}"
    # Below a millisecond twice as much may still be rounded to the same.
    return next(text for text in (doubled, f"{2 * grace.ms}ms", "10m") if duration_ms(text) > grace.ms)


def renamed(name: str, text: str) -> Iterator[tuple[str, str]]:
    """Timeframes in the valid text of a setting that have another label here: `(typed, label)`."""
    labels = [part.rpartition("=")[0] for part in text.split(",")] if name == "grace" else text.split(",")
    for typed in map(str.strip, labels):
        if not typed or typed.isdigit():
            continue  # a grace for all, an instance's number
        label = parse_timeframe(typed).label
        if label != typed:
            yield typed, label
