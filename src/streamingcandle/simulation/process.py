"""A process of the pretended world: it runs only while it holds the baton, so a story goes the same way every time.

The loop blocks, so each process has a thread of its own; of all threads one runs, and when it waits says the story.
"""

import threading
from collections.abc import Callable
from random import Random

from streamingcandle.interfaces import BrokerAwayError
from streamingcandle.simulation.clock import ProcessClock, VirtualTime
from streamingcandle.simulation.events import Plan
from streamingcandle.simulation.log import Fate, SimulatedLog

RECORDS_MAX = 200
"""Records of a partition in one poll, where nothing is slow."""
CALL_MS_MAX = 40
COMMIT_MS_MAX = 120
LATE_MS_MAX = 4_000
FETCH_MS_MAX = 30


class EndedError(BaseException):
    """The process is killed: nothing in it goes on, not even what handles errors."""


class Fiber:
    """A thread that is resumed and pauses."""

    def __init__(self, body: Callable[[], None]) -> None:
        """Nothing runs yet."""
        self._body = body
        self._resumed, self._paused = threading.Lock(), threading.Lock()
        self._resumed.acquire()
        self._paused.acquire()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.is_over = False
        self.is_ending = False

    def resume(self) -> None:
        """Let it go on; returns when it pauses or is over."""
        if self._thread.ident is None:
            self._thread.start()
        self._resumed.release()
        self._paused.acquire()

    def pause(self) -> None:
        """Called from within: returns when resumed. EndedError where it is to end."""
        self._paused.release()
        self._resumed.acquire()
        if self.is_ending:
            raise EndedError

    def _run(self) -> None:
        self._resumed.acquire()
        try:
            if not self.is_ending:
                self._body()
        except EndedError:
            pass
        finally:
            self.is_over = True
            self._paused.release()


class Process:
    """One life of an instance. Implements `simulation.log.Host`."""

    def __init__(
        self,
        time: VirtualTime,
        *,
        instance: str,
        life: int,
        plan: Plan,
        rng: Random,
        on_end: Callable[["Process"], None],
        on_freeze: Callable[["Process"], None],
    ) -> None:
        """Not running yet; `on_end` is told when it runs no more, for whatever reason, `on_freeze` when it freezes."""
        self.instance = instance
        self.life = life
        self.plan = plan
        self.producer = instance
        self.identity = instance if plan.is_static else f"{instance}#{life}"
        self.clock = ProcessClock(
            time,
            booted_ms=time.now_ms - rng.randrange(1, 10**9),
            wall_error_ms=plan.wall_error_ms,
            sleep=lambda duration_ms: self.wait(duration_ms, lambda: False),
        )
        self.is_stopping = False
        self.failure: Exception | None = None
        self.log: SimulatedLog | None = None
        self.fates: list[Fate] = []
        self.records_limit = RECORDS_MAX
        self.calls = 0
        self.kill_at_call: int | None = None
        self.freeze: tuple[int, int] | None = None
        """At which call, and for how long."""
        self.frozen_until_ms = 0
        self.away_until_ms = 0
        self._time = time
        self._rng = rng
        self._on_end = on_end
        self._on_freeze = on_freeze
        self._fiber: Fiber | None = None
        self._ticket = 0
        self._is_over: Callable[[], bool] | None = None

    @property
    def is_alive(self) -> bool:
        """Whether it runs, be it frozen."""
        return self._fiber is not None and not self._fiber.is_over

    @property
    def is_frozen(self) -> bool:
        """Whether it stands still for longer than a call takes."""
        return self._time.now_ms < self.frozen_until_ms

    def is_unheard(self) -> bool:
        """Whether no sign of life reaches the brokers."""
        return self.is_frozen or self.is_away()

    def start(self, body: Callable[["Process"], None]) -> None:
        """Run from now on."""
        self._fiber = Fiber(lambda: self._guard(body))
        self._ticket += 1
        self._wake(self._ticket)

    def _guard(self, body: Callable[["Process"], None]) -> None:
        try:
            body(self)
        except Exception as error:  # noqa: BLE001 whatever it is, the story says whether it may be
            self.failure = error

    def end(self) -> None:
        """Kill it where it stands."""
        if self._fiber is not None and not self._fiber.is_over:
            self._fiber.is_ending = True
            self._ticket += 1
            self._go_on()

    def heal(self) -> None:
        """End all trouble; who is frozen goes on."""
        self.fates.clear()
        self.freeze = self.kill_at_call = None
        self.records_limit = RECORDS_MAX
        self.away_until_ms = 0
        self.clock.wall_error_ms = self.plan.wall_error_ms
        if self.is_frozen:
            self.frozen_until_ms = self._time.now_ms
            self._wake_in(1)

    def nudge(self) -> None:
        """Something happened in the world: where it waits for that, it goes on shortly."""
        if self._is_over is not None and self._is_over():
            self._is_over = None
            self._wake_in(self._rng.randint(1, FETCH_MS_MAX))

    def _wake_in(self, duration_ms: int) -> None:
        ticket = self._ticket
        self._time.at(self._time.now_ms + duration_ms, lambda: self._wake(ticket))

    def _wake(self, ticket: int) -> None:
        if ticket == self._ticket and self._fiber is not None and not self._fiber.is_over:
            self._ticket += 1
            self._is_over = None
            self._go_on()

    def _go_on(self) -> None:
        assert self._fiber is not None
        self._fiber.resume()
        if self._fiber.is_over:
            self._on_end(self)

    def _pause(self, duration_ms: int) -> None:
        assert self._fiber is not None
        self._wake_in(duration_ms)
        self._fiber.pause()

    # ---- what the log asks of its process

    def reach(self, point: str) -> None:
        """See `Host`."""
        self.calls += 1
        if self.kill_at_call is not None and self.calls >= self.kill_at_call:
            raise EndedError
        if self.freeze is not None and self.calls >= self.freeze[0]:
            duration_ms = self.freeze[1]
            self.freeze = None
            self.frozen_until_ms = self._time.now_ms + duration_ms
            self._on_freeze(self)
            self._pause(duration_ms)
        elif self.is_away() and point != "poll":
            self._be_away(point)
        elif point == "end":
            self._pause(self._rng.randint(2, COMMIT_MS_MAX))
        elif self._rng.random() < self.plan.slow_calls:
            self._pause(self._rng.randint(1, CALL_MS_MAX))

    def _be_away(self, point: str) -> None:
        if self.log is not None and self.log.listener is not None:
            raise BrokerAwayError(f"the brokers are away ({point})")
        self._pause(self.away_until_ms - self._time.now_ms)

    def is_away(self) -> bool:
        """See `Host`."""
        return self._time.now_ms < self.away_until_ms

    def wait(self, duration_ms: int, is_over: Callable[[], bool]) -> None:
        """See `Host`; a wait of no time lets the others have a turn."""
        self._is_over = is_over
        self._pause(max(1, duration_ms))

    def fate(self) -> Fate:
        """See `Host`."""
        return self.fates.pop(0) if self.fates else "lands"

    def late_ms(self) -> int:
        """See `Host`."""
        return self._time.now_ms + self._rng.randint(1, LATE_MS_MAX)

    def is_arrived(self) -> bool:
        """See `Host`."""
        return self._rng.random() < 0.5  # as likely as not

    def records_max(self) -> int:
        """See `Host`."""
        return self.records_limit
