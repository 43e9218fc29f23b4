"""Windows that end together are one transaction, and nothing waits where no other is about to be due.

The real path on the embedded log, looked at from beside, with a clock that stands still.
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path as FilePath

import pytest

from streamingcandle.candles.murmur2 import partition_of
from streamingcandle.clock import SystemClock
from streamingcandle.embedded.store import EmbeddedStore
from streamingcandle.embedded.tail import EmbeddedTail
from streamingcandle.partition import PathSettings, Topics
from streamingcandle.pipeline import GATHER_MS, Path
from streamingcandle.settings import load_settings
from streamingcandle.simulation.clock import ProcessClock, VirtualTime

END_MS = 1_767_325_560_000
"""2026-01-02 09:16 in Kolkata: the first minute ends."""
GRACE_MS = 1_000
DUE_MS = END_MS + GRACE_MS
TOKENS = [next(token for token in range(1_000) if partition_of(str(token).encode(), 2) == n) for n in range(2)]


class Turns:
    """The path over two partitions, a turn at a time."""

    def __init__(self, store: EmbeddedStore) -> None:
        self._store = store
        self.time = VirtualTime(DUE_MS)
        clock = ProcessClock(self.time, booted_ms=0, wall_error_ms=0, sleep=lambda _ms: None)
        topics = Topics(ticks="ticks", candles=("1-min-candle",), dead_letters="dead-letters", late="late")
        self._log = EmbeddedTail(store, group="group", topic="ticks", clock=SystemClock())
        # No commit at the interval: what is due alone counts here.
        settings = PathSettings(topics=topics, commit_interval_ms=1_000_000_000)
        self.path = Path(self._log, clock, load_settings({"timeframes": "1m"}, {}).rules(), settings, [])

    def turn(self, *ticks: tuple[int, int]) -> bool:
        """Ticks of (partition, event time) come; whether a commit is due then."""
        for partition, at_ms in ticks:
            token = TOKENS[partition]
            value = (
                f'{{"Exch":"N","ExchType":"C","Token":{token},"LastRate":1.5,"LastQty":1,"TickDt":"/Date({at_ms})/"}}'
            )
            self._store.append("ticks", [(str(token).encode(), value.encode(), at_ms, ())])
        for _ in range(3):
            self.path.fold(list(self._log.poll(0, self.path)))
        return self.path.is_commit_due(is_caught_up=True)


@pytest.fixture
def turns(tmp_path: FilePath) -> Iterator[Turns]:
    with closing(EmbeddedStore(tmp_path / "log.sqlite3")) as store:
        store.ensure_topic("ticks", 2)
        turns = Turns(store)
        assert not turns.turn((0, END_MS - 1_000), (1, END_MS - 1_000))
        yield turns


def test_what_is_due_waits_for_what_is_about_to_be(turns: Turns) -> None:
    assert not turns.turn((0, DUE_MS), (1, DUE_MS - GATHER_MS))
    assert turns.path.wait_s() == GATHER_MS / 1_000
    turns.time.run_until(DUE_MS + 10)
    assert not turns.turn()
    assert turns.path.wait_s() == (GATHER_MS - 10) / 1_000
    assert turns.turn((1, DUE_MS))
    assert turns.path.wait_s() == 0


def test_it_does_not_wait_for_long(turns: Turns) -> None:
    assert not turns.turn((0, DUE_MS), (1, DUE_MS - 1))
    turns.time.run_until(DUE_MS + GATHER_MS)
    assert turns.path.wait_s() == 0
    assert turns.turn()


def test_nothing_waits_for_a_partition_that_is_not_about_to_be_due(turns: Turns) -> None:
    assert turns.turn((0, DUE_MS), (1, DUE_MS - GATHER_MS - 1))


def test_the_next_close_gathers_anew(turns: Turns) -> None:
    assert not turns.turn((0, DUE_MS), (1, DUE_MS - 1))
    turns.time.run_until(DUE_MS + GATHER_MS)
    assert turns.turn()
    assert turns.path.commit()
    assert not turns.turn((1, DUE_MS), (0, DUE_MS + 60_000 - GATHER_MS))
