"""Stories from seeds: what a reader finds is what the reference says, whatever happened."""

import pytest

from streamingcandle.simulation.search import findings, report

SEEDS = 300
CHUNK = 25


@pytest.mark.parametrize("start", range(0, SEEDS, CHUNK))
def test_stories(start: int) -> None:
    failed = [seed for seed in range(start, start + CHUNK) if findings(seed)]
    assert not failed, "\n".join(report(seed) for seed in failed[:1])


def test_a_seed_is_one_story() -> None:
    assert report(7) == report(7)
