"""`ingest` and `simulate`: ticks into the tick topic."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from itertools import islice
from pathlib import Path
from stat import S_ISREG

import click

from streamingcandle.candles.book import judge, stamps
from streamingcandle.candles.rules import Rules
from streamingcandle.cli.lines import LINE_BYTES_MAX, Chunk, DamagedError, Line, LineFile
from streamingcandle.cli.options import examples
from streamingcandle.cli.progress import progress
from streamingcandle.cli.world import TickRecord, World, stop_on_signals
from streamingcandle.errors import CheckError, OutsideError
from streamingcandle.interfaces import Clock
from streamingcandle.simulation.market import Market, first_session, ticks

logger = logging.getLogger(__name__)

CHUNK_LINES = 5_000
CHUNKS_PER_S = 50
"""At a rate the feed is even, not a burst every few seconds."""
NAP_MS = 200
"""How soon a stop is noticed between two chunks."""


def _wait(clock: Clock, until_ms: int, is_stopping: Callable[[], bool]) -> None:
    while (left_ms := until_ms - clock.monotonic_ms()) > 0 and not is_stopping():
        clock.sleep_ms(min(left_ms, NAP_MS))


def _total_bytes(files: tuple[str, ...]) -> int | None:
    """Their size on disk; None where one is a pipe."""
    try:
        found = [Path(name).stat() for name in files if name != "-"]
    except OSError:  # told with its name when its turn comes
        return None
    is_known = "-" not in files and all(S_ISREG(status.st_mode) for status in found)
    return sum(status.st_size for status in found) if is_known else None


class _Stamper:
    """Makes records of lines, and counts those that are none."""

    def __init__(self, rules: Rules, *, is_now: bool) -> None:
        """`is_now`: with the time of sending in place of their own."""
        self._rules = rules
        self._is_now = is_now
        self.bad = 0
        self.doomed: Counter[str] = Counter()
        """Sent, and to be rejected by a run: by reason."""

    def records(self, name: str, lines: Sequence[Line], now_ms: int) -> list[TickRecord]:
        """`(key, value, timestamp_ms)` of each line that has them; the others are named in the log."""
        made: list[TickRecord] = []
        places: list[int] = []
        texts = [text or b"" for _, text in lines]
        for (number, text), (reason, token, event_ms) in zip(lines, stamps(self._rules, texts), strict=True):
            fault = f"longer than {LINE_BYTES_MAX:,} bytes" if text is None else reason or self._fault(event_ms, now_ms)
            at_ms = now_ms if self._is_now else event_ms
            if fault is not None or text is None or at_ms is None:
                self.bad += 1
                logger.warning("%s:%d: %s: passed over", name, number, fault)
            else:
                made.append((str(token).encode(), text, at_ms))
                places.append(number)
        self._look(name, made, places)
        return made

    def _fault(self, event_ms: int | None, now_ms: int) -> str | None:
        """What is wrong with the time that a record is to be stamped with."""
        if self._is_now:
            return None
        if event_ms is None:
            return f"time: no {self._rules.fields.time} that can be read (--stamp now sends it all the same)"
        if event_ms > now_ms + self._rules.future_ms:
            return f"future: more than {self._rules.future_ms // 1_000} s ahead of this host's clock"
        return None

    def _look(self, name: str, made: Sequence[TickRecord], places: Sequence[int]) -> None:
        """Say the first of each kind that a run will reject; it is sent, for that is the run's to do."""
        verdicts = judge(self._rules, [value for _, value, _ in made], [at_ms for _, _, at_ms in made])
        for number, (reason, _, _) in zip(places, verdicts, strict=True):
            if reason is not None:
                if reason not in self.doomed:
                    logger.warning("%s:%d: %s: sent, and `run` will reject it", name, number, reason)
                self.doomed[reason] += 1


@click.command(
    "ingest",
    epilog=examples(
        "ingest monday.jsonl tuesday.jsonl.gz", "ingest --rate 500 ticks.jsonl.zst", "ingest - < ticks.jsonl"
    ),
)
@click.argument("files", type=click.Path(allow_dash=True), nargs=-1, required=True, metavar="FILE...|-")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="At most this many ticks a second.")
@click.option(
    "--stamp",
    type=click.Choice(["event", "now"]),
    default="event",
    show_default=True,
    help="A record's timestamp: its own event time, or that of sending.",
)
@click.pass_obj
def ingest_command(world: World, files: tuple[str, ...], rate: float | None, stamp: str) -> None:
    """Put tick records into the tick topic, keyed by token.

    JSON lines; .gz and .zst are unpacked, - is standard input.

    A bad line (no JSON, no instrument, no time that can be read) is named with its number and passed over; then the
    exit code is 1. A file that is damaged or cut off is sent up to there; then it is 3.
    """
    rules, topic = world.settings.rules(), world.settings.text("tick_topic")
    is_stopping = stop_on_signals()
    sink = world.open_sink(is_stopping)
    stamper = _Stamper(rules, is_now=stamp == "now")
    taken = 0
    began_ms = world.clock.monotonic_ms()
    total_bytes = _total_bytes(files)
    chunk_lines = CHUNK_LINES if rate is None else max(1, min(CHUNK_LINES, int(rate / CHUNKS_PER_S)))
    damage: DamagedError | None = None
    with progress(world.clock, total_bytes) as tell:
        try:
            for name, chunk, before_bytes in _chunks(files, chunk_lines, is_stopping):
                records = stamper.records(name, chunk.lines, world.clock.wall_ms())
                sink.append(records)
                taken += len(records)
                tell(taken, None if total_bytes is None else before_bytes + chunk.done_bytes)
                if rate is not None:
                    _wait(world.clock, began_ms + int(taken * 1_000 / rate), is_stopping)
        except DamagedError as error:
            damage = error
        sink.flush()
    ending = "; stopped before the end" if is_stopping() else ""
    logger.info("%d ticks into %s, %d bad lines%s", taken, topic, stamper.bad, ending)
    if stamper.doomed:
        reasons = ", ".join(f"{reason} {count}" for reason, count in stamper.doomed.most_common())
        logger.warning("of these `run` will reject: %s", reasons)
    if damage is not None:
        done = f"{taken:,} ticks sent, those of this file up to line {damage.line - 1:,}"
        raise OutsideError(
            f"{damage}; {done}: send the rest from a whole copy, the file is damaged or cut off"
        ) from damage
    if stamper.bad:
        raise CheckError(f"{stamper.bad} bad lines passed over, named above")


def _chunks(
    files: tuple[str, ...], lines_max: int, is_stopping: Callable[[], bool]
) -> Iterator[tuple[str, Chunk, int]]:
    """File, lines, and the bytes of all files before it, as they lie on disk."""
    before_bytes = 0
    for name in files:
        with LineFile(name, is_stopping) as file:
            for chunk in file.chunks(lines_max):
                yield name, chunk, before_bytes
                if is_stopping():
                    return
            before_bytes += file.done_bytes


@click.command(
    "simulate",
    epilog=examples(
        "simulate", "simulate --instruments 500 --rate 2000", "simulate --date 2026-01-02 --ticks 10000 --speed 0"
    ),
)
@click.option("--instruments", type=click.IntRange(1, 100_000), default=40, show_default=True, help="How many trade.")
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), default=200.0, show_default=True, help="Ticks a second."
)
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed is the same market.")
@click.option("--date", "date_text", metavar="YYYY-MM-DD", help="A past day from its open on, instead of now.")
@click.option(
    "--speed",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="Times the clock; 0: as fast as it goes.",
)
@click.option("--ticks", "count", type=click.IntRange(min=1), help="Stop after so many.")
@click.pass_obj
def simulate_command(
    world: World, instruments: int, rate: float, seed: int, date_text: str | None, speed: float, count: int | None
) -> None:
    """Put a realistic feed into the tick topic.

    Until it is stopped or --ticks are out.
    """
    start_ms = world.clock.wall_ms()
    if date_text is not None:
        try:
            day = (date.fromisoformat(date_text) - date(1970, 1, 1)).days
        except ValueError:
            raise click.BadParameter("not a date like 2026-01-02", param_hint="--date") from None
        start_ms, _ = first_session(world.settings.rules().calendar, day)
    is_stopping = stop_on_signals()
    sink = world.open_sink(is_stopping)
    market = Market(instruments, seed=seed)
    began_ms, sent = world.clock.monotonic_ms(), 0
    batch_size = max(1, int(rate / CHUNKS_PER_S)) if speed else CHUNK_LINES
    feed = ticks(market, start_ms=start_ms, rate_per_s=rate, count=count)
    with progress(world.clock, count) as tell:
        while not is_stopping() and (batch := list(islice(feed, batch_size))):
            if speed:
                due_ms = began_ms + int((batch[-1].at_ms - start_ms) / speed)
                _wait(world.clock, due_ms, is_stopping)
                if is_stopping():
                    break
            sink.append([(tick.key, tick.value, tick.at_ms) for tick in batch])
            sent += len(batch)
            tell(sent, sent if count is not None else None)
        sink.flush()
    logger.info("%d ticks into %s", sent, world.settings.text("tick_topic"))


COMMANDS = (ingest_command, simulate_command)
