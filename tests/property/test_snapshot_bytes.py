"""Bytes that somebody put where a snapshot lies: read as one, or of no use; nothing else, and at no cost."""

import tracemalloc
import zlib
from contextlib import suppress
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from streamingcandle.candles.commit import NUMBER_MAX, Fingerprint
from streamingcandle.errors import SettingsError
from streamingcandle.state.snapshot import MAGIC, VERSION, Snapshot, UnusableError

MEMORY_BYTES_MAX = 20_000_000
LINE_MAX = 200
SOUND = Snapshot(
    partition=3,
    offset=81_235,
    rules="0123456789abcdef",
    fingerprint=Fingerprint(81_234, 1_767_335_700_000, 7, "A" * 22),
    written_ms=1_767_335_700_500,
    book=bytes(range(256)) * 4,
    commit='{"v":1}',
)


def sealed(body: bytes, version: int = VERSION) -> bytes:
    """With a head that is right: whoever writes there can make one too."""
    head = version.to_bytes(2, "little")
    return MAGIC + head + zlib.crc32(body, zlib.crc32(head)).to_bytes(4, "little") + body


def packed(value: object) -> bytes:
    """As the state of a snapshot is."""
    return sealed(zstandard.compress(msgspec.msgpack.encode(value)))


def damaged(data: bytes, at: int, inserted: bytes, length: int) -> bytes:
    """With something else at a place."""
    place = at % len(data)
    return data[:place] + inserted + data[place + length :]


def is_refused(data: bytes) -> bool:
    """Anything but UnusableError comes through."""
    tracemalloc.start()
    said, snapshot = "", None
    try:
        snapshot = Snapshot.decode(data)
    except UnusableError as error:
        said = str(error)
    finally:
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak_bytes < MEMORY_BYTES_MAX
    assert len(said) < LINE_MAX
    assert snapshot is None or Snapshot.decode(snapshot.encode()) == snapshot
    return snapshot is None


places = st.integers(0, 10_000)


@given(st.binary())
@example(MAGIC)
def test_any_bytes(data: bytes) -> None:
    for each in (data, MAGIC + data, sealed(data), sealed(zstandard.compress(data))):
        assert is_refused(each)


@given(places, st.binary(max_size=40), st.integers(0, 40))
def test_a_damaged_one(at: int, inserted: bytes, length: int) -> None:
    data = SOUND.encode()
    other = damaged(data, at, inserted, length)
    assert is_refused(other) == (other != data)
    body = zstandard.ZstdCompressor(1).compress(msgspec.msgpack.encode(SOUND))
    for forged in (
        sealed(damaged(body, at, inserted, length)),
        sealed(zstandard.compress(damaged(msgspec.msgpack.encode(SOUND), at, inserted, length))),
    ):
        is_refused(forged)


numbers = st.integers(-(2**63), 2**64 - 1) | st.sampled_from([-1, 0, 1, NUMBER_MAX, 2**31, 2**32])


@given(st.dictionaries(st.sampled_from(["partition", "offset", "written_ms"]), numbers), st.lists(numbers, max_size=3))
def test_any_numbers(changed: dict[str, int], fingerprint: list[int]) -> None:
    value: dict[str, Any] = msgspec.to_builtins(SOUND) | changed | {"book": SOUND.book}
    value["fingerprint"] = [*fingerprint, *value["fingerprint"][len(fingerprint) :]]
    is_right = (
        0 <= value["partition"] < 2**31
        and 0 <= value["fingerprint"][0] < value["offset"] <= NUMBER_MAX
        and -1 <= value["fingerprint"][1] <= NUMBER_MAX
        and 0 <= value["fingerprint"][2] < 2**32
        and 0 <= value["written_ms"] <= NUMBER_MAX
    )
    assert is_refused(packed(value)) != is_right


def test_sizes_that_are_only_claimed() -> None:
    frame = zstandard.compress(msgspec.msgpack.encode(SOUND))
    header = zstandard.frame_header_size(frame)
    for claimed in (2**60, 3_900_000_000, 2**64 - 1):
        claim = zstandard.MAGIC_NUMBER.to_bytes(4, "little") + b"\xe0" + claimed.to_bytes(8, "little")
        assert is_refused(sealed(claim + frame[header:]))
    # A bomb whose claim is true, and one that claims nothing.
    zeros = bytes(10_000_000)
    assert is_refused(sealed(zstandard.ZstdCompressor(19).compress(zeros)))
    assert is_refused(sealed(zstandard.ZstdCompressor(write_content_size=False).compress(zeros)))
    # Lengths within: a text of 4 GB, as many elements, and more levels than a stack has.
    for inner in (b"\xdb\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\x81\xa1x" + b"\x91" * 100_000):
        assert is_refused(sealed(zstandard.compress(inner)))


def test_a_newer_version_is_told_apart() -> None:
    with pytest.raises(SettingsError, match=f"format {VERSION + 1}"):
        Snapshot.decode(sealed(b"", VERSION + 1))
    assert is_refused(MAGIC + (VERSION + 1).to_bytes(2, "little") + bytes(100))


def test_one_of_an_older_program_has_no_commit() -> None:
    value = msgspec.to_builtins(SOUND) | {"book": SOUND.book}
    del value["commit"]
    assert Snapshot.decode(packed(value)) == msgspec.structs.replace(SOUND, commit="")
    with suppress(KeyError):
        del value["book"]
    assert is_refused(packed(value))
