"""What the client refuses to take ends the transaction; it is not offered again for ever."""

from collections.abc import Sequence

import pytest
from confluent_kafka import Producer

from broker import Broker
from streamingcandle.clock import SystemClock
from streamingcandle.interfaces import Committed, NotCommittedError, Transaction
from streamingcandle.kafka.client import KafkaSettings
from streamingcandle.kafka.log import KafkaLog
from streamingcandle.kafka.topics import ensure_topics

RECORD_BYTES_MAX = 1_000


class _Nobody:
    """A listener that takes what it gets."""

    def assigned(self, partitions: Sequence[int]) -> dict[int, int]:
        return dict.fromkeys(partitions, 0)

    def revoked(self, partitions: Sequence[int]) -> None:
        pass

    def gone(self, partition: int, offset: int) -> None:
        pass


@pytest.mark.timeout(90)
def test_a_record_over_the_clients_limit(broker: Broker, topic_prefix: str) -> None:
    topic = f"{topic_prefix}-ticks"
    settings = KafkaSettings(
        bootstrap_servers=broker.bootstrap,
        group=topic_prefix,
        tick_topic=topic,
        instance=f"{topic_prefix}-0",
        properties={"message.max.bytes": str(RECORD_BYTES_MAX)},
    )
    ensure_topics(settings, [topic, f"{topic_prefix}-candles"], partitions=1, replication=1)
    feed = Producer({"bootstrap.servers": broker.bootstrap})
    feed.produce(topic, b"tick")
    assert feed.flush(30) == 0
    log = KafkaLog(settings, SystemClock())
    while not list(log.poll(1, _Nobody())):
        pass

    def transaction(size: int) -> Transaction:
        records = [(b"N:1", b"x" * size)] * 3
        return Transaction(candles=[(f"{topic_prefix}-candles", records)], letters=[], offsets={0: Committed(1, "")})

    with pytest.raises(NotCommittedError, match="too large"):
        log.commit(transaction(2 * RECORD_BYTES_MAX))
    log.commit(transaction(RECORD_BYTES_MAX // 2))
    assert log.committed([0]) == {0: Committed(1, "")}
    log.close()
