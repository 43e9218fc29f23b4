"""The world of the embedded log: a folder."""

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from contract.world import Member, Published, Tick
from streamingcandle.clock import SystemClock
from streamingcandle.embedded.log import EmbeddedLog
from streamingcandle.embedded.store import EmbeddedStore
from streamingcandle.embedded.tail import EmbeddedTail
from streamingcandle.interfaces import Log, Tail

READ_RECORDS_MAX = 1_000_000


class AbandonedError(Exception):
    """Raised inside a transaction to give it up."""


class EmbeddedWorld:
    """Implements `TailWorld`."""

    topic = "ticks"
    candle_topic = "1-min-candle"
    letter_topic = "dead-letters"
    counts_open = False

    def __init__(self, folder: Path, partitions: int) -> None:
        """Make the tick topic; the others come with the first commit."""
        self.path = folder / "log.sqlite3"
        self.partitions = partitions
        self._logs: list[Log] = []
        with closing(EmbeddedStore(self.path)) as store:
            store.ensure_topic(self.topic, partitions)

    def append(self, ticks: Iterable[Tick]) -> None:
        """See `LogWorld`."""
        with closing(EmbeddedStore(self.path)) as store:
            store.append(self.topic, ticks)

    def append_aborted(self, ticks: Iterable[Tick]) -> None:
        """See `LogWorld`."""
        with suppress(AbandonedError), self.append_open(ticks):
            raise AbandonedError

    @contextmanager
    def append_open(self, ticks: Iterable[Tick]) -> Iterator[None]:
        """See `LogWorld`."""
        with closing(EmbeddedStore(self.path)) as store, store.transaction():
            store.append_within(self.topic, ticks)
            yield

    def open_log(self) -> Log:
        """See `LogWorld`."""
        store = EmbeddedStore(self.path)
        try:
            log = EmbeddedLog(store, group="group", topic=self.topic, clock=SystemClock())
        except BaseException:
            store.close()
            raise
        self._logs.append(log)
        return log

    def open_tail(self) -> Tail:
        """See `TailWorld`."""
        log = EmbeddedTail(EmbeddedStore(self.path), group="group", topic=self.topic, clock=SystemClock())
        self._logs.append(log)
        return log

    def visible(self) -> object:
        """See `TailWorld`; the group's one member is who holds its lock."""
        with closing(EmbeddedStore(self.path)) as store:
            topics, offsets = store.topics(), store.committed("group", self.topic)
        locks = {path.name: path.read_text() for path in self.path.parent.glob("*.lock")}
        return topics, {name: self.read_topic(name) for name, _ in topics}, offsets, locks

    def contend(self, first: Member) -> None:
        """See `LogWorld`; here the second is refused and `first` goes on."""
        try:
            self.open_log()
        finally:
            first.read_all()

    def read_topic(self, name: str) -> list[Published]:
        """See `LogWorld`."""
        with closing(EmbeddedStore(self.path)) as store:
            return [
                Published(number, record.key, record.value, record.headers)
                for number in range(dict(store.topics()).get(name, 0))
                for record in store.read(name, number, 0, READ_RECORDS_MAX)
            ]

    def close(self) -> None:
        """See `LogWorld`."""
        for log in self._logs:
            log.close()


class EmbeddedTailWorld(EmbeddedWorld):
    """One whose log only looks."""

    def open_log(self) -> Log:
        """See `LogWorld`."""
        return self.open_tail()
