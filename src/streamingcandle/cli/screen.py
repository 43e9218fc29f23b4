"""The table of candles as lines for a terminal of any size. Pure: what is on the screen is a value.

A line is spans of text and style; what does not fit is left out by whole columns, the least needed first.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from rich.cells import cell_len, set_cell_size

from streamingcandle.candles.candle import Candle
from streamingcandle.cli.board import Revision, Row, name_of, shown
from streamingcandle.ops.watch import Standing

NAME_MIN, NAME_MAX = 8, 24
SPARK_MIN, SPARK_MAX = 6, 40
SPARKS = "▁▂▃▄▅▆▇█"
DECIMALS_MIN, DECIMALS_MAX = 2, 6
PRICES = ("open", "high", "low", "close")
ASCII = str.maketrans("▁▂▃▄▅▆▇█▲▼●↻→←↑↓·", "..--==##^vo*><^v-")
FIGURES_FROM, HEADS_FROM, FOOT_FROM = 6, 7, 8
"""Lines a terminal must have for each of these, before rows have to go."""
REVISIONS_SHOWN = ((30, 4), (14, 2), (0, 0))
"""From so many lines on, so many revisions."""


class Span(NamedTuple):
    """A piece of a line; styles are those of `terminal.STYLES`."""

    text: str
    style: str = ""


Line = list[Span]


class View(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a frame shows. `first` is the row at the top, `clock` the feed clock as text, "" for none yet."""

    title: str
    timeframes: Sequence[str]
    chosen: int
    rows: Sequence[Row]
    first: int
    standing: Standing
    ticks_per_s: int
    clock: str
    revisions: Sequence[Revision]
    revised: int
    remark: str
    """A warning or what the table leaves out; "" for none."""
    has_keys: bool


def rows_shown(height: int) -> int:
    """How many instruments a terminal of this height shows."""
    others = sum(height >= least for least in (FIGURES_FROM, HEADS_FROM, FOOT_FROM))
    return max(1, height - 1 - others - _revisions_shown(height))


def frame(view: View, width: int, height: int) -> list[Line]:
    """At most `height` lines, none wider than `width`."""
    lines = [_head(view, width)]
    if height >= FIGURES_FROM:
        lines.append(_figures(view, width))
    visible = view.rows[view.first : view.first + rows_shown(height)]
    columns = _columns(view, width)
    if height >= HEADS_FROM:
        lines.append([Span(_joined([column.head for column in columns], columns), "heads")])
    lines += [_row_line(row, columns) for row in visible]
    lines += [[]] * (rows_shown(height) - len(visible))
    if _revisions_shown(height):
        recent = [_revision_line(revision) for revision in list(view.revisions)[-_revisions_shown(height) :]]
        recent = recent or [[Span("no late tick has changed a closed candle yet", "dim")]]
        lines += reversed(recent)
        lines += [[]] * (_revisions_shown(height) - len(recent))
    if height >= FOOT_FROM:
        lines.append(_foot(view, len(visible), width))
    return [_fitted(line, width) for line in lines[:height]]


def _revisions_shown(height: int) -> int:
    return next(count for least, count in REVISIONS_SHOWN if height >= least)


def _fitted(line: Line, width: int) -> Line:
    """Cut at the terminal's edge and filled up to it: what stood there before is gone."""
    fitted = []
    for text, style in line:
        cells = min(width, cell_len(text))
        fitted.append(Span(set_cell_size(text, cells), style))
        width -= cells
    return [*fitted, Span(" " * width)]


def _head(view: View, width: int) -> Line:
    chosen = view.timeframes[view.chosen]
    clock = view.clock or "no tick yet"
    tabs = [Span(f" {label} ", "chosen" if label == chosen else "dim") for label in view.timeframes]
    wide = [Span(view.title, "title"), Span("  "), *tabs]
    used = sum(cell_len(span.text) for span in wide)
    if used + 2 + len(clock) > width:
        short = clock[-8:] if view.clock else clock
        return [Span(f" {chosen} ", "chosen"), Span(f" {short}")]
    return [*wide, Span(" " * (width - used - len(clock))), Span(clock, "bold")]


def _figures(view: View, width: int) -> Line:
    standing, ledger = view.standing, view.standing.ledger
    if standing.is_away:
        return [Span("broker lost: waiting", "warning")]
    if not standing.is_caught_up:
        done, goal = standing.position, max(standing.goal, 1)
        return [Span(f"reading the log: {min(done, goal):,} of {goal:,}", "warning")]
    parts = [f"{view.ticks_per_s:,} ticks/s"]
    names = {"folded": "folded", "late": "too late", "rejected": "rejected", "quotes": "quotes", "outside": "outside"}
    parts += [f"{ledger[name]:,} {text}" for name, text in names.items()]
    parts.insert(2, f"{view.revised:,} revised")
    line, used = [Span(parts[0], "bold")], len(parts[0])
    for part in parts[1:]:
        used += len(part) + 3
        if used > width:
            break
        line.append(Span(f"   {part}"))
    return line


def _foot(view: View, count: int, width: int) -> Line:
    if view.remark:
        return [Span(shown(view.remark), "warning")]
    place = f"{view.first + 1}-{view.first + count} of {len(view.rows)}"
    keys = f"q quit · 1-{len(view.timeframes)} ←→ timeframe · ↑↓ rows" if view.has_keys else "ctrl-c quit"
    gap = width - cell_len(keys) - len(place)
    return [Span(keys, "dim"), Span(" " * gap), Span(place, "dim")] if gap > 1 else [Span(keys, "dim")]


# ---- columns


class _Column(NamedTuple):
    head: str
    width: int
    is_right: bool
    texts: dict[str, str]
    """By the row's key."""


def _columns(view: View, width: int) -> list[_Column]:
    """Those that fit, in the order in which they stand; they are measured over all rows, so scrolling moves none."""
    rows = view.rows
    seconds = view.timeframes[view.chosen].endswith("s")

    def column(head: str, texts: list[str], *, is_right: bool = True) -> _Column:
        widest = max((cell_len(text) for text in texts), default=0)
        return _Column(head, max(widest, len(head)), is_right, {r.key: t for r, t in zip(rows, texts, strict=True)})

    prices = {name: column(name, [_price(row.candle, name) for row in rows]) for name in PRICES}
    name = column("instrument", [name_of(row.key, row.candle) for row in rows], is_right=False)
    name = name._replace(width=min(NAME_MAX, name.width, max(NAME_MIN, width - prices["close"].width - 3)))
    start = column("start", [_start(row.candle, seconds=seconds) for row in rows], is_right=False)
    volume = column("volume", [f"{row.candle.volume:,}" for row in rows])
    state = column("state", [_state(row, seconds=seconds) for row in rows], is_right=False)
    state = state._replace(width=max(state.width, len("revised 00:00")))
    spark = _Column("closes", SPARK_MIN, is_right=False, texts={})
    key = column("key", [shown(row.key) for row in rows], is_right=False)
    optional = [[start], [prices["open"], prices["high"], prices["low"]], [volume], [spark], [state], [key]]
    chosen = {"instrument", "close"}
    left = width - 2 - name.width - 1 - prices["close"].width
    for group in optional:
        left -= sum(each.width + 1 for each in group)
        if left < 0:
            left += sum(each.width + 1 for each in group)
            break
        chosen |= {each.head for each in group}
    spark = spark._replace(width=min(SPARK_MAX, SPARK_MIN + left))
    standing = [name, start, *prices.values(), volume, state, spark._replace(texts=_sparks(rows, spark.width)), key]
    return [each for each in standing if each.head in chosen]


def _sparks(rows: Sequence[Row], width: int) -> dict[str, str]:
    return {row.key: sparkline(row.closes[-width:]) for row in rows}


def sparkline(values: Sequence[float]) -> str:
    """One character a value, from the least to the greatest of them."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    steps = (high - low) / (len(SPARKS) - 1) or 1.0
    return "".join(SPARKS[round((value - low) / steps)] for value in values)


def _joined(texts: Sequence[str], columns: Sequence[_Column]) -> str:
    cells = [
        " " * (column.width - cell_len(text)) + text if column.is_right else set_cell_size(text, column.width)
        for text, column in zip(texts, columns, strict=True)
    ]
    return "  " + " ".join(cells)


def _row_line(row: Row, columns: Sequence[_Column]) -> Line:
    candle = row.candle
    direction = "up" if candle.close > candle.open else "down" if candle.close < candle.open else ""
    is_revised = row.state == "revised" or row.revised is not None
    mark = Span("↻ ", "revised") if is_revised else Span("● " if row.state == "forming" else "  ", "dim")
    line = [mark]
    for column in columns:
        text = _joined([column.texts.get(row.key, "")], [column])[2:]
        style = {"instrument": "bold", "start": "dim", "volume": "", "key": "dim"}.get(column.head, direction)
        if column.head == "state":
            style = "revised" if is_revised else "dim" if row.state == "closed" else ""
        if column.head == "close":
            style = f"{direction} bold".strip()
        line += [Span(text, style), Span(" ")]
    return line[:-1]


def _price(candle: Candle, name: str) -> str:
    """With as many decimals as the candle's prices need: paise, or the fourth place of a currency."""
    needed = [len(f"{getattr(candle, each):.{DECIMALS_MAX}f}".rstrip("0").partition(".")[2]) for each in PRICES]
    return f"{getattr(candle, name):.{max(DECIMALS_MIN, *needed)}f}"


def _start(candle: Candle, *, seconds: bool) -> str:
    text = candle.human_readable_start_time
    return text[5:10] if candle.timeframe.endswith("d") else text[11:19] if seconds else text[11:16]


def _state(row: Row, *, seconds: bool) -> str:
    return f"revised {_start(row.revised, seconds=seconds)}" if row.revised is not None else row.state


def _revision_line(revision: Revision) -> Line:
    now, before = revision.candle, revision.before
    window = f"{now.timeframe} {_start(now, seconds=now.timeframe.endswith('s'))}"
    line = [Span("↻ late tick  ", "revised"), Span(f"{name_of(now.scrip_code, now)} {window}", "bold")]
    if before is None:
        return line
    shown = [(name, _price(before, name), _price(now, name)) for name in PRICES]
    shown.append(("volume", f"{before.volume:,}", f"{now.volume:,}"))
    changes = [f"{name} {old} → {new}" for name, old, new in shown if old != new]
    return [*line, Span("  " + ", ".join(changes))]
