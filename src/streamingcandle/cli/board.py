"""What a table of candles shows: of each instrument the newest window, its last closes, and what was revised."""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from streamingcandle.candles.candle import Candle

CLOSES_MAX = 60
"""Closed windows remembered per instrument and timeframe: as wide as a line of them is ever drawn."""
INSTRUMENTS_MAX = 2_000
"""Held at most; who has more names those to watch."""
REVISIONS_MAX = 20
REVISED_MS = 3_000
"""How long a revision stands in its row."""

State = Literal["forming", "closed", "revised"]


class Row(msgspec.Struct, frozen=True):
    """One instrument in one timeframe. `revised`: the window that was revised a moment ago, if any."""

    key: str
    candle: Candle
    state: State
    closes: Sequence[float]
    revised: Candle | None


class Revision(msgspec.Struct, frozen=True):
    """A closed window that a late tick changed; `before` is None where we have not seen it close."""

    candle: Candle
    before: Candle | None


def name_of(key: str, candle: Candle) -> str:
    """What people call the instrument; its key where the feed does not say."""
    return shown(candle.company_name or key)


def shown(text: str) -> str:
    """What a terminal would obey is a question mark: as many cells as characters, so that columns stand."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


class Board:
    """All timeframes at once, so that changing between them shows whole rows."""

    def __init__(self) -> None:
        """Nothing was seen."""
        self.revisions: deque[Revision] = deque(maxlen=REVISIONS_MAX)
        self.published: Counter[str] = Counter()
        """By timeframe; `revised` are counted in both."""
        self._closed: dict[tuple[str, str], dict[int, Candle]] = {}
        self._revised: dict[tuple[str, str], tuple[int, Candle]] = {}
        self._instruments: set[str] = set()
        self.is_full = False
        """Whether there are more instruments than we hold."""

    def take(self, published: Iterable[tuple[str, Candle]], now_ms: int) -> None:
        """What closed or was revised, in order."""
        for key, candle in published:
            self.published[candle.timeframe] += 1
            self.published["revised"] += candle.revised
            if not self._has_room(key):
                continue
            place = key, candle.timeframe
            windows = self._closed.setdefault(place, {})
            if candle.revised:
                self.revisions.append(Revision(candle, windows.get(candle.window_start_millis)))
                self._revised[place] = now_ms, candle
            windows[candle.window_start_millis] = candle
            if len(windows) > CLOSES_MAX:
                del windows[min(windows)]

    def _has_room(self, key: str) -> bool:
        if key not in self._instruments:
            if len(self._instruments) >= INSTRUMENTS_MAX:
                self.is_full = True
                return False
            self._instruments.add(key)
        return True

    def rows(self, timeframe: str, forming: Iterable[tuple[str, Candle]], now_ms: int) -> list[Row]:
        """By exchange and name."""
        open_windows: dict[str, list[Candle]] = {}
        for key, candle in forming:
            if self._has_room(key):
                open_windows.setdefault(key, []).append(candle)
        rows = [self._row(key, timeframe, open_windows.get(key, []), now_ms) for key in self._instruments]
        return sorted((row for row in rows if row is not None), key=_order)

    def _row(self, key: str, timeframe: str, forming: list[Candle], now_ms: int) -> Row | None:
        closed = self._closed.get((key, timeframe), {})
        windows = closed | {candle.window_start_millis: candle for candle in forming}
        if not windows:
            return None
        starts = sorted(windows)
        newest = windows[starts[-1]]
        state: State = "closed" if starts[-1] in closed else "forming"
        revised_ms, revised = self._revised.get((key, timeframe), (0, None))
        is_fresh = revised is not None and now_ms < revised_ms + REVISED_MS
        if state == "closed" and newest.revised:
            state = "revised"
        return Row(key, newest, state, [windows[s].close for s in starts], revised if is_fresh else None)


def _order(row: Row) -> tuple[str, str, str]:
    return row.candle.exchange, name_of(row.key, row.candle), row.key
