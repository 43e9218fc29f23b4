"""Which instruments a candle topic holds, and which of them a text on the command line means."""

from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches

import msgspec

from streamingcandle.candles.instrument import parse_instrument
from streamingcandle.errors import CheckError, SettingsError
from streamingcandle.printable import printable

CANDIDATES_MAX = 10
NEAREST_MAX = 3
LIST_HINT = "`streamingcandle candles --list` lists all"


class _Candle(msgspec.Struct, rename="camel"):
    company_name: str | None
    window_start_millis: int
    human_readable_start_time: str
    human_readable_end_time: str


class Holding(msgspec.Struct, rename="camel"):
    """An instrument with candles, the name that its newest record has, and its first and last window."""

    instrument: str
    company_name: str | None
    first_start: str
    last_end: str
    first_ms: int
    last_ms: int

    @property
    def label(self) -> str:
        """For a line of text."""
        name = "" if self.company_name is None else f" ({self.company_name})"
        return printable(self.instrument + name)


_decoder = msgspec.json.Decoder(_Candle)


def printable_cell(cell: object) -> object:
    """The same for a terminal: a feed's names may hold codes that it would obey."""
    return printable(cell) if isinstance(cell, str) else cell


def holdings(records: Iterable[tuple[bytes, bytes]]) -> dict[str, Holding]:
    """What there is of each instrument, by instrument; records that are no candles are passed over."""
    found: dict[str, Holding] = {}
    for key, value in records:
        try:
            candle, instrument = _decoder.decode(value), key.decode()
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        start_ms, start, end = (
            candle.window_start_millis,
            candle.human_readable_start_time,
            candle.human_readable_end_time,
        )
        held = found.get(instrument)
        if held is None:
            found[instrument] = Holding(instrument, candle.company_name, start, end, start_ms, start_ms)
            continue
        held.company_name = candle.company_name or held.company_name
        if start_ms < held.first_ms:
            held.first_ms, held.first_start = start_ms, start
        if start_ms > held.last_ms:
            held.last_ms, held.last_end = start_ms, end
    return dict(sorted(found.items()))


def is_key(text: str) -> bool:
    """Whether it is an instrument and no name. SettingsError for one that is misspelt."""
    if ":" not in text:
        return False
    parse_instrument(text)
    return True


def chosen(text: str, known: Mapping[str, Holding], what: str) -> str:
    """The instrument that `text` means, a company's name in any case or the instrument itself.

    CheckError where there is none, with the nearest; SettingsError where there are several. `what`: candles, in words.
    """
    if text in known:
        return text
    wanted = _plain(text)
    same = [held for held in known.values() if held.company_name is not None and _plain(held.company_name) == wanted]
    if len(same) == 1:
        return same[0].instrument
    if same:
        shown = ", ".join(held.label for held in same[:CANDIDATES_MAX])
        more = f" and {len(same) - CANDIDATES_MAX} more" if len(same) > CANDIDATES_MAX else ""
        raise SettingsError(f"{text}: several instruments with {what} have this name; give one of {shown}{more}")
    near = ", ".join(held.label for held in _nearest(wanted, known.values()))
    raise CheckError(f"{text}: no instrument with {what} has this name; nearest: {near}; {LIST_HINT}")


def containing(text: str, known: Iterable[Holding]) -> list[Holding]:
    """Those whose instrument or name holds `text`, in any case."""
    wanted = _plain(text)
    return [held for held in known if wanted in _plain(f"{held.instrument} {held.company_name or ''}")]


def _nearest(wanted: str, known: Collection[Holding]) -> list[Holding]:
    if within := containing(wanted, known):
        return within[:NEAREST_MAX]
    spelled = {_plain(text): held for held in known for text in (held.instrument, held.company_name) if text}
    return [spelled[text] for text in get_close_matches(wanted, spelled, n=NEAREST_MAX, cutoff=0.0)]


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
