"""The file `owner` of an instance: who holds its lock, for those who only look."""

import os
import socket
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from streamingcandle import __version__
from streamingcandle.state.files import write_whole

NAME = "owner"


class Owner(msgspec.Struct, frozen=True):
    """A process; `mark` tells it from a later one of the same pid."""

    pid: int
    host: str
    started: str
    """ISO 8601, UTC: when it claimed the instance."""
    version: str
    mark: str

    def __str__(self) -> str:
        """For the operator."""
        return f"pid {self.pid} on {self.host} since {self.started}"

    def is_running(self) -> bool | None:
        """Whether that very process still runs; None where that cannot be known: on another host, without /proc."""
        if self.host != socket.gethostname() or not self.mark:
            return None
        return _mark(self.pid) == self.mark


def this_process(now_ms: int) -> Owner:
    """We ourselves."""
    started = datetime.fromtimestamp(now_ms / 1_000, UTC).isoformat(timespec="seconds")
    pid = os.getpid()
    return Owner(pid, socket.gethostname(), started, __version__, _mark(pid))


def read_owner(folder: Path) -> Owner | None:
    """The owner written last; None after a clean end. It holds the instance only as long as the lock is held."""
    try:
        return msgspec.json.decode((folder / NAME).read_bytes(), type=Owner)
    except (OSError, msgspec.DecodeError):
        return None


def write_owner(folder: Path, owner: Owner) -> None:
    """A reader sees the former one or this one. OSError as it comes."""
    write_whole(folder / NAME, msgspec.json.encode(owner) + b"\n")


def _mark(pid: int) -> str:
    """Boot and start time of a process, in the kernel's ticks; empty where it is not there or not to be seen."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        # The second field, a name in brackets, may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        state, started = fields[0], fields[19]
    except (OSError, IndexError):
        return ""
    return "" if state in "ZX" else f"{boot}/{started}"
