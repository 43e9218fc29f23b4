"""Calls that may never come back, such as a client's that waits without end or a disk's that hangs."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Answer = TypeVar("Answer")


def begin(call: Callable[[], Answer]) -> Future[Answer]:
    """Call it on a thread that ends with the process at the latest: whoever waits for the result says how long."""
    done: Future[Answer] = Future()

    def work() -> None:
        try:
            done.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
            done.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return done
