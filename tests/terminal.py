"""The program as it looks on a terminal."""

import os
import pty
import subprocess
from typing import IO

import pyte

from program import PROGRAM

COLUMNS, LINES = 250, 12


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
