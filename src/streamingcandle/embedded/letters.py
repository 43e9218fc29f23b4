"""`letters.Letters` on the embedded store: SQLite's write lock keeps two retries apart."""

from collections.abc import Iterator, Sequence

from streamingcandle.clock import SystemClock
from streamingcandle.embedded.store import EmbeddedStore, StoredRecord
from streamingcandle.interfaces import Origin
from streamingcandle.letters import Place, Retry, mark_of, marked

READ_RECORDS_MAX = 1_000


class EmbeddedLetters:
    """The letters of one topic; a topic that no letter has made yet has none."""

    def __init__(self, store: EmbeddedStore, clock: SystemClock, *, topic: str, tick_topic: str) -> None:
        """The store is closed with it."""
        self._store = store
        self._clock = clock
        self._topic = topic
        self._tick_topic = tick_topic
        self._looked: dict[int, int] = {}
        """Up to where the caller knows the marks, and then we do."""
        self._others: set[Place] = set()

    def begin(self) -> None:
        """See `letters.Letters`; `put_back` sees what others did since."""

    def ends(self) -> dict[int, int]:
        """See `letters.Letters`."""
        count = dict(self._store.topics()).get(self._topic, 0)
        self._looked = {number: self._store.end(self._topic, number) for number in range(count)}
        return dict(self._looked)

    def read(self, ends: dict[int, int]) -> Iterator[tuple[Place, Origin]]:
        """See `letters.Letters`."""
        yield from self._between({}, ends)

    def _between(self, begins: dict[int, int], ends: dict[int, int]) -> Iterator[tuple[Place, Origin]]:
        for number, end in ends.items():
            position = begins.get(number, 0)
            while position < end:
                found = self._store.read(self._topic, number, position, min(READ_RECORDS_MAX, end - position))
                if not found:
                    break
                position = found[-1].offset + 1
                yield from ((Place(number, record.offset), _origin(record)) for record in found if record.offset < end)

    def record_at(self, topic: str, place: Place) -> Origin | None:
        """See `letters.Letters`."""
        found = self._store.read(topic, place.partition, place.offset, 1)
        return _origin(found[0]) if found and found[0].offset == place.offset else None

    def put_back(self, retries: Sequence[Retry]) -> int:
        """See `letters.Letters`."""
        with self._store.transaction():
            news = self._between(self._looked, self.ends())
            self._others |= {place for _, record in news for place in marked(record)}
            partitions, _ = self._store.topic(self._tick_topic)
            left = [retry for retry in retries if retry.letter not in self._others]
            for retry in left:
                at_ms = retry.timestamp_ms if retry.timestamp_ms >= 0 else self._clock.wall_ms()
                record = (retry.key, retry.value, at_ms, retry.headers)
                self._store.append_within(self._tick_topic, [record], retry.home(self._tick_topic, partitions))
            if left:
                value, headers = mark_of([retry.letter for retry in left])
                self._store.append_within(self._topic, [(None, value, self._clock.wall_ms(), headers)])
        return len(left)

    def close(self) -> None:
        """See `letters.Letters`."""
        self._store.close()


def _origin(record: StoredRecord) -> Origin:
    return Origin(record.key, record.value, record.timestamp_ms, record.offset, record.headers)
