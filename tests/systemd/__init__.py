"""What systemd is to a service: the socket that NOTIFY_SOCKET names. And where its own tools are (`fetch.sh`)."""

import os
import shutil
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

from streamingcandle.clock import SystemClock

WATCHDOG_S = 2
WORDS_BYTES_MAX = 4_096

_FETCHED = Path(__file__).parents[2] / ".cache" / "systemd" / "systemd-analyze"

_clock = SystemClock()


def analyze() -> str:
    """The machine's systemd-analyze, or the one that `fetch.sh` brought."""
    found = shutil.which("systemd-analyze") or (str(_FETCHED) if _FETCHED.exists() else None)
    assert found is not None, "no systemd-analyze: run tests/systemd/fetch.sh, or apt-get install systemd"
    return found


class NotifySocket:
    """Bound and heard as PID 1 does it; `@name` is abstract."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def __enter__(self) -> Self:
        self._socket.bind(self._address.replace("@", "\0", 1))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._socket.close()

    def variables(self, pid: int | None = None) -> dict[str, str]:
        """What a service finds in its environment."""
        return {
            "NOTIFY_SOCKET": self._address,
            "WATCHDOG_USEC": str(WATCHDOG_S * 1_000_000),
            "WATCHDOG_PID": str(os.getpid() if pid is None else pid),
        }

    def words(self, *, wait_s: float) -> list[str]:
        """All that comes within this time, `NAME=value` each; at once what has come if that is 0."""
        until_ms = _clock.monotonic_ms() + int(wait_s * 1_000)
        found: list[str] = []
        while True:
            left_s = (until_ms - _clock.monotonic_ms()) / 1_000
            try:
                self._socket.settimeout(max(0, left_s))
                found += self._socket.recv(WORDS_BYTES_MAX).decode().split("\n")
            except (TimeoutError, BlockingIOError):
                return found

    def await_word(self, word: str, *, limit_s: float = 30) -> list[str]:
        """What comes until a word that begins so; with it."""
        until_ms = _clock.monotonic_ms() + int(limit_s * 1_000)
        found: list[str] = []
        while not any(one.startswith(word) for one in found):
            assert _clock.monotonic_ms() < until_ms, f"after {limit_s} s no {word!r} in {found}"
            found += self.words(wait_s=0.05)
        return found
