"""Ticks into the tick topic, and candles out of theirs: plain clients outside of the group."""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import NoReturn

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from streamingcandle.candles.murmur2 import partition_of
from streamingcandle.errors import OutsideError
from streamingcandle.interfaces import Clock
from streamingcandle.kafka.client import KafkaSettings, new_client, producer_properties, reader_properties
from streamingcandle.kafka.refusals import NO_RIGHT
from streamingcandle.kafka.topics import partition_count

logger = logging.getLogger(__name__)

TAKE_TIMEOUT_MS = 60_000
"""How long a queue may stand still before we say that the broker takes nothing."""
STOP_TIMEOUT_MS = 3_000
"""For what is still on its way when we are to stop: all is over within 5 s."""
PROBE_S = 0.1
READ_TIMEOUT_S = 15.0
QUEUE_KB_MAX = 64_000
"""Of ticks on their way: the client's own limit is 1 GB, all of it memory where the broker is away."""
FOREVER_MS = 2**63 - 1
_REFUSED_TIME = frozenset({KafkaError.INVALID_TIMESTAMP, KafkaError.INVALID_RECORD})
"""The second of several in a batch: brokers look at nothing else of a record that has a key."""
CALL_TIMEOUT_S = 2.0


class TickProducer:
    """Appends to the tick topic, idempotently, in order per key."""

    def __init__(self, settings: KafkaSettings, clock: Clock, is_stopping: Callable[[], bool]) -> None:
        """OutsideError without a broker; MissingTopicError."""
        self._settings = settings
        self._clock = clock
        self._is_stopping = is_stopping
        self._topic = settings.tick_topic
        partition_count(settings, self._topic, is_stopping)
        properties = producer_properties(settings)
        properties.setdefault("queue.buffering.max.kbytes", QUEUE_KB_MAX)
        self._producer = new_client(Producer, settings, properties, logger)
        self._handed = 0
        self._failed = 0
        self._failure: str | None = None
        """Of the first that failed for a reason of its own."""
        self._stop_ms: int | None = None
        """When to give up what is on its way."""

    def append(self, records: Iterable[tuple[bytes, bytes, int]]) -> None:
        """Queue `(key, value, timestamp_ms)`; waits while the client's queue is full. OutsideError as `flush`."""
        for key, value, timestamp_ms in records:
            self._produce(key, value, timestamp_ms)
        self._producer.poll(0)
        if self._failed:
            self._give_up()

    def _produce(self, key: bytes, value: bytes, timestamp_ms: int) -> None:
        until_ms = None
        while True:
            try:
                # The client's report of a record that was refused has no timestamp any more.
                told = partial(self._delivered, timestamp_ms)
                self._producer.produce(self._topic, value, key, timestamp=timestamp_ms, on_delivery=told)
            except BufferError:
                until_ms = until_ms or self._clock.monotonic_ms() + TAKE_TIMEOUT_MS
                self._producer.poll(PROBE_S)
                if self._failed or self._is_over(until_ms):
                    self._give_up()
            except KafkaException as error:  # it is larger than the client sends, for one
                self._handed += 1
                self._failed += 1
                self._failure = self._failure or _failure(key, error.args[0])
                return
            else:
                self._handed += 1
                return

    def _is_over(self, until_ms: int) -> bool:
        now_ms = self._clock.monotonic_ms()
        if self._stop_ms is None and self._is_stopping():
            self._stop_ms = now_ms + STOP_TIMEOUT_MS
        return now_ms >= until_ms or (self._stop_ms is not None and now_ms >= self._stop_ms)

    def _delivered(self, timestamp_ms: int, error: KafkaError | None, message: Message) -> None:
        if error is None:
            return
        self._failed += 1
        # Sent together with one that is refused, and not taken for that reason alone.
        if self._failure is None and error.code() != KafkaError._INVALID_DIFFERENT_RECORD:  # noqa: SLF001
            is_time = error.code() in _REFUSED_TIME
            self._failure = self._refused_time(timestamp_ms) if is_time else _failure(message.key() or b"", error)

    def _refused_time(self, timestamp_ms: int) -> str:
        name = "before" if timestamp_ms < self._clock.wall_ms() else "after"
        setting = f"message.timestamp.{name}.max.ms"
        at = datetime.fromtimestamp(timestamp_ms / 1_000, UTC).isoformat(timespec="milliseconds")
        change = f"--alter --entity-type topics --entity-name {self._topic} --add-config {setting}={FOREVER_MS}"
        cure = f"kafka-configs.sh {change}" if name == "before" else "see that the clocks here and there are right"
        return f"its {setting} refuses the timestamp {at}; {cure}"

    def flush(self) -> None:
        """Return when the broker has it all. OutsideError when it has not, and how much."""
        until_ms, left = self._clock.monotonic_ms() + TAKE_TIMEOUT_MS, len(self._producer)
        while left and not self._failed and not self._is_over(until_ms):
            now_left = self._producer.flush(PROBE_S)
            if now_left < left:
                until_ms = self._clock.monotonic_ms() + TAKE_TIMEOUT_MS
            left = now_left
        if left or self._failed:
            self._give_up()

    def _give_up(self) -> NoReturn:
        """Raise OutsideError: what failed, where, what to do, and how many are there all the same."""
        left = len(self._producer)
        there = max(0, self._handed - left - self._failed)
        why = "stopped before" if self._stop_ms is not None else "no answer before"
        cause = self._failure or f"{why} {left} records were taken; see that it is there and the broker up"
        where = f"topic {self._topic} at {self._settings.bootstrap_servers}"
        raise OutsideError(f"{where}: {cause}; at least {there} are there, send the others again")


def _failure(key: bytes, error: KafkaError) -> str:
    return f"a record of key {key.decode(errors='replace')}: {error.str()}; see that the topic is there and takes it"


def read_to_end(consumer: Consumer, place: TopicPartition, end: int, timeout_s: float) -> Iterator[Message]:
    """The records of one partition from `place` on, up to the offset `end`. KafkaException where none comes."""
    consumer.assign([place])
    position = place.offset
    while position < end:
        message = consumer.poll(timeout_s)
        if message is None:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"nothing read for {timeout_s:.0f} s"))  # noqa: SLF001
        error = message.error()
        if error is None:
            yield message
        elif error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - the client's public constant
            raise KafkaException(error)
        position = max(position, (message.offset() or 0) + (error is None))


def read_values(settings: KafkaSettings, topic: str, keys: Collection[bytes] | None) -> Iterator[tuple[bytes, bytes]]:
    """Keys and committed values of these keys, or of all; a key's in order, up to the ends now. MissingTopicError."""
    count = partition_count(settings, topic)
    numbers = range(count) if keys is None else sorted({partition_of(key, count) for key in keys})
    consumer = new_client(Consumer, settings, reader_properties(settings))
    try:
        for number in numbers:
            partition = TopicPartition(topic, number, 0)
            partition.offset, end = consumer.get_watermark_offsets(partition, timeout=READ_TIMEOUT_S)
            for message in read_to_end(consumer, partition, end, READ_TIMEOUT_S):
                key = message.key() or b""
                if keys is None or key in keys:
                    yield key, message.value() or b""
    except KafkaException as error:
        where = f"topic {topic} at {settings.bootstrap_servers}"
        raise OutsideError(f"{where}: {error.args[0].str()}; is the broker up?") from error
    finally:
        consumer.close()


def newest_of(
    settings: KafkaSettings, admin: AdminClient, topics: Sequence[str], records_max: int
) -> dict[str, list[bytes]]:
    """Values of the last committed records by topic, of each partition at most so many; none of a missing topic.

    Of a topic that we may not read there are none either. KafkaException where the broker does not answer.
    """
    known = admin.list_topics(timeout=CALL_TIMEOUT_S).topics
    places = [TopicPartition(topic, number) for topic in topics if topic in known for number in known[topic].partitions]
    begins = _offsets(admin, places, OffsetSpec.earliest())  # type: ignore[no-untyped-call]
    ends = _offsets(admin, places, OffsetSpec.latest())  # type: ignore[no-untyped-call]
    starts = [
        # The marks of transactions lie between them, one for each candle at the worst.
        TopicPartition(*place, offset=max(begins[place], end - 2 * records_max))
        for place, end in ends.items()
        if end > begins.get(place, end)
    ]
    found = _committed_from(settings, starts) if starts else {}
    values: dict[str, list[bytes]] = {topic: [] for topic in topics}
    for (topic, _), read in sorted(found.items()):
        values[topic] += read[-records_max:]
    return values


def _offsets(admin: AdminClient, places: Sequence[TopicPartition], spec: OffsetSpec) -> dict[tuple[str, int], int]:
    """All in one question; without those that we have no right to."""
    if not places:
        return {}
    found = {}
    answers = admin.list_offsets(dict.fromkeys(places, spec), request_timeout=CALL_TIMEOUT_S)
    for place, answer in answers.items():
        try:
            found[place.topic, place.partition] = answer.result(CALL_TIMEOUT_S).offset
        except KafkaException as error:
            if error.args[0].code() not in NO_RIGHT:
                raise
    return found


def _committed_from(settings: KafkaSettings, starts: Sequence[TopicPartition]) -> dict[tuple[str, int], list[bytes]]:
    """Up to the ends, or to the first transaction that is still open: nobody knows how long."""
    found: dict[tuple[str, int], list[bytes]] = {(place.topic, place.partition): [] for place in starts}
    unread = set(found)
    consumer = new_client(Consumer, settings, reader_properties(settings))
    try:
        consumer.assign(list(starts))
        while unread:
            message = consumer.poll(CALL_TIMEOUT_S)
            if message is None:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))  # noqa: SLF001 - the client's public constant
            place, error = (message.topic() or "", message.partition() or 0), message.error()
            if error is None:
                found[place].append(message.value() or b"")
            elif error.code() == KafkaError._PARTITION_EOF or error.code() in NO_RIGHT:  # noqa: SLF001 - as above
                unread.discard(place)
            else:
                raise KafkaException(error)
    finally:
        consumer.close()
    return found
