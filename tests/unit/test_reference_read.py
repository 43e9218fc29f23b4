"""How the reference reads JSON, numbers and times, against values worked out by hand."""

from datetime import datetime, timedelta

import pytest

from streamingcandle.candles.reference_read import (
    Number,
    read_object,
    read_price,
    read_quantity,
    read_scrip_code,
    read_time,
    read_total,
    read_whole,
)
from streamingcandle.candles.session import load_calendar

CALENDAR = load_calendar()
EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def ms(clock: str, day: str, zone: str) -> int:
    return (datetime.fromisoformat(f"{day}T{clock}{zone}") - EPOCH) // timedelta(milliseconds=1)


@pytest.mark.parametrize(
    "text",
    [
        '{"a":01}', '{"a":1.}', '{"a":.5}', '{"a":+1}', '{"a":NaN}', '{"a":Infinity}', '{"a":1}x', '{"a":1,}', "{,}",
        '{"a"}', '{"a":}', '{"a" 1}', "{'a':1}", '{"a":[1,]}', '{"a":[}', '{"a":{]}}', '{"a":"\t"}', '{"a":"\\x"}',
        '{"a":"\\u12"}', '{"a":truefalse}', '{"a":1 2}', '\ufeff{"a":1}', '{"a":1}{"b":2}', '{"a":[1}}', '{"a":1]', "1",
        '"a"', "null", '{"a":1}\x00', "{a:1}", '{"a"::1}', '[{"a":1}]', '{"a":1}]', "\u00a0{}",
    ],
)  # fmt: skip
def test_what_is_no_json_object(text: str) -> None:
    assert read_object(text.encode()) is None


@pytest.mark.parametrize(
    "value", [b'{"a":"\xff"}', b'{"a":"\xed\xa0\x80"}', b'{"a":"\xc0\x80"}', b"\xff\xfe{\x00}\x00"]
)
def test_what_is_no_utf8(value: bytes) -> None:
    assert read_object(value) is None


def test_json_as_it_is_written() -> None:
    assert read_object(b" {} \r\n") == {}
    found = read_object(
        b'\t{"a" : 1.50e+1, "b":"\\u00e9\\ud83d\\ude00\\/", "c":null, "a":2, "d":{"a":3,"e":[[],{}]}, "f":-0}'
    )
    assert found is not None
    assert found["a"] == Number("2")
    assert isinstance(found["a"], Number)
    assert found["b"] == "é😀/"
    assert found["c"] is None
    assert set(found) == {"a", "b", "c", "d", "f"}
    depth = 100_000
    assert read_object(b'{"a":' + b"[" * depth + b"]" * depth + b',"b":1}') is not None
    assert read_object(b'{"a":' + b"[" * depth + b"]" * (depth - 1) + b',"b":1}') is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5", 5), ("5.0", 5), ("5e0", 5), ("0.5e1", 5), ("50e-1", 5), ("-0", 0), ("-0.0e5", 0), ("0e999999999999", 0),
        ("9223372036854775807", 2**63 - 1), ("9223372036854775808", None), ("9223372036854775807.0", 2**63 - 1),
        ("1e18", 10**18), ("1e19", None), ("1e" + "9" * 5_000, None), ("1e-" + "9" * 5_000, None), ("5.5", None),
        ("-5", None), ("05", None), (" 5", None), ("5 ", None), ("+5", None), ("0x5", None), ("", None), ("5.", None),
        ("1" + "0" * 5_000 + "e-5000", 1), ("\u0665", None), ("1e" + "0" * 5_000 + "2", 100),
    ],
)  # fmt: skip
def test_whole_numbers(text: str, expected: int | None) -> None:
    assert read_whole(text) == expected
    assert read_whole(Number(text)) == expected


@pytest.mark.parametrize(
    ("text", "decimals", "expected"),
    [
        ("5", 0, 5), ("-5", 0, 5), ("5", 8, 500_000_000), ("0.5", 0, 1), ("-0.5", 0, 1), ("0.49999", 0, 0),
        ("1.5", 0, 2),
        ("2.5", 0, 3), ("0.005", 2, 1), ("0.0049", 2, 0), ("9.995", 2, 1_000), ("5e-9", 8, 1), ("4e-9", 8, 0),
        ("9999999999999999999", 0, 10**19 - 1), ("9999999999999999999.5", 0, 10**19), ("1e19", 0, None),
        ("-1e19", 0, None), ("10000000000000000000", 18, None), ("1e18", 18, 10**36), ("1e-999999999999", 18, 0),
        ("1e999999999999", 0, None), ("1" + "0" * 5_000 + "e-5000", 0, 1), ("0." + "3" * 5_000, 3, 333), ("x", 0, None),
        ("0e999999999999", 8, 0), ("-0", 8, 0), ("", 0, None),
    ],
)  # fmt: skip
def test_quantities(text: str, decimals: int, expected: int | None) -> None:
    assert read_quantity(text, decimals) == expected
    assert read_quantity(Number(text), decimals) == expected
    below_zero = text.startswith("-") and text != "-0"
    assert read_total(text, decimals) == (None if below_zero else expected)


def test_prices_and_scrip_codes() -> None:
    assert read_price("1e-400") == 0
    assert read_price("246346.05") == 246346.05
    assert read_price("1.7976931348623157e308") == 1.7976931348623157e308
    assert [read_price(text) for text in ("1.8e308", "-1", "inf", "1_0", "")] == [None] * 5
    assert [read_scrip_code(value) for value in (Number("5.0"), Number("-5"), "005", "")] == ["5", None, "005", ""]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("/Date(1767335675000)/", 1_767_335_675_000),
        ("/Date(1767335675000+0530)/", 1_767_335_675_000),
        ("/Date(1767335675000-0500)/", 1_767_335_675_000),
        ("/Date(-5)/", -5),
        ("/Date(17673356750000000000)/", None),
        ("/Date()/", None),
        ("Date(1767335675000)", None),
        ("2026-01-02 12:04:35", 1_767_335_675_000),
        ("2026-01-02 12:04:35.1", 1_767_335_675_100),
        ("2026-01-02 12:04:35.123999", 1_767_335_675_123),
        ("2026-01-02 12:04", None),
        ("2026-01-02 12:04:35.", None),
        ("2026-01-02 24:00:00", None),
        ("2026-01-02 23:59:60", None),
        ("2026-02-29 12:04:35", None),
        ("2026-01-02T12:04:35", 1_767_335_675_000),
        ("2026-01-02t12:04:35", 1_767_335_675_000),
        ("2026-01-02T12:04", None),
        ("2026-01-02T06:34:35Z", 1_767_335_675_000),
        ("2026-01-02t06:34:35.0009z", 1_767_335_675_000),
        ("2026-01-02 12:04:35+05:30", 1_767_335_675_000),
        ("2026-01-02T12:04:35+0530", 1_767_335_675_000),
        ("2026-01-02T01:34:35-05", 1_767_335_675_000),
        ("2026-01-02T06:34Z", 1_767_335_640_000),
        ("2026-01-02T06:34:35+24:00", None),
        ("2026-01-02T06:34:35+05:60", None),
        ("2026-1-2 12:04:35", None),
        ("1767335675", 1_767_335_675_000),
        ("1767335675.1239", 1_767_335_675_123),
        ("1.767335675e9", 1_767_335_675_000),
        ("1767335675123", 1_767_335_675_123),
        ("1767335675123.9", 1_767_335_675_123),
        ("1767335675123456", 1_767_335_675_123),
        ("1767335675123456789", 1_767_335_675_123),
        ("99999999999.9999", 99_999_999_999_999),
        ("100000000000", 100_000_000_000),
        ("0", 0),
        ("-1767335675", 0),
        ("0000-02-29T00:00:00Z", -62_162_121_600_000),
        ("0000-00-00 00:00:00", None),
        ("1e-300", 0),
        ("1e999999999999", 253_402_300_800_000),
        ("soon", None),
    ],
)
def test_event_times(written: str, expected: int | None) -> None:
    schedule = CALENDAR.schedule("M", "D")
    assert read_time(written, schedule) == expected
    assert expected == read_time(Number(written), schedule)


def test_local_times_that_are_twice_or_not_at_all() -> None:
    schedule = CALENDAR.schedule("NYSE", "E")
    assert read_time("2025-11-02 01:30:00", schedule) == ms("01:30", "2025-11-02", "-04:00")
    assert read_time("2025-11-02 02:00:00", schedule) == ms("02:00", "2025-11-02", "-05:00")
    assert read_time("2026-03-08 02:30:00", schedule) == ms("02:30", "2026-03-08", "-05:00")
    assert read_time("2026-03-08 03:00:00", schedule) == ms("03:00", "2026-03-08", "-04:00")
