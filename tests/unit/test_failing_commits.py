"""Commits that fail: what is held stays bounded, the log says it once, and a stop does not end in silence.

The real path on the pretended broker, in real time but for the minute that passes in the last one.
"""

import logging
from collections.abc import Callable

import pytest

from contract.simulated_world import RealHost
from streamingcandle.account import REPEAT_MS
from streamingcandle.clock import SystemClock
from streamingcandle.errors import OutsideError
from streamingcandle.partition import PathSettings, Topics
from streamingcandle.pipeline import LETTER_BYTES_MAX, run
from streamingcandle.settings import load_settings
from streamingcandle.simulation.broker import Broker
from streamingcandle.simulation.log import Fate, SimulatedLog

OPEN_MS = 1_767_325_500_000
DAY_MS = 86_400_000
TOPICS = Topics(ticks="ticks", candles=("1-min-candle",), dead_letters="dead-letters", late="late")
RULES = load_settings({"timeframes": "1m"}, {}).rules()


class Host(RealHost):
    """A process whose commits fail as often as it is told."""

    def __init__(self, clock: SystemClock, fates: list[Fate], records_max: int = 100) -> None:
        super().__init__(clock)
        self.fates = fates
        self.commits = 0
        self._records_max = records_max

    def fate(self) -> Fate:
        self.commits += 1
        return self.fates.pop(0) if self.fates else "lands"

    def records_max(self) -> int:
        return self._records_max


class LateClock(SystemClock):
    """One that can be put forward."""

    ahead_ms = 0

    def monotonic_ms(self) -> int:
        return super().monotonic_ms() + self.ahead_ms


class World:
    """One partition and one process over it."""

    def __init__(self, fates: list[Fate], records_max: int = 100) -> None:
        self.clock = LateClock()
        self.broker = Broker(1, self.clock.wall_ms, "id")
        self.host = Host(self.clock, fates, records_max)
        self.log = SimulatedLog(self.broker, self.host)

    def append(self, *values: bytes) -> None:
        for value in values:
            self.broker.ticks[0].append(
                b"1", value, timestamp_ms=OPEN_MS + DAY_MS, appended_ms=0, headers=(), upstream=None
            )

    def run(self, is_stopping: Callable[[], bool], *, interval_ms: int = 1, candles_max: int = 60_000) -> None:
        settings = PathSettings(topics=TOPICS, commit_interval_ms=interval_ms, candles_max=candles_max)
        run(self.log, self.clock, RULES, settings, is_stopping)

    def committed(self) -> int:
        found = self.broker.committed(0)
        return 0 if found is None else found.offset


def tick(number: int, *, token: int = 1) -> bytes:
    at_ms = OPEN_MS + 1_000 * number
    text = f'{{"Exch":"N","ExchType":"C","Token":{token},"LastRate":{number + 1},"TickDt":"/Date({at_ms})/"}}'
    return text.encode()


def test_a_stop_right_after_an_abort_commits_all_the_same() -> None:
    world = World(["aborts"])
    world.append(tick(0), tick(1))
    world.run(lambda: world.host.commits == 1)
    assert world.committed() == 2


def test_a_stop_whose_last_commit_fails_too_says_so() -> None:
    world = World(["aborts"] * 100)
    world.append(tick(0))
    with pytest.raises(OutsideError, match=r"stopped before the last transaction came about: aborted; nothing is lost"):
        world.run(lambda: world.host.commits >= 1)
    assert world.committed() == 0


def test_rejects_are_read_no_further_than_can_be_held() -> None:
    world = World(["aborts"] * 1_000_000, records_max=4)
    world.append(*[b"x" * 1_000_000] * 100)
    seen = []

    def is_stopping() -> bool:
        seen.append(world.log.delivered.get(0, 0))
        return world.host.commits > 60

    with pytest.raises(OutsideError):
        world.run(is_stopping)
    assert LETTER_BYTES_MAX / 1_000_000 - 2 <= seen[-1] <= LETTER_BYTES_MAX / 1_000_000 + 8
    # And on it goes when commits come about.
    world.host.fates.clear()
    world.log = SimulatedLog(world.broker, world.host)
    world.host.commits = 0
    world.run(lambda: world.committed() == 100)
    assert len(world.broker.read_topic("dead-letters")[0]) == 100


def test_candles_that_are_due_are_read_no_further_than_a_transaction_takes() -> None:
    world = World(["aborts"] * 1_000_000, records_max=10)
    world.append(*(tick(60 * number, token=token) for number in range(300) for token in (1, 2)))
    with pytest.raises(OutsideError):
        world.run(lambda: world.host.commits > 60, candles_max=50)
    assert 50 <= world.log.delivered[0] <= 100


def test_a_failure_that_lasts_is_said_once_a_minute_and_when_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world = World(["aborts"] * 60)
    world.append(tick(0))

    def is_stopping() -> bool:
        if world.host.commits == 30:
            world.clock.ahead_ms = REPEAT_MS
        return world.committed() == 1

    world.run(is_stopping)
    said = [record.getMessage() for record in caplog.records]
    aborted = [line for line in said if "transaction aborted" in line]
    assert len(aborted) == 2, aborted
    assert "times by now" in aborted[1]
    assert "transaction committed, after 60 that were aborted" in said


def test_a_run_that_ends_well_says_what_it_did(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world = World([])
    world.append(tick(0), tick(120), b"bad")
    world.run(lambda: world.committed() == 3)
    ending = "ended: 3 records read, 1 candles and 1 dead letters or late ticks published; committed up to ticks[0]@3"
    assert caplog.records[-1].getMessage() == ending
