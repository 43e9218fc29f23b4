"""The candle as readers of the candle topics meet it (specification §5.1)."""

from decimal import Decimal

import msgspec


class Candle(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One publication of one window. Times are epoch ms UTC; `window_end_millis` is exclusive.

    `volume` is whole unless the feed trades fractions (`quantity_decimals`). For a window the later
    record in the candle topic wins.
    """

    open: float
    high: float
    low: float
    close: float
    volume: int | Decimal
    exchange: str
    exchange_type: str
    company_name: str | None
    scrip_code: str
    window_start_millis: int
    window_end_millis: int
    human_readable_start_time: str
    human_readable_end_time: str
    timeframe: str
    ticks: int
    complete: bool
    revised: bool
    source_partition: int
    source_offset: int


_decoder = msgspec.json.Decoder(Candle)


def decode_candle(value: bytes) -> Candle:
    """Read a record of a candle topic; `msgspec.DecodeError` when it is none."""
    return _decoder.decode(value)
