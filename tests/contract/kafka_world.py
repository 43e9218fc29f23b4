"""The world of the Kafka log: topics and a group of their own on the session's broker."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import cast

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from broker import Broker
from contract.world import LIMIT_S, Headers, Member, Published, Tick
from streamingcandle.clock import SystemClock
from streamingcandle.interfaces import Log, Tail
from streamingcandle.kafka.client import KafkaSettings
from streamingcandle.kafka.log import KafkaLog
from streamingcandle.kafka.tail import KafkaTail


class KafkaWorld:
    """Implements `TailWorld`."""

    counts_open = True

    def __init__(self, broker: Broker, prefix: str, partitions: int) -> None:
        """Make the topics."""
        self.partitions = partitions
        self.topic = f"{prefix}-ticks"
        self.candle_topic = f"{prefix}-1-min-candle"
        self.letter_topic = f"{prefix}-dead-letters"
        self._broker = broker
        self._prefix = prefix
        self._logs: list[Log] = []
        self._feed = self._producer()
        self._group = f"{prefix}-group"
        names = [self.topic, self.candle_topic, self.letter_topic]
        self._admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        for made in self._admin.create_topics([NewTopic(name, num_partitions=partitions) for name in names]).values():
            made.result(LIMIT_S)
        self._await_leaders()

    def append(self, ticks: Iterable[Tick]) -> None:
        """See `LogWorld`."""
        self._produce(self._feed, ticks)

    def append_aborted(self, ticks: Iterable[Tick]) -> None:
        """See `LogWorld`."""
        producer = self._begun()
        self._produce(producer, ticks)
        producer.abort_transaction(LIMIT_S)

    @contextmanager
    def append_open(self, ticks: Iterable[Tick]) -> Iterator[None]:
        """See `LogWorld`."""
        producer = self._begun()
        self._produce(producer, ticks)
        yield
        producer.commit_transaction(LIMIT_S)

    def _await_leaders(self) -> None:
        """Return when the tick topic answers: a new partition has its leader some milliseconds later."""
        consumer = Consumer({"bootstrap.servers": self._broker.bootstrap, "group.id": f"{self._prefix}-reader"})
        clock = SystemClock()
        until_ms = clock.monotonic_ms() + LIMIT_S * 1_000
        waiting = [TopicPartition(self.topic, number) for number in range(self.partitions)]
        try:
            while waiting:
                try:
                    consumer.get_watermark_offsets(waiting[-1], timeout=LIMIT_S)
                except KafkaException:
                    if clock.monotonic_ms() > until_ms:
                        raise
                else:
                    waiting.pop()
        finally:
            consumer.close()

    def _begun(self) -> Producer:
        producer = self._producer(**{"transactional.id": f"{self._prefix}-feed"})
        producer.init_transactions(LIMIT_S)
        producer.begin_transaction()
        return producer

    def _producer(self, **properties: str) -> Producer:
        # Together they decide that what is given at once lies in the log at once.
        ours = {"bootstrap.servers": self._broker.bootstrap, "partitioner": "murmur2_random", "linger.ms": "0"}
        safe = {"enable.idempotence": "true", "max.in.flight.requests.per.connection": "1"}
        return Producer({**ours, **safe, **properties})

    def _produce(self, producer: Producer, ticks: Iterable[Tick]) -> None:
        for tick in ticks:
            producer.produce(self.topic, tick.value, tick.key, timestamp=tick.timestamp_ms, headers=list(tick.headers))
        assert producer.flush(LIMIT_S) == 0, "the broker did not take the ticks"

    def open_log(self) -> Log:
        """See `LogWorld`."""
        log = KafkaLog(self._settings("0"), SystemClock())
        self._logs.append(log)
        return log

    def open_tail(self) -> Tail:
        """See `TailWorld`."""
        log = KafkaTail(self._settings("cli"), SystemClock())
        self._logs.append(log)
        return log

    def _settings(self, instance: str) -> KafkaSettings:
        return KafkaSettings(
            bootstrap_servers=self._broker.bootstrap,
            group=self._group,
            tick_topic=self.topic,
            instance=f"{self._prefix}-{instance}",
        )

    def visible(self) -> object:
        """See `TailWorld`."""
        topics = [name for name in self._admin.list_topics(timeout=LIMIT_S).topics if not name.startswith("__")]
        records = {name: self.read_topic(name) for name in (self.topic, self.candle_topic, self.letter_topic)}
        groups = [one.group_id for one in self._admin.list_consumer_groups().result(LIMIT_S).valid]
        ours = [name for name in groups if name.startswith(self._prefix)]
        described = (
            [asked.result(LIMIT_S) for asked in self._admin.describe_consumer_groups(ours).values()] if ours else []
        )
        members = {
            (one.group_id, member.member_id, str(one.state)): sorted(
                p.partition for p in member.assignment.topic_partitions
            )
            for one in described
            for member in one.members
        }
        asked = self._admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(self._group)])
        found = asked[self._group].result(LIMIT_S).topic_partitions
        return (
            sorted(topics),
            records,
            sorted(ours),
            members,
            sorted((p.partition, p.offset, p.metadata) for p in found),
        )

    def contend(self, first: Member) -> None:
        """See `LogWorld`; here `first` is fenced and the second goes on."""
        Member(self.open_log()).join()
        first.poll_until(lambda: False)

    def read_topic(self, name: str) -> list[Published]:
        """See `LogWorld`."""
        properties: dict[str, str | bool] = {
            "bootstrap.servers": self._broker.bootstrap,
            "group.id": f"{self._prefix}-reader",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
        consumer = Consumer(properties)
        found: list[Published] = []
        open_partitions = set(range(self.partitions))
        clock = SystemClock()
        until_ms = clock.monotonic_ms() + LIMIT_S * 1_000
        try:
            consumer.assign([TopicPartition(name, number, 0) for number in open_partitions])
            while open_partitions:
                assert clock.monotonic_ms() < until_ms, f"{name} did not end"
                for message in consumer.consume(1_000, 0.1):
                    number = message.partition()
                    error = message.error()
                    assert number is not None
                    if error is None:
                        headers = cast("Headers", message.headers() or ())
                        found.append(Published(number, message.key(), message.value(), headers))
                    else:
                        assert error.code() == KafkaError._PARTITION_EOF, error  # noqa: SLF001 - no other name for it
                        open_partitions.discard(number)
        finally:
            consumer.close()
        return sorted(found, key=lambda record: record.partition)

    def close(self) -> None:
        """See `LogWorld`."""
        for log in self._logs:
            log.close()


class KafkaTailWorld(KafkaWorld):
    """One whose log only looks."""

    def open_log(self) -> Log:
        """See `LogWorld`."""
        return self.open_tail()
