"""What a commit says of itself is read as it was written, and fits the brokers whatever ran in the group before."""

from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamingcandle.candles.commit import METADATA_BYTES_MAX, NUMBER_MAX, Commit, Fingerprint
from streamingcandle.candles.timeframe import parse_timeframe
from streamingcandle.errors import SettingsError
from streamingcandle.settings import load_settings

LABELS = [f"{count}{unit}" for unit in "sm" for count in (*range(1, 60), 86_399)] + ["1d"]
offsets = st.integers(0, 10**12)
times_ms = st.integers(0, 10**14)
commits = st.builds(
    Commit,
    f_ms=times_ms,
    e_ms=st.none() | times_ms,
    w_ms=times_ms,
    frontiers_ms=st.dictionaries(st.sampled_from(LABELS), times_ms),
    flushed=st.dictionaries(st.sampled_from(LABELS), offsets),
    offsets=st.dictionaries(st.sampled_from(LABELS), offsets),
    rules=st.just("0123456789abcdef"),
    fingerprint=st.none() | st.builds(Fingerprint, offsets, times_ms, st.integers(0, 2**32 - 1), st.just("A" * 22)),
    partitions=st.integers(0, 10_000),
    open_windows=offsets,
    snapshot=offsets,
)


@given(commits, st.sets(st.sampled_from(LABELS[:59]), min_size=1, max_size=30))
def test_what_is_run_stays_and_all_of_it_fits(before: Commit, labels: set[str]) -> None:
    rules = load_settings({}, {"STREAMINGCANDLE_TIMEFRAMES": ",".join(labels)}).rules()
    places = len(labels)
    now = before.updated(rules, frontiers_ms=[9] * places, offset=10**12, is_flush=True)
    commit = Commit(frontiers_ms=now[0], offsets=now[1], flushed=now[2], fingerprint=before.fingerprint)
    bounded = commit.bounded(rules)
    assert len(bounded.encode().encode()) <= METADATA_BYTES_MAX
    assert Commit.decode(bounded.encode()) == bounded
    assert bounded.frontiers_of(rules) == [9] * places
    assert bounded.offsets_of(rules, offset=0) == bounded.flushed_of(rules) == [10**12] * places
    gone = commit.offsets.keys() - bounded.offsets.keys()
    left = bounded.offsets.keys() - labels
    assert max((commit.offsets[label] for label in gone), default=0) <= min(
        (commit.offsets[label] for label in left), default=10**12
    )
    if len(commit.encode()) <= METADATA_BYTES_MAX:
        assert bounded == commit


def test_the_longest_away_goes_first() -> None:
    rules = load_settings({}, {"STREAMINGCANDLE_TIMEFRAMES": "1m"}).rules()
    labels = [f"{count}s" for count in range(1, 150)]
    offsets = {label: 10**9 + place for place, label in enumerate(labels)}
    commit = Commit(frontiers_ms=dict.fromkeys(labels, 1_767_335_700_000), offsets=offsets)
    kept = commit.bounded(rules).offsets.keys()
    assert 50 < len(kept) < 149
    assert list(kept) == labels[-len(kept) :]


def test_more_timeframes_than_fit_are_refused() -> None:
    """The settings allow fewer: whoever raises their limit meets this one."""
    timeframes = tuple(parse_timeframe(f"{count}s") for count in range(61, 210))
    rules = msgspec.structs.replace(load_settings({}, {}).rules(), timeframes=timeframes)
    now = Commit().updated(rules, frontiers_ms=[10**12] * 149, offset=10**9, is_flush=False)
    with pytest.raises(SettingsError, match="149 timeframes are more than a commit has room for"):
        Commit(frontiers_ms=now[0], offsets=now[1]).bounded(rules)


@given(st.text() | st.recursive(st.none(), st.lists).map(lambda v: f'{{"v":1,"x":{v}}}'))
def test_what_is_no_metadata_of_ours_is_none_or_read(text: str) -> None:
    for metadata in (text, '{"v":' + text, '{"v":1,"F":' + text):
        with suppress(SettingsError):
            Commit.decode(metadata)


def test_numbers_that_no_fold_arrives_at_are_not_ours() -> None:
    for changed in (
        f'"F":{NUMBER_MAX + 1}',
        f'"F":{10**30}',
        f'"E":-{10**20}',
        f'"e":{10**20}',
        '"C":{"1m":9223372036854775807}',
        '"O":{"1m":-1}',
        '"fl":{"1m":9223372036854775808}',
        '"fp":[-5,0,0,"x"]',
        '"fp":[5,0,4294967296,"x"]',
        '"s":-1',
        '"r":"\ud800"',
        '"x":' + "[" * 100_000,
    ):
        assert Commit.decode('{"v":1,' + changed + "}") is None, changed[:40]
