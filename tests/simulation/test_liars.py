"""What a liar may not do (specification §4.2, §6.6): each story is played without the lie and with it."""

from itertools import pairwise

import msgspec
import pytest

from simulation.liars import (
    DAY_MS,
    FRIDAY_MS,
    HOUR_MS,
    LIAR,
    LIES,
    MINUTE_MS,
    OTHER_LIAR,
    PLAN,
    REPLAY,
    WAYS,
    YEAR_MS,
    A,
    B,
    Lie,
    Published,
    Said,
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
from streamingcandle.simulation.events import Event, Spoil, Stop, Tick

ON_TIME_MS = 1_200
"""After a window is due: what a poll, a question for the end and a commit take."""


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("way", WAYS)
def test_neighbours_keep_value_and_number_of_publications(way: str, lie: str) -> None:
    ticks = feed()
    begin = WAYS[way](ticks)
    is_flushed = way == "replayed"
    without = published(played([*begin, *ticks], is_flushed=is_flushed))
    outcome = played([*begin, *ticks, *LIES[lie](ticks)], is_flushed=is_flushed, instruments_max=5)
    before_ms = FRIDAY_MS + HOUR_MS
    found = of_neighbours(published(outcome), before_ms=before_ms)
    assert candles(found) == candles(without)
    if way != "replayed":
        assert len(without) == 24
        assert delay_ms(found) <= delay_ms(without) + ON_TIME_MS


# ---- quiet feeds


def _played_over_nights(begin: list[Event], ticks: list[Tick]) -> Published:
    end_ms = max(each.at_ms for each in ticks)
    return of_neighbours(
        published(played([*begin, *ticks, night(end_ms + 120_000)], is_patient=True)), before_ms=end_ms
    )


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
    "a lie about the next noon": one(11, lead_ms=3 * DAY_MS + 3 * HOUR_MS),
    "lies all day": all_day(YEAR_MS),
}


@pytest.mark.parametrize("lie", QUIET_LIES)
@pytest.mark.parametrize("days", NIGHTS)
def test_no_window_of_a_normal_morning_is_delayed_or_lost(days: str, lie: str) -> None:
    ticks = _mornings(NIGHTS[days])
    found = _played_over_nights(live(ticks), [*ticks, *QUIET_LIES[lie](ticks)])
    # Half a minute of two instruments: three windows of 10s and one of 1m each, once.
    assert [len(said) for said in found.values()] == [1] * (8 * len(NIGHTS[days]))
    assert delay_ms(found) <= ON_TIME_MS


@pytest.mark.parametrize("days", NIGHTS)
@pytest.mark.parametrize("count", [1, 2])
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
    begin: list[Event] = [start(ticks[-1].at_ms + DAY_MS, REPLAY)]
    for is_flushed in (False, True):
        without = published(played([*begin, *ticks], is_flushed=is_flushed))
        story = [*begin, *ticks, *QUIET_LIES[lie](ticks)]
        found = of_neighbours(published(played(story, is_flushed=is_flushed)), before_ms=ticks[-1].at_ms + 1)
        assert candles(found) == candles(without)
        open_count = 0 if is_flushed else 4
        assert len(found) == 8 * len(NIGHTS[days]) - open_count


# ---- several liars that agree, and wrong clocks


def _astray() -> list[Tick]:
    """Two liars agree on a false time, early in the feed."""
    ticks = feed()
    agreeing = [
        tick(ticks[4].at_ms + 1, LIAR, 1, lead_ms=YEAR_MS),
        tick(ticks[4].at_ms + 2, OTHER_LIAR, 1, lead_ms=YEAR_MS),
    ]
    return [*ticks, *agreeing]


def test_final_values_are_right_where_liars_agree() -> None:
    honest = candles(published(played([*live(feed()), *feed()])))
    found = candles(of_neighbours(published(played([*live(feed()), *_astray()]))))
    assert {window: said[-1].close for window, said in found.items()} == {
        window: said[-1].close for window, said in honest.items()
    }
    last = {window: msgspec.structs.replace(said[-1], revised=False) for window, said in found.items()}
    assert last == {window: said[-1] for window, said in honest.items()}
    assert max(len(said) for said in found.values()) > 1, "not led astray"


def test_a_reset_brings_a_clock_that_was_led_astray_back() -> None:
    """From then on the windows are on time again, each once; of those before nothing is lost or said twice."""
    ticks = _astray()
    stop_ms = ticks[20].at_ms + 600
    stop = Stop(at_ms=stop_ms, instance="i0")
    resetting = msgspec.structs.replace(PLAN, is_clock_reset=True)
    events = [*live(ticks), stop, start(stop_ms + 1_000, resetting)]
    found = of_neighbours(published(played([*events, *ticks])))
    honest = candles(published(played([*live(feed()), *feed()])))
    assert {window: msgspec.structs.replace(said[-1].candle, revised=False) for window, said in found.items()} == {
        window: said[-1] for window, said in honest.items()
    }
    after = {window: said for window, said in found.items() if window[2] >= stop_ms}
    assert [len(said) for said in after.values()] == [1] * len(after)
    assert delay_ms(after) <= ON_TIME_MS
    assert all(not is_same(*pair) for said in found.values() for pair in pairwise(said))


def is_same(before: Said, after: Said) -> bool:
    return msgspec.structs.replace(before.candle, revised=True) == msgspec.structs.replace(after.candle, revised=True)


@pytest.mark.parametrize("way", ["snapshot", "day's start"])
def test_a_host_clock_that_was_a_year_ahead_at_one_restart_leaves_no_trace(way: str) -> None:
    """It closes the windows held, a little early; the next process is on time again, and nothing comes twice."""
    ticks = feed()
    wrong_ms, right_ms = ticks[12].at_ms + 600, ticks[12].at_ms + 2_000
    wrong = msgspec.structs.replace(PLAN, wall_error_ms=YEAR_MS)
    events: list[Event] = [
        *live(ticks),
        Stop(at_ms=wrong_ms - 400, instance="i0"),
        start(wrong_ms, wrong),
        Stop(at_ms=right_ms - 400, instance="i0"),
        start(right_ms),
    ]
    if way == "day's start":
        events += [Spoil(at_ms=right_ms - 1, instance=name, partition=0, how="lost") for name in ("", "i0")]
    found = published(played([*events, *ticks]))
    honest = published(played([*live(ticks), *ticks]))
    assert found.keys() == honest.keys()
    # The greatest window held ended with the first minute: up to there everything counts as closed.
    after = {window: said for window, said in found.items() if window[2] >= FRIDAY_MS + MINUTE_MS}
    assert candles(after) == {window: said for window, said in candles(honest).items() if window in after}
    assert max(len(said) for window, said in found.items() if window not in after) > 1, "the clock was not wrong"
    assert delay_ms(after) <= ON_TIME_MS


def test_a_year_ahead_while_ticks_were_read_delays_no_last_window() -> None:
    """The next process, whose clock is right, does not wait for the year to pass."""
    ticks = feed(count=13)
    wrong = msgspec.structs.replace(PLAN, wall_error_ms=YEAR_MS)
    end_ms = ticks[-1].at_ms
    events: list[Event] = [
        start(ticks[0].at_ms - 1_000, wrong),
        Stop(at_ms=end_ms + 200, instance="i0"),
        start(end_ms + 1_000),
    ]
    found = published(played([*events, *ticks, night(end_ms + 90_000)]))
    assert found.keys() == published(played([*live(ticks), *ticks, night(end_ms + 90_000)])).keys()
    assert delay_ms(found) <= ON_TIME_MS + 1_000  # that long nobody ran


def test_a_leap_that_waited_for_its_witness_counts_from_when_it_arrived() -> None:
    """Old data as it comes, so no host's clock is a witness; the witness comes late, with an older time (§4.3)."""
    old_ms = -30 * DAY_MS
    first, then = FRIDAY_MS, FRIDAY_MS + 2 * HOUR_MS
    ticks = [
        tick(first + 500, A, 10, lead_ms=old_ms),
        tick(first + 1_000, B, 11, lead_ms=old_ms),
        tick(then + 5_000, A, 12, lead_ms=old_ms),
        tick(then + 21_000, B, 13, event_ms=then + 4_000, lead_ms=old_ms),
    ]
    found = published(played([*live(ticks), *ticks, night(then + 120_000)], is_patient=True))
    assert len(found) == 8
    minutes = {window: said for window, said in found.items() if window[1] == "1m"}
    assert delay_ms(minutes) + old_ms <= ON_TIME_MS


def test_a_partition_full_of_instruments_of_days_gone_by_takes_new_ones() -> None:
    """Nobody who is held ticks any more, so nobody accepted can move E, and who is new waits for E (rule 11)."""
    gone = [tick(FRIDAY_MS + 500 * turn, ("QQ", "Y", turn), 1) for turn in (1, 2)]
    ticks = feed(FRIDAY_MS + 3 * DAY_MS)
    events = [*live(gone), *gone, *ticks, night(ticks[-1].at_ms + 120_000)]
    found = of_neighbours(published(played(events, is_patient=True, instruments_max=2)))
    assert found
