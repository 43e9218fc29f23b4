"""What a run says of the records it reads, on the embedded log, a turn at a time with a clock that tests move."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path as FilePath

import pytest

from streamingcandle.candles.naming import Names
from streamingcandle.candles.rules import Fields
from streamingcandle.candles.why import SHOWN_MAX, explain
from streamingcandle.clock import SystemClock
from streamingcandle.embedded.store import EmbeddedStore
from streamingcandle.embedded.tail import EmbeddedTail
from streamingcandle.partition import PathSettings, Topics
from streamingcandle.pipeline import Path
from streamingcandle.report import Report, ledger_line
from streamingcandle.settings import load_settings
from streamingcandle.simulation.clock import ProcessClock, VirtualTime

OPEN_MS = 1_767_325_500_000
TICK = {"Exch": "N", "ExchType": "C", "Token": 7, "LastRate": 1.5, "LastQty": 1, "TickDt": f"/Date({OPEN_MS})/"}
TOPICS = Topics(ticks="ticks", candles=("1-min-candle",), dead_letters="dead-letters", late="late")


class Turns:
    """The path over one partition and its report."""

    def __init__(self, store: EmbeddedStore, settings: Mapping[str, str]) -> None:
        self.store = store
        self.time = VirtualTime(OPEN_MS)
        self._clock = ProcessClock(self.time, booted_ms=0, wall_error_ms=0, sleep=lambda _ms: None)
        self._rules = load_settings({"timeframes": "1m", **settings}, {}).rules()
        self.start()

    def start(self) -> None:
        """As a process that begins: it goes on from what was committed."""
        self._log = EmbeddedTail(self.store, group="group", topic="ticks", clock=SystemClock())
        self.report = Report(self._clock, self._rules, "ticks")
        settings = PathSettings(topics=TOPICS)
        self.path = Path(self._log, self._clock, self._rules, settings, [], report=self.report)

    def turn(self, *records: dict[str, object] | bytes, after_ms: int = 0) -> None:
        """Records come, and are folded."""
        values = [record if isinstance(record, bytes) else json.dumps(record).encode() for record in records]
        self.store.append("ticks", [(b"7", value, OPEN_MS, ()) for value in values])
        self.time.now_ms += after_ms
        for _ in range(3):
            self.path.fold(list(self._log.poll(0, self.path)))
            self.report.turn()


@pytest.fixture
def turns(tmp_path: FilePath, request: pytest.FixtureRequest) -> Iterator[Turns]:
    with closing(EmbeddedStore(tmp_path / "log.sqlite3")) as store:
        store.ensure_topic("ticks", 1)
        yield Turns(store, getattr(request, "param", {}))


def _said(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    said = [record.getMessage() for record in caplog.records if record.levelno == level]
    caplog.clear()
    return said


def test_the_first_reject_of_a_kind_is_said_with_its_field_and_more_by_the_minute(
    turns: Turns, caplog: pytest.LogCaptureFixture
) -> None:
    turns.turn(TICK, TICK | {"LastRate": "abc\x1b"}, TICK | {"LastRate": -1}, TICK | {"Token": None})
    first, second = _said(caplog)
    assert first.startswith('ticks[0]@1: LastRate is "abc\\u001b": rejected as price; ')
    assert "`streamingcandle dead-letters show 0@1`" in first
    assert second.startswith("ticks[0]@3: Token is null: rejected as instrument; ")
    turns.turn(TICK | {"LastRate": "x"}, after_ms=59_000)
    assert _said(caplog) == []
    turns.turn(after_ms=2_000)
    (again,) = _said(caplog)
    assert again.startswith("ticks: 2 more, the last ticks[0]@4: rejected as price; ")
    turns.turn(after_ms=61_000)
    assert _said(caplog) == []


def test_what_is_accepted_but_odd_is_said(turns: Turns, caplog: pytest.LogCaptureFixture) -> None:
    turns.turn(TICK)
    turns.turn({**TICK, "TickDt": None}, {**TICK, "ScripCode": True}, {**TICK, "TickDt": 0}, after_ms=1_000)
    assert sorted(_said(caplog)) == [
        "ticks[0]@1: TickDt is null: no time that can be used, the record's own timestamp taken",
        "ticks[0]@2: ScripCode is true: an optional field cannot be read and counts as absent",
    ]
    turns.turn({**TICK, "TickDt": 0}, after_ms=60_000)
    (again,) = _said(caplog)
    assert again.startswith("ticks: 2 more, the last near ticks[0]@4: ")


def test_a_total_that_stands_still_is_said(turns: Turns, caplog: pytest.LogCaptureFixture) -> None:
    turns.turn({**TICK, "TotalQty": 9_000_000}, *[{**TICK, "TotalQty": 5}] * 130)
    (line,) = _said(caplog)
    said = 'ticks[0]@100: Exch is "N", ExchType is "C", Token is 7, TotalQty is 5: trades on below the day'
    assert line.startswith(said)


def test_what_a_restore_folds_again_was_said_before(turns: Turns, caplog: pytest.LogCaptureFixture) -> None:
    bad = [TICK | {"LastRate": -1}, {**TICK, "TickDt": 0}]
    turns.turn(*bad)
    turns.turn(TICK, after_ms=2_000)
    assert len(_said(caplog)) == 2
    assert turns.path.commit()
    with turns.store.transaction():
        done = turns.path.partitions[0].committed
        turns.store.commit_offset("group", "ticks", 0, offset=done.offset, metadata=done.metadata)
    turns.start()
    turns.turn(after_ms=2_000)
    assert turns.path.partitions[0].committed.offset == 3
    assert _said(caplog) == []
    turns.turn(*bad, after_ms=2_000)
    assert [line.partition(": ")[0] for line in _said(caplog)] == ["ticks[0]@3", "ticks[0]@4"]


@pytest.mark.parametrize("count", [1_000, 20])
def test_a_feed_of_which_everything_is_rejected_is_loud(
    turns: Turns, caplog: pytest.LogCaptureFixture, count: int
) -> None:
    turns.turn(*[{**TICK, "LastRate": "abc"}] * (count - 1), b"{")
    if count < 1_000:
        assert _said(caplog, logging.ERROR) == []
        turns.report.ended()
    (line,) = _said(caplog, logging.ERROR)
    assert line.startswith(f"ticks: every one of the{' first' * (count == 1_000)} {count} records was rejected, ")
    assert 'most of all as price, as ticks[0]@0: LastRate is "abc"; ' in line


def test_a_minute_of_rejects_is_loud(turns: Turns, caplog: pytest.LogCaptureFixture) -> None:
    turns.turn(*[TICK] * 1_000)
    turns.turn(after_ms=61_000)
    turns.turn(*[b"["] * 101)
    assert _said(caplog, logging.ERROR) == []
    turns.turn(after_ms=60_000)
    (line,) = _said(caplog, logging.ERROR)
    assert line.startswith("ticks: every one of the last minute's 101 records was rejected, most of all as json, ")


@pytest.mark.parametrize("turns", [{"fields": "time=exchange_timestmp,price=ltp_"}], indirect=True)
def test_names_that_no_record_has(turns: Turns, caplog: pytest.LogCaptureFixture) -> None:
    tick = {**TICK, "exchange_timestamp": 1, "ltp": 1.5}
    turns.turn(*[tick] * 999)
    assert _said(caplog, logging.ERROR) == []
    turns.turn(tick, tick)
    price, time, _ = _said(caplog, logging.ERROR)
    assert "none of the first 1,000 records has 'exchange_timestmp', by the setting `fields` the time: " in time
    assert "nearest there: exchange_timestamp; names there: Exch, ExchType, " in time
    assert "nearest there: ltp; " in price
    turns.turn(*[tick] * 1_000)
    assert _said(caplog, logging.ERROR) == []


def test_which_names_are_missed() -> None:
    values = [b'{"a":1}', b"[", None, b'{"b":{"deep":' + b"[" * 5_000, json.dumps(TICK).encode()]
    usual = Names(Fields())
    usual.look(values)
    assert usual.is_done  # nothing more to look for: TotalQty, companyName, ScripCode are not every feed's
    named = Names(Fields(total="volume"))
    named.look(values * 2_000)
    # Of the first thousand records two in five are objects that can be read.
    assert [line.partition(" by ")[0] for line in named.missed()] == ["none of the first 400 records has 'volume',"]
    assert list(Names(Fields()).missed()) == []


def test_the_ledger_of_a_run(turns: Turns, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    turns.turn(
        TICK, {**TICK, "LastRate": 0}, {**TICK, "TickDt": "2026-01-02 09:07:00"}, b"{", b"", {**TICK, "TickDt": 0}
    )
    turns.report.ended()
    assert _said(caplog, logging.INFO)[-1] == (
        "ticks: 6 read = 2 folded + 1 quotes + 1 outside the session + 0 too late + 2 rejected (1 empty, 1 json); "
        "1 time_fallback"
    )
    assert ledger_line({}).startswith("0 read = 0 folded")


@pytest.mark.parametrize(
    ("why", "record", "said"),
    [
        ("price", {**TICK, "LastRate": "abc"}, 'LastRate is "abc"'),
        ("price", {**TICK, "LastRate": [1, {"x": 2}]}, 'LastRate is [1, {"x": 2}]'),
        ("instrument", {"Exch": "N", "ExchType": "C"}, "Token is missing"),
        ("instrument", {**TICK, "Exch": "N:S"}, 'Exch is "N:S"'),
        ("instrument", {**TICK, "Token": 2**63}, f"Token is {2**63}"),
        ("instrument", {**TICK, "Exch": "x" * 900}, 'Exch is "' + "x" * 79 + '…, ExchType is "C", Token is 7'),
        ("instrument", {**TICK, "ExchType": ["C"]}, 'ExchType is ["C"]'),
        ("time", {**TICK, "TickDt": "2026-13-45"}, 'TickDt is "2026-13-45"'),
        ("future", TICK, f'TickDt is "/Date({OPEN_MS})/", the record\'s own timestamp 1970-01-01T00:00:01Z'),
        ("json", b'{"a":1,}', "trailing comma in object at byte 7: }"),
        ("json", b'{"half":', "it ends in the middle, after 8 bytes"),
        ("json", b'{"a":\xff}', "no UTF-8 at byte 5: \\xff}"),
        ("json", b"[1]", "no JSON object: [1]"),
        ("json", b'{"half":\x1b[31m', "invalid character at byte 8: \\x1b[31m"),
        ("price", b'{"a":' + b"[" * 400_000, "nested too deeply to look into"),
        ("price", b'{"LastRate":"' + b"x" * 1_000_000 + b'"}', 'LastRate is "' + "x" * (SHOWN_MAX - 1) + "…"),
        ("price", b" " * 2_000_000, "2000000 bytes, too many to look into"),
        ("tombstone", None, ""),
        ("empty", b"", ""),
        ("optional_unreadable", {**TICK, "LastQty": "many", "TotalQty": 5}, 'LastQty is "many"'),
        ("optional_unreadable", {**TICK, "LastQty": -5, "TotalQty": "-5"}, 'TotalQty is "-5"'),
        ("optional_unreadable", {**TICK, "companyName": 7.5, "ScripCode": True}, "ScripCode is true"),
        ("a reason to come", TICK, ""),
    ],
)
def test_a_record_explained(why: str, record: dict[str, object] | bytes | None, said: str) -> None:
    value = json.dumps(record).encode() if isinstance(record, dict) else record
    assert explain(load_settings({}, {}).rules(), why, value, 1_000) == said


def test_a_time_that_is_not_there_at_all() -> None:
    rules = load_settings({"fields": "time=at"}, {}).rules()
    assert explain(rules, "time", b"{}", -1) == "at is missing, the record's own timestamp -1"
