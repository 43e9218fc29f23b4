"""The program on a terminal of its own, as large as one likes: what stands on it, and whether it is left as it was."""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
from collections.abc import Callable, Mapping
from select import select
from typing import IO, Any, Self

import pyte

from program import PROGRAM
from streamingcandle.clock import SystemClock

COLUMNS, LINES = 250, 12
LIMIT_S = 60.0
"""For what takes a second or two on an idle machine."""
_clock = SystemClock()


class Terminal:
    """stdin, stdout and stderr of the program are this terminal. Leaving it ends the program."""

    def __init__(self, variables: Mapping[str, str], *arguments: str, columns: int = 120, lines: int = 40) -> None:
        self._master, self._slave = pty.openpty()
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self.written = b""
        self.resize(columns, lines)
        self.modes: list[Any] = termios.tcgetattr(self._slave)
        self.process = subprocess.Popen(
            [PROGRAM, *arguments],
            env={**variables, "TERM": "xterm-256color"},
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            start_new_session=True,
            # Ours alone, so that ctrl-c comes from the terminal itself.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no thread of ours holds a lock
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._slave)
        os.close(self._master)

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._screen.resize(lines, columns)

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def read(self) -> bool:
        """Take what comes within a moment; False for nothing."""
        if not select([self._master], [], [], 0.1)[0]:
            return False
        data = os.read(self._master, 65_536)
        self.written += data
        self._stream.feed(data)
        return True

    @property
    def text(self) -> list[str]:
        """All of its lines."""
        return [line.rstrip() for line in self._screen.display]

    def await_that(self, is_so: Callable[[list[str]], object], what: str) -> list[str]:
        """The screen at the first moment at which it is so."""
        until_ms = _clock.monotonic_ms() + LIMIT_S * 1_000
        while not is_so(self.text):
            assert _clock.monotonic_ms() < until_ms, f"still not: {what}\n" + "\n".join(self.text)
            assert self.read() or self.process.poll() is None, f"ended before: {what}\n" + "\n".join(self.text)
        return self.text

    def await_text(self, text: str) -> list[str]:
        return self.await_that(lambda lines: any(text in line for line in lines), text)

    def end(self, number: signal.Signals | None = None) -> int:
        """The exit code, after this signal if any; the terminal must be as it was."""
        if number is not None:
            self.process.send_signal(number)
        until_ms = _clock.monotonic_ms() + LIMIT_S * 1_000
        while self.process.poll() is None:
            assert _clock.monotonic_ms() < until_ms, "\n".join(self.text)
            self.read()
        while self.read():
            pass
        assert termios.tcgetattr(self._slave) == self.modes
        assert not self._screen.cursor.hidden
        # The last word about the other screen, wrapping and styles takes them back.
        for on, off in ((b"\x1b[?1049h", b"\x1b[?1049l"), (b"\x1b[?7l", b"\x1b[?7h")):
            assert self.written.rfind(off) > self.written.rfind(on) >= 0
        return self.process.returncode

    @property
    def after(self) -> str:
        """What was written once the terminal was given back."""
        return self.written.rpartition(b"\x1b[?1049l")[2].decode().replace("\r\n", "\n")


class OnTerminal:
    """The program with its stderr on a terminal: what stands on it at every moment."""

    def __init__(self, variables: dict[str, str], *arguments: str, stdin: int | IO[bytes] = subprocess.DEVNULL) -> None:
        self._master, terminal = pty.openpty()
        self._screen = pyte.Screen(COLUMNS, LINES)
        self._stream = pyte.ByteStream(self._screen)
        self.raw = b""
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
        self.raw += data
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
