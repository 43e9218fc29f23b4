"""`interfaces.Log` on Kafka: one consumer of the group, one transactional producer, one admin client.

One thread, one order: poll (rebalances are told of here), then at most one transaction over what is
assigned now, with no poll in between. Brokers check the member and its epoch, not the partition: a book
folded under a former assignment must never be published, and so a revoked partition is dropped at once.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, cast

from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    ConsumerGroupState,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ConfigResource, OffsetSpec  # type: ignore[attr-defined]

from streamingcandle.errors import MissingTopicError, OutsideError, OwnedError
from streamingcandle.interfaces import (
    Clock,
    Committed,
    InDoubtError,
    Letter,
    Listener,
    NotCommittedError,
    Origin,
    Records,
    Transaction,
)
from streamingcandle.kafka.client import (
    KafkaSettings,
    admin_properties,
    consumer_properties,
    new_client,
    reader_properties,
    transaction_properties,
)

logger = logging.getLogger(__name__)

POLL_RECORDS_MAX = 10_000
"""Records of one poll: about 10 ms of folding, so a stop and a due window never wait for long."""
PRODUCE_RECORDS_MAX = 10_000
"""Records handed to the client at once; it copies them before it answers."""
CALL_TIMEOUT_S = 10.0
"""One question to a broker."""
RETRY_MS = 100
REJOIN_SUFFIX = "-rejoin"
RECORD_BYTES_MAX = 1_048_588
"""Kafka's default `max.message.bytes`."""
RECORD_OVERHEAD_BYTES = 2_000
"""What a batch of one record and the two headers of a cut take beside key, value and headers."""
PASSING = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError._TRANSPORT,  # noqa: SLF001 - the client's public constants
        KafkaError._TIMED_OUT,  # noqa: SLF001
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
        KafkaError._WAIT_COORD,  # noqa: SLF001
    }
)
"""A leader or a coordinator on the move, a broker away for a moment: the question is asked again."""
COMMIT_TIMEOUT_MS = 30_000
"""How long a retriable commit is asked again before it counts as in doubt."""


class KafkaLog:
    """A member of the group; joins at the first poll."""

    def __init__(self, settings: KafkaSettings, clock: Clock) -> None:
        """Connects in the background; nothing is asked yet."""
        self._settings = settings
        self._clock = clock
        self._consumer = new_client(Consumer, settings, consumer_properties(settings), logger)
        self._admin = new_client(AdminClient, settings, admin_properties(settings), logger)
        self._producer: Producer | None = None
        self._listener: Listener | None = None
        self._topic_id: str | None = None
        self._partitions: list[int] | None = None
        self._limits: dict[str, int] = {}
        self._is_subscribed = False
        self._is_shared_out = False

    # ---- reading ----

    def poll(self, timeout_s: float, listener: Listener) -> Iterable[Records]:
        """See `interfaces.Reader`."""
        self._listener = listener
        if not self._is_subscribed:
            self._subscribe([self._settings.tick_topic])
            self._is_subscribed = True
        first = self._consumer.poll(timeout_s)
        if not self._is_shared_out and self._consumer.assignment():
            self._see_shared_out()
        if first is None:
            return []
        messages = [first, *self._consumer.consume(POLL_RECORDS_MAX - 1, 0)]
        return [
            records
            for number, run in groupby(messages, Message.partition)
            for records in self._records(number, list(run))
        ]

    def _subscribe(self, topics: list[str]) -> None:
        self._consumer.subscribe(topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke)

    def _records(self, number: int | None, messages: list[Message]) -> list[Records]:
        """The records of one partition's run; marks of its end become positions."""
        marks = [message for message in messages if message.error() is not None]
        position = 0
        for message in marks:
            position = max(position, self._position_of(message))
        if marks:
            messages = [message for message in messages if message.error() is None]
        if number is None or number < 0 or not (messages or position):
            return []
        offsets = [message.offset() or 0 for message in messages]
        return [
            Records(
                partition=number,
                values=[message.value() for message in messages],
                timestamps_ms=[message.timestamp()[1] for message in messages],
                offsets=offsets,
                next_offset=max(position, offsets[-1] + 1 if offsets else 0),
                keyless=self._keyless(messages),
                origin=_origins(messages),
            )
        ]

    def _see_shared_out(self) -> None:
        """See that every partition is somebody's.

        A static member that comes back gets what it had: partitions added while it was away are nobody's, and the
        client sees no change to rejoin for. Another name in the subscription, of a topic that is not there, makes it.
        """
        topic, group = self._settings.tick_topic, self._settings.group

        def describe() -> Any:  # noqa: ANN401 - the client's own types
            return self._admin.describe_consumer_groups([group], request_timeout=CALL_TIMEOUT_S)[group].result()

        described = self._ask(f"group {group}", describe)
        if described.state != ConsumerGroupState.STABLE:
            return
        owned = {p.partition for member in described.members for p in member.assignment.topic_partitions}
        self._is_shared_out = owned >= set(self.partitions())
        if not self._is_shared_out:
            logger.info("%s: partitions %s are nobody's: rejoining", topic, sorted(set(self.partitions()) - owned))
            self._is_shared_out = True
            self._subscribe([topic, f"{topic}{REJOIN_SUFFIX}"])

    def _keyless(self, messages: list[Message]) -> list[int]:
        """Where all is in one partition a key says nothing."""
        if len(self.partitions()) == 1:
            return []
        return [index for index, message in enumerate(messages) if message.key() is None]

    def _position_of(self, message: Message) -> int:
        """The position an end-of-partition mark tells; anything else is the world's failure."""
        error = message.error()
        assert error is not None
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the client's public constant
            return message.offset() or 0
        if error.code() in (KafkaError.FENCED_INSTANCE_ID, KafkaError._FENCED):  # noqa: SLF001
            raise self._owned(error)
        if error.fatal() or error.code() == KafkaError._FATAL:  # noqa: SLF001
            # A fenced static member is told so in words only.
            if "fenced" in error.str().lower():
                raise self._owned(error)
            message_text = f"{self._settings.tick_topic}: the consumer failed for good: {error.str()}; start again"
            raise OutsideError(message_text)
        if error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001
            return self._skip_gone(message.partition() or 0, message.offset() or 0, error)
        if error.code() in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED):
            message_text = (
                f"{self._settings.tick_topic}: not allowed to read: {error.str()}; grant READ on topic and group"
            )
            raise OutsideError(message_text)
        if message.topic() != f"{self._settings.tick_topic}{REJOIN_SUFFIX}":
            logger.warning("%s: %s; waiting for the broker", self._settings.tick_topic, error.str())
        return 0

    def _skip_gone(self, number: int, offset: int, error: KafkaError) -> int:
        """Go on at the first offset there is; where the log ends before ours it was cut, and a restart sorts it out."""
        topic = self._settings.tick_topic
        begin = self.begins([number])[number]
        if begin <= offset:
            message = (
                f"{topic}[{number}]@{offset}: no such offset: {error.str()}; start again to go on from what is there"
            )
            raise OutsideError(message)
        assert self._listener is not None
        self._listener.gone(number, begin)
        self._consumer.incremental_unassign([TopicPartition(topic, number)])
        self._consumer.incremental_assign([TopicPartition(topic, number, begin)])
        return begin

    def _on_assign(self, consumer: Consumer, assigned: list[TopicPartition]) -> None:
        assert self._listener is not None
        if not assigned:
            return
        self._partitions = None  # some may have been added
        offsets = self._listener.assigned([partition.partition for partition in assigned])
        topic = self._settings.tick_topic
        consumer.incremental_assign([TopicPartition(topic, number, offset) for number, offset in offsets.items()])

    def _on_revoke(self, consumer: Consumer, revoked: list[TopicPartition]) -> None:
        assert self._listener is not None
        if revoked:
            self._listener.revoked([partition.partition for partition in revoked])
            consumer.incremental_unassign(revoked)

    def ends(self, partitions: Iterable[int]) -> Mapping[int, int]:
        """See `interfaces.Reader`; high watermarks, since ticks of open transactions are still to come."""
        return self._list_offsets(partitions, OffsetSpec.latest())  # type: ignore[no-untyped-call]

    def begins(self, partitions: Iterable[int]) -> Mapping[int, int]:
        """See `interfaces.Reader`."""
        return self._list_offsets(partitions, OffsetSpec.earliest())  # type: ignore[no-untyped-call]

    def _list_offsets(self, partitions: Iterable[int], spec: OffsetSpec) -> Mapping[int, int]:
        topic = self._settings.tick_topic
        wanted = {TopicPartition(topic, number): spec for number in partitions}
        if not wanted:
            return {}

        def ask() -> Mapping[int, int]:
            answers = self._admin.list_offsets(
                wanted, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=CALL_TIMEOUT_S
            )
            return {partition.partition: answer.result().offset for partition, answer in answers.items()}

        return cast("Mapping[int, int]", self._ask(f"offsets of {topic}", ask))

    def offset_at(self, partition: int, timestamp_ms: int) -> int:
        """See `interfaces.Reader`."""
        wanted = [TopicPartition(self._settings.tick_topic, partition, max(0, timestamp_ms))]
        found = self._ask(
            f"offset of a time in {self._settings.tick_topic}[{partition}]",
            lambda: self._consumer.offsets_for_times(wanted, timeout=CALL_TIMEOUT_S),
        )[0]
        return found.offset if found.offset >= 0 else self.ends([partition])[partition]

    def record_at(self, partition: int, offset: int) -> Origin | None:
        """See `interfaces.Reader`."""
        reader = new_client(Consumer, self._settings, reader_properties(self._settings), logger)
        try:
            reader.assign([TopicPartition(self._settings.tick_topic, partition, offset)])
            message = reader.poll(CALL_TIMEOUT_S)
        finally:
            reader.close()
        if message is None or message.error() is not None or message.offset() != offset:
            return None
        return _origins([message])(0)

    def partitions(self) -> Sequence[int]:
        """See `interfaces.Reader`; OutsideError where the topic is missing."""
        if self._partitions is None:
            name = self._settings.tick_topic
            metadata = self._ask("topics", lambda: self._admin.list_topics(name, timeout=CALL_TIMEOUT_S))
            topic = metadata.topics[name]
            if topic.error is not None or not topic.partitions:
                message = (
                    f"topic {name}: {topic.error or 'no partitions'}; make it with `streamingcandle topics ensure`"
                )
                raise MissingTopicError(message)
            self._partitions = sorted(topic.partitions)
        return self._partitions

    def topic_id(self) -> str:
        """See `interfaces.Publisher`."""
        if self._topic_id is None:
            name = self._settings.tick_topic
            answer = self._admin.describe_topics(TopicCollection([name]), request_timeout=CALL_TIMEOUT_S)[name]
            self._topic_id = str(self._ask(f"topic {name}", answer.result).topic_id)
        return self._topic_id

    # ---- publishing ----

    def commit(self, transaction: Transaction) -> None:
        """See `interfaces.Publisher`."""
        producer = self._producer or self._open_producer()
        try:
            producer.begin_transaction()
            for topic, records in transaction.candles:
                _produce(producer, topic, records)
            for letter in transaction.letters:
                _produce_letter(producer, cut(letter, self._record_bytes_max(letter.topic)))
            offsets = [
                TopicPartition(self._settings.tick_topic, number, committed.offset, metadata=committed.metadata)
                for number, committed in transaction.offsets.items()
            ]
            group = self._consumer.consumer_group_metadata()
            self._again(lambda: producer.send_offsets_to_transaction(offsets, group, CALL_TIMEOUT_S))
            producer.flush(CALL_TIMEOUT_S)
        except KafkaException as error:
            self._abort(producer, error)
        try:
            self._again(lambda: producer.commit_transaction(CALL_TIMEOUT_S))
        except KafkaException as error:
            if error.args[0].txn_requires_abort():
                self._abort(producer, error)
            raise InDoubtError(error.args[0].str()) from error

    def _record_bytes_max(self, topic: str) -> int:
        """The topic's own limit; Kafka's default where we may not ask."""
        if topic not in self._limits:
            resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
            try:
                config = self._admin.describe_configs([resource], request_timeout=CALL_TIMEOUT_S)[resource].result()
                self._limits[topic] = int(config["max.message.bytes"].value)
            except KafkaException as error:
                logger.warning("limit of topic %s: %s; taken as %d", topic, error.args[0].str(), RECORD_BYTES_MAX)
                self._limits[topic] = RECORD_BYTES_MAX
        return self._limits[topic]

    def _again(self, call: Callable[[], object]) -> None:
        """Call until it succeeds or fails for good; a retriable answer says that nothing is decided."""
        until_ms = self._clock.monotonic_ms() + COMMIT_TIMEOUT_MS
        while True:
            try:
                call()
            except KafkaException as error:
                if not error.args[0].retriable() or self._clock.monotonic_ms() > until_ms:
                    raise
            else:
                return

    def _abort(self, producer: Producer, error: KafkaException) -> None:
        """Raise what the failure means: certainly not committed, or in doubt."""
        cause: KafkaError = error.args[0]
        if cause.fatal():
            raise InDoubtError(cause.str()) from error
        try:
            self._again(lambda: producer.abort_transaction(CALL_TIMEOUT_S))
        except KafkaException as abort_error:
            raise InDoubtError(f"{cause.str()}; and the abort: {abort_error.args[0].str()}") from abort_error
        raise NotCommittedError(cause.str()) from error

    def settle(self) -> None:
        """A new producer with the same id: the broker ends the old one's transaction, either way, first."""
        self._producer = None
        self._open_producer()

    def _open_producer(self) -> Producer:
        producer = new_client(Producer, self._settings, transaction_properties(self._settings), logger)
        try:
            self._again(lambda: producer.init_transactions(CALL_TIMEOUT_S))
        except KafkaException as error:
            message = f"transactional id {self._settings.instance}: {error.args[0].str()}; is the broker reachable?"
            raise OutsideError(message) from error
        self._producer = producer
        return producer

    def committed(self, partitions: Iterable[int]) -> Mapping[int, Committed | None]:
        """See `interfaces.Publisher`."""
        wanted = [TopicPartition(self._settings.tick_topic, number) for number in partitions]
        if not wanted:
            return {}
        name = f"committed offsets of group {self._settings.group}"
        found = self._ask(name, lambda: self._consumer.committed(wanted, timeout=CALL_TIMEOUT_S))
        return {
            partition.partition: None
            if partition.offset == OFFSET_INVALID
            else Committed(partition.offset, partition.metadata or "")
            for partition in found
        }

    def close(self) -> None:
        """See `interfaces.Publisher`."""
        self._producer = None
        self._consumer.close()

    def _ask(self, what: str, call: Callable[[], Any]) -> Any:  # noqa: ANN401 - the client's own types
        until_ms = self._clock.monotonic_ms() + self._settings.ask_ms
        while True:
            try:
                return call()
            except KafkaException as error:
                cause = error.args[0]
                if cause.code() not in PASSING or self._clock.monotonic_ms() > until_ms:
                    message = f"{what} at {self._settings.bootstrap_servers}: {cause.str()}; is the broker up?"
                    raise OutsideError(message) from error
                self._clock.sleep_ms(RETRY_MS)

    def _owned(self, error: KafkaError) -> OwnedError:
        message = (
            f"instance {self._settings.instance}: another process has taken its place in group "
            f"{self._settings.group}: {error.str()}; stop one of the two or give it another --instance"
        )
        return OwnedError(message)


def _origins(messages: list[Message]) -> Callable[[int], Origin]:
    def origin(index: int) -> Origin:
        message = messages[index]
        headers = cast("list[tuple[str, bytes | None]]", message.headers() or [])
        return Origin(message.key(), message.value(), message.timestamp()[1], message.offset() or 0, headers)

    return origin


def _produce(producer: Producer, topic: str, records: Sequence[tuple[bytes, bytes]]) -> None:
    """Hand records to the client; where its queue is full, wait for it to send some."""
    for start in range(0, len(records), PRODUCE_RECORDS_MAX):
        batch = [{"key": key, "value": value} for key, value in records[start : start + PRODUCE_RECORDS_MAX]]
        while batch:
            try:
                queued = producer.produce_batch(topic, batch)
            except BufferError:
                queued = 0
            if queued == len(batch):
                break
            failed = [message for message in batch if queued == 0 or "_error" in message]
            batch = [{"key": message["key"], "value": message["value"]} for message in failed]
            producer.poll(0.1)


def cut(letter: Letter, limit_bytes: int) -> Letter:
    """The letter itself, or where it is over the topic's limit its beginning, full length and SHA-256 (§1)."""
    value = letter.value or b""
    beside_bytes = len(letter.key or b"") + sum(len(name) + len(text or b"") for name, text in letter.headers)
    room_bytes = limit_bytes - beside_bytes - RECORD_OVERHEAD_BYTES
    if len(value) <= room_bytes:
        return letter
    headers = [
        *letter.headers,
        ("source.length", str(len(value)).encode()),
        ("source.sha256", hashlib.sha256(value).hexdigest().encode()),
    ]
    return Letter(letter.topic, letter.key, value[: max(0, room_bytes)], headers)


def _produce_letter(producer: Producer, letter: Letter) -> None:
    while True:
        try:
            producer.produce(letter.topic, letter.value, letter.key, headers=list(letter.headers))
        except BufferError:
            producer.poll(0.1)
        else:
            return
