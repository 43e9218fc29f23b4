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
_WHOLE_MAX = 2**63 - 1
# Fractions have at most 18 digits; the second, which not every reader knows, is for what the first does not hold.
_FRACTIONS = (pa.decimal128(38, 18), pa.decimal256(76, 18))
_FRACTION_MAX = 10**20 - 1


def as_parquet(candles: list[Candle], kind: type[Candle]) -> bytes:
    """The columns of the CSV, and `windowStart` and `windowEnd` as times.

    `kind` is the candles' own. Volumes are whole numbers where all of them are.
    """
    fields = msgspec.structs.fields(kind)
    is_whole = all(isinstance(candle.volume, int) and candle.volume <= _WHOLE_MAX for candle in candles)
    is_huge = any(candle.volume > _FRACTION_MAX for candle in candles)
    volume = pa.int64() if is_whole else _FRACTIONS[is_huge]
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
