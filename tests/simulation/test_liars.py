"""What a liar may not do (decision 0010): each story is played without the lie and with it."""

import msgspec
import pytest

from simulation.liars import (
    DAY_MS,
    FRIDAY_MS,
    HOUR_MS,
    LIAR,
    LIES,
    REPLAY,
    WAYS,
    YEAR_MS,
    Lie,
    Published,
    all_day,
    candles,
    delay_ms,
    feed,
    live,
    night,
    of_neighbours,
    one,
    played,
    published,
    start,
    tick,
)
from streamingcandle import pipeline
from streamingcandle.pipeline import Path
from streamingcandle.simulation.events import Event, Tick

ON_TIME_MS = 1_200
"""After a window is due: what a poll, a question for the end and a commit take."""


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("way", WAYS)
def test_neighbours_keep_value_and_number_of_publications(way: str, lie: str) -> None:
    ticks = feed()
    begin = WAYS[way](ticks)
    is_flushed = way == "replayed"
    without = published(played([*begin, *ticks], is_flushed=is_flushed))
    outcome = played([*begin, *ticks, *LIES[lie](ticks)], is_flushed=is_flushed)
    before_ms = FRIDAY_MS + HOUR_MS
    found = of_neighbours(published(outcome), before_ms=before_ms)
    assert candles(found) == candles(without)
    if way != "replayed":
        assert len(without) == 24
        assert delay_ms(found) <= delay_ms(without) + ON_TIME_MS


# ---- quiet feeds


@pytest.fixture
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has nothing to do sleeps till something comes: through a night it would ask twice a second."""
    wait_s = Path.wait_s

    def wait_long_s(self: Path) -> float:
        partitions = self.partitions.values()
        if not partitions or any(each.position != each.committed.offset for each in partitions):
            return wait_s(self)
        with monkeypatch.context() as patch:
            patch.setattr(pipeline, "POLL_MAX_MS", HOUR_MS)
            return wait_s(self)

    monkeypatch.setattr(Path, "wait_s", wait_long_s)


def _played_over_nights(begin: list[Event], ticks: list[Tick]) -> Published:
    end_ms = max(each.at_ms for each in ticks)
    return of_neighbours(published(played([*begin, *ticks, night(end_ms + 120_000)])), before_ms=end_ms)


def _mornings(days: tuple[int, ...]) -> list[Tick]:
    """A market on each of these days, between them a night, a weekend, a month."""
    return [each for day in days for each in feed(FRIDAY_MS + day * DAY_MS, count=12)]


def _eve_again(ticks: list[Tick]) -> list[Tick]:
    """Each day's last snapshots come again between the first ticks of the next day."""
    found = []
    for place, each in enumerate(ticks):
        if place >= 12 and place % 12 < 6:
            eve = ticks[place - place % 12 - 2 : place - place % 12]
            found += [msgspec.structs.replace(old, at_ms=each.at_ms + 2, timestamp_ms=each.at_ms + 2) for old in eve]
    return found


NIGHTS = {"a weekend": (0, 3), "days": (0, 3, 4, 5), "a month": (0, 31)}
QUIET_LIES: dict[str, Lie] = {
    "nothing": lambda _: [],
    "the eve's snapshots": lambda ticks: _eve_again(list(ticks)),
    "a lie on the eve": one(11),
    "a lie as the morning's first": lambda ticks: [tick(ticks[12].at_ms - 1, LIAR, 1, lead_ms=YEAR_MS)],
    "a lie about the morning": one(11, lead_ms=3 * DAY_MS),
    "lies all day": all_day(YEAR_MS),
}


@pytest.mark.parametrize("lie", QUIET_LIES)
@pytest.mark.parametrize("days", NIGHTS)
@pytest.mark.usefixtures("_patient")
def test_no_window_of_a_normal_morning_is_delayed_or_lost(days: str, lie: str) -> None:
    ticks = _mornings(NIGHTS[days])
    found = _played_over_nights(live(ticks), [*ticks, *QUIET_LIES[lie](ticks)])
    # Half a minute of two instruments: three windows of 10s and one of 1m each, once.
    assert [len(said) for said in found.values()] == [1] * (8 * len(NIGHTS[days]))
    assert delay_ms(found) <= ON_TIME_MS


@pytest.mark.parametrize("days", NIGHTS)
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.usefixtures("_patient")
def test_one_trade_a_day_is_out_on_time(days: str, count: int) -> None:
    """Of one instrument, and of two."""
    ticks = [each for day in NIGHTS[days] for each in feed(FRIDAY_MS + day * DAY_MS, count=count)]
    found = _played_over_nights(live(ticks), ticks)
    assert [len(said) for said in found.values()] == [1] * (2 * count * len(NIGHTS[days]))
    assert delay_ms(found) <= ON_TIME_MS


@pytest.mark.parametrize("lie", QUIET_LIES)
@pytest.mark.parametrize("days", NIGHTS)
def test_a_replay_of_mornings_publishes_with_the_next_tick_or_two(days: str, lie: str) -> None:
    """Without idle time: all but what the last ticks left open, and with a flush that too."""
    ticks = _mornings(NIGHTS[days])
    begin = [start(ticks[-1].at_ms + DAY_MS, REPLAY)]
    for is_flushed in (False, True):
        without = published(played([*begin, *ticks], is_flushed=is_flushed))
        story = [*begin, *ticks, *QUIET_LIES[lie](ticks)]
        found = of_neighbours(published(played(story, is_flushed=is_flushed)), before_ms=ticks[-1].at_ms + 1)
        assert candles(found) == candles(without)
        open_count = 0 if is_flushed else 4
        assert len(found) == 8 * len(NIGHTS[days]) - open_count
