"""`<base>/<application id>/instance-N/`: who we are among the processes of this host.

A process claims the first free N by an OS lock held for its life. The lock goes with the process, so there
is never a stale one to delete; N is stable over restarts, and with it everything derived from it.
"""

import fcntl
import hashlib
import os
import re
import socket
from pathlib import Path
from typing import TextIO

from streamingcandle.errors import OutsideError, OwnedError

INSTANCES_MAX = 64
"""More processes of one application on one host are a mistake of a supervisor."""


class Instance:
    """A claimed place: hold it as long as the process lives."""

    def __init__(self, number: int, path: Path, lock: TextIO) -> None:
        """Made by `claim` only."""
        self.number = number
        self.path = path
        self._lock = lock

    def identity(self, application_id: str) -> str:
        """Static member and transactional id: application, host, base folder, N."""
        base = hashlib.sha256(str(self.path.parent.parent.resolve()).encode()).hexdigest()[:8]
        host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())
        return f"{application_id}-{host}-{base}-{self.number}"

    def release(self) -> None:
        """Give the place up."""
        self._lock.close()


def claim(base: Path, application_id: str, *, number: int | None = None) -> Instance:
    """Claim instance `number`, or the first free one.

    OwnedError names the owner of a number asked for; OutsideError a folder that cannot be written.
    """
    for candidate in range(INSTANCES_MAX) if number is None else [number]:
        path = base / application_id / f"instance-{candidate}"
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = (path / "owner").open("a+", encoding="utf-8")
        except OSError as error:
            message = f"state directory {path}: {error.strerror}; set STREAMINGCANDLE_STATE_DIR to a writable folder"
            raise OutsideError(message) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().strip()
            lock.close()
            if number is not None:
                message = f"instance {number} in {path}: run by {owner or 'another process'}; stop it or choose another"
                raise OwnedError(message) from None
            continue
        lock.truncate(0)
        lock.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
        lock.flush()
        return Instance(candidate, path, lock)
    message = f"state directory {base}: all of {INSTANCES_MAX} instances are taken; stop some"
    raise OwnedError(message)
