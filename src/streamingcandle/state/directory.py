"""`<base>/<application id>/instance-N/`: who we are among the processes of this host.

A process claims the first free N by an OS lock held for its life. The lock goes with the process, so there
is never a stale one to delete; N is stable over restarts, and with it everything derived from it.

    lock         empty; whoever has it locked owns the instance. Removed by `state gc` alone, which locks it first
    owner        who that is (`owner.py`), left behind by a crash, gone after a clean end
    turn         its mtime is when the owner's loop turned last
    snapshot-…   what the owner keeps there

A lock file deleted by hand frees nothing: who finds the lock free but the owner running takes the next N, and
the owner makes folder and lock again (`Instance.hold`). Where the whole folder was deleted and somebody claimed
the place in that moment, the owner gives way: exit 4, and its next start claims another N.

A base that cannot be written or locked (read-only, no lock daemon on NFS) is replaced by a folder of this user
under the temp directory, said. That impossible too, there is no folder: then N is the first free of a row of
abstract sockets, names the kernel gives to one process at a time and takes back at its end. So N is as stable as
ever, but unknown outside of the host's network namespace; that one's number is therefore part of the identity.
In a container without any writable folder the identity is a new one after each restart, which costs the broker's
session timeout, once, and nothing else. Unique comes first: two processes of one identity would fence each other.
"""

import errno
import fcntl
import hashlib
import logging
import os
import re
import socket
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from streamingcandle.errors import OutsideError, OwnedError
from streamingcandle.state.owner import NAME as OWNER_NAME
from streamingcandle.state.owner import Owner, read_owner, this_process, write_owner

logger = logging.getLogger(__name__)

INSTANCES_MAX = 64
"""More processes of one application on one host are a mistake of a supervisor."""
LOCK_NAME = "lock"
TURN_NAME = "turn"
TRIES = 100
TRY_S = 0.003
"""A lock without a running owner is one just claimed, or looked at by `state`: 0.3 s are given to be told who it is."""
NEVER = "nobody ever needs to delete anything in there"


class Instance:
    """A claimed place: hold it as long as the process lives."""

    def __init__(
        self, number: int, path: Path | None, *, place: str, lock: int, owner: Owner, trouble: str = ""
    ) -> None:
        """Made by `claim` only. `place`: what tells N here from N elsewhere; `lock`: a descriptor, ours now.

        `trouble`: what the disk said to the owner's file, told already.
        """
        self.number = number
        self.path = path
        """The instance's folder; None where none can be had."""
        self._place = place
        self._lock = lock
        self._owner = owner
        self._trouble = trouble

    def identity(self, application_id: str) -> str:
        """Static member and transactional id: application, host, base folder, N."""
        host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())
        return f"{application_id}-{host}-{_digest(self._place)}-{self.number}"

    def hold(self) -> None:
        """Make the folder, the lock and the owner's file again where they are missing; cheap, for every second or so.

        OwnedError when another process has the place by now. A disk that fails is said once and changes nothing.
        """
        if self.path is None:
            return
        try:
            if _is_at(self._lock, self.path / LOCK_NAME):
                if read_owner(self.path) != self._owner:
                    write_owner(self.path, self._owner)
                self._trouble = ""
                return
            lock = take(self.path)
            if lock is None:
                who = read_owner(self.path) or "another process"
                message = f"instance {self.number} in {self.path}: deleted while it ran, and taken by {who} since"
                raise OwnedError(f"{message}; start again to get another ({NEVER})")
            os.close(self._lock)
            self._lock = lock
            write_owner(self.path, self._owner)
            logger.warning("state directory %s: deleted while in use, made again; %s", self.path, NEVER)
        except OSError as error:
            if self._trouble != str(error):
                self._trouble = str(error)
                logger.warning("state directory %s: %s; going on without", self.path, error.strerror)

    def release(self) -> None:
        """Give the place up; nothing of it stays locked."""
        with suppress(OSError):
            if self.path is not None and read_owner(self.path) == self._owner:
                (self.path / OWNER_NAME).unlink()
        os.close(self._lock)


def claim(base: Path, application_id: str, *, now_ms: int, number: int | None = None) -> Instance:
    """Claim instance `number`, or the first free one, where the module's text says.

    OwnedError names the owner of a number asked for, or says that all are taken.
    """
    owner = this_process(now_ms)
    try:
        return _claim_in(base, os.path.realpath(base), application_id, number, owner)
    except OSError as error:
        folder = fallback(base)
        what = f"state directory {error.filename or base}: {error.strerror}"
        advice = "set STREAMINGCANDLE_STATE_DIR to a writable folder on a local disk"
    try:
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        _check_private(folder.parent)
        instance = _claim_in(
            folder, f"{folder} {_number_of(Path(tempfile.gettempdir()))}", application_id, number, owner
        )
    except OSError as error:
        logger.warning("%s; nor %s: %s; running without one: %s", what, folder, error.strerror, advice)
    else:
        logger.warning("%s; using %s; %s", what, folder, advice)
        return instance
    return _claim_name(
        f"{os.path.realpath(base)} {_number_of(Path('/proc/self/ns/net'))}", application_id, number, owner
    )


def fallback(base: Path) -> Path:
    """The folder that stands in for a base that cannot be used: this user's, and the same at the next start."""
    return Path(tempfile.gettempdir()) / f"streamingcandle-{os.getuid()}" / _digest(os.path.realpath(base))


def instances(base: Path) -> list[Path]:
    """The instances' folders of all applications below `base`, by application and number."""
    found = [path for path in base.glob("*/instance-*") if re.fullmatch(r"instance-\d{1,2}", path.name)]
    return sorted(found, key=lambda path: (path.parent.name, number_of(path)))


def is_owned(path: Path) -> bool:
    """Whether a process has the instance now; disturbs nobody who claims it in the same moment (`TRIES`)."""
    try:
        lock = os.open(path / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return _is_anothers(path, is_locked=False)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return _is_anothers(path, is_locked=False)


def number_of(path: Path) -> int:
    """N."""
    return int(path.name.removeprefix("instance-"))


def take(path: Path) -> int | None:
    """Lock an instance's folder, made where it is missing: a descriptor, or None while somebody else owns it.

    OSError where the folder cannot be made, written or locked.
    """
    for _ in range(TRIES):
        path.mkdir(parents=True, exist_ok=True)
        try:
            lock = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:
            continue  # removed by `state gc` just now
        is_free = is_ours = False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_free = True
            # Somebody may have removed the file between opening and locking it, or under its owner.
            is_ours = _is_at(lock, path / LOCK_NAME) and not _is_anothers(path, is_locked=False)
        except BlockingIOError:
            pass
        finally:
            if not is_ours:
                os.close(lock)
        if is_ours:
            return lock
        if _is_anothers(path, is_locked=not is_free):
            return None
        time.sleep(TRY_S)
    return None


def _claim_in(base: Path, place: str, application_id: str, number: int | None, owner: Owner) -> Instance:
    for candidate in _candidates(number):
        path = base / application_id / f"instance-{candidate}"
        lock = take(path)
        if lock is None:
            continue
        trouble = ""
        try:
            write_owner(path, owner)
        except OSError as error:
            # A full disk: the lock is what counts, and `hold` tries again.
            trouble = str(error)
            logger.warning("%s: %s; going on, without a word of who owns it", path / OWNER_NAME, error.strerror)
        return Instance(candidate, path, place=place, lock=lock, owner=owner, trouble=trouble)
    who = None if number is None else read_owner(base / application_id / f"instance-{number}")
    raise _taken(str(base), number, who)


def _claim_name(place: str, application_id: str, number: int | None, owner: Owner) -> Instance:
    for candidate in _candidates(number):
        name = hashlib.sha256(f"{place} {application_id} {candidate}".encode()).hexdigest()
        taken = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            taken.bind(f"\0streamingcandle-{name}")
        except OSError as error:
            taken.close()
            if error.errno == errno.EADDRINUSE:
                continue
            message = f"no state directory, and no name either: {error.strerror}"
            raise OutsideError(f"{message}; set STREAMINGCANDLE_STATE_DIR to a writable folder") from error
        return Instance(candidate, None, place=place, lock=taken.detach(), owner=owner)
    raise _taken("this host", number, None)


def _candidates(number: int | None) -> range:
    return range(INSTANCES_MAX) if number is None else range(number, number + 1)


def _taken(where: str, number: int | None, who: Owner | None) -> OwnedError:
    if number is None:
        return OwnedError(f"state directory {where}: all of {INSTANCES_MAX} instances are taken; stop some")
    return OwnedError(f"instance {number} in {where}: run by {who or 'another process'}; stop it or choose another")


def _is_anothers(path: Path, *, is_locked: bool) -> bool:
    """Whether a process other than ours has signed there and runs; where that is not known, the lock tells."""
    owner = read_owner(path)
    if owner is None or owner.pid == os.getpid():
        return False
    is_running = owner.is_running()
    return is_locked if is_running is None else is_running


def _is_at(lock: int, path: Path) -> bool:
    """Whether the open file still has its name."""
    try:
        return os.path.samestat(os.fstat(lock), path.stat())
    except FileNotFoundError:
        return False


def _check_private(folder: Path) -> None:
    """Anybody may make a folder under the temp directory: PermissionError unless it is ours alone."""
    seen = folder.lstat()
    if (seen.st_mode & 0o170777, seen.st_uid) != (0o040700, os.getuid()):
        raise PermissionError(errno.EPERM, "made by somebody else, or open to others: remove it", str(folder))


def _number_of(path: Path) -> str:
    """Device and inode: what tells one `/tmp` or network namespace from another of the same name."""
    try:
        seen = path.stat()
    except OSError:
        return ""
    return f"{seen.st_dev}:{seen.st_ino}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
