"""Instruments for which the table of sessions has no row: they trade round the clock in UTC, and that is said.

A feed that says NSE where the table says N would look well: candles come, on a grid from midnight and with what was
traded before the open.
"""

import logging
from collections.abc import Iterable
from difflib import get_close_matches

from streamingcandle.candles.book import judge
from streamingcandle.candles.rules import Rules
from streamingcandle.interfaces import Records

logger = logging.getLogger(__name__)

NAMES_MAX = 20
"""A feed can make up names; who has so many wrong looks at the feed, not at its names."""
NAME_CHARACTERS = 40
"""Of a name so many are shown."""
_BEGINNINGS = {
    **dict.fromkeys(("NSE", "XNSE", "NFO", "CDS"), "N"),
    **dict.fromkeys(("BSE", "XBOM", "BFO", "BCD"), "B"),
    **dict.fromkeys(("MCX", "XIMC"), "M"),
    "XNYS": "NYSE",
    "XNAS": "NASDAQ",
    "XASE": "AMEX",
}
"""How other feeds' names of the shipped exchanges begin, as in NSE_FO: their letters alone are nearer to NYSE."""


class Unlisted:
    """Says each exchange, or segment of a listed one, that has no sessions, once, with the first place seen."""

    def __init__(self, rules: Rules, tick_topic: str) -> None:
        """Nothing is said yet."""
        self._rules = rules
        self._tick_topic = tick_topic
        self._pairs = {(schedule.exchange, schedule.segment) for schedule in rules.calendar.schedules()}
        self._exchanges = sorted({exchange for exchange, _ in self._pairs})
        self._told: set[str] = set()

    def check(self, records: Records, instruments: Iterable[str]) -> None:
        """`instruments` are those that these records, or the snapshot before them, brought for the first time."""
        if len(self._told) > NAMES_MAX:
            return
        found: dict[str, str] = {}
        for instrument in instruments:
            exchange, segment, _ = instrument.split(":")
            if (exchange, segment) not in self._pairs and (exchange, "*") not in self._pairs:
                name = f"{exchange}:{segment}" if exchange in self._exchanges else exchange
                found.setdefault(name, instrument)
        for name in [name for name in found if name not in self._told]:
            self._told.add(name)
            if len(self._told) > NAMES_MAX:
                logger.warning("more than %d exchanges have no sessions; the others are not named", NAMES_MAX)
                return
            self._tell(name, f"{self._tick_topic}[{records.partition}]{_offset(self._rules, records, found[name])}")

    def _tell(self, name: str, where: str) -> None:
        near = self._nearest(name)
        logger.warning(
            "%s: exchange %r has no sessions%s: it trades round the clock, its local times are read as UTC. Where that "
            "is wrong, %sgive it rows in a table of your own (STREAMINGCANDLE_SESSIONS, docs/sessions.md)",
            where,
            name[:NAME_CHARACTERS],
            f" (nearest: {near})" if near else "",
            f"let the feed say {near}, or " if near else "",
        )

    def _nearest(self, name: str) -> str | None:
        exchange, is_listed, _ = name.partition(":")
        if is_listed:
            segments = sorted(":".join(pair) for pair in self._pairs if pair[0] == exchange)
            return get_close_matches(name, segments, n=1, cutoff=0.0)[0]
        upper = exchange.upper()
        meant = [upper, *(known for beginning, known in _BEGINNINGS.items() if upper.startswith(beginning))]
        near = [known for known in meant if known in self._exchanges]
        return next(iter(near or get_close_matches(upper, self._exchanges, n=1)), None)


def _offset(rules: Rules, records: Records, instrument: str) -> str:
    """`@offset` of the instrument's first record, or nothing where a snapshot brought it."""
    verdicts = judge(rules, records.values, records.timestamps_ms)
    places = (offset for (_, name, _), offset in zip(verdicts, records.offsets, strict=True) if name == instrument)
    return "".join(f"@{offset}" for offset in list(places)[:1])
