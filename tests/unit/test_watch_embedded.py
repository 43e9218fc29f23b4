"""`watch` on the embedded log: beside the group, whole from the first line on, and what it says when it cannot."""

import signal
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from disturbance import market
from program import PROGRAM, Key, environment, rules, run, run_well
from streamingcandle.candles.candle import Candle
from streamingcandle.candles.reference import Record, Reference
from streamingcandle.clock import SystemClock
from streamingcandle.embedded.store import EmbeddedStore
from streamingcandle.embedded.tail import EmbeddedTail
from streamingcandle.ops.watch import Watch
from streamingcandle.settings import load_settings
from streamingcandle.simulation.market import MarketTick
from terminal import Terminal
from watching import watching

TICKS = market(1_300)
"""260 s from 09:15:00 on: the last minute is 20 s old, so no window closes by idle time while a test runs."""


def _append(variables: dict[str, str], ticks: list[MarketTick]) -> EmbeddedStore:
    store = EmbeddedStore(Path(variables["STREAMINGCANDLE_DATA_DIR"]) / "log.sqlite3")
    store.ensure_topic("t-ticks", 1)
    store.append("t-ticks", [(tick.key, tick.value, tick.at_ms, ()) for tick in ticks])
    return store


def _reference(ticks: list[MarketTick]) -> dict[Key, Candle]:
    reference = Reference(rules())
    for offset, tick in enumerate(ticks):
        reference.fold(Record(tick.value, tick.at_ms, offset))
    return reference.candles()


def _open(candles: dict[Key, Candle], label: str, now_ms: int) -> dict[Key, Candle]:
    return {key: c for key, c in candles.items() if key[1] == label and c.window_end_millis > now_ms}


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    """Everything a service keeps, but SQLite's own files beside the log."""
    found = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(("-wal", "-shm"))]
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in found}


@pytest.mark.parametrize("label", ["1m", "30m"])
def test_forming_candles_are_whole_after_a_snapshot_in_mid_window(tmp_path: Path, label: str) -> None:
    variables = environment("t", tmp_path, None)
    store = _append(variables, TICKS[:1_250])
    run_well(variables, "run", "--until-end")
    committed, topics = store.committed("t-app", "t-ticks"), store.topics()
    assert committed[0][0] == 1_250
    _append(variables, TICKS[1_250:]).close()
    kept = _files(tmp_path / "state")
    with watching(variables, tmp_path, "--timeframe", label) as watch:
        wanted = _open(_reference(TICKS), label, TICKS[-1].at_ms)
        assert len(wanted) > 30
        watch.await_equal("forming", wanted)
        assert "(state directory) restored" in watch.log
        assert watch.stop() == 0
    assert (store.committed("t-app", "t-ticks"), store.topics()) == (committed, topics)
    assert _files(tmp_path / "state") == kept
    store.close()


@pytest.mark.parametrize("before", [0, 1_000])
def test_what_closes_while_it_takes_over_is_news(tmp_path: Path, before: int) -> None:
    """Seen where the machine was slow: the first poll brought ticks fed since, and what they closed was never told."""
    store = _append(environment("t", tmp_path, None), TICKS[:before])
    clock = SystemClock()
    with closing(EmbeddedTail(store, group="t-app", topic="t-ticks", clock=clock)) as tail:
        watch = Watch(tail, clock, rules(), load_settings({}, {}).path(), ())
        store.append("t-ticks", [(tick.key, tick.value, tick.at_ms, ()) for tick in TICKS[before:]])
        assert watch.turn(0) != []
        # Of a log that holds something, the first turn reads that, and what was there before is no news.
        assert watch.is_news == (before == 0)
        assert watch.is_caught_up


def test_it_follows_the_log_beside_a_service(tmp_path: Path) -> None:
    variables = environment("t", tmp_path, None)
    store = _append(variables, TICKS[:200])
    named = ["N:C:1000", "M:D:1003"]
    with (
        subprocess.Popen([PROGRAM, "run"], env=variables, stderr=subprocess.DEVNULL) as service,
        watching(variables, tmp_path, *named) as watch,
    ):
        try:
            watch.await_equal(
                "forming", {k: c for k, c in _open(_reference(TICKS[:200]), "1m", 0).items() if k[0] in named}
            )
            _append(variables, TICKS[200:]).close()
            reference = _reference(TICKS)
            ours = {key: candle for key, candle in reference.items() if key[0] in named and key[1] == "1m"}
            last_ms = max(candle.window_start_millis for candle in ours.values())
            watch.await_equal("closed", {k: c for k, c in ours.items() if c.window_start_millis < last_ms})
            assert {key[0] for key in watch.latest("forming")} == set(named)
            assert watch.stop() == 0
        finally:
            service.terminate()
            assert service.wait(10) == 0
    assert store.committed("t-app", "t-ticks")[0][0] == len(TICKS)
    store.close()


def test_plain_lines(tmp_path: Path) -> None:
    variables = environment("t", tmp_path, None)
    _append(variables, TICKS).close()
    with subprocess.Popen(
        [PROGRAM, "watch", "N:C:1000", "--timeframe", "30m"], env=variables, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        words = process.stdout.readline().decode().rstrip("\n").split("\t")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    candle = _reference(TICKS)["N:C:1000", "30m", TICKS[0].at_ms]
    prices = [str(price) for price in (candle.open, candle.high, candle.low, candle.close, candle.volume)]
    assert words == ["N:C:1000", "RELIANCE", "30m", "2026-01-02 09:15:00", *prices, "forming"]


def test_the_table_on_a_terminal(tmp_path: Path) -> None:
    variables = environment("t", tmp_path, None)
    _append(variables, TICKS).close()
    with Terminal(variables, "watch", "--timeframe", "30m", columns=100, lines=30) as terminal:
        text = terminal.await_that(lambda lines: sum("●" in line for line in lines) >= 20, "rows")
        assert "2026-01-02 09:19:" in text[0]
        assert "1,29" in text[1]
        assert terminal.end(signal.SIGTERM) == 0
        assert terminal.after == ""


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["N:C:999"], 2, "streamingcandle: instrument N:C:999: no tick of it in the tick topic; "),
        (["RELIANCE"], 2, "streamingcandle: instrument 'RELIANCE': not exchange:segment:token; "),
        (["--timeframe", "4m"], 2, "streamingcandle: timeframe 4m: not among those run, 1m, 2m, "),
    ],
)
def test_what_is_not_there_is_one_line(tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    variables = environment("t", tmp_path, None) | {"STREAMINGCANDLE_LOG_FORMAT": "text"}
    _append(variables, TICKS[:50]).close()
    done = run(variables, "watch", *arguments)
    assert (done.returncode, done.stdout) == (code, b"")
    assert done.stderr.decode().splitlines()[-1].startswith(said)
    with Terminal(variables, "watch", *arguments) as terminal:
        while terminal.process.poll() is None or terminal.read():
            terminal.read()
        assert terminal.process.returncode == code
        assert said[:70] in terminal.written.decode().replace("\r\n", "")


def test_no_broker_is_exit_3(tmp_path: Path) -> None:
    done = run(environment("t", tmp_path, "127.0.0.1:1") | {"STREAMINGCANDLE_WAIT": "1s"}, "watch")
    assert (done.returncode, done.stdout) == (3, b"")
    assert b"127.0.0.1:1" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("has_log", [False, True])
def test_a_missing_topic_is_one_line_and_nothing_is_made(tmp_path: Path, *, has_log: bool) -> None:
    variables = environment("t", tmp_path, None)
    if has_log:
        EmbeddedStore(tmp_path / "data" / "log.sqlite3").close()
    done = run(variables, "watch")
    assert (done.returncode, done.stdout) == (2, b"")
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("streamingcandle: topic t-ticks")
    assert (tmp_path / "data").exists() == has_log
    assert not (tmp_path / "state").exists()
