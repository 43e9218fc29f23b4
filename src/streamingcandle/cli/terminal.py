"""A terminal of our own for a while: whole frames out, single keys in, and everything as it was at the end."""

import os
import re
import sys
import termios
import tty
from collections.abc import Sequence
from select import select
from types import TracebackType
from typing import Self

from streamingcandle.cli.board import shown
from streamingcandle.cli.screen import ASCII, Line

ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
"""The other screen, no cursor, no wrapping: a frame made for a wider terminal is cut and not folded."""
LEAVE = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
SIZE_ELSE = os.terminal_size((80, 24))

STYLES = {
    "up": "32",
    "down": "31",
    "revised": "33",
    "warning": "33",
    "title": "36",
    "bold": "1",
    "dim": "2",
    "heads": "4",
    "chosen": "7",
}
COLOURS = {"up", "down", "revised", "warning", "title"}
"""What NO_COLOR (no-color.org) takes away."""

KEYS = {b"\x1b[A": "up", b"\x1b[B": "down", b"\x1b[C": "right", b"\x1b[D": "left", b"\t": "right", b"\x1b[Z": "left"}
KEYS |= {b"\x1b[5~": "page up", b"\x1b[6~": "page down", b" ": "page down", b"k": "up", b"j": "down"}
_KEY = re.compile(rb"\x1b[\[O][0-9;]*[A-Za-z~]|.", re.DOTALL)


def is_usable() -> bool:
    """Whether there is a terminal to draw on."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


class Terminal:
    """Standard output as a screen and, where it is a terminal too, standard input as keys."""

    def __init__(self) -> None:
        """Nothing is changed yet."""
        self._modes: list[int | list[bytes | int]] | None = None
        self._has_colour = not os.environ.get("NO_COLOR")
        self._encoding = sys.stdout.encoding
        self._is_ascii = "utf" not in self._encoding.lower()

    def __enter__(self) -> Self:
        """Take the terminal over."""
        if sys.stdin.isatty():
            self._modes = termios.tcgetattr(0)
            tty.setcbreak(0, termios.TCSANOW)
            modes = termios.tcgetattr(0)
            # Whoever suspends or holds us would find his shell on our screen, or us deaf to a stop.
            modes[0] &= ~termios.IXON
            modes[6][termios.VSUSP] = b"\0"
            termios.tcsetattr(0, termios.TCSANOW, modes)
        self._write(ENTER)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give it back as it was."""
        try:
            self._write(LEAVE)
        finally:
            if self._modes is not None:
                # What was typed for us is not for the shell.
                termios.tcsetattr(0, termios.TCSAFLUSH, self._modes)

    @property
    def has_keys(self) -> bool:
        """Whether anybody can press one."""
        return self._modes is not None

    def size(self) -> tuple[int, int]:
        """Columns and lines, now."""
        try:
            size = os.get_terminal_size(1)
        except OSError:
            size = SIZE_ELSE
        return size.columns or SIZE_ELSE.columns, size.lines or SIZE_ELSE.lines

    def keys(self) -> list[str]:
        """Those pressed since the last call, by name; `q` where the terminal has gone."""
        if self._modes is None or not select([0], [], [], 0)[0]:
            return []
        try:
            pressed = os.read(0, 1_024)
        except OSError:
            pressed = b""
        if not pressed:
            return ["q"]
        found = [key.replace(b"\x1bO", b"\x1b[") for key in _KEY.findall(pressed)]
        return [KEYS.get(key, key.decode("ascii", "replace")) for key in found]

    def draw(self, lines: Sequence[Line]) -> None:
        """Put a whole frame where the last one was."""
        drawn = "\r\n".join("".join(self._styled(text, style) for text, style in line) for line in lines)
        self._write("\x1b[H" + drawn)

    def _styled(self, text: str, style: str) -> str:
        names = [name for name in style.split() if self._has_colour or name not in COLOURS]
        text = shown(text)
        codes = ";".join(STYLES[name] for name in names)
        return f"\x1b[{codes}m{text}\x1b[0m" if codes else text

    def _write(self, text: str) -> None:
        if self._is_ascii:
            text = text.translate(ASCII)
        sys.stdout.buffer.write(text.encode(self._encoding, "replace"))
        sys.stdout.buffer.flush()
