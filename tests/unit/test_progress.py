"""What `ingest` and `simulate` show while they work, on a real terminal and without one."""

import gzip
import json
import logging
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import zstandard

from program import environment, run
from streamingcandle.cli.progress import TELL_EVERY_MS, progress
from terminal import OnTerminal

TICK = {"Exch": "N", "ExchType": "C", "Token": 7, "LastRate": 1.5, "TickDt": "2026-01-02 09:15:01"}


def _bars(terminal: OnTerminal) -> Sequence[str]:
    seen: list[str] = []
    while terminal.read():
        seen += [line for line in terminal.lines() if "a second" in line]
    return seen


def _write_ticks(path: Path, count: int, *, bad: int = 0) -> None:
    text = "".join([json.dumps(TICK) + "\n"] * count + ["{\n"] * bad).encode()
    packed = {".gz": gzip.compress(text), ".zst": zstandard.compress(text)}
    path.write_bytes(packed.get(path.suffix, text))


@pytest.mark.parametrize("name", ["ticks.jsonl", "ticks.jsonl.gz", "ticks.jsonl.zst"])
def test_ingest_shows_a_bar_on_a_terminal_and_leaves_it_clean(tmp_path: Path, name: str) -> None:
    _write_ticks(tmp_path / name, 60, bad=1)
    terminal = OnTerminal(environment("t", tmp_path, None), "ingest", "--rate", "60", str(tmp_path / name))
    bars = _bars(terminal)
    assert any("━" in bar and "%" in bar and "ticks, " in bar for bar in bars), bars
    code, out = terminal.end()
    assert (code, out) == (1, b"")
    named, summary, error = terminal.lines()
    assert named.endswith(f"{name}:61: json: passed over")
    assert "━" not in named
    assert summary.endswith("60 ticks into t-ticks, 1 bad lines")
    assert error == "streamingcandle: 1 bad lines passed over, named above"


def test_ingest_of_a_silent_pipe_stops_at_a_signal_and_leaves_the_terminal_clean(tmp_path: Path) -> None:
    terminal = OnTerminal(environment("t", tmp_path, None), "ingest", "-", stdin=subprocess.PIPE)
    assert terminal.process.stdin is not None
    terminal.process.stdin.write(json.dumps(TICK).encode() + b"\n")
    terminal.process.stdin.flush()
    while not terminal.lines():
        assert terminal.read()
    assert "%" not in terminal.lines()[0]
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.end() == (0, b"")
    (summary,) = terminal.lines()
    assert summary.endswith("1 ticks into t-ticks, 0 bad lines; stopped before the end")


def test_a_damaged_file_leaves_the_terminal_clean(tmp_path: Path) -> None:
    (tmp_path / "ticks.gz").write_bytes(gzip.compress(b"{}\n" * 1_000)[:-9])
    terminal = OnTerminal(environment("t", tmp_path, None), "ingest", str(tmp_path / "ticks.gz"))
    assert terminal.end() == (3, b"")
    assert terminal.lines()[-1].endswith("the file is damaged or cut off")


def test_simulate_shows_a_bar_on_a_terminal(tmp_path: Path) -> None:
    terminal = OnTerminal(environment("t", tmp_path, None), "simulate", "--ticks", "60", "--rate", "60")
    bars = _bars(terminal)
    assert any("━" in bar and "%" in bar and "ticks, " in bar for bar in bars), bars
    assert terminal.end() == (0, b"")
    (summary,) = terminal.lines()
    assert summary.endswith("60 ticks into t-ticks")


def test_a_restore_shows_a_bar_on_a_terminal_and_log_lines_elsewhere(tmp_path: Path) -> None:
    variables = environment("t", tmp_path, None)
    for command in (["simulate", "--ticks", "30000", "--date", "2026-01-02", "--speed", "0"], ["run", "--until-end"]):
        run(variables, *command)
    shutil.rmtree(tmp_path / "state")
    terminal = OnTerminal(variables, "run", "--until-end")
    assert terminal.end() == (0, b"")
    assert re.search("━.*30,000 ticks restored, [0-9,]+ a second", terminal.raw.decode())
    assert not [line for line in terminal.lines() if "━" in line]
    shutil.rmtree(tmp_path / "state")
    done = run(variables, "run", "--until-end")
    assert done.returncode == 0
    assert "━" not in done.stderr.decode()
    assert "restored at offset 30000" in done.stderr.decode()


@pytest.mark.parametrize("command", ["ingest", "simulate"])
@pytest.mark.parametrize("forced", [{}, {"FORCE_COLOR": "1"}])
def test_without_a_terminal_there_are_log_lines_only(tmp_path: Path, command: str, forced: dict[str, str]) -> None:
    _write_ticks(tmp_path / "ticks.jsonl", 20)
    arguments = {"ingest": [str(tmp_path / "ticks.jsonl")], "simulate": ["--ticks", "20"]}
    done = run(environment("t", tmp_path, None) | forced, command, *arguments[command])
    assert (done.returncode, done.stdout) == (0, b"")
    (line,) = done.stderr.splitlines()
    assert json.loads(line)["message"].startswith("20 ticks into t-ticks")


def test_a_log_line_every_few_seconds(caplog: pytest.LogCaptureFixture) -> None:
    class Simulated:
        now_ms = 0

        def monotonic_ms(self) -> int:
            return self.now_ms

        wall_ms = monotonic_ms

        def sleep_ms(self, duration_ms: int) -> None:
            self.now_ms += duration_ms

    caplog.set_level(logging.INFO)
    clock = Simulated()
    with progress(clock, 200) as tell:
        for count in range(100):
            clock.sleep_ms(TELL_EVERY_MS // 10)
            tell(count * 1_000, count)
    assert len(caplog.messages) == 10
    assert caplog.messages[:2] == ["9,000 ticks, 1,800 a second, 4 %", "19,000 ticks, 1,900 a second, 9 %"]
