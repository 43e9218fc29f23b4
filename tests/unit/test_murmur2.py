"""The hash against Kafka's own test vectors (`UtilsTest.testMurmur2`)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamingcandle.candles.murmur2 import murmur2, partition_of


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_kafkas_vectors(data: bytes, expected: int) -> None:
    assert murmur2(data) == expected % 2**32  # Java has no unsigned numbers


def test_the_sign_bit_is_dropped_before_the_remainder_is_taken() -> None:
    assert partition_of(b"21", 7) == (-973932308 & 0x7FFFFFFF) % 7
    assert partition_of(b"abc", 7) == 479470107 % 7


@given(st.binary(max_size=40), st.integers(1, 1_000))
def test_every_key_has_a_hash_and_a_partition(key: bytes, partitions: int) -> None:
    assert 0 <= murmur2(key) < 2**32
    assert 0 <= partition_of(key, partitions) < partitions
