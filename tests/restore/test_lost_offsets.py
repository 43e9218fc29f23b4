"""A group whose offsets are gone publishes nothing again unasked; and offsets beyond the log's end are told of."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from program import environment, run, run_well

TICKS = ("simulate", "--ticks", "600", "--rate", "2", "--date", "2026-01-02", "--speed", "0")
MORE = (*TICKS, "--seed", "2")


class Deployment:
    """One application on an embedded log."""

    def __init__(self, folder: Path) -> None:
        """Nothing has run."""
        self.folder = folder
        self.variables = environment("t", folder, None) | {"STREAMINGCANDLE_OUTSIDE_SESSION": "keep"}

    def execute(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        """Do something to the log behind the program's back."""
        with closing(sqlite3.connect(self.folder / "data" / "log.sqlite3")) as store, store:
            return store.execute(statement, values).fetchall()

    def lose_offsets(self) -> None:
        """As after their retention, or when somebody deleted the group."""
        self.execute("DELETE FROM offsets")

    def lose_state(self) -> None:
        """As on a new host."""
        shutil.rmtree(self.folder / "state")

    def candles(self) -> list[tuple[object, ...]]:
        """Topic, key and value of all that was published, in order."""
        return self.execute("SELECT topic, key, value FROM records WHERE topic LIKE '%candle' ORDER BY topic, offset")

    def run(self, *options: str, code: int = 0) -> str:
        """One life up to the end of the log; what it said."""
        done = run(self.variables, "run", "--until-end", *options)
        assert done.returncode == code, done.stderr.decode()
        return done.stderr.decode()


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    """Give one that has run."""
    deployment = Deployment(tmp_path)
    run_well(deployment.variables, *TICKS)
    said = deployment.run()
    assert "taken over at offset 0" in said  # a first life is asked nothing
    return deployment


def test_a_snapshot_proves_an_earlier_life(deployment: Deployment) -> None:
    published = deployment.candles()
    assert len(published) > 100
    deployment.lose_offsets()
    said = deployment.run(code=2)
    proof = "t-ticks[0]: the group has no offset (expired, or deleted), and a snapshot at offset 600 (state directory)"
    assert f"{proof} says that it had one; run once with --adopt to go on from there, with --publish-again" in said
    assert "START=earliest on, or bring the offsets back with `state restore`" in said
    assert deployment.candles() == published
    run_well(deployment.variables, *MORE)
    said = deployment.run("--adopt")
    assert (
        "the group has no offset, and a snapshot at offset 600 (state directory) says that it had one: going on" in said
    )
    assert "snapshot at offset 600 (state directory) restored" in said
    # Exactly as if nothing had been lost.
    twin = Deployment(deployment.folder / "twin")
    for ticks in (TICKS, MORE):
        run_well(twin.variables, *ticks)
        twin.run()
    assert deployment.candles() == twin.candles()
    assert len(deployment.candles()) > len(published)
    assert "restored" in deployment.run()  # and once is enough


def test_candles_prove_an_earlier_life(deployment: Deployment) -> None:
    published = deployment.candles()
    deployment.lose_offsets()
    deployment.lose_state()
    said = deployment.run(code=2)
    assert "t-1-min-candle has candles of these ticks up to offset 479; run once with --adopt" in said
    assert "set another STREAMINGCANDLE_CANDLE_TOPIC" in said
    assert deployment.candles() == published
    said = deployment.run("--adopt")
    assert "adopting offset" in said
    windows = [key for key in deployment.candles() if key not in published]
    assert len(windows) < len(published) / 10
    assert deployment.candles()[: len(published) // 10] == published[: len(published) // 10]


def test_all_of_it_again_where_somebody_says_so(deployment: Deployment) -> None:
    published = deployment.candles()
    deployment.lose_offsets()
    deployment.run("--publish-again")
    assert len(deployment.candles()) == 2 * len(published)
    deployment.run()


def test_a_neighbours_candles_are_told_of(deployment: Deployment) -> None:
    """Another application on the same topics would give their readers each candle twice."""
    deployment.variables["STREAMINGCANDLE_APPLICATION_ID"] = "another"
    said = deployment.run(code=2)
    assert "where they are another application's, set another STREAMINGCANDLE_CANDLE_TOPIC" in said
    deployment.variables["STREAMINGCANDLE_CANDLE_TOPIC"] = "another-{n}-min-candle"
    assert "taken over at offset 0" in deployment.run()


def test_what_is_no_candle_proves_nothing(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path)
    run_well(deployment.variables, *TICKS)
    deployment.execute("INSERT INTO topics VALUES ('t-1-min-candle', 1, 'x')")
    for offset, value in enumerate((b"", b"{}", b"\xff", b"[" * 100_000, b'{"sourceOffset":1}', None)):
        deployment.execute("INSERT INTO records VALUES ('t-1-min-candle', 0, ?, 0, NULL, ?, NULL)", offset, value)
    assert "taken over at offset 0" in deployment.run()


def test_candles_of_an_earlier_topic_prove_nothing(deployment: Deployment) -> None:
    """The tick topic was made anew, and the feed went on: its ticks are others, at the same offsets."""
    published = deployment.candles()
    deployment.execute("DELETE FROM records WHERE topic = 't-ticks'")
    deployment.execute("DELETE FROM topics WHERE name = 't-ticks'")
    deployment.lose_offsets()
    run_well(deployment.variables, *TICKS[:-3], "2026-01-05", *TICKS[-2:])
    said = deployment.run()
    assert "skipped: of another topic of that name" in said
    assert len(deployment.candles()) > len(published)


@pytest.mark.parametrize("metadata", ["", '{"v":1,"F":99999999999999999999}'])
def test_an_adopted_offset_beyond_the_end_is_told_of(deployment: Deployment, metadata: str) -> None:
    deployment.lose_state()
    deployment.execute("UPDATE offsets SET offset = 5000, metadata = ?", metadata)
    assert "the group's offset 5000 was not committed by streamingcandle" in deployment.run(code=2)
    said = deployment.run("--adopt")
    assert "ends at 600, before the committed offset 5000: records are lost; going on from the end" in said
    assert "adopting offset 600" in said
    published = deployment.candles()
    run_well(deployment.variables, *MORE)
    deployment.run()
    assert len(deployment.candles()) > len(published)
