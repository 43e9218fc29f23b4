"""Proof that the simulation sees: each planted bug is found by the seed that found it when it was looked for.

A bug that needs weeks, or a clock brought back, is found by a story of its own.
"""

from collections.abc import Callable

import pytest

from simulation import test_liars as liars
from simulation.bugs import BUGS, planted
from streamingcandle.simulation.search import findings

FOUND_BY = {
    "F read again at the commit": 1,
    "W taken at the commit": 10,
    "idle time counted while lagging": 1,
    "the last stable offset believed to be the end": 1,
    "another host's clock believed to the millisecond": 2,
    "C ignored when the grace changes": 1,
    "a new timeframe begins with all that was": 4,
    "a removed timeframe's O not kept": 3,
    "a flush raises C": 1,
    "revisions withheld where nothing is due": 0,
    "an old book kept under a fresh epoch": 76,
    "the producer kept after a commit in doubt": 1,
    "a settled commit believed to have landed": 6,
    "the fold started at the session's open": 3,
    "a snapshot of another log believed": 39,
    "a snapshot ahead of the offset believed": 585,
    "a window forgotten within a batch": 0,
    "letters kept over a commit": 0,
    "one running total over all timeframes": 1,
    "E without a witness": 3,
    "lateness without a witness": 3,
    "any claim believed from the host's clock": 3,
    "idle time beyond the windows held": 7,
}
"""By bug, the seed. After a change of the stories `make simulate BUGS=1` finds others."""

STORIES: dict[str, Callable[[], None]] = {
    "a claim believed before its time": lambda: liars.test_no_window_of_a_normal_morning_is_delayed_or_lost(
        "a month", "a lie about the next noon"
    ),
    "the anchor of a leap not kept": liars.test_a_leap_that_waited_for_its_witness_counts_from_when_it_arrived,
    "the W of a wrong clock believed": liars.test_a_year_ahead_while_ticks_were_read_delays_no_last_window,
    "a reset that leaves C where it is": liars.test_a_reset_brings_a_clock_that_was_led_astray_back,
}


def test_each_bug_is_looked_for() -> None:
    assert {*FOUND_BY, *STORIES} == set(BUGS)


@pytest.mark.parametrize("name", STORIES)
def test_a_planted_bug_is_found_by_its_story(name: str) -> None:
    with planted(name), pytest.raises(AssertionError):
        STORIES[name]()


@pytest.mark.parametrize("name", FOUND_BY)
def test_a_planted_bug_is_found(name: str) -> None:
    assert findings(FOUND_BY[name]) == [], "the story fails without the bug"
    with planted(name):
        assert findings(FOUND_BY[name]) != []
