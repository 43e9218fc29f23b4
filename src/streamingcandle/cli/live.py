"""A `Watch` shown: as a table on a terminal, or as lines of what changed."""

import logging
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import msgspec

from streamingcandle.candles.candle import Candle
from streamingcandle.candles.instrument import Instrument
from streamingcandle.candles.rules import Rules
from streamingcandle.cli.board import Board, Row, name_of
from streamingcandle.cli.options import say, say_json
from streamingcandle.cli.screen import View, frame, rows_shown
from streamingcandle.cli.terminal import Terminal
from streamingcandle.errors import SettingsError
from streamingcandle.interfaces import Clock
from streamingcandle.ops.watch import Standing, Watch

TURN_S = 0.05
"""A key is answered at least this soon."""
FRAME_MS = 125
LINES_MS = 1_000
"""A forming candle is told of at most this often."""
RATE_MS = 2_000
"""What `ticks/s` looks back on."""
REMARKS_MAX = 100
REMARK_MS = 15_000
"""How long a warning stands where the keys are told."""
DRAWING_SHARE = 4
"""Of the time, one in so many is spent on drawing at most: the log comes first."""


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What to show of it: all instruments, or these."""

    title: str
    rules: Rules
    chosen: int
    """The timeframe, by its place in the rules."""
    instruments: Sequence[Instrument] | None = None

    @property
    def labels(self) -> list[str]:
        """The timeframes."""
        return [timeframe.label for timeframe in self.rules.timeframes]

    def check(self, watch: Watch) -> None:
        """SettingsError names an instrument that has no tick in all of the log that was folded."""
        for instrument in self.instruments or ():
            if not watch.is_known(instrument):
                raise SettingsError(
                    f"instrument {instrument}: no tick of it in the tick topic; "
                    "`streamingcandle watch` without instruments shows all there are"
                )


class _Remarks(logging.Handler):
    """Keeps what would be written over the table: the last is shown in it, all are told when it is gone."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(logging.WARNING)
        self.records: deque[logging.LogRecord] = deque(maxlen=REMARKS_MAX)
        self._clock = clock
        self._until_ms = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self._until_ms = self._clock.monotonic_ms() + REMARK_MS

    @property
    def last(self) -> str:
        return self.records[-1].getMessage() if self._clock.monotonic_ms() < self._until_ms else ""


@contextmanager
def _remarks(clock: Clock) -> Iterator[_Remarks]:
    root, remarks = logging.getLogger(), _Remarks(clock)
    kept = root.handlers[:]
    if sys.stderr.isatty():
        root.handlers[:] = [remarks]
    try:
        yield remarks
    finally:
        root.handlers[:] = kept
        for record in remarks.records:
            root.handle(record)


class _Rate:
    """Ticks a second over the last moments."""

    def __init__(self) -> None:
        self._marks: deque[tuple[int, int]] = deque()

    def of(self, count: int, now_ms: int) -> int:
        self._marks.append((now_ms, count))
        while self._marks[0][0] < now_ms - RATE_MS:
            self._marks.popleft()
        since_ms, before = self._marks[0]
        return (count - before) * 1_000 // max(1, now_ms - since_ms)


class _Table:
    """What the keys change, and frames of the rest."""

    def __init__(self, shown: Shown, watch: Watch, clock: Clock) -> None:
        self.board = Board()
        self.is_left = False
        self._shown = shown
        self._watch = watch
        self._clock = clock
        self._chosen = shown.chosen
        self._first = 0
        self._rate = _Rate()

    def press(self, key: str, page: int) -> None:
        count = len(self._shown.labels)
        moves = {"up": -1, "down": 1, "page up": -page, "page down": page}
        steps = {"left": -1, "right": 1}
        if key in ("q", "Q"):
            self.is_left = True
        elif key in moves:
            self._first += moves[key]
        elif key in steps:
            self._chosen = (self._chosen + steps[key]) % count
        elif key.isdecimal() and 0 < int(key) <= count:
            self._chosen = int(key) - 1

    def view(self, page: int, remark: str, *, has_keys: bool) -> View:
        now_ms = self._clock.monotonic_ms()
        label = self._shown.labels[self._chosen]
        rows = self.board.rows(label, self._watch.forming(self._chosen), now_ms)
        self._first = max(0, min(self._first, len(rows) - page))
        standing = self._watch.standing()
        if self.board.is_full and not remark:
            remark = f"the first {len(rows):,} instruments; name those to watch"
        return View(
            title=self._shown.title,
            timeframes=self._shown.labels,
            chosen=self._chosen,
            rows=rows,
            first=self._first,
            standing=standing,
            ticks_per_s=self._rate.of(standing.ledger["read"], now_ms),
            clock=self._clock_text(standing, rows),
            revisions=list(self.board.revisions),
            revised=self.board.published["revised"],
            remark=remark,
            has_keys=has_keys,
        )

    def _clock_text(self, standing: Standing, rows: Sequence[Row]) -> str:
        """In the zone of what is shown."""
        if not standing.feed_ms or not rows:
            return ""
        candle = rows[self._first].candle
        schedule = self._shown.rules.calendar.schedule(candle.exchange, candle.exchange_type)
        at = datetime.fromtimestamp(schedule.local_ms(standing.feed_ms) / 1_000, UTC)
        return at.strftime("%Y-%m-%d %H:%M:%S")


def show_table(
    watch: Watch,
    shown: Shown,
    clock: Clock,
    *,
    is_stopping: Callable[[], bool],
    remark: Callable[[], str] = lambda: "",
) -> None:
    """Until `q` or a stop. `remark` is what else to say below the table."""
    # A terminal that is closed is a stop, so that everything is put away.
    signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))
    table = _Table(shown, watch, clock)
    next_ms, is_checked = 0, False
    with _remarks(clock) as remarks, Terminal() as terminal:
        while not is_stopping() and not table.is_left:
            table.board.take(watch.turn(TURN_S), clock.monotonic_ms())
            if not is_checked and watch.is_caught_up:
                shown.check(watch)
                is_checked = True
            keys = terminal.keys()
            width, height = terminal.size()
            for key in keys:
                table.press(key, rows_shown(height))
            now_ms = clock.monotonic_ms()
            if keys or now_ms >= next_ms:
                view = table.view(rows_shown(height), remarks.last or remark(), has_keys=terminal.has_keys)
                terminal.draw(frame(view, width, height))
                next_ms = now_ms + max(FRAME_MS, DRAWING_SHARE * (clock.monotonic_ms() - now_ms))


def tell_lines(watch: Watch, shown: Shown, clock: Clock, *, is_stopping: Callable[[], bool], is_json: bool) -> None:
    """Until a stop: the candles that change from now on, those open now first."""
    label = shown.labels[shown.chosen]
    told: dict[tuple[str, int], int] = {}
    next_ms, is_checked = 0, False

    def tell(key: str, candle: Candle, state: str) -> None:
        _say(key, candle, state, is_json=is_json)

    while not is_stopping():
        closed = watch.turn(TURN_S)
        if not watch.is_caught_up:
            continue
        if not is_checked:
            shown.check(watch)
            is_checked = True
        for key, candle in closed:
            if candle.timeframe == label and watch.is_news:
                tell(key, candle, "revised" if candle.revised else "closed")
        if clock.monotonic_ms() < next_ms:
            continue
        forming = watch.forming(shown.chosen)
        for key, candle in forming:
            if told.get((key, candle.window_start_millis)) != candle.source_offset:
                tell(key, candle, "forming")
        told = {(key, candle.window_start_millis): candle.source_offset for key, candle in forming}
        next_ms = clock.monotonic_ms() + LINES_MS


def _say(key: str, candle: Candle, state: str, *, is_json: bool) -> None:
    if is_json:
        say_json(msgspec.json.encode({"instrument": key, "state": state, **msgspec.to_builtins(candle)}))
        return
    start = candle.human_readable_start_time[:19]
    prices = (candle.open, candle.high, candle.low, candle.close, candle.volume)
    say("\t".join((key, name_of(key, candle), candle.timeframe, start, *map(str, prices), state)))
