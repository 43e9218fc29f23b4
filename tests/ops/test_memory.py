"""One heap for all threads: what a heap each costs shows only after hours."""

import subprocess
import sys

LOOK = """
import ctypes, threading
from streamingcandle.ops import memory
{settle}
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
barrier = threading.Barrier(3)
def work():
    barrier.wait()
    libc.malloc(1_000)
    barrier.wait()
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc.malloc_stats()
"""


def _heaps(settle: str) -> int:
    command = [sys.executable, "-c", LOOK.format(settle=settle)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    return done.stderr.count("Arena ")


def test_threads_share_the_heap() -> None:
    assert _heaps("") > 1
    assert _heaps("memory.settle()") == 1
