"""The hash of Java's default partitioner: one key, one partition, whoever produces it."""

from functools import lru_cache

_MASK = 0xFFFFFFFF
_M = 0x5BD1E995
_SEED = 0x9747B28C
_KEYS_MAX = 65_536
"""Keys are instruments and come again and again: remembered, some 10 MB when full."""


def murmur2(data: bytes) -> int:
    """32 bits, unsigned (Java shows them signed)."""
    length = len(data)
    h = (_SEED ^ length) & _MASK
    whole = length - length % 4
    for start in range(0, whole, 4):
        k = int.from_bytes(data[start : start + 4], "little") * _M & _MASK
        k = (k ^ k >> 24) * _M & _MASK
        h = (h * _M & _MASK) ^ k
    if length > whole:
        h = (h ^ int.from_bytes(data[whole:], "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return h ^ h >> 15


@lru_cache(_KEYS_MAX)
def partition_of(key: bytes, partitions: int) -> int:
    """The partition Java's producer gives a record with this key."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
