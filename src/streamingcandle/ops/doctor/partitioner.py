"""Which partitioner put the ticks where they are, by the keys of some of them.

librdkafka's default is CRC-32, Java's murmur2. Each alone keeps an instrument in one partition; what `ingest`,
`simulate`, `dead-letters retry` and Java producers add goes by murmur2, and then an instrument is in two.
"""

import zlib
from collections.abc import Sequence

from streamingcandle.candles.murmur2 import partition_of
from streamingcandle.ops.doctor.finding import Deployment, Finding, fault, not_made, ok, warning

CHECK = "partitioner"
_CURE = "let every producer of ticks use murmur2 (librdkafka: partitioner=murmur2_random), between two sessions"


def judge_keys(deployment: Deployment, keys: Sequence[tuple[int, bytes | None]], partitions: int) -> Finding:
    """`keys`: partition and key of records as they lie. A fault only where `run` would refuse such ticks."""
    if partitions == 1:
        return ok(CHECK, f"{deployment.ticks}: one partition: any will do")
    if not keys:
        return not_made(CHECK, f"{deployment.ticks} has no ticks yet to tell it by")
    bad = warning if deployment.is_split_accepted else fault
    keyless = sum(key is None for _, key in keys)
    if keyless:
        what = f"{deployment.ticks}: {keyless} of {len(keys)} of the newest ticks have no key, and may be anywhere"
        return bad(CHECK, what, "let the producer key each tick by its token")
    keyed = [(number, key) for number, key in keys if key is not None]
    trouble = _trouble(keyed, partitions)
    if trouble:
        return bad(CHECK, f"{deployment.ticks}: {trouble}", _CURE)
    return ok(CHECK, f"{deployment.ticks}: murmur2, by the newest {len(keyed)} ticks")


def _trouble(keyed: Sequence[tuple[int, bytes]], partitions: int) -> str:
    homes: dict[bytes, set[int]] = {}
    for number, key in keyed:
        homes.setdefault(key, set()).add(number)
    split = sorted(key for key, numbers in homes.items() if len(numbers) > 1)
    if split:
        name = split[0].decode(errors="replace")
        return f"{len(split)} keys, {name} first, are in two partitions: its producers do not agree"
    strays = [(number, key) for number, key in keyed if partition_of(key, partitions) != number]
    if not strays or (len(strays) < len(keyed) and _is_widened(strays, partitions)):
        return ""
    name = "none that is known"
    if all(zlib.crc32(key) % partitions == number for number, key in keyed):
        name = "CRC-32 (librdkafka's default)"
    return f"its ticks lie by {name}, ours and Java's go by murmur2: an instrument would be in two partitions"


def _is_widened(strays: Sequence[tuple[int, bytes]], partitions: int) -> bool:
    """Whether murmur2 put them there when the topic had fewer partitions."""
    return any(all(partition_of(key, count) == number for number, key in strays) for count in range(1, partitions))
