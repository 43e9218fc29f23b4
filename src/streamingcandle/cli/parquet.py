"""Candles as Parquet. Imported only where it is asked for: pyarrow is an optional extra, and slow to import."""

import io

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from streamingcandle.candles.candle import Candle

_TYPES = {
    float: pa.float64(),
    int: pa.int64(),
    bool: pa.bool_(),
    str: pa.string(),
    str | None: pa.string(),
}
_TIME = pa.timestamp("ms", tz="UTC")
# Holds every volume: the kernel counts in 64 bits, and fractions have at most 18 digits.
_FRACTIONS = pa.decimal128(38, 18)


def as_parquet(candles: list[Candle], *, is_whole: bool) -> bytes:
    """The columns of the CSV, and `windowStart` and `windowEnd` as times. `is_whole`: the feed trades no fractions."""
    fields = msgspec.structs.fields(Candle)
    volume = pa.int64() if is_whole and all(isinstance(candle.volume, int) for candle in candles) else _FRACTIONS
    columns = {
        field.encode_name: pa.array(
            [getattr(candle, field.name) for candle in candles],
            volume if field.name == "volume" else _TYPES[field.type],
        )
        for field in fields
    }
    columns["windowStart"] = columns["windowStartMillis"].cast(_TIME)
    columns["windowEnd"] = columns["windowEndMillis"].cast(_TIME)
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()
