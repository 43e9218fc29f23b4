"""Client properties: our defaults, the user's over them, each only to the client it belongs to."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
from confluent_kafka import KafkaException, Producer

from streamingcandle.errors import SettingsError
from streamingcandle.kafka.properties import known
from streamingcandle.kafka.rights import Right

Properties = dict[str, str | int | float | bool]
logger = logging.getLogger(__name__)
Client = TypeVar("Client")

COMMON: Properties = {
    "retry.backoff.ms": 100,
    "reconnect.backoff.ms": 50,
    # Its default of 10 s is how late the client would notice that a broker is back.
    "reconnect.backoff.max.ms": 1_000,
    "socket.keepalive.enable": True,
    "allow.auto.create.topics": False,
}
CONSUMER: Properties = {
    "enable.auto.commit": False,
    "isolation.level": "read_committed",
    # An offset that went away is our decision, not the client's.
    "auto.offset.reset": "error",
    "partition.assignment.strategy": "cooperative-sticky",
    "session.timeout.ms": 30_000,
    "heartbeat.interval.ms": 3_000,
    # A window is due by wall time; a fetch held back at the broker would hold it back too.
    "fetch.wait.max.ms": 20,
    # Once its queue is full the client looks away for this long: its default of 1 s leaves a backlog read at a
    # fifth of the speed (docs/decisions/0003). A shorter queue holds as well and takes less memory.
    "fetch.queue.backoff.ms": 10,
    "queued.min.messages": 20_000,
    # Its default of 64 MB is what one poll of large records would bring, beside what the next one is being fetched.
    # With 16 MB a backlog is read at two thirds of the speed: the client stands still while a transaction is made.
    "queued.max.messages.kbytes": 32_768,
    # Partitions added are noticed this soon.
    "topic.metadata.refresh.interval.ms": 30_000,
    # Tells of positions behind control records, which no record does.
    "enable.partition.eof": True,
}
PRODUCER: Properties = {
    "request.timeout.ms": 40_000,
    # Java's partitioner: librdkafka's own default would put an instrument elsewhere than Java producers do.
    "partitioner": "murmur2_random",
    "compression.type": "lz4",
    "linger.ms": 5,
    "delivery.report.only.error": True,
    "message.max.bytes": 12_000_000,
    # Of two on the way to a partition just made, the broker may refuse the first as too early and take the second: it
    # then takes the first, sent again, for a duplicate, and its records are lost unsaid (KAFKA-15591, decisions/0007).
    "max.in.flight.requests.per.connection": 1,
    "queue.buffering.max.messages": 1_000_000,
}
TRANSACTION: Properties = {
    # A crashed process's open transaction holds readers up this long; the two others may not be longer.
    "transaction.timeout.ms": 10_000,
    "message.timeout.ms": 10_000,
    "socket.timeout.ms": 10_000,
    # The coordinator refuses a begin right after a commit, and the client waits this long (docs/decisions/0003).
    "retry.backoff.ms": 10,
}


def shown_defaults() -> list[tuple[str, str, str]]:
    """Name, value and origin of our own defaults."""
    shown = [(name, str(value), "default") for name, value in {**COMMON, **CONSUMER, **PRODUCER}.items()]
    return shown + [(name, str(value), "default, transactions") for name, value in TRANSACTION.items()]


class KafkaSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Brokers, names, and the user's client properties (dotted names, applied over our defaults)."""

    bootstrap_servers: str
    group: str
    tick_topic: str
    instance: str
    """Stable over restarts of the same instance: static member and transactional id."""
    ask_ms: int = 30_000
    """How long a question is asked again while brokers are away or change their roles."""
    properties: Mapping[str, str] = {}
    places: Mapping[str, str] = {}
    """Where the user set each property, `bootstrap.servers` among them."""
    unset: Callable[[str], str] = str
    """Where the user would set a property."""
    rights: tuple[Right, ...] = ()
    """What we need: asked for before the first poll."""

    def place(self, name: str) -> str:
        """Where a property is set, or would be."""
        return self.places.get(name) or self.unset(name)

    def ask_s(self, most_s: float) -> float:
        """How long a question that is asked once may take, no longer than `most_s`."""
        return min(most_s, self.ask_ms / 1_000)


class Chatter:
    """What the client says of its connections, as `logger` of a client: its errors reach us as values."""

    def log(self, _level: int, message: str, *values: object) -> None:
        """Like `logging.Logger.log`."""
        logger.debug(message, *values)


def new_client(
    kind: Callable[..., Client],
    settings: KafkaSettings,
    properties: Mapping[str, Any],
    log: logging.Logger | Chatter | None = None,
) -> Client:
    """Make a client, by default one that talks at the debug level.

    SettingsError where the library takes each property, but not all of them together.
    """
    try:
        return kind(dict(properties), logger=log or Chatter())
    except KafkaException as error:
        reason = " ".join(error.args[0].str().split())
        named = [place for name, place in settings.places.items() if name in reason]
        raise SettingsError(f"{', '.join(named or settings.places.values())}: {reason}") from error


def produce(
    producer: Producer,
    topic: str,
    value: bytes | None,
    key: bytes | None,
    **details: Any,  # noqa: ANN401 - the client's own
) -> None:
    """Hand a record to the client; where its queue is full, wait for it to send some."""
    while True:
        try:
            producer.produce(topic, value, key, **details)
        except BufferError:
            producer.poll(0.1)
        else:
            return


def _with_users(settings: KafkaSettings, defaults: Properties, owners: str) -> Properties:
    """`owners`: whose properties these may be, as `known` tells them."""
    ours: Properties = {
        "bootstrap.servers": settings.bootstrap_servers,
        "client.id": settings.instance,
        **COMMON,
        **defaults,
    }
    ours |= {name: value for name, value in settings.properties.items() if known().get(name, "*") in owners}
    if ours.get("group.protocol") == "consumer":
        # KIP-848: the broker decides these, and refuses a killed member's static id until its session ends.
        for name in (
            "partition.assignment.strategy",
            "session.timeout.ms",
            "heartbeat.interval.ms",
            "group.instance.id",
        ):
            if name not in settings.properties:
                ours.pop(name, None)
    return ours


def consumer_properties(settings: KafkaSettings) -> Properties:
    """For the group's member."""
    names: Properties = {"group.id": settings.group, "group.instance.id": settings.instance}
    return _with_users(settings, {**CONSUMER, **names}, "C*")


def transaction_properties(settings: KafkaSettings) -> Properties:
    """For the producer of candles."""
    names: Properties = {"transactional.id": settings.instance}
    ours = _with_users(settings, {**PRODUCER, **TRANSACTION, **names}, "P*")
    for name in ("message.timeout.ms", "socket.timeout.ms"):
        # The client refuses what would outlast the transaction; who shortens that means these as well.
        if name not in settings.properties:
            ours[name] = min(int(ours[name]), int(ours["transaction.timeout.ms"]))
    return ours


def producer_properties(settings: KafkaSettings) -> Properties:
    """For a producer of ticks."""
    return _with_users(settings, {**PRODUCER, "enable.idempotence": True}, "P*")


def admin_properties(settings: KafkaSettings) -> Properties:
    """For questions and topics."""
    return _with_users(settings, {}, "*")


def reader_properties(settings: KafkaSettings) -> Properties:
    """For one that is no member of the group: it reads, or asks about it.

    The client asks for the group's coordinator in any case: a name of its own would take a right of its own.
    """
    ours = _with_users(settings, CONSUMER, "C*")
    ours["group.id"] = settings.group
    ours["auto.offset.reset"] = "earliest"
    ours.pop("group.instance.id", None)
    return ours
