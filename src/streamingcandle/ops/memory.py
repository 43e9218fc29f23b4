"""How a process that runs for months takes memory."""

import ctypes
import gc
import os
from pathlib import Path

GC_OBJECTS = 50_000
"""Messages come and go by the ten thousand without a cycle: looking for one at each 700 takes a tenth of the time."""
M_ARENA_MAX = -8
"""glibc, malloc.h."""


def settle() -> None:
    """Look for cycles seldom, and let all threads share one heap (docs/decisions/0007).

    Elsewhere than on glibc the heap stays as it is.
    """
    gc.freeze()
    gc.set_threshold(GC_OBJECTS)
    _ask_glibc("mallopt", M_ARENA_MAX, 1)


def give_back() -> None:
    """Return to the system what is free inside the heap: it takes milliseconds."""
    _ask_glibc("malloc_trim", 0)


def resident_bytes() -> int | None:
    """Memory that this process holds now; None where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def _ask_glibc(name: str, *numbers: int) -> None:
    ask = getattr(ctypes.CDLL(None), name, None)
    if ask is not None:
        ask(*numbers)
