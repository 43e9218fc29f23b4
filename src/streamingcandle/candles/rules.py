"""The rules a fold obeys. State is a function of these and of a log prefix, of nothing else."""

import hashlib
from typing import Literal

import msgspec

from streamingcandle.candles.session import Calendar
from streamingcandle.candles.timeframe import Timeframe


class Fields(msgspec.Struct, frozen=True):
    """The JSON names a feed uses for what we read (specification §1.2); another broker's JSON is a setting."""

    exchange: str = "Exch"
    segment: str = "ExchType"
    token: str = "Token"
    price: str = "LastRate"
    quantity: str = "LastQty"
    total: str = "TotalQty"
    time: str = "TickDt"
    company_name: str = "companyName"
    scrip_code: str = "ScripCode"


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that decides what a tick does to a candle. Times in ms.

    `grace_ms` is per timeframe, in the order of `timeframes`; it decides when a window is
    published, never what is in it, and so stays out of `digest`.
    """

    timeframes: tuple[Timeframe, ...]
    grace_ms: tuple[int, ...]
    calendar: Calendar
    fields: Fields = Fields()
    allowed_lateness_ms: int = 600_000
    future_ms: int = 60_000
    after_close_ms: int = 1_000
    quantity_decimals: int = 8
    instruments_max: int = 50_000
    """Held of one partition: 50,000 made-up ones that tick once are 150 MB, and a snapshot of 42 MB before zstd."""
    outside_session: Literal["skip", "keep"] = "skip"
    since_zero: tuple[str, ...] = ()
    """Exchanges whose first window counts its volume from zero; `*` for all."""

    @property
    def digest(self) -> str:
        """16 hex digits: equal when two processes' states mean the same."""
        meaning = msgspec.structs.replace(self, grace_ms=())
        return hashlib.sha256(msgspec.json.encode(meaning, order="deterministic")).hexdigest()[:16]
