"""What systemd is told of a service of `Type=notify`: datagrams to the socket that NOTIFY_SOCKET names (sd_notify(3)).

    EXTEND_TIMEOUT_USEC   while a start takes long, as long as it turns
    READY=1               once, when the process has its share of the partitions and has restored them
    STATUS=…              feed-clock delay and lag, when the line has changed
    WATCHDOG=1            with each turn of the loop that is told of (`turn.py`), if the unit has a WatchdogSec
    STOPPING=1            once, at a stop

`WatchdogSec` should be well above the longest wait within one turn: some 20 s, for the answer to a commit.
"""

import logging
import os
import socket
from collections.abc import MutableMapping

from streamingcandle.ops.turn import Progress

logger = logging.getLogger(__name__)

EXTEND_USEC = 60_000_000
"""So long a start may stand still between two turns."""


class Supervisor:
    """systemd, if we are a service of it; for one thread. Implements `turn.Watcher`."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        """Takes its variables out of the environment: they are for this process, not for its children."""
        address = environment.pop("NOTIFY_SOCKET", "")
        watchdog, pid = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
        self._is_watched = bool(watchdog) and pid in ("", str(os.getpid()))
        self._name = address
        self._address = _address(address)
        if address and self._address is None:
            logger.warning("NOTIFY_SOCKET=%s: neither a path nor an abstract name; systemd is not told", address)
        self._status = ""
        self._is_ready = self._is_stopping = self._is_failing = False

    def tell(self, progress: Progress) -> None:
        """See `turn.Watcher`."""
        if self._is_stopping:
            self._send([])
            return
        words = []
        is_beginning = progress.is_ready and not self._is_ready
        if is_beginning:
            words.append("READY=1")
        elif not self._is_ready:
            words.append(f"EXTEND_TIMEOUT_USEC={EXTEND_USEC}")
        if self._send(words, str(progress)):
            self._is_ready |= is_beginning

    def complain(self, status: str) -> None:
        """Something stands still: the line says what, and the watchdog is left to bark."""
        self._send([], status, is_turning=False)

    def stopping(self) -> None:
        """A stop has begun, ours or one that was asked for."""
        if not self._is_stopping:
            self._is_stopping = True
            self._send(["STOPPING=1"], "stopping")

    def _send(self, words: list[str], status: str = "", *, is_turning: bool = True) -> bool:
        """Whether systemd has it; the next turn says what it has not."""
        if self._address is None:
            return False
        if status and status != self._status:
            words = [*words, f"STATUS={status}"]
        if self._is_watched and is_turning:
            words = [*words, "WATCHDOG=1"]
        if not words:
            return True
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.sendto("\n".join(words).encode(), socket.MSG_DONTWAIT, self._address)
        except OSError as error:
            if not self._is_failing:
                logger.warning("systemd is not told: %s: %s; going on", self._name, error.strerror)
            self._is_failing = True
            return False
        self._is_failing = False
        self._status = status or self._status
        return True


def _address(text: str) -> str | None:
    """A file, or with `@` in front a name in the abstract namespace."""
    if text.startswith("@"):
        return "\0" + text[1:]
    return text if text.startswith("/") else None
