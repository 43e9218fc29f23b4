"""The feed clock by itself: what moves F, and how far (specification §4.3)."""

from streamingcandle.candles.feed_clock import CLAIM_LEAD_MS, LEAP_MS, RESTART_MARGIN_MS, FeedClock

NOW_MS = 1_767_335_675_000
YEAR_MS = 365 * 24 * LEAP_MS
MINUTE_MS = 60_000


def _asked(clock: FeedClock, *, now_ms: int, wall_ms: int, held_f_ms: int) -> int:
    clock.ask(7, now_ms=now_ms, wall_ms=wall_ms)
    clock.reach(7, held_f_ms=held_f_ms)
    return clock.f_ms


def test_a_host_clock_a_year_ahead_closes_what_is_held_and_no_more() -> None:
    clock = FeedClock(f_ms=NOW_MS, e_ms=NOW_MS, w_ms=NOW_MS, is_idle_counted=True)
    held_f_ms = NOW_MS + MINUTE_MS
    assert _asked(clock, now_ms=5, wall_ms=NOW_MS + YEAR_MS, held_f_ms=held_f_ms) == held_f_ms
    # Put right, it goes on with the feed.
    clock.rise(NOW_MS + 2 * MINUTE_MS, now_ms=10, wall_ms=NOW_MS + 2 * MINUTE_MS)
    assert clock.f_ms == NOW_MS + 2 * MINUTE_MS


def test_idle_time_never_lowers_it() -> None:
    clock = FeedClock(f_ms=NOW_MS + 5, e_ms=NOW_MS, w_ms=NOW_MS, is_idle_counted=True)
    assert _asked(clock, now_ms=5, wall_ms=NOW_MS + YEAR_MS, held_f_ms=0) == NOW_MS + 5


def test_a_leap_that_idle_time_had_passed_keeps_its_anchor() -> None:
    """One trade at 09:20 and one at 11:00 of another instrument: the second bears the first out, 100 minutes late."""
    clock = FeedClock(is_idle_counted=True)
    clock.rise(NOW_MS, now_ms=0, wall_ms=NOW_MS)
    first_ms, second_ms = 1_060 * MINUTE_MS, 1_160 * MINUTE_MS
    clock.rise(NOW_MS + first_ms, now_ms=second_ms, wall_ms=NOW_MS + second_ms)
    due_ms = NOW_MS + second_ms + MINUTE_MS
    assert clock.idle_needed_ms(due_ms, now_ms=second_ms, wall_ms=NOW_MS + second_ms) == MINUTE_MS
    assert clock.w_ms == NOW_MS + first_ms
    # Not so where old data runs fast: there the tick is all that is known of the time.
    replayed = FeedClock(is_idle_counted=True)
    replayed.rise(NOW_MS, now_ms=0, wall_ms=NOW_MS)
    replayed.rise(NOW_MS + first_ms, now_ms=3, wall_ms=NOW_MS + 3)
    assert replayed.idle_needed_ms(NOW_MS + first_ms + 50, now_ms=3, wall_ms=NOW_MS + 3) == 50


def test_a_restart_goes_on_by_the_wall_less_its_margin() -> None:
    clock = FeedClock(f_ms=NOW_MS, e_ms=NOW_MS, w_ms=NOW_MS, is_idle_counted=True)
    held_f_ms = NOW_MS + YEAR_MS
    wall_ms = NOW_MS + MINUTE_MS
    assert _asked(clock, now_ms=0, wall_ms=wall_ms, held_f_ms=held_f_ms) == wall_ms - RESTART_MARGIN_MS


def test_the_host_is_a_witness_within_an_hour_and_in_live_use() -> None:
    live = FeedClock(is_idle_counted=True)
    for ago_ms in (0, LEAP_MS, -CLAIM_LEAD_MS):
        assert live.believes(NOW_MS, wall_ms=NOW_MS + ago_ms)
    assert not live.believes(NOW_MS, wall_ms=NOW_MS + LEAP_MS + 1)
    assert not live.believes(NOW_MS, wall_ms=NOW_MS - CLAIM_LEAD_MS - 1), "it is still to come"
    assert not FeedClock(is_idle_counted=False).believes(NOW_MS, wall_ms=NOW_MS)
