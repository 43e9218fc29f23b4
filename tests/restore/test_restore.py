"""Whatever has become of the snapshots, the candles are the reference's, and the log says what was used."""

import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path

import msgspec
import pytest

from newer import newer_snapshot
from program import differences, values
from streamingcandle import pipeline
from streamingcandle.candles.candle import Candle, decode_candle
from streamingcandle.candles.reference import Record, Reference
from streamingcandle.candles.rules import Rules
from streamingcandle.clock import SystemClock
from streamingcandle.embedded.log import EmbeddedLog
from streamingcandle.embedded.store import EmbeddedStore
from streamingcandle.errors import SettingsError
from streamingcandle.partition import Topics
from streamingcandle.settings import load_settings
from streamingcandle.simulation.market import Market, MarketTick, ticks
from streamingcandle.state.files import FileSnapshots, snapshot_path
from streamingcandle.state.snapshot import VERSION, Snapshot

OPEN_MS = 1_767_325_500_000
TICKS = list(ticks(Market(20, seed=7), start_ms=OPEN_MS, rate_per_s=2, count=1_800))
THIRD = len(TICKS) // 3
TIMEFRAMES = "1m,5m"


class Session:
    """One embedded log and state directory, over several lives of the service."""

    def __init__(self, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        """Nothing is there yet."""
        self.folder = folder
        self.state = folder / "instance-0"
        self._caplog = caplog

    def ingest(self, feed: Sequence[MarketTick]) -> None:
        """Append to the tick topic."""
        with closing(EmbeddedStore(self.folder / "log.sqlite3")) as store:
            store.ensure_topic("ticks", 1)
            store.append("ticks", [(tick.key, tick.value, tick.at_ms, ()) for tick in feed])

    def run(self, timeframes: str = TIMEFRAMES, **settings: str) -> str:
        """One life, to the end of the log; what it said."""
        self._caplog.clear()
        loaded = load_settings({}, {"STREAMINGCANDLE_TIMEFRAMES": timeframes, **settings})
        path = msgspec.structs.replace(
            loaded.path(is_until_end=True, is_flush=False, is_adopting=False), topics=_topics(loaded.rules())
        )
        clock = SystemClock()
        snapshots = FileSnapshots(self.state)
        log = EmbeddedLog(EmbeddedStore(self.folder / "log.sqlite3"), group="group", topic="ticks", clock=clock)
        with self._caplog.at_level(logging.INFO), closing(log), closing(snapshots):
            pipeline.run(log, clock, loaded.rules(), path, lambda: False, [snapshots])
        return self._caplog.text

    def snapshots(self) -> list[Path]:
        """Where those of partition 0 lie, the youngest first."""
        paths = [snapshot_path(self.state, 0, slot) for slot in range(2)]
        return sorted(filter(Path.exists, paths), key=lambda path: path.stat().st_mtime_ns, reverse=True)

    def candles(self, timeframes: str = TIMEFRAMES) -> dict[tuple[str, str, int], list[Candle]]:
        """Every publication, by window."""
        found: dict[tuple[str, str, int], list[Candle]] = {}
        with closing(EmbeddedStore(self.folder / "log.sqlite3")) as store:
            for label in timeframes.split(","):
                for record in store.read(f"candles-{label}", 0, 0, 100_000):
                    candle = decode_candle(record.value or b"")
                    key = ((record.key or b"").decode(), label, candle.window_start_millis)
                    found.setdefault(key, []).append(candle)
        return found

    def assert_right(self, timeframes: str = TIMEFRAMES) -> None:
        """All that is due is published as the reference has it, and nothing twice."""
        with closing(EmbeddedStore(self.folder / "log.sqlite3")) as store:
            records = store.read("ticks", 0, 0, 100_000)
        reference = _reference(timeframes, tuple((record.value, record.timestamp_ms) for record in records))
        due_ms = max(record.timestamp_ms for record in records) - 10_000
        wanted = {key: candle for key, candle in reference.items() if candle.window_end_millis <= due_ms}
        found = self.candles(timeframes)
        last = {key: published[-1] for key, published in found.items() if published[-1].window_end_millis <= due_ms}
        assert len(wanted) > 100
        assert differences(last, wanted) == []
        for published in found.values():
            assert len({values(candle) for candle in published}) == len(published), published


@cache
def _reference(timeframes: str, feed: tuple[tuple[bytes | None, int], ...]) -> dict[tuple[str, str, int], Candle]:
    """Slow, and the same for most of the tests."""
    reference = Reference(load_settings({}, {"STREAMINGCANDLE_TIMEFRAMES": timeframes}).rules())
    for offset, (value, timestamp_ms) in enumerate(feed):
        reference.fold(Record(value, timestamp_ms, offset))
    return reference.candles()


def _topics(rules: Rules) -> Topics:
    candles = tuple(f"candles-{timeframe.label}" for timeframe in rules.timeframes)
    return Topics(ticks="ticks", candles=candles, dead_letters="dead-letters", late="late")


@pytest.fixture
def session(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Session:
    """Give a session that has run over two thirds of the ticks, in two lives."""
    session = Session(tmp_path, caplog)
    for third in range(2):
        session.ingest(TICKS[third * THIRD : (third + 1) * THIRD])
        session.run()
    session.ingest(TICKS[2 * THIRD :])
    return session


def _delete(session: Session) -> None:
    for path in session.snapshots():
        path.unlink()
    session.state.rmdir()


def _truncate(session: Session) -> None:
    for path in session.snapshots():
        path.write_bytes(path.read_bytes()[:-100])


def _flip_bit(session: Session) -> None:
    for path in session.snapshots():
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 4
        path.write_bytes(data)


def _scribble(session: Session) -> None:
    for path in session.snapshots():
        path.write_bytes(b"0\n")


def _change(session: Session, **changes: object) -> None:
    for path in session.snapshots():
        path.write_bytes(msgspec.structs.replace(Snapshot.decode(path.read_bytes()), **changes).encode())


def _of_another_topic(session: Session) -> None:
    found = Snapshot.decode(session.snapshots()[0].read_bytes())
    _change(session, fingerprint=msgspec.structs.replace(found.fingerprint, topic_id="another"))


def _of_another_log(session: Session) -> None:
    found = Snapshot.decode(session.snapshots()[0].read_bytes())
    _change(session, fingerprint=msgspec.structs.replace(found.fingerprint, checksum=1))


def _damage_book(session: Session) -> None:
    found = Snapshot.decode(session.snapshots()[0].read_bytes())
    _change(session, book=found.book[:-5])


def _damage_version(session: Session) -> None:
    for path in session.snapshots():
        data = path.read_bytes()
        path.write_bytes(data[:5] + b"\x01" + data[6:])


def _unreadable(session: Session) -> None:
    for path in session.snapshots():
        path.unlink()
        path.mkdir()


SABOTAGE: dict[str, tuple[Callable[[Session], None], str]] = {
    "missing": (_delete, "folding from 0"),
    "truncated": (_truncate, "skipped: damaged: checksum"),
    "bit-flipped": (_flip_bit, "skipped: damaged: checksum"),
    "version-flipped": (_damage_version, "skipped: damaged: checksum"),
    "scribbled": (_scribble, "skipped: no snapshot"),
    "other-rules": (lambda s: _change(s, rules="0" * 16), "skipped: written under other rules"),
    "other-partition": (lambda s: _change(s, partition=5), "skipped: of partition 5"),
    "ahead": (lambda s: _change(s, offset=1_000_000), "skipped: ahead of the committed offset"),
    "other-topic": (_of_another_topic, "skipped: of another topic"),
    "other-log": (_of_another_log, "skipped: of another log"),
    "damaged-book": (_damage_book, "skipped: damaged"),
    "unreadable": (_unreadable, "no snapshots from the state directory"),
}


@pytest.mark.parametrize("sabotage", SABOTAGE)
def test_a_useless_snapshot_costs_no_candle(sabotage: str, session: Session) -> None:
    spoil, reason = SABOTAGE[sabotage]
    spoil(session)
    said = session.run()
    assert reason in said
    assert f"taken over at offset {2 * THIRD}, folding from 0" in said
    session.assert_right()


def test_the_youngest_is_used(session: Session) -> None:
    said = session.run()
    assert f"snapshot at offset {2 * THIRD} (state directory) restored" in said
    assert f"folding from {2 * THIRD}" in said
    session.assert_right()


def test_the_one_before_is_used_where_the_youngest_is_damaged(session: Session) -> None:
    youngest, older = session.snapshots()
    offset = Snapshot.decode(older.read_bytes()).offset
    youngest.write_bytes(b"")
    said = session.run()
    assert f"snapshot at offset {offset} (state directory) restored" in said
    assert offset < 2 * THIRD
    session.assert_right()


def test_an_older_program_stops_at_a_newer_format(session: Session) -> None:
    path = session.snapshots()[0]
    path.write_bytes(newer_snapshot(path.read_bytes(), VERSION + 1))
    with pytest.raises(SettingsError, match=f"format {VERSION + 1}, this program reads up to {VERSION}"):
        session.run()


def test_changed_grace_keeps_the_snapshot(session: Session) -> None:
    said = session.run(STREAMINGCANDLE_GRACE="3s")
    assert f"snapshot at offset {2 * THIRD} (state directory) restored" in said
    session.assert_right()


@pytest.mark.parametrize(
    ("timeframes", "settings"),
    [
        pytest.param("1m,3m,5m", {}, id="timeframe-added"),
        pytest.param("1m", {}, id="timeframe-removed"),
        pytest.param(TIMEFRAMES, {"STREAMINGCANDLE_ALLOWED_LATENESS": "20m"}, id="horizon"),
        pytest.param(TIMEFRAMES, {"STREAMINGCANDLE_SINCE_ZERO": "B"}, id="volume-rule"),
    ],
)
def test_changed_rules_fold_from_the_log(timeframes: str, settings: dict[str, str], session: Session) -> None:
    said = session.run(timeframes, **settings)
    assert "skipped: written under other rules" in said
    assert "folding from 0" in said
    # The rules of before again: they go on where they were.
    session.ingest(TICKS[-10:])
    session.run()
    session.assert_right()


def test_an_added_timeframe_begins_at_the_feed_clock(session: Session) -> None:
    at_ms = TICKS[2 * THIRD - 1].at_ms
    session.run("1m,3m,5m")
    session.assert_right()
    ends_ms = [candles[0].window_end_millis for key, candles in session.candles("1m,3m,5m").items() if key[1] == "3m"]
    assert min(ends_ms) > at_ms - 5_000
    assert len(ends_ms) >= 20


def test_a_newer_commit_stops_an_older_program(session: Session) -> None:
    with closing(EmbeddedStore(session.folder / "log.sqlite3")) as store, store.transaction():
        store.commit_offset("group", "ticks", 0, offset=5, metadata='{"v":99,"new":[]}')
    with pytest.raises(SettingsError, match="format 99"):
        session.run()
