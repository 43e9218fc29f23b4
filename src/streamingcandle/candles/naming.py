"""Whether the records of a feed have the names that the setting `fields` says, by a look at the first of them.

A misspelt name is not an error of any record: a price that is absent rejects it, a time that is absent is the record's
own timestamp, a quantity that is absent is none. Only many records together tell.
"""

from collections.abc import Iterable, Iterator
from difflib import get_close_matches

import msgspec

from streamingcandle.candles.rules import Fields
from streamingcandle.candles.why import shown

RECORDS_MAX = 1_000
LOOKED_BYTES_MAX = 8_000_000
RECORD_BYTES_MAX = 65_536
NAMES_MAX = 200
"""Of names that no field has, for a feed may make up as many as it likes."""
TOLD_MAX = 20

NEEDED = ("exchange", "segment", "token", "price", "time")
"""Without these no feed is right. Of the others those are missed that the user named."""
_WITHOUT = {"time": "each tick's time is its record's own timestamp"}
_REJECTED = "each record is rejected"
_ABSENT = "it counts as absent"
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Names:
    """The JSON names met so far."""

    def __init__(self, fields: Fields) -> None:
        """None was met yet."""
        usual = Fields()
        self._wanted = {
            field: name
            for field in fields.__struct_fields__
            if (name := getattr(fields, field)) != getattr(usual, field) or field in NEEDED
        }
        self._missed = set(self._wanted.values())
        self._others: dict[str, None] = {}
        self._left_records, self._left_bytes = RECORDS_MAX, LOOKED_BYTES_MAX
        self.records = 0
        """Objects looked at."""

    @property
    def is_done(self) -> bool:
        """Whether enough was seen to tell."""
        return not self._missed or self._left_records <= 0 or self._left_bytes <= 0

    def look(self, values: Iterable[bytes | None]) -> None:
        """Look at some more records; what is no JSON object says nothing about names."""
        for value in values:
            if self.is_done:
                return
            self._left_records -= 1
            if not value or len(value) > RECORD_BYTES_MAX:
                continue
            self._left_bytes -= len(value)
            try:
                members = _MEMBERS.decode(value)
            except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError):
                continue
            self.records += 1
            self._missed.difference_update(members)
            if len(self._others) < NAMES_MAX:
                self._others.update(dict.fromkeys(list(members)[:NAMES_MAX]))

    def missed(self) -> Iterator[str]:
        """A line for each name that no record had: the setting, what follows, what names there are."""
        if not self.records:
            return
        there = [shown(name.encode(errors="backslashreplace")) for name in self._others]
        told = ", ".join(there[:TOLD_MAX]) + (" …" if len(there) > TOLD_MAX else "")
        for field, name in self._wanted.items():
            if name not in self._missed:
                continue
            follows = _WITHOUT.get(field, _REJECTED if field in NEEDED else _ABSENT)
            near = get_close_matches(name, there, n=1, cutoff=0.6)
            nearest = f"nearest there: {near[0]}; " if near else ""
            yield (
                f"none of the first {self.records:,} records has {name!r}, by the setting `fields` the {field}: "
                f"{follows}; {nearest}names there: {told or 'none'}; set STREAMINGCANDLE_FIELDS={field}=NAME"
            )
