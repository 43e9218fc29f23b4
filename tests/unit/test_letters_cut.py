"""A letter always fits its topic, and says of what is left out how long it was and its SHA-256."""

import hashlib

import pytest

from streamingcandle.interfaces import Letter, Origin
from streamingcandle.letters import CUT_BYTES, Headers, Place, cut, ours, place_of, read_letter, shortest

LIMIT_BYTES = 100_000
OVERHEAD_BYTES = 100
"""Of a batch with one record, as `kafka-dump-log` shows it."""


def _letter(key: bytes | None, value: bytes | None, headers: Headers = ()) -> Letter:
    told = ours(Origin(key, value, 5, 7, headers), "reason", "json", topic="t", partition=3)
    return Letter("letters", key, value, told)


def _size_bytes(letter: Letter) -> int:
    """As it is on the wire at most: two lengths of 5 bytes a header."""
    headers = sum(len(name.encode()) + len(text or b"") + 10 for name, text in letter.headers)
    return len(letter.key or b"") + len(letter.value or b"") + headers + OVERHEAD_BYTES


MANY = [(f"name {number}", b"x" * 200) for number in range(1_000)]
BIG = {
    "value": (b"1", b"v" * 10_000_000, ()),
    "key": (b"k" * 900_000, b"v", ()),
    "headers": (b"1", b"v", MANY),
    "empty headers": (b"1", b"v", [("", None)] * 100_000),
    "one header": (b"1", b"v", [("short", b"1"), ("long", b"x" * 1_000_000), ("é" * 60_000, b"")]),
    "all": (b"k" * 900_000, b"v" * 900_000, MANY),
    "tombstone": (b"k" * 900_000, None, ()),
    "no key": (None, b"v" * 900_000, MANY),
}


@pytest.mark.parametrize("name", BIG)
@pytest.mark.parametrize("limit_bytes", [2_000, LIMIT_BYTES, 1_048_588])
def test_whatever_is_big_it_fits(name: str, limit_bytes: int) -> None:
    key, value, headers = BIG[name]
    letter = _letter(key, value, headers)
    found = cut(letter, limit_bytes)
    assert _size_bytes(found) <= max(limit_bytes, CUT_BYTES)
    if _size_bytes(letter) <= limit_bytes - CUT_BYTES:
        assert found == letter
        return
    stored = read_letter(Place(0, 0), Origin(found.key, found.value, 0, 0, found.headers))
    assert stored is not None
    assert (stored.is_cut, stored.reason, stored.source) == (True, "json", Place(3, 7))
    assert (stored.size_bytes, stored.sha256) == (len(value or b""), hashlib.sha256(value or b"").hexdigest())
    said = dict(found.headers)
    assert (value or b"").startswith(found.value or b"")
    if key is not None and found.key != key:
        assert said["source.key.length"] == str(len(key)).encode()
        assert said["source.key.sha256"] == hashlib.sha256(key).hexdigest().encode()
    kept = [header for header in found.headers if header in headers]
    assert kept == list(headers[: len(kept)])
    if len(kept) < len(headers):
        assert said["source.headers.count"] == str(len(headers)).encode()


def test_what_fits_is_not_touched() -> None:
    letter = _letter(b"k" * 20_000, b"v" * 50_000, [("name", b"x" * 20_000)])
    assert cut(letter, LIMIT_BYTES) is letter


def test_the_beginnings_are_kept_as_far_as_there_is_room() -> None:
    found = cut(_letter(b"k" * 900_000, b"v" * 900_000, MANY), LIMIT_BYTES)
    assert len(found.key or b"") > LIMIT_BYTES // 5
    assert len(found.value or b"") > LIMIT_BYTES // 3
    assert found.headers[0] == MANY[0]


def test_the_shortest_form_has_a_key_and_nothing_of_the_record() -> None:
    letter = shortest(_letter(None, b"v" * 1_000, [("own", b"1")]))
    assert (letter.key, letter.value) == (b"3@7", None)
    assert dict(letter.headers)["source.sha256"] == hashlib.sha256(b"v" * 1_000).hexdigest().encode()
    assert place_of(letter) == "t[3]@7"
    assert _size_bytes(letter) < CUT_BYTES
