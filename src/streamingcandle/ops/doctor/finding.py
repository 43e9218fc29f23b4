"""What a check says."""

from typing import Literal

import msgspec

State = Literal["ok", "warning", "fault", "not made"]


class Finding(msgspec.Struct, frozen=True):
    """One line. A `fault` keeps `run` from starting or from being right; a `warning` may; both say what to do."""

    check: str
    state: State
    what: str
    do: str = ""


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """What the settings say, as far as checks need it."""

    application_id: str
    ticks: str
    candles: tuple[str, ...]
    letters: tuple[str, ...]
    """Dead letters and late ticks."""
    snapshots: str
    partitions: int
    """The setting: of topics that `topics ensure` makes."""
    session_ms: int
    """The longest trading day of the exchanges listed, first open to last close."""
    is_split_accepted: bool
    is_stopped_by_gone: bool
    is_production: bool

    @property
    def topics(self) -> tuple[str, ...]:
        """All of them."""
        return (self.ticks, *self.candles, *self.letters, self.snapshots)


def ok(check: str, what: str) -> Finding:
    """All is well."""
    return Finding(check, "ok", what)


def warning(check: str, what: str, do: str) -> Finding:
    """It runs, and somebody should look."""
    return Finding(check, "warning", what, do)


def fault(check: str, what: str, do: str) -> Finding:
    """It does not run, or not rightly."""
    return Finding(check, "fault", what, do)


def not_made(check: str, what: str) -> Finding:
    """Nobody knows."""
    return Finding(check, "not made", what)


def hours(duration_ms: int) -> str:
    """For the operator."""
    return f"{duration_ms / 3_600_000:.3g} h"
