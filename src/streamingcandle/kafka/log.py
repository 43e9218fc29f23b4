"""`interfaces.Log` on Kafka: one consumer of the group, one transactional producer, one admin client.

One thread, one order: poll (rebalances are told of here), then at most one transaction over what is
assigned now, with no poll in between. Brokers check the member and its epoch, not the partition: a book
folded under a former assignment must never be published, and so a revoked partition is dropped at once.
"""

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
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

from streamingcandle.errors import MissingTopicError, OutsideError, OwnedError
from streamingcandle.interfaces import (
    BrokerAwayError,
    Clock,
    Committed,
    InDoubtError,
    Listener,
    Origin,
    Records,
    Transaction,
)
from streamingcandle.kafka.brokers import ANSWER_TIMEOUT_S, CALL_TIMEOUT_S, PASSING, Brokers
from streamingcandle.kafka.client import (
    KafkaSettings,
    consumer_properties,
    new_client,
    reader_properties,
)
from streamingcandle.kafka.transactions import Transactions

logger = logging.getLogger(__name__)

POLL_RECORDS_MAX = 10_000
"""Records of one poll: about 10 ms of folding, so a stop and a due window never wait for long."""
REJOIN_SUFFIX = "-rejoin"


class KafkaLog:
    """A member of the group; joins at the first poll."""

    def __init__(self, settings: KafkaSettings, clock: Clock, is_stopping: Callable[[], bool] = lambda: False) -> None:
        """Connects in the background; nothing is asked yet. Once `is_stopping`, no wait goes on for long."""
        self._settings = settings
        self._brokers = Brokers(settings, clock, is_stopping)
        self._consumer = self._new_consumer()
        self._transactions = Transactions(settings, clock, self._brokers)
        # Not the member: what that asks the coordinator waits behind its own request to join, which the broker answers
        # when the last member has come, or a silent one's session is over. Nor an admin client: told that the
        # coordinator is another one now, it ends the process (docs/decisions/0005).
        self._asker: Consumer | None = None
        self._listener: Listener | None = None
        self._topic_id: str | None = None
        self._partitions: list[int] | None = None
        self._untaken: set[int] = set()
        """Ours by the group's word, and not taken over yet."""
        self._gone: dict[int, tuple[int, str]] = {}
        """Where records that we were to read are no longer there, and what the client says of it."""
        self._is_subscribed = self._is_fenced = False
        self._is_shared_out = self._is_closing = False
        self._forgiven_losses = 0
        self.has_share = False
        """Whether the group has told us our partitions, be it none. (KIP-848 brokers do not tell of none.)"""

    def _new_consumer(self) -> Consumer:
        return new_client(Consumer, self._settings, self._brokers.watched(consumer_properties(self._settings)))

    # ---- reading ----

    def poll(self, timeout_s: float, listener: Listener) -> Iterable[Records]:
        """See `interfaces.Reader`."""
        self._listener = listener
        if self._is_fenced:
            self._join_anew()
        if not self._is_subscribed:
            self._subscribe([self._settings.tick_topic])
            self._is_subscribed = self._brokers.is_running = True
        self._brokers.admin.poll(0)
        self._transactions.serve()
        if self._asker is not None:
            self._asker.poll(0)
        if self._brokers.is_doubtful:
            if records := self._read(0):
                return records
            self._brokers.check()
        try:
            self._take_over()
            self._skip_gone()
            if not self._is_shared_out and self._consumer.assignment():
                self._see_shared_out()
        except BrokerAwayError:
            # One partition's leader may be away alone: the others go on, and the group keeps us.
            if records := self._read(0):
                return records
            raise
        return self._read(timeout_s)

    def _join_anew(self) -> None:
        """What we still asked in our old name, when our session had ended meanwhile, fences the name itself."""
        logger.warning("fenced as the brokers came back; joining the group anew")
        self._forgiven_losses = self._brokers.losses
        self._close_consumer()
        self._untaken.clear()
        self._gone.clear()
        self._consumer = self._new_consumer()
        self._is_subscribed = self._is_fenced = self._is_shared_out = False

    def _read(self, timeout_s: float) -> list[Records]:
        first = self._consumer.poll(timeout_s)
        if first is None:
            return []
        messages = [first, *self._consumer.consume(POLL_RECORDS_MAX - 1, 0)]
        return [
            records
            for number, run in groupby(messages, Message.partition)
            for records in self._records(number, list(run))
        ]

    def _subscribe(self, topics: list[str]) -> None:
        self._consumer.subscribe(topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)

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
            # A client that outlives this question unanswered ends the process when the coordinator is back
            # (librdkafka issue 3663).
            admin = self._brokers.new_admin()
            try:
                return admin.describe_consumer_groups([group], request_timeout=CALL_TIMEOUT_S)[group].result(
                    ANSWER_TIMEOUT_S
                )
            finally:
                del admin

        described = self._brokers.ask(f"group {group}", describe)
        if described.state != ConsumerGroupState.STABLE:
            return
        owned = {p.partition for member in described.members for p in member.assignment.topic_partitions}
        nobodys = sorted(set(self.partitions()) - owned)
        self._is_shared_out = True
        if nobodys:
            logger.info("%s: partitions %s are nobody's: rejoining", topic, nobodys)
            self._subscribe([topic, f"{topic}{REJOIN_SUFFIX}"])

    def _keyless(self, messages: list[Message]) -> list[int]:
        """Where all is in one partition a key says nothing."""
        if self._partitions is not None and len(self._partitions) == 1:
            return []
        return [index for index, message in enumerate(messages) if message.key() is None]

    def _position_of(self, message: Message) -> int:
        """The position an end-of-partition mark tells; anything else is the world's failure."""
        error = message.error()
        assert error is not None
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the client's public constant
            return message.offset() or 0
        # A fenced static member is told so in words only.
        is_fatal = error.fatal() or error.code() == KafkaError._FATAL  # noqa: SLF001
        if error.code() in (KafkaError.FENCED_INSTANCE_ID, KafkaError._FENCED) or (  # noqa: SLF001
            is_fatal and "fenced" in error.str().lower()
        ):
            if not self._brokers.is_shaken or self._brokers.losses == self._forgiven_losses:
                raise self._owned(error)
            self._is_fenced = True
            return 0
        if is_fatal:
            message_text = f"{self._settings.tick_topic}: the consumer failed for good: {error.str()}; start again"
            raise OutsideError(message_text)
        if error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001
            self._gone[message.partition() or 0] = (message.offset() or 0, error.str())
            return 0
        if error.code() in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED):
            message_text = (
                f"{self._settings.tick_topic}: not allowed to read: {error.str()}; grant READ on topic and group"
            )
            raise OutsideError(message_text)
        if message.topic() != f"{self._settings.tick_topic}{REJOIN_SUFFIX}":
            logger.warning("%s: %s; waiting for the broker", self._settings.tick_topic, error.str())
        return 0

    def _skip_gone(self) -> None:
        """Go on at the first offset there is; where the log ends before ours it was cut, and a restart sorts it out."""
        assert self._listener is not None
        topic = self._settings.tick_topic
        for number, (offset, reason) in list(self._gone.items()):
            begin = self.begins([number])[number]
            if begin <= offset:
                message = (
                    f"{topic}[{number}]@{offset}: no such offset: {reason}; start again to go on from what is there"
                )
                raise OutsideError(message)
            self._listener.gone(number, begin)
            self._consumer.incremental_unassign([TopicPartition(topic, number)])
            self._consumer.incremental_assign([TopicPartition(topic, number, begin)])
            del self._gone[number]

    def _on_assign(self, consumer: Consumer, assigned: list[TopicPartition]) -> None:
        if self._is_closing:
            consumer.incremental_assign([])  # leaving: too late to begin with anything
            return
        self.has_share = True
        self._untaken |= {partition.partition for partition in assigned}
        try:
            self._take_over()
        except BrokerAwayError:
            # Without a word from us the client would begin to read.
            consumer.incremental_assign([])

    def _take_over(self) -> None:
        """Settle what a former life of ours left open, then begin where the listener says."""
        assert self._listener is not None
        if not self._untaken:
            return
        self._partitions = None  # some may have been added
        self._transactions.open()
        offsets = self._listener.assigned(sorted(self._untaken))
        topic = self._settings.tick_topic
        taken = [TopicPartition(topic, number, offset) for number, offset in offsets.items()]
        self._consumer.incremental_assign(taken)
        # The client remembers a pause over a loss: one that a doubt had paused would never be read again.
        self._consumer.resume(taken)
        self._untaken.clear()

    def _on_lost(self, consumer: Consumer, lost: list[TopicPartition]) -> None:
        """Our session is over: the coordinator has not heard of us, or we not of it."""
        self._brokers.suspect()
        self._on_revoke(consumer, lost)

    def _on_revoke(self, consumer: Consumer, revoked: list[TopicPartition]) -> None:
        assert self._listener is not None
        taken = [partition for partition in revoked if partition.partition not in self._untaken]
        for partition in revoked:
            self._untaken.discard(partition.partition)
            self._gone.pop(partition.partition, None)
        if taken:
            self._listener.revoked([partition.partition for partition in taken])
        consumer.incremental_unassign(taken)

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
            answers = self._brokers.admin.list_offsets(
                wanted, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=CALL_TIMEOUT_S
            )
            return {
                partition.partition: answer.result(ANSWER_TIMEOUT_S).offset for partition, answer in answers.items()
            }

        return self._brokers.ask(f"offsets of {topic}", ask)

    def offset_at(self, partition: int, timestamp_ms: int) -> int:
        """See `interfaces.Reader`."""
        wanted = [TopicPartition(self._settings.tick_topic, partition, max(0, timestamp_ms))]
        found = self._brokers.ask(
            f"offset of a time in {self._settings.tick_topic}[{partition}]",
            lambda: self._consumer.offsets_for_times(wanted, timeout=CALL_TIMEOUT_S),
        )[0]
        return found.offset if found.offset >= 0 else self.ends([partition])[partition]

    def record_at(self, partition: int, offset: int) -> Origin | None:
        """See `interfaces.Reader`."""
        topic = self._settings.tick_topic
        reader = new_client(Consumer, self._settings, self._brokers.watched(reader_properties(self._settings)))

        def ask() -> Message:
            message = reader.poll(CALL_TIMEOUT_S)
            error = KafkaError(KafkaError._TIMED_OUT) if message is None else message.error()  # noqa: SLF001
            if message is None or (error is not None and error.code() in PASSING):
                raise KafkaException(error)
            return message

        try:
            reader.assign([TopicPartition(topic, partition, offset)])
            message = self._brokers.ask(f"record {topic}[{partition}]@{offset}", ask)
        finally:
            reader.close()
        if message.error() is not None or message.offset() != offset:
            return None
        return _origins([message])(0)

    def partitions(self) -> Sequence[int]:
        """See `interfaces.Reader`; OutsideError where the topic is missing."""
        if self._partitions is None:
            name = self._settings.tick_topic
            metadata = self._brokers.ask(
                "topics", lambda: self._brokers.admin.list_topics(name, timeout=CALL_TIMEOUT_S)
            )
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

            def ask() -> str:
                answers = self._brokers.admin.describe_topics(TopicCollection([name]), request_timeout=CALL_TIMEOUT_S)
                return str(answers[name].result(ANSWER_TIMEOUT_S).topic_id)

            self._topic_id = self._brokers.ask(f"topic {name}", ask)
        return self._topic_id

    # ---- publishing ----

    def commit(self, transaction: Transaction) -> None:
        """See `interfaces.Publisher`."""
        try:
            self._transactions.commit(
                transaction, topic=self._settings.tick_topic, group=self._consumer.consumer_group_metadata
            )
        except InDoubtError:
            self._transactions.discard()
            self._consumer.pause(self._consumer.assignment())
            raise

    def settle(self) -> None:
        """A new producer with the same id: the broker ends the old one's transaction, either way, first."""
        self._transactions.open()
        self._consumer.resume(self._consumer.assignment())

    def committed(self, partitions: Iterable[int]) -> Mapping[int, Committed | None]:
        """See `interfaces.Publisher`."""
        wanted = [TopicPartition(self._settings.tick_topic, number) for number in partitions]
        if not wanted:
            return {}
        group = self._settings.group

        def ask() -> list[TopicPartition]:
            if self._asker is None:
                self._asker = new_client(Consumer, self._settings, reader_properties(self._settings, group=group))
            return self._asker.committed(wanted, timeout=CALL_TIMEOUT_S)

        found = self._brokers.ask(f"committed offsets of group {group}", ask)
        return {
            partition.partition: None
            if partition.offset == OFFSET_INVALID
            else Committed(partition.offset, partition.metadata or "")
            for partition in found
        }

    def close(self) -> None:
        """See `interfaces.Publisher`."""
        self._transactions.discard()
        self._close_consumer()
        if self._asker is not None:
            self._asker.close()

    def _close_consumer(self) -> None:
        self._is_closing = True
        self._consumer.close()
        self._is_closing = False

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
