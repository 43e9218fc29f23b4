"""`interfaces.Tail` on Kafka: all partitions, no group, nothing written."""

from collections.abc import Callable, Iterable

from confluent_kafka import TopicPartition

from streamingcandle.interfaces import BrokerAwayError, Clock, Listener, Records, Transaction
from streamingcandle.kafka.client import KafkaSettings, reader_properties
from streamingcandle.kafka.reader import KafkaReader


class KafkaTail(KafkaReader):
    """Reads from where the listener says; the partitions are those of the first poll."""

    def __init__(self, settings: KafkaSettings, clock: Clock, is_stopping: Callable[[], bool] = lambda: False) -> None:
        """Connects in the background; nothing is asked yet. Once `is_stopping`, no wait goes on for long."""
        # Offsets that went away are told of, as to a member.
        properties = reader_properties(settings) | {"auto.offset.reset": "error"}
        super().__init__(settings, clock, is_stopping, properties)
        self.shown: list[Transaction] = []

    def poll(self, timeout_s: float, listener: Listener) -> Iterable[Records]:
        """See `interfaces.Reader`."""
        if self._listener is None:
            offsets = listener.assigned(self.partitions())
            topic = self._settings.tick_topic
            self._consumer.assign([TopicPartition(topic, number, offset) for number, offset in offsets.items()])
            self._listener = listener
            self._brokers.is_running = True
        self._brokers.admin.poll(0)
        try:
            self._brokers.check()
            self._skip_gone()
        except BrokerAwayError:
            if records := self._read(0):
                return records
            raise
        return self._read(timeout_s)

    def commit(self, transaction: Transaction) -> None:
        """Publishes nothing."""
        self.shown.append(transaction)

    def settle(self) -> None:
        """Nothing is ever in doubt."""

    def close(self) -> None:
        """See `interfaces.Publisher`."""
        self._close_clients()
