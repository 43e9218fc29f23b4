"""Holes that a review found in restoring and settling, each with its story on the embedded log."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from streamingcandle import pipeline
from streamingcandle.candles.candle import decode_candle
from streamingcandle.clock import SystemClock
from streamingcandle.embedded.log import EmbeddedLog
from streamingcandle.embedded.store import EmbeddedStore
from streamingcandle.interfaces import BrokerAwayError, Committed, InDoubtError, Origin, Transaction
from streamingcandle.partition import Topics
from streamingcandle.settings import load_settings
from streamingcandle.state.files import FileSnapshots

DAY_MS = 86_400_000
MONDAY_MS = 1_767_571_200_000
"""2026-01-05 00:00 UTC; the exchange X of these stories is listed nowhere and so trades round the clock."""
LIMIT_POLLS = 60


def tick(at_ms: int, price: float, total: int) -> tuple[bytes, bytes, int, tuple[()]]:
    value = {
        "Exch": "X",
        "ExchType": "C",
        "Token": 1,
        "LastRate": price,
        "LastQty": 1,
        "TotalQty": total,
        "TickDt": at_ms,
    }
    return b"1", msgspec.json.encode(value), at_ms, ()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give an embedded log with a tick topic."""
    path = tmp_path / "log.sqlite3"
    with closing(EmbeddedStore(path)) as store:
        store.ensure_topic("ticks", 1)
    return path


def append(path: Path, *records: tuple[bytes, bytes, int, tuple[()]]) -> None:
    with closing(EmbeddedStore(path)) as store:
        store.append("ticks", records)


def run(
    path: Path,
    timeframes: str,
    *,
    kind: type[EmbeddedLog] = EmbeddedLog,
    snapshots: Path | None = None,
    is_stopping: Callable[[], bool] | None = None,
) -> None:
    settings = load_settings({}, {"STREAMINGCANDLE_TIMEFRAMES": timeframes, "STREAMINGCANDLE_COMMIT_INTERVAL": "1ms"})
    candles = tuple(f"candles-{label}" for label in timeframes.split(","))
    topics = Topics(ticks="ticks", candles=candles, dead_letters="dead-letters", late="late")
    wanted = settings.path(is_until_end=is_stopping is None, is_flush=False, is_adopting=False)
    clock = SystemClock()
    log = kind(EmbeddedStore(path), group="group", topic="ticks", clock=clock)
    stores = [] if snapshots is None else [FileSnapshots(snapshots)]
    with closing(log):
        pipeline.run(
            log,
            clock,
            settings.rules(),
            msgspec.structs.replace(wanted, topics=topics),
            is_stopping or (lambda: False),
            stores,
        )
        for store in stores:
            store.close()


def test_a_timeframe_back_after_more_than_a_week_refolds_what_it_missed(path: Path) -> None:
    def minutes(day: int, first: int, last: int) -> Iterator[tuple[bytes, bytes, int, tuple[()]]]:
        for number in range(first, last):
            yield tick(MONDAY_MS + day * DAY_MS + number * 20_000, 100 + number, 1_000 + number)

    append(path, *minutes(0, 0, 30))
    run(path, "1m,5m")
    append(path, *minutes(0, 30, 90), *(record for day in range(1, 10) for record in minutes(day, 0, 30)))
    run(path, "1m")
    run(path, "1m,5m")
    with closing(EmbeddedStore(path)) as store:
        found = [decode_candle(record.value or b"") for record in store.read("candles-5m", 0, 0, 1_000)]
    start_ms = MONDAY_MS + 600_000
    (candle,) = [candle for candle in found if candle.window_start_millis == start_ms]
    shown = (candle.open, candle.high, candle.low, candle.close, candle.volume, candle.ticks)
    assert shown == (130, 144, 130, 144, 15, 15)


class LateAnswer(EmbeddedLog):
    """The first commit's answer is lost, and what the group has committed is told at the second question only."""

    is_lost = is_away = False

    def commit(self, transaction: Transaction) -> None:
        super().commit(transaction)
        if not self.is_lost:
            self.is_lost = self.is_away = True
            raise InDoubtError("the answer is lost")

    def committed(self, partitions: Iterable[int]) -> Mapping[int, Committed | None]:
        if self.is_away:
            self.is_away = False
            with closing(EmbeddedStore(self._store.path)) as store:
                store.append("ticks", [(b"1", b"poison-2", MONDAY_MS, ())])
            raise BrokerAwayError("the coordinator is loading")
        return super().committed(partitions)


def test_letters_read_while_a_doubt_stands_are_not_lost(path: Path) -> None:
    append(path, tick(MONDAY_MS, 100, 1), (b"1", b"poison-1", MONDAY_MS, ()))
    polls = iter(range(LIMIT_POLLS))
    run(path, "1m", kind=LateAnswer, is_stopping=lambda: next(polls, None) is None)
    with closing(EmbeddedStore(path)) as store:
        assert [record.value for record in store.read("dead-letters", 0, 0, 10)] == [b"poison-1", b"poison-2"]


class Unanswered(EmbeddedLog):
    """The first question for a record goes unanswered."""

    is_away = True

    def record_at(self, partition: int, offset: int) -> Origin | None:
        if self.is_away:
            self.is_away = False
            raise BrokerAwayError("no answer")
        return super().record_at(partition, offset)


def test_an_unanswered_question_costs_no_snapshot(path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    append(path, *(tick(MONDAY_MS + number * 1_000, 100, number + 1) for number in range(200)))
    run(path, "1m", snapshots=tmp_path / "state")
    with caplog.at_level(logging.INFO):
        run(path, "1m", kind=Unanswered, snapshots=tmp_path / "state")
    assert "snapshot at offset 200 (state directory) restored" in caplog.text
    assert "folding from 0" not in caplog.text
