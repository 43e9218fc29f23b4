"""State directory, disk and memory of this host: asked of the kernel, then judged."""

import errno
import fcntl
import os
import pwd
import tempfile
from pathlib import Path

import msgspec

from streamingcandle.ops.doctor.finding import Finding, fault, ok, warning
from streamingcandle.state.directory import fallback, instances, is_owned

PROBE_BYTES = 65_536
FREE_FAULT_BYTES = 16 * 1_048_576
"""Two snapshots a partition of a thousand instruments, and the one being written."""
FREE_WARN_BYTES = 1_073_741_824
"""Of fifty thousand instruments."""
INODES_FAULT = 100
MEMORY_FAULT_BYTES = 128 * 1_048_576
"""A live process of ten thousand instruments (BENCHMARKS.md)."""
MEMORY_WARN_BYTES = 512 * 1_048_576
"""One that reads a backlog."""
FULL = (errno.ENOSPC, errno.EDQUOT)


class FolderAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of writing into the folder, or into the nearest above it that is there."""

    path: str
    is_there: bool
    owner_uid: int
    errno: int = 0
    reason: str = ""
    free_bytes: int = 0
    size_bytes: int = 0
    inodes_free: int | None = None
    """None where the file system has no limit."""


class MemoryAnswer(msgspec.Struct, frozen=True):
    """What may still be taken, and what limits it: `the host` or `the control group`."""

    free_bytes: int
    whose: str


def ask_folder(folder: Path) -> FolderAnswer:
    """Write, sync and lock a file in there, gone afterwards; a folder that is not there is not made.

    OSError where not even that can be seen.
    """
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    seen, space = place.stat(), os.statvfs(place)
    number = 0
    if place == folder:
        number = _written(folder)
    elif space.f_flag & os.ST_RDONLY:
        number = errno.EROFS
    elif not os.access(place, os.W_OK | os.X_OK):
        number = errno.EACCES
    return FolderAnswer(
        path=str(place),
        is_there=place == folder,
        owner_uid=seen.st_uid,
        errno=number,
        reason=os.strerror(number) if number else "",
        free_bytes=space.f_bavail * space.f_frsize,
        size_bytes=space.f_blocks * space.f_frsize,
        inodes_free=space.f_favail if space.f_files else None,
    )


def _written(folder: Path) -> int:
    """0, or what the system says to a file in there."""
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=".doctor-") as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def ask_state(base: Path, application_id: str) -> tuple[FolderAnswer, int]:
    """The application's folder, or the base where there is none yet; and how many of its instances are live."""
    own = base / application_id
    live = sum(is_owned(path) for path in instances(base) if path.parent == own)
    return ask_folder(own if own.exists() else base), live


def judge_state(base: Path, answer: FolderAnswer, live: int) -> Finding:
    """Whether a process finds its place there; a full disk is the disk's line."""
    check = "state directory"
    if answer.errno and answer.errno not in FULL:
        what = f"{answer.path}: {answer.reason}; a process would use {fallback(base)} instead"
        do = f"give {base} to this user, or set STREAMINGCANDLE_STATE_DIR to a writable folder on a local disk"
        return fault(check, what, do)
    if not answer.is_there:
        return ok(check, f"{base}: not there yet, will be made")
    if answer.owner_uid != os.getuid():
        what = f"{answer.path}: belongs to {_name(answer.owner_uid)}, this is {_name(os.getuid())}"
        return warning(check, what, "run doctor as the user that the service runs as")
    return ok(check, f"{answer.path}: writable; {live} live instances")


def judge_disk(answer: FolderAnswer) -> Finding:
    """Room for snapshots."""
    check, free = "disk", f"{_size(answer.free_bytes)} free"
    if answer.errno in FULL or answer.free_bytes < FREE_FAULT_BYTES:
        do = "free some space there: without, no snapshot is written, and restarts take longer"
        return fault(check, f"{answer.path}: {answer.reason or 'nearly full'}, {free}", do)
    if answer.inodes_free is not None and answer.inodes_free < INODES_FAULT:
        what = f"{answer.path}: {answer.inodes_free} inodes free"
        return fault(check, what, "remove some of the many small files on that file system")
    if answer.free_bytes < FREE_WARN_BYTES:
        return warning(check, f"{answer.path}: {free}", f"see that {_size(FREE_WARN_BYTES)} stay free there")
    return ok(check, f"{answer.path}: {free}")


def ask_memory() -> MemoryAnswer | None:
    """None where the kernel does not tell (no Linux)."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        kept = next(int(line.split()[1]) * 1_024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
    found = MemoryAnswer(kept, "the host")
    own = _group_free_bytes()
    return found if own is None or own >= kept else MemoryAnswer(own, "the control group")


def _group_free_bytes() -> int | None:
    """Of this process's control group (v2), the pages of files it can give back counted as free."""
    try:
        name = Path("/proc/self/cgroup").read_text(encoding="utf-8").strip().rpartition("::/")[2]
        folder = Path("/sys/fs/cgroup", name)
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        used = int((folder / "memory.current").read_text(encoding="ascii"))
        stat = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
        return None if limit == "max" else int(limit) - used + int(stat["inactive_file"])
    except (OSError, ValueError, KeyError):
        return None


def judge_memory(answer: MemoryAnswer | None) -> list[Finding]:
    """Room for a process."""
    if answer is None:
        return []
    what = f"{_size(answer.free_bytes)} are free on {answer.whose}"
    if answer.free_bytes < MEMORY_FAULT_BYTES:
        return [fault("memory", what, f"free {_size(MEMORY_FAULT_BYTES)} at least, or raise MemoryMax")]
    if answer.free_bytes < MEMORY_WARN_BYTES:
        do = f"a process that catches up takes up to {_size(MEMORY_WARN_BYTES)}: free some, or raise MemoryMax"
        return [warning("memory", what, do)]
    return [ok("memory", what)]


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1_048_576:.0f} MiB" if size_bytes < 10 * 1_073_741_824 else f"{size_bytes >> 30} GiB"
