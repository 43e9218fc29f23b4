"""`interfaces.Tail` on Kafka: all partitions, no group, nothing written."""

from collections.abc import Callable, Iterable

import msgspec
from confluent_kafka import TopicPartition

from streamingcandle.interfaces import BrokerAwayError, Clock, Listener, Records, Transaction
from streamingcandle.kafka.client import KafkaSettings, reader_properties
from streamingcandle.kafka.reader import KafkaReader

LOOK_PROPERTY = "topic.metadata.refresh.interval.ms"
"""How often a member looks for partitions added; so does a tail. Below 0: never."""


class KafkaTail(KafkaReader):
    """Reads every partition from where the listener says, those added later too."""

    def __init__(self, settings: KafkaSettings, clock: Clock, is_stopping: Callable[[], bool] = lambda: False) -> None:
        """Connects in the background; nothing is asked yet. Once `is_stopping`, no wait goes on for long."""
        # Offsets that went away are told of, as to a member.
        properties = reader_properties(settings) | {"auto.offset.reset": "error"}
        super().__init__(settings, clock, is_stopping, properties)
        self.shown: list[Transaction] = []
        self._clock = clock
        self._look_every_ms = int(properties[LOOK_PROPERTY])
        self._looked_at_ms = clock.monotonic_ms()
        self._taken: set[int] = set()

    def poll(self, timeout_s: float, listener: Listener, *, is_held: bool = False) -> Iterable[Records]:
        """See `interfaces.Reader`."""
        self._listener = listener
        self._hold(is_held=is_held)
        self._brokers.admin.poll(0)
        if self._asker is not None:
            self._asker.poll(0)
        try:
            self._brokers.check()
            self._take_over()
            self._skip_gone()
        except BrokerAwayError:
            if records := self._read(0):
                return records
            raise
        return self._read(timeout_s)

    def _take_over(self) -> None:
        """Begin where the listener says with what is not read yet: all at first, and what was added since."""
        assert self._listener is not None
        now_ms = self._clock.monotonic_ms()
        is_time = 0 <= self._look_every_ms <= now_ms - self._looked_at_ms
        if self._taken and not is_time:
            return
        if self._taken:
            self._partitions = None
        if fresh := sorted(set(self.partitions()) - self._taken):
            offsets = self._listener.assigned(fresh)
            topic = self._settings.tick_topic
            self._consumer.incremental_assign([TopicPartition(topic, n, offset) for n, offset in offsets.items()])
            self._see_paused()
            self._taken.update(fresh)
        self._looked_at_ms = now_ms
        self._brokers.is_running = True

    def commit(self, transaction: Transaction) -> None:
        """Publishes nothing."""
        self.shown.append(msgspec.structs.replace(transaction, candles=list(transaction.candles)))

    def settle(self) -> None:
        """Nothing is ever in doubt."""

    def close(self) -> None:
        """See `interfaces.Publisher`."""
        self._close_clients()


def ends_of(settings: KafkaSettings, clock: Clock, topic: str) -> dict[int, int]:
    """The offset after the last record of each partition of any topic. OutsideError, MissingTopicError."""
    reader = KafkaTail(msgspec.structs.replace(settings, tick_topic=topic), clock)
    try:
        return dict(reader.ends(reader.partitions()))
    finally:
        reader.close()
