"""Nothing that others wrote makes a terminal do something, or a log line two."""

import json
import os
import pty
import signal
import subprocess
import unicodedata
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from program import PROGRAM, environment, run_well
from streamingcandle.cli.screen import Span
from streamingcandle.cli.terminal import Terminal
from streamingcandle.embedded.store import EmbeddedStore
from streamingcandle.printable import printable, printable_json, printable_lines

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\r\n"
TICK = {"Exch": "N" + EVIL, "ExchType": "C", "Token": 7, "LastRate": 1.5, "companyName": "A" + EVIL}
OPEN_MS = 1_767_325_500_000
LOGGED = """
import logging, sys
from streamingcandle.cli import world
world._start_logging(sys.argv[1], is_debug=False, worker=None)
evil = sys.stdin.read()
logging.getLogger("x").warning("record says %s, password=hunter2", evil)
try:
    raise ValueError(evil)
except ValueError:
    logging.getLogger("x").exception("failed")
"""


def obeyed(text: str, allowed: str = "\n") -> list[str]:
    return [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Cs") and c not in allowed]


@given(st.text())
def test_no_character_is_obeyed_and_none_is_lost(text: str) -> None:
    assert obeyed(printable(text), "") == []
    assert obeyed(printable_lines(text), "\n\t") == []
    encoded = json.dumps([text], ensure_ascii=False)
    if not any("\ud800" <= character <= "\udfff" for character in text):
        assert json.loads(printable_json(encoded)) == [text]
    assert obeyed(printable_json(encoded)) == []
    if text.isprintable():
        assert printable(text) == printable_lines(text) == text


def test_a_frame_has_only_our_own_escapes(capfd: pytest.CaptureFixture[str]) -> None:
    Terminal().draw([[Span(EVIL, "bold"), Span(EVIL)]])
    shown = capfd.readouterr().out
    assert shown.count("\x1b") == 3  # home, bold, plain
    assert obeyed(shown, "\x1b") == []


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_log_line_stays_one_line(form: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [Path(PROGRAM).with_name("python"), "-c", LOGGED, form],
        input=EVIL.encode(),
        capture_output=True,
        timeout=60,
        check=True,
        cwd=tmp_path,
    )
    said = done.stderr.decode()
    assert obeyed(said) == []
    assert "hunter2" not in said
    first, *_ = said.splitlines()
    assert "record says" in first
    assert "password=********" in first
    if form == "json":
        assert EVIL in json.loads(first)["message"]


class OnTerminal:
    """The program with all it writes on a terminal that understands nothing."""

    def __init__(self, variables: dict[str, str], *arguments: str) -> None:
        self._master, terminal = pty.openpty()
        self.written = b""
        self.process = subprocess.Popen(
            [PROGRAM, *arguments],
            env=variables | {"TERM": "dumb", "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=terminal,
            stderr=terminal,
        )
        os.close(terminal)

    def read(self, until: bytes) -> str:
        """All up to this, or up to the end."""
        while not until or until not in self.written:
            try:
                data = os.read(self._master, 65_536)
            except OSError:  # how Linux tells the end
                break
            self.written += data
        return self.written.decode()

    def end(self) -> tuple[int, str]:
        said = self.read(b"")
        os.close(self._master)
        return self.process.wait(60), said


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("evil")
    variables = environment("t", folder, None)
    with closing(EmbeddedStore(folder / "data" / "log.sqlite3")) as store:
        store.ensure_topic("t-ticks", 1)
        values = (TICK, TICK | {"LastRate": -1})
        store.append(
            "t-ticks",
            [(b"7" + EVIL.encode(), json.dumps(value).encode(), OPEN_MS, [("h" + EVIL, b"v")]) for value in values],
        )
        store.append("t-ticks", [(b"8", EVIL.encode(), OPEN_MS, ())])
    run_well(variables, "run", "--until-end")
    return variables


@pytest.mark.parametrize(
    "arguments",
    [
        "dead-letters ls",
        "dead-letters ls --json",
        "dead-letters show 0@1",
        "dead-letters show 0@2 --as text",
        "dead-letters show 0@2 --json",
        "dead-letters show 0@2 --as raw",
    ],
)
def test_letters_on_a_terminal(variables: dict[str, str], arguments: str) -> None:
    code, said = OnTerminal(variables, *arguments.split()).end()
    assert code == (2 if "raw" in arguments else 0), said
    assert obeyed(said, "\r\n\t") == []
    if "raw" not in arguments:
        assert EVIL.encode() not in run_well(variables, "dead-letters", "ls")


def test_letters_in_a_pipe_keep_their_bytes(variables: dict[str, str]) -> None:
    assert run_well(variables, "dead-letters", "show", "0@2", "--as", "raw") == EVIL.encode()
    assert EVIL.encode() in run_well(variables, "dead-letters", "show", "0@2", "--as", "text")


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_watch_on_a_terminal_that_is_none(variables: dict[str, str], flags: tuple[str, ...]) -> None:
    watch = OnTerminal(variables, "watch", *flags)
    watch.read(b"forming")
    watch.process.send_signal(signal.SIGTERM)
    code, said = watch.end()
    assert (code, obeyed(said, "\r\n\t")) == (0, [])
    assert "forming" in said


def test_an_error_of_a_user_is_no_command_either(tmp_path: Path) -> None:
    given = environment("t", tmp_path, None) | {"STREAMINGCANDLE_TIMEFRAMES": EVIL.strip()}
    for arguments in (("config", "show"), ("candles", "N:C:1", f"--{EVIL.strip()}"), (EVIL.strip(),)):
        code, said = OnTerminal(given, *arguments).end()
        assert (code, obeyed(said, "\r\n"), said.count("\n")) == (2, [], 1)
