"""Bugs of the product that stories have found, each as the smallest story that shows it."""

import pytest

from streamingcandle.simulation.check import check
from streamingcandle.simulation.events import Event, Freeze, Heal, Plan, Start, Stop, Story, Tick
from streamingcandle.simulation.run import play

START_MS = 1_767_331_800_000
"""2026-01-02 11:00 in India."""
PLAN = Plan(timeframes=("10s", "1m"), grace_ms=1_000, slow_calls=0.0)


def tick(after_ms: int, event_ms: int | None = None, token: int = 1, total: int = 10) -> Tick:
    event_ms = after_ms if event_ms is None else event_ms
    value = f'{{"Exch":"X","ExchType":"Y","Token":{token},"LastRate":{100 + total},"LastQty":1,"TotalQty":{total}'
    value += f',"TickDt":"/Date({START_MS + event_ms})/"}}'
    at_ms = START_MS + after_ms
    return Tick(at_ms=at_ms, partition=0, timestamp_ms=at_ms, value=value.encode())


def start(after_ms: int, plan: Plan = PLAN) -> Start:
    return Start(at_ms=START_MS + after_ms, instance="i0", plan=plan)


def stop(after_ms: int) -> Stop:
    return Stop(at_ms=START_MS + after_ms, instance="i0")


def findings(*events: Event, is_flushed: bool = False) -> list[str]:
    heal = Heal(at_ms=events[-1].at_ms + 1, plan=PLAN)
    story = Story(
        seed=0,
        start_ms=START_MS,
        partitions=1,
        instances=("i0",),
        timeframes=PLAN.timeframes,
        allowed_lateness_ms=30_000,
        future_ms=60_000,
        is_flushed=is_flushed,
        has_steps=False,
        final=PLAN,
        events=(*events, heal),
    )
    return [str(finding) for finding in check(play(story))]


def test_a_flush_of_a_log_that_is_all_committed_still_publishes_what_is_open() -> None:
    assert findings(tick(0), start(0), is_flushed=True) == []


def test_a_window_that_a_flush_has_published_does_not_stay_due_for_ever() -> None:
    flushing = Plan(timeframes=PLAN.timeframes, grace_ms=1_000, is_until_end=True, is_flush=True)
    assert findings(tick(0), start(1, flushing), start(30_000)) == []


def test_a_timeframe_that_comes_back_publishes_what_changed_meanwhile_without_a_further_tick() -> None:
    without = Plan(timeframes=("1m",), grace_ms=1_000)
    late = tick(27_000, event_ms=5_000, total=30)
    events = (start(0), tick(1_000), tick(15_000), stop(25_000), start(26_000, without), late, stop(29_000))
    assert findings(*events, start(30_000)) == []


@pytest.mark.parametrize("calls", range(1, 9))
def test_who_stood_still_since_it_asked_for_an_offset_does_not_take_it_for_lost(calls: int) -> None:
    """Meanwhile its successor committed, and wrote a snapshot."""
    often = Plan(timeframes=PLAN.timeframes, grace_ms=1_000, slow_calls=0.0, snapshot_interval_ms=300)
    freeze = Freeze(at_ms=START_MS + 1, instance="i0", calls=calls, duration_ms=20_000)
    ticks = [tick(200 + 2_000 * turn, total=10 + turn) for turn in range(12)]
    assert findings(start(0, often), freeze, *ticks[:3], start(5_000, often), *ticks[3:]) == []
