"""What `ingest` and `simulate` show while they work, on a real terminal and without one."""

import gzip
import json
import logging
import os
import pty
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import pyte
import pytest
import zstandard

from program import PROGRAM, environment, run
from streamingcandle.cli.progress import TELL_EVERY_MS, progress

COLUMNS, LINES = 250, 12
TICK = {"Exch": "N", "ExchType": "C", "Token": 7, "LastRate": 1.5, "TickDt": "2026-01-02 09:15:01"}


class OnTerminal:
    """The program with its stderr on a terminal: what stands on it at every moment."""

    def __init__(self, variables: dict[str, str], *arguments: str, stdin: int | IO[bytes] = subprocess.DEVNULL) -> None:
        self._master, terminal = pty.openpty()
        self._screen = pyte.Screen(COLUMNS, LINES)
        self._stream = pyte.ByteStream(self._screen)
        size = {"COLUMNS": str(COLUMNS), "LINES": str(LINES), "TERM": "xterm"}
        self.process = subprocess.Popen(
            [PROGRAM, *arguments], env=variables | size, stdin=stdin, stdout=subprocess.PIPE, stderr=terminal
        )
        os.close(terminal)

    def read(self) -> bool:
        """Take what comes next; False at the end."""
        try:
            data = os.read(self._master, 65_536)
        except OSError:  # how Linux tells the end
            data = b""
        self._stream.feed(data)
        return bool(data)

    def lines(self) -> list[str]:
        return [line.rstrip() for line in self._screen.display if line.strip()]

    def end(self) -> tuple[int, bytes]:
        """Exit code and stdout."""
        while self.read():
            pass
        os.close(self._master)
        assert not self._screen.cursor.hidden
        out, _ = self.process.communicate(timeout=20)
        return self.process.returncode, out


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
