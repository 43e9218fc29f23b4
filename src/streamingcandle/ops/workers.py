"""`run --workers N`: a parent that starts N processes of the same command and keeps them running.

Each worker claims an instance and joins the group as any process does; the parent knows nothing of Kafka. A pair
of sockets joins the two: over it a worker tells once a second that its loop turns and where it stands, and its end is
for either side the other's death, however that came. What it tells is passed on to systemd, and its watchdog only
while the loop of each worker turns.

    a worker ends with                      then
    0 after SIGTERM, or with --until-end    it is done
    2                                       all stop, 2: what is wrong in its settings is wrong in all
    3 before any worker was ready           all stop, 3: a start that fails is told at once, as `run` does
    4 three times within a minute of life   all stop, 4: somebody else keeps being the same instance
    anything else                           it is started again after 0.5 s, 1 s, 2 s ... 30 s

4 alone is no reason to stop: who was frozen, or lost its place to another process, claims a free one at its next
start. A minute of life makes a worker new: its next pause is 0.5 s again.
"""

import logging
import os
import selectors
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec

from streamingcandle.errors import OutsideError, OwnedError, SettingsError
from streamingcandle.interfaces import Clock
from streamingcandle.ops.systemd import Supervisor
from streamingcandle.ops.turn import TELL_EVERY_MS, Progress, together

logger = logging.getLogger(__name__)

PAUSE_MIN_MS = 500
PAUSE_MAX_MS = 30_000
GOOD_LIFE_MS = 60_000
FENCED_MAX = 3
LOOK_MS = 200
"""A signal is heeded and a due start made at least this often."""
STOP_MS = 8_000
"""A worker stops within 5 s by itself; then it is killed, which costs no candle either."""
STILL_MS = 20_000
"""A worker that has told nothing for so long stands still: the longest wait within one turn is for a commit."""
START_MS = 300_000
"""Before its first word a worker may be asking for brokers (setting `wait`)."""
WORD_BYTES_MAX = 4_096
DONE = 0
"""The exit code of a good end; the others are those of `errors.py`."""


class _Worker:
    """One of the N, through all its lives."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: subprocess.Popen[bytes] | None = None
        self.link: socket.socket | None = None
        self.progress: Progress | None = None
        """What it has told in this life."""
        self.is_ready = False
        self.is_done = False
        self._told_ms = 0
        self.code = 0
        self.start_at_ms = 0
        self._started_ms = 0
        self.pause_ms = 0
        self.fenced = 0

    def start(self, command: Sequence[str], now_ms: int) -> None:
        """A new life; in a process group of its own, since a terminal's Ctrl-C is for the parent to pass on."""
        self.link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            arguments = [*command, "--worker", str(self.number), str(theirs.fileno())]
            self.process = subprocess.Popen(  # noqa: S603 - this program itself
                arguments, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], process_group=0
            )
        self._started_ms = self._told_ms = now_ms

    def hear(self, now_ms: int) -> bool:
        """Take what it tells; False at its end."""
        assert self.link is not None
        try:
            word = self.link.recv(WORD_BYTES_MAX)
        except ConnectionResetError:
            word = b""
        if not word:
            return False
        self.progress = msgspec.json.decode(word, type=Progress)
        self.is_ready |= self.progress.is_ready
        self._told_ms = now_ms
        return True

    def still_ms(self, now_ms: int) -> int:
        """How long it has told nothing, if that is longer than it may be; 0 while it has no life."""
        limit_ms = START_MS if self.progress is None else STILL_MS
        silent_ms = now_ms - self._told_ms
        return silent_ms if self.process is not None and silent_ms > limit_ms else 0

    def bury(self, now_ms: int) -> int:
        """Take note of its end: the exit code, which the pause before the next life depends on."""
        assert self.process is not None
        assert self.link is not None
        code = self.process.wait()
        self.link.close()
        self.process = self.link = self.progress = None
        self.is_ready = False
        # Ended by a signal: nothing it said, so the world did it.
        self.code = code if code >= 0 else OutsideError.exit_code
        if now_ms - self._started_ms >= GOOD_LIFE_MS:
            self.pause_ms = self.fenced = 0
        self.fenced += code == OwnedError.exit_code
        self.pause_ms = min(max(2 * self.pause_ms, PAUSE_MIN_MS), PAUSE_MAX_MS)
        self.start_at_ms = now_ms + self.pause_ms
        return code


class Workers:
    """The parent's side; for one thread."""

    def __init__(
        self, command: Sequence[str], count: int, *, clock: Clock, is_until_end: bool, supervisor: Supervisor
    ) -> None:
        """`command` is what a worker is started with, its number and its link's descriptor following."""
        self._command = command
        self._supervisor = supervisor
        self._tell_at_ms = 0
        self._still: set[int] = set()
        self._clock = clock
        self._is_until_end = is_until_end
        self._workers = [_Worker(number) for number in range(1, count + 1)]
        self._selector = selectors.DefaultSelector()
        self._was_ready = False
        self._is_ready = False
        self._verdict: int | None = None

    def run(self, is_stopping: Callable[[], bool]) -> int:
        """Keep them running until told to stop, all are done, or there is no use: the exit code."""
        try:
            while not (is_stopping() or self._verdict is not None or all(worker.is_done for worker in self._workers)):
                for worker in self._workers:
                    now_ms = self._clock.monotonic_ms()
                    if worker.process is None and not worker.is_done and now_ms >= worker.start_at_ms:
                        worker.start(self._command, now_ms)
                        assert worker.link is not None
                        self._selector.register(worker.link, selectors.EVENT_READ, worker)
                self._listen(self._judge)
                self._tell_ready()
                self._pass_on()
        finally:
            self._supervisor.stopping()
            self._stop()
        return max(worker.code for worker in self._workers) if self._verdict is None else self._verdict

    def _listen(self, judge: Callable[[_Worker, int], None]) -> None:
        """Hear what workers tell, and that they have ended."""
        for key, _ in self._selector.select(LOOK_MS / 1_000):
            worker: _Worker = key.data
            assert worker.link is not None
            if worker.hear(self._clock.monotonic_ms()):
                self._was_ready |= worker.is_ready
                continue
            self._selector.unregister(worker.link)
            judge(worker, worker.bury(self._clock.monotonic_ms()))

    def _tell_ready(self) -> None:
        is_ready = all(worker.is_ready for worker in self._workers)
        if is_ready and not self._is_ready:
            logger.info("ready: %d workers", len(self._workers))
        self._is_ready = is_ready

    def _pass_on(self) -> None:
        """Tell systemd, once a second and when all are ready, what the workers tell; of one that stands still, that.

        One that is to be started again is in our hands, so it is no reason to end the others.
        """
        now_ms = self._clock.monotonic_ms()
        if now_ms < self._tell_at_ms:
            return
        self._tell_at_ms = now_ms + TELL_EVERY_MS
        still_ms = {worker.number: found_ms for worker in self._workers if (found_ms := worker.still_ms(now_ms))}
        for number in still_ms.keys() - self._still:
            logger.error("worker %d: its loop has not turned for %d s", number, still_ms[number] // 1_000)
        self._still = set(still_ms)
        if still_ms:
            self._supervisor.complain(f"the loop of worker {min(still_ms)} stands still")
        else:
            self._supervisor.tell(together([worker.progress or Progress() for worker in self._workers]))

    def _judge(self, worker: _Worker, code: int) -> None:
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        is_hopeless = (
            code == SettingsError.exit_code
            or (code == OutsideError.exit_code and not self._was_ready)
            or (code == OwnedError.exit_code and worker.fenced >= FENCED_MAX)
        )
        if code == DONE and self._is_until_end:
            worker.is_done = True
        elif is_hopeless:
            logger.error("worker %d ended with %s: stopping all", worker.number, how)
            self._verdict = code
        else:
            pause_s = worker.pause_ms / 1_000
            logger.warning("worker %d ended with %s: started again in %.1f s", worker.number, how, pause_s)

    def _stop(self) -> None:
        """None of them is left when this returns."""
        until_ms = self._clock.monotonic_ms() + STOP_MS
        running = [worker for worker in self._workers if worker.process is not None]
        for worker in running:
            assert worker.process is not None
            worker.process.terminate()
        while any(worker.process is not None for worker in running):
            self._listen(_stopped)
            for worker in running:
                if worker.process is not None and self._clock.monotonic_ms() > until_ms:
                    logger.error("worker %d has not stopped within %d s: killed", worker.number, STOP_MS // 1_000)
                    worker.process.kill()
        self._selector.close()


def _stopped(worker: _Worker, code: int) -> None:
    # It may not have come as far as to take the signal for a wish.
    worker.code = DONE if code == -signal.SIGTERM else worker.code


class Parent:
    """A worker's side of the link. Implements `turn.Watcher`."""

    def __init__(self, descriptor: int) -> None:
        """Stops this process, as SIGTERM does, when the parent's end closes."""
        self._link = socket.socket(fileno=descriptor)
        threading.Thread(target=self._watch, name="parent", daemon=True).start()

    def tell(self, progress: Progress) -> None:
        """See `Watcher`. A parent that is gone is `_watch`'s business, and one that is busy hears the next word."""
        with suppress(OSError):
            self._link.send(msgspec.json.encode(progress), socket.MSG_DONTWAIT)

    def _watch(self) -> None:
        # A parent that died before it read our word is an error here, and as dead.
        with suppress(OSError):
            while self._link.recv(1):
                pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(STOP_MS / 1_000)
        os.kill(os.getpid(), signal.SIGKILL)
