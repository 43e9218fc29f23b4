"""Candles, letters and offsets in one Kafka transaction; the only user of the transactional producer.

librdkafka cannot tell a commit that was lost from one that is late. So after any doubt the producer goes,
and a new one with the same id makes the broker end the old one's transaction, either way, first.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, cast

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import ConfigResource  # type: ignore[attr-defined]

from streamingcandle.aside import begin
from streamingcandle.errors import OutsideError
from streamingcandle.interfaces import BrokerAwayError, Clock, InDoubtError, Letter, NotCommittedError, Transaction
from streamingcandle.kafka.brokers import ANSWER_TIMEOUT_S, CALL_TIMEOUT_S, PASSING, Brokers, logger
from streamingcandle.kafka.client import KafkaSettings, new_client, produce, transaction_properties
from streamingcandle.kafka.refusals import NO_RIGHT, outside
from streamingcandle.kafka.rights import Right

PRODUCE_RECORDS_MAX = 10_000
"""Records handed to the client at once; it copies them before it answers."""
RECORD_BYTES_MAX = 1_048_588
"""Kafka's default `max.message.bytes`."""
RECORD_OVERHEAD_BYTES = 2_000
"""What a batch of one record and the two headers of a cut take beside key, value and headers."""
COMMIT_TIMEOUT_MS = 15_000
"""A commit unanswered for so long is in doubt: its transaction's timeout is over."""
PIECE_S = 1.0
"""Between two pieces of a wait the brokers are looked for and a stop is heeded."""
HUNG_MS = 5_000
"""A call that should end within PIECE_S is given up after this."""
HUNG_LOOK_S = 0.1


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
        self._limits: dict[str, int] = {}

    def open(self) -> Producer:
        """The producer; a former one's transaction, by whichever process, is ended first."""
        if self._losses != self._brokers.losses:
            # What it knows of coordinators may be of before the loss, and that it can wait for without end.
            self.discard()
        producer = self._producer
        if producer is None:
            self._losses = self._brokers.losses
            properties = self._brokers.watched(transaction_properties(self._settings))
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

    def commit(self, transaction: Transaction, *, topic: str, group: Callable[[], Any]) -> None:
        """See `interfaces.Publisher`."""
        producer = self.open()
        letters = [cut(letter, self._record_bytes_max(letter.topic)) for letter in transaction.letters]
        try:
            producer.begin_transaction()
            for name, records in transaction.candles:
                _produce(producer, name, records)
            for letter in letters:
                produce(producer, letter.topic, letter.value, letter.key, headers=list(letter.headers))
            offsets = [
                TopicPartition(topic, number, committed.offset, metadata=committed.metadata)
                for number, committed in transaction.offsets.items()
            ]
            member = group()
            self._again(lambda: producer.send_offsets_to_transaction(offsets, member, PIECE_S))
        except KafkaException as error:
            self._abort(producer, error)
        except TimeoutError as error:
            raise InDoubtError(f"offsets not taken: {error}") from None
        try:
            self._again(lambda: producer.commit_transaction(PIECE_S))
        except KafkaException as error:
            if error.args[0].txn_requires_abort():
                self._abort(producer, error)
            raise InDoubtError(error.args[0].str()) from error
        except TimeoutError as error:
            raise InDoubtError(str(error)) from None

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

    def _abort(self, producer: Producer, error: KafkaException) -> None:
        """Raise what the failure means: certainly not committed, or in doubt."""
        cause: KafkaError = error.args[0]
        if cause.code() in NO_RIGHT:
            self.discard()
            self._brokers.check_rights()
            raise outside(self._settings, "transaction", cause) from error
        if cause.fatal():
            raise InDoubtError(cause.str()) from error
        try:
            self._again(lambda: producer.abort_transaction(PIECE_S))
        except (KafkaException, TimeoutError) as abort_error:
            raise InDoubtError(f"{cause.str()}; and the abort: {abort_error}") from abort_error
        raise NotCommittedError(cause.str()) from error

    def _record_bytes_max(self, topic: str) -> int:
        """The topic's own limit; Kafka's default where we may not ask."""
        if topic not in self._limits:
            resource = ConfigResource(ConfigResource.Type.TOPIC, topic)

            def ask() -> int:
                answers = self._brokers.admin.describe_configs([resource], request_timeout=CALL_TIMEOUT_S)
                return int(answers[resource].result(ANSWER_TIMEOUT_S)["max.message.bytes"].value)

            try:
                self._limits[topic] = self._brokers.ask(
                    f"limit of topic {topic}", ask, Right("DescribeConfigs", "topic", topic)
                )
            except BrokerAwayError:
                raise
            except OutsideError as error:
                logger.warning("%s; taken as %d", error, RECORD_BYTES_MAX)
                self._limits[topic] = RECORD_BYTES_MAX
        return self._limits[topic]


def _produce(producer: Producer, topic: str, records: Sequence[tuple[bytes, bytes]]) -> None:
    """Hand records to the client; where its queue is full, wait for it to send some. KafkaException as it refuses."""
    for start in range(0, len(records), PRODUCE_RECORDS_MAX):
        batch = [{"key": key, "value": value} for key, value in records[start : start + PRODUCE_RECORDS_MAX]]
        while producer.produce_batch(topic, batch) < len(batch):
            refused = [message for message in batch if "_error" in message]
            for message in refused:
                error = cast("KafkaError", message.pop("_error"))
                # Such as a transaction that the broker gave up meanwhile: asked again, it is refused for ever.
                if error.code() != KafkaError._QUEUE_FULL:  # noqa: SLF001 - the client's public constant
                    raise KafkaException(error)
            batch = refused
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
