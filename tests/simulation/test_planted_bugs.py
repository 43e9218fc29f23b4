"""Proof that the simulation sees: each planted bug is found by the seed that found it when it was looked for."""

import pytest

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
    "an old book kept under a fresh epoch": 3,
    "the producer kept after a commit in doubt": 1,
    "a settled commit believed to have landed": 1,
    "the fold started at the session's open": 3,
    "a snapshot of another log believed": 39,
    "a snapshot ahead of the offset believed": 585,
    "a window forgotten within a batch": 0,
    "letters kept over a commit": 0,
    "one running total over all timeframes": 1,
}
"""By bug, the seed. After a change of the stories `make simulate BUGS=1` finds others."""


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found(name: str) -> None:
    assert findings(FOUND_BY[name]) == [], "the story fails without the bug"
    with planted(name):
        assert findings(FOUND_BY[name]) != []
