"""Why a record was rejected, or is not all that it could be: the field, and what stood there.

Asked of single records for a line of the log or of `dead-letters`, never on the path. The kernel's verdict is given:
nothing is judged anew here, and where no one field is to blame all that could be are shown. Whatever the record is,
the answer comes at once, on one line and short.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import msgspec

from streamingcandle.candles.instrument import TOKEN_MAX
from streamingcandle.candles.rules import Fields, Rules

SHOWN_MAX = 80
"""Characters of what stood there."""
LOOKED_BYTES_MAX = 1_048_576
"""A larger record is not looked into: a tick has some hundred bytes, and Kafka's own limit is here."""
TIME_FALLBACK, OPTIONAL_UNREADABLE, VOLUME_STUCK = "time_fallback", "optional_unreadable", "volume_stuck"
"""Of the ledger: what is said of records that are not rejected."""

_NUMBER = re.compile(rb'"?-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"?')
_NAME = re.compile(rb'"[^:"]+"')
_WHOLE = re.compile(rb'"?(0|[1-9][0-9]{0,18})(?:\.0+)?"?')
_BYTE = re.compile(r"\(byte (\d+)\)")
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])

Members = dict[str, msgspec.Raw]


def explain(rules: Rules, why: str, value: bytes | None, timestamp_ms: int) -> str:
    """What is to be said of a record beside `why`, a reason or a name of the ledger; empty where that says it all."""
    if not value:
        return ""
    if len(value) > LOOKED_BYTES_MAX:
        return f"{len(value)} bytes, too many to look into"
    try:
        members = _MEMBERS.decode(value)
    except RecursionError:
        return "nested too deeply to look into"
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        return _spelling(value, str(error))
    if why == "json":
        return _spelling(value, "")
    say = _SAY.get(why)
    return "" if say is None else say(rules.fields, members, timestamp_ms)


def shown(raw: bytes) -> str:
    """On one line, short, and nothing in it that a terminal obeys."""
    text = raw[: 4 * SHOWN_MAX].decode(errors="backslashreplace")
    text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text[: SHOWN_MAX + 1])
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…"


def _name(name: str) -> str:
    return shown(name.encode(errors="backslashreplace"))


def _said(name: str, members: Members) -> str:
    raw = members.get(name)
    return f"{_name(name)} is {'missing' if raw is None else shown(bytes(raw))}"


def _spelling(value: bytes, said: str) -> str:
    """Where it is no JSON object, and how it goes on from there."""
    try:
        value.decode()
    except UnicodeDecodeError as error:
        return f"no UTF-8 at byte {error.start}: {shown(value[error.start :])}"
    if at := _BYTE.search(said):
        reason = said[: at.start()].removeprefix("JSON is malformed: ").strip()
        return f"{reason} at byte {at[1]}: {shown(value[int(at[1]) :])}"
    if "truncated" in said:
        return f"it ends in the middle, after {len(value)} bytes"
    return f"no JSON object: {shown(value)}"


def _instrument(fields: Fields, members: Members, _timestamp_ms: int) -> str:
    names = (fields.exchange, fields.segment, fields.token)
    bad = [name for name in names if bytes(members.get(name, b"null")) == b"null"]
    bad += [name for name in names[:2] if not _NAME.fullmatch(bytes(members.get(name, b"")))]
    whole = _WHOLE.fullmatch(bytes(members.get(fields.token, b"")))
    if whole is None or int(whole[1]) > TOKEN_MAX:
        bad.append(fields.token)
    return _said(bad[0], members) if bad else ", ".join(_said(name, members) for name in names)


def _price(fields: Fields, members: Members, _timestamp_ms: int) -> str:
    return _said(fields.price, members)


def _no_time(fields: Fields, members: Members, timestamp_ms: int) -> str:
    stamp = "" if timestamp_ms > 0 else f", the record's own timestamp {timestamp_ms}"
    return f"{_said(fields.time, members)}{stamp}"


def _future(fields: Fields, members: Members, timestamp_ms: int) -> str:
    return f"{_said(fields.time, members)}, the record's own timestamp {_time(timestamp_ms)}"


def _optional(fields: Fields, members: Members, _timestamp_ms: int) -> str:
    numbers, texts = (fields.quantity, fields.total), (fields.company_name, fields.scrip_code)
    there = {name: bytes(members[name]) for name in (*numbers, *texts) if name in members}
    there = {name: raw for name, raw in there.items() if raw != b"null"}
    bad = [name for name in numbers if name in there and not _NUMBER.fullmatch(there[name])]
    if there.get(fields.total, b"").startswith((b"-", b'"-')):
        bad.append(fields.total)  # of a trade's quantity the sign is its side
    bad += [name for name in texts if name in there and there[name][:1] not in b'"0123456789']
    return ", ".join(_said(name, members) for name in bad or there)


def _stuck(fields: Fields, members: Members, _timestamp_ms: int) -> str:
    return ", ".join(_said(name, members) for name in (fields.exchange, fields.segment, fields.token, fields.total))


def _time(at_ms: int) -> str:
    try:
        return f"{datetime.fromtimestamp(at_ms / 1_000, UTC):%Y-%m-%dT%H:%M:%S}Z"
    except (ValueError, OverflowError, OSError):
        return f"{at_ms} ms"


_SAY: Mapping[str, Callable[[Fields, Members, int], str]] = {
    "instrument": _instrument,
    "price": _price,
    "time": _no_time,
    "future": _future,
    TIME_FALLBACK: _no_time,
    OPTIONAL_UNREADABLE: _optional,
    VOLUME_STUCK: _stuck,
}
