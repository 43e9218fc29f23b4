"""Small text files that a user names: read whole, up to a limit, and never from what has no end."""

import errno
import os
import stat
from pathlib import Path

NOT_REGULAR = "not a regular file (a folder, a pipe or a device)"


def read_text(path: Path, size_max_bytes: int, encoding: str = "utf-8") -> str:
    """The text of a regular file (a link to one too), whole.

    OSError with a `strerror` for the operator: also where it is no regular file (a device or a pipe may never end, and
    waiting for one would hang a start) or longer than the limit. UnicodeDecodeError for other text.
    """
    try:
        # Not waiting: opening a pipe would last until somebody writes into it.
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except ValueError as error:
        raise OSError(errno.EINVAL, "no path: a zero byte is in it", str(path)) from error
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, NOT_REGULAR, str(path))
        with os.fdopen(os.dup(file), "rb") as opened:
            data = opened.read(size_max_bytes + 1)
    finally:
        os.close(file)
    if len(data) > size_max_bytes:
        raise OSError(errno.EFBIG, f"longer than {size_max_bytes:,} bytes", str(path))
    return data.decode(encoding)
