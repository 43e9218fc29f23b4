"""Candles, letters and offsets in one Kafka transaction; the only user of the transactional producer.

librdkafka cannot tell a commit that was lost from one that is late. So after any doubt the producer goes,
and a new one with the same id makes the broker end the old one's transaction, either way, first.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, cast

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from streamingcandle.aside import begin
from streamingcandle.errors import MissingTopicError, SettingsError
from streamingcandle.interfaces import (
    BrokerAwayError,
    Clock,
    InDoubtError,
    Letter,
    NotCommittedError,
    NotMemberError,
    Transaction,
)
from streamingcandle.kafka.brokers import PASSING, Brokers, logger
from streamingcandle.kafka.client import KafkaSettings, new_client, transaction_properties
from streamingcandle.kafka.deliveries import TOO_LARGE, Failures, Limits
from streamingcandle.kafka.refusals import NO_RIGHT, outside

PRODUCE_RECORDS_MAX = 10_000
"""Records handed to the client at once; it copies them before it answers."""
COMMIT_TIMEOUT_MS = 15_000
"""A commit unanswered for so long is in doubt: its transaction's timeout is over."""
PIECE_S = 1.0
"""Between two pieces of a wait the brokers are looked for and a stop is heeded."""
HUNG_MS = 5_000
"""A call that should end within PIECE_S is given up after this."""
HUNG_LOOK_S = 0.1
NOT_MEMBER = frozenset(
    {
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.FENCED_MEMBER_EPOCH,
        KafkaError.STALE_MEMBER_EPOCH,
    }
)
CONFIRM_MS = 1_000
"""A topic is missing when the brokers say so twice, this long apart."""


class Transactions:
    """One at a time, under one transactional id."""

    def __init__(self, settings: KafkaSettings, clock: Clock, brokers: Brokers) -> None:
        """No producer yet: it would fence another process before the group has taken us in."""
        self._settings = settings
        self._clock = clock
        self._brokers = brokers
        self._producer: Producer | None = None
        self._is_open = False
        self._losses = 0
        self._limits = Limits(brokers)
        self._batch_bytes = 0
        self._failures = Failures()
        self._handed = set[str]()
        """The topics of the transaction."""

    def open(self) -> Producer:
        """The producer; a former one's transaction, by whichever process, is ended first."""
        if self._losses != self._brokers.losses:
            # What it knows of coordinators may be of before the loss, and that it can wait for without end.
            self.discard()
        if self._batch_bytes != self._limits.batch_bytes:
            self.discard()
        producer = self._producer
        if producer is None:
            self._losses = self._brokers.losses
            self._batch_bytes = self._limits.batch_bytes
            properties = self._brokers.watched(transaction_properties(self._settings))
            properties["batch.size"] = min(int(properties.get("batch.size", self._batch_bytes)), self._batch_bytes)
            properties["on_delivery"] = self._on_delivery
            producer = self._producer = new_client(Producer, self._settings, properties)
        if not self._is_open:
            what = f"transactional id {self._settings.instance}"
            try:
                self._guarded(lambda: producer.init_transactions(PIECE_S))
            except KafkaException as error:
                cause: KafkaError = error.args[0]
                if cause.retriable() or cause.code() in PASSING:
                    raise self._brokers.away(what, cause) from error
                raise outside(self._settings, what, cause) from error
            except TimeoutError:
                self.discard()
                raise self._brokers.away(what, KafkaError(KafkaError._TIMED_OUT)) from None  # noqa: SLF001
            self._is_open = True
        return producer

    def discard(self) -> None:
        """After a doubt: what this producer has begun is ended by the next one."""
        if self._producer is not None:
            self._producer.purge()
        self._producer = None
        self._is_open = False

    def serve(self) -> None:
        """Let the client tell of its errors and logs."""
        if self._producer is not None:
            self._producer.poll(0)

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        self._failures.tell(error, message)

    def commit(self, transaction: Transaction, *, topic: str, group: Callable[[], Any]) -> None:
        """See `interfaces.Publisher`."""
        letters = self._limits.fitting(transaction.letters)
        producer = self.open()
        self._failures = Failures()
        self._handed.clear()
        try:
            producer.begin_transaction()
            for name, records in transaction.candles:
                self._hand_over(producer, name, records)
            self._hand_letters_over(producer, letters)
            offsets = [
                TopicPartition(topic, number, committed.offset, metadata=committed.metadata)
                for number, committed in transaction.offsets.items()
            ]
            member = group()
            self._again(lambda: producer.send_offsets_to_transaction(offsets, member, PIECE_S))
        except KafkaException as error:
            self._abort(producer, error, transaction)
        except TimeoutError as error:
            raise InDoubtError(f"offsets not taken: {error}") from None
        try:
            self._again(lambda: producer.commit_transaction(PIECE_S))
        except KafkaException as error:
            if error.args[0].txn_requires_abort():
                self._abort(producer, error, transaction)
            self._check_topics()
            raise InDoubtError(error.args[0].str()) from error
        except TimeoutError as error:
            raise InDoubtError(str(error)) from None
        self._limits.forget()

    def _again(self, call: Callable[[], object]) -> None:
        """Call until it succeeds or fails for good; a retriable answer says that nothing is decided."""
        until_ms = self._clock.monotonic_ms() + COMMIT_TIMEOUT_MS
        while True:
            try:
                self._guarded(call)
            except KafkaException as error:
                is_over = self._brokers.is_out_of_time or self._clock.monotonic_ms() > until_ms
                if is_over or not error.args[0].retriable():
                    raise
                logger.debug("transaction, again: %s", error.args[0].str())
                self._brokers.probe()
            else:
                return

    def _guarded(self, call: Callable[[], object]) -> None:
        """TimeoutError where the client never comes back: it waits without end for a coordinator that went away.

        (librdkafka issue 5511.) The producer is of no use then; its thread ends with the process.
        """
        done = begin(call)
        until_ms = self._clock.monotonic_ms() + HUNG_MS
        while True:
            try:
                done.result(HUNG_LOOK_S)
            except TimeoutError:
                if self._brokers.is_out_of_time or self._clock.monotonic_ms() > until_ms:
                    raise TimeoutError("the client does not come back") from None
            else:
                return

    def _abort(self, producer: Producer, error: KafkaException, transaction: Transaction) -> None:
        """Raise what the failure means: certainly not committed, or in doubt."""
        cause: KafkaError = error.args[0]
        failures = self._failures
        if cause.code() in NO_RIGHT:
            self.discard()
            self._brokers.check_rights()
            raise outside(self._settings, "transaction", cause) from error
        if cause.fatal():
            raise InDoubtError(cause.str()) from error
        try:
            self._again(lambda: producer.abort_transaction(PIECE_S))
        except (KafkaException, TimeoutError) as abort_error:
            self._check_topics()
            raise InDoubtError(f"{cause.str()}; and the abort: {abort_error}") from abort_error
        self._check_topics()
        for topic in failures.having(TOO_LARGE):
            if not self._limits.lower(topic, transaction.letters):
                message = f"{failures.first}: {topic} takes no candle; raise its max.message.bytes to 10000 or more"
                raise SettingsError(message) from error
        self._limits.shorten(failures.letters)
        reason = f"{cause.str()}; the first: {failures.first}" if failures.first else cause.str()
        kind = NotMemberError if cause.code() in NOT_MEMBER else NotCommittedError
        raise kind(reason) from error

    def _check_topics(self) -> None:
        """MissingTopicError where a topic of the transaction is gone: nothing will ever come into it."""
        if self._brokers.is_doubtful:
            return
        with suppress(BrokerAwayError):
            try:
                self._brokers.check_topics(self._handed)
            except MissingTopicError:
                # A broker that has just come up may not know of each topic yet.
                if not self._brokers.is_out_of_time:
                    self._clock.sleep_ms(CONFIRM_MS)
                self._brokers.check_topics(self._handed)

    def _hand_over(self, producer: Producer, topic: str, records: Sequence[tuple[bytes, bytes]]) -> None:
        """Hand candles to the client; where its queue is full, wait for room. KafkaException where it refuses."""
        for start in range(0, len(records), PRODUCE_RECORDS_MAX):
            self._handed.add(topic)
            batch = [{"key": key, "value": value} for key, value in records[start : start + PRODUCE_RECORDS_MAX]]
            until_ms = self._clock.monotonic_ms() + COMMIT_TIMEOUT_MS
            while producer.produce_batch(topic, batch) < len(batch):
                refused = [message for message in batch if "_error" in message]
                for message in refused:
                    error = cast("KafkaError", message.pop("_error"))
                    # Such as a transaction that the broker gave up meanwhile: asked again, it is refused for ever.
                    if error.code() != KafkaError._QUEUE_FULL:  # noqa: SLF001 - the client's public constant
                        self._failures.add(topic, None, error)
                        raise KafkaException(error)
                batch = refused
                self._await_room(producer, until_ms)

    def _hand_letters_over(self, producer: Producer, letters: Sequence[tuple[Letter, Letter]]) -> None:
        """The same for letters, whole and as they fit; one that is refused for what it is, is known again."""
        for letter, form in letters:
            self._handed.add(form.topic)
            told = partial(self._on_letter, letter)
            until_ms = self._clock.monotonic_ms() + COMMIT_TIMEOUT_MS
            while True:
                try:
                    producer.produce(form.topic, form.value, form.key, headers=list(form.headers), on_delivery=told)
                except BufferError:
                    self._await_room(producer, until_ms)
                except KafkaException as error:
                    self._failures.add(form.topic, None, error.args[0], letter)
                    raise
                else:
                    break

    def _on_letter(self, letter: Letter, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failures.add(letter.topic, message.partition(), error, letter)

    def _await_room(self, producer: Producer, until_ms: int) -> None:
        """A moment for the client to send some. KafkaException where it does not, or a stop cannot wait."""
        producer.poll(0.1)
        if self._brokers.is_out_of_time or self._clock.monotonic_ms() > until_ms:
            raise KafkaException(KafkaError(KafkaError._QUEUE_FULL, "the client's queue is full"))  # noqa: SLF001
