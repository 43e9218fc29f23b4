"""A disk to disturb: a small tmpfs in a mount namespace of its own, which the kernel gives to any user.

A process holds the namespace, and `/proc/<its pid>/root` leads into it from outside: whoever uses the disk is started
as everywhere, and what it meets is the kernel's own ENOSPC and EROFS, as root too.
"""

import errno
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from disturbance import await_that

SIZE = "1m"
LIMIT_S = 10.0
FILL_EVERY_S = 0.002
BLOCK_BYTES = 4_096


class Disk:
    """Made by `mounted`."""

    def __init__(self, holder: int, folder: Path) -> None:
        """`holder`: the process that holds it, mounted on `folder` in there."""
        self.inside = ["nsenter", f"--target={holder}", "--user", "--mount", "--preserve-credentials"]
        """Before a command: it finds the disk at `folder`. SQLite resolves links, and so leaves `path`."""
        self._folder = folder
        self.path = Path(f"/proc/{holder}/root", *folder.parts[1:])
        """Its root, for every process of this user."""

    @contextmanager
    def full(self) -> Iterator[None]:
        """Take every block that is free or comes free."""
        filler, over = self.path / "filler", threading.Event()

        def fill() -> None:
            with filler.open("ab", buffering=0) as file:
                while not over.wait(FILL_EVERY_S):
                    try:
                        while True:
                            file.write(bytes(BLOCK_BYTES))
                    except OSError as error:
                        if error.errno != errno.ENOSPC:
                            raise

        thread = threading.Thread(target=fill)
        thread.start()
        try:
            await_that(lambda: filler.exists() and os.statvfs(self.path).f_bavail == 0, "a full disk", limit_s=LIMIT_S)
            yield
        finally:
            over.set()
            thread.join()
            filler.unlink()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Mount it once more over itself, read-only: a remount is refused while a service has its lock open."""
        self._run("mount", "--bind", "--options", "ro", self._folder, self._folder)
        try:
            yield
        finally:
            self._run("umount", "--lazy", self._folder)

    def _run(self, *command: str | Path) -> None:
        subprocess.run([*self.inside, *command], check=True, timeout=LIMIT_S)


@contextmanager
def mounted(folder: Path) -> Iterator[Disk]:
    """Give a disk with room. It is gone afterwards, also when this process dies: `cat` ends with its input.

    Needs `unshare`, `nsenter` and `mount` of util-linux, and a kernel that lets this user make namespaces.
    """
    folder.mkdir()
    script = f'mount -t tmpfs -o size={SIZE},mode=700 tmpfs "$0" && exec cat'
    unshare = ["unshare", "--user", "--map-root-user", "--mount"]
    holder = subprocess.Popen([*unshare, "sh", "-c", script, folder], stdin=subprocess.PIPE)
    disk = Disk(holder.pid, folder)
    try:
        await_that(lambda: holder.poll() is not None or disk.path.is_mount(), "a disk", limit_s=LIMIT_S)
        assert holder.poll() is None, f"no mount of our own, see stderr: {' '.join(unshare)}"
        yield disk
    finally:
        holder.communicate(timeout=LIMIT_S)
