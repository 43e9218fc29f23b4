"""`interfaces.Log` on Kafka: one consumer of the group, one transactional producer, one admin client.

One thread, one order: poll (rebalances are told of here), then at most one transaction over what is
assigned now, with no poll in between. Brokers check the member and its epoch, not the partition: a book
folded under a former assignment must never be published, and so a revoked partition is dropped at once.
"""

import logging
from collections.abc import Callable, Iterable
from typing import Any

from confluent_kafka import Consumer, ConsumerGroupState, KafkaError, Message, TopicPartition

from streamingcandle.errors import OwnedError
from streamingcandle.interfaces import BrokerAwayError, Clock, InDoubtError, Listener, Records, Transaction
from streamingcandle.kafka.brokers import ANSWER_TIMEOUT_S, CALL_TIMEOUT_S
from streamingcandle.kafka.client import KafkaSettings, consumer_properties
from streamingcandle.kafka.reader import KafkaReader, is_fatal
from streamingcandle.kafka.transactions import Transactions

logger = logging.getLogger(__name__)

REJOIN_SUFFIX = "-rejoin"


class KafkaLog(KafkaReader):
    """A member of the group; joins at the first poll."""

    def __init__(self, settings: KafkaSettings, clock: Clock, is_stopping: Callable[[], bool] = lambda: False) -> None:
        """Connects in the background; nothing is asked yet. Once `is_stopping`, no wait goes on for long."""
        super().__init__(settings, clock, is_stopping, consumer_properties(settings))
        self._transactions = Transactions(settings, clock, self._brokers)
        self._untaken: set[int] = set()
        """Ours by the group's word, and not taken over yet."""
        self._is_subscribed = self._is_fenced = False
        self._is_shared_out = self._is_closing = False
        self._forgiven_losses = 0
        self._is_told = False
        """Whether the group has told us our partitions, be it none. (KIP-848 brokers do not tell of none.)"""

    @property
    def has_share(self) -> bool:
        """Whether the group has told us our partitions, be it none, and each of them is taken over."""
        return self._is_told and not self._untaken

    # ---- reading ----

    def poll(self, timeout_s: float, listener: Listener, *, is_held: bool = False) -> Iterable[Records]:
        """See `interfaces.Reader`."""
        self._listener = listener
        self._hold(is_held=is_held)
        if self._is_fenced:
            self._join_anew()
        if not self._is_subscribed:
            self._brokers.check_rights()
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
        self._doubtful.clear()
        self._gone.clear()
        self._consumer = self._new_consumer()
        self._is_subscribed = self._is_fenced = self._is_shared_out = False

    def _subscribe(self, topics: list[str]) -> None:
        self._consumer.subscribe(topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)

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

    def _position_of(self, message: Message) -> int:
        """As of every reader; beside that a member may be told that another took its place."""
        error = message.error()
        assert error is not None
        # A fenced static member is told so in words only.
        if error.code() in (KafkaError.FENCED_INSTANCE_ID, KafkaError._FENCED) or (  # noqa: SLF001
            is_fatal(error) and "fenced" in error.str().lower()
        ):
            if not self._brokers.is_shaken or self._brokers.losses == self._forgiven_losses:
                raise self._owned(error)
            self._is_fenced = True
            return 0
        return super()._position_of(message)

    def _on_assign(self, consumer: Consumer, assigned: list[TopicPartition]) -> None:
        if self._is_closing:
            consumer.incremental_assign([])  # leaving: too late to begin with anything
            return
        self._is_told = True
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
        # Just added, they may be ours before every broker tells of them: those are for a later poll.
        coming = self._untaken & set(self.partitions())
        offsets = self._listener.assigned(sorted(coming)) if coming else {}
        topic = self._settings.tick_topic
        self._consumer.incremental_assign([TopicPartition(topic, number, offset) for number, offset in offsets.items()])
        self._doubtful -= coming
        self._see_paused()
        self._untaken -= coming

    def _on_lost(self, consumer: Consumer, lost: list[TopicPartition]) -> None:
        """Our session is over: the coordinator has not heard of us, or we not of it."""
        self._brokers.suspect()
        self._on_revoke(consumer, lost)

    def _on_revoke(self, consumer: Consumer, revoked: list[TopicPartition]) -> None:
        assert self._listener is not None
        taken = [partition for partition in revoked if partition.partition not in self._untaken]
        for partition in revoked:
            self._untaken.discard(partition.partition)
            self._doubtful.discard(partition.partition)
            self._gone.pop(partition.partition, None)
        if taken:
            self._listener.revoked([partition.partition for partition in taken])
        consumer.incremental_unassign(taken)

    # ---- publishing ----

    def commit(self, transaction: Transaction) -> None:
        """See `interfaces.Publisher`."""
        try:
            self._transactions.commit(
                transaction, topic=self._settings.tick_topic, group=self._consumer.consumer_group_metadata
            )
        except InDoubtError:
            self._transactions.discard()
            self._doubtful |= transaction.offsets.keys()
            self._consumer.pause(self._consumer.assignment())
            raise

    def settle(self) -> None:
        """A new producer with the same id: the broker ends the old one's transaction, either way, first."""
        self._transactions.open()
        self._doubtful.clear()
        self._see_paused()

    def close(self) -> None:
        """See `interfaces.Publisher`."""
        self._transactions.discard()
        self._is_closing = True
        self._close_clients()

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
