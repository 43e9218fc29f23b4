"""What a cluster says of the topics, the group and the rights that `run` needs: asked only, judged elsewhere.

Two questions leave a mark, both in what is ours alone. Whether our transactional ids may be used no broker tells
but by letting a producer begin: `init_transactions` under an id of its own beginning like ours, which fences nobody.
And no answer that the client library shows us carries the broker's clock but that to a record stamped by the broker:
two tombstones of one key go to the snapshots topic, where its `message.timestamp.type` is LogAppendTime (that is how
`topics ensure` makes it); its readers pass them over, and compaction removes them. Nothing goes to any other topic.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from confluent_kafka import (
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    OffsetSpec,
    TopicDescription,
)

from streamingcandle.interfaces import Clock, Committed
from streamingcandle.kafka.client import (
    KafkaSettings,
    admin_properties,
    new_client,
    producer_properties,
    reader_properties,
    transaction_properties,
)

ASK_S = 4.0
"""One question; the answer's future is given a second more, since some are never answered."""
ANSWER_S = ASK_S + 1.0
SAMPLE_RECORDS = 50
"""Newest records of each partition whose keys and timestamps are looked at."""
SAMPLE_S = 4.0
CLOCK_KEY = b"clock"


class TopicAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A topic as the broker tells of it. `refusal`: `missing`, or the broker's words; then nothing else is known."""

    name: str
    refusal: str = ""
    partitions: int = 0
    leaderless: int = 0
    replicas: int = 0
    in_sync: int = 0
    """The least over the partitions, as `replicas`."""
    operations: frozenset[str] = frozenset()
    """What we may do with it; everything where the broker has no authorizer."""
    config: Mapping[str, str] | None = None
    """None where we may not ask."""


class GroupAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The group, and what it committed on the tick topic."""

    refusal: str = ""
    state: str = ""
    members: tuple[str, ...] = ()
    """Client ids."""
    commits: Mapping[int, Committed] = {}
    begins: Mapping[int, int] = {}
    ends: Mapping[int, int] = {}
    retention_minutes: int | None = None
    """How long the brokers keep the offsets of a group without members; None where we may not ask."""


class Newest(msgspec.Struct, frozen=True):
    """One of the newest ticks. `timestamp_ms` is -1 where it has none."""

    partition: int
    key: bytes | None
    timestamp_ms: int


class ClockAnswer(msgspec.Struct, frozen=True):
    """The broker's clock stood at `broker_ms` between our `before_ms` and `after_ms`."""

    before_ms: int
    after_ms: int
    broker_ms: int


def ask_topics(settings: KafkaSettings, names: Sequence[str]) -> dict[str, TopicAnswer]:
    """Each of the topics. KafkaException, TimeoutError where nobody answers."""
    admin = new_client(AdminClient, settings, admin_properties(settings))
    asked = admin.describe_topics(
        TopicCollection(list(names)), include_authorized_operations=True, request_timeout=ASK_S
    )
    found: dict[str, TopicAnswer] = {}
    for name in names:
        try:
            found[name] = _topic(name, asked[name].result(ANSWER_S))
        except KafkaException as error:
            cause: KafkaError = error.args[0]
            is_missing = cause.code() == KafkaError.UNKNOWN_TOPIC_OR_PART
            if not is_missing and cause.code() != KafkaError.TOPIC_AUTHORIZATION_FAILED:
                raise
            found[name] = TopicAnswer(name=name, refusal="missing" if is_missing else cause.str())
    # The broker leaves a question that we may not ask without an answer.
    may_ask = [name for name, topic in found.items() if "DESCRIBE_CONFIGS" in topic.operations]
    resources = {name: ConfigResource(ConfigResource.Type.TOPIC, name) for name in may_ask}
    if resources:
        answers = admin.describe_configs(list(resources.values()), request_timeout=ASK_S)
        for name, resource in resources.items():
            entries: Mapping[str, Any] = answers[resource].result(ANSWER_S)
            config = {key: str(entry.value) for key, entry in entries.items()}
            found[name] = msgspec.structs.replace(found[name], config=config)
    return found


def _topic(name: str, described: TopicDescription) -> TopicAnswer:
    partitions = described.partitions
    return TopicAnswer(
        name=name,
        partitions=len(partitions),
        leaderless=sum(partition.leader is None or partition.leader.id < 0 for partition in partitions),
        replicas=min((len(partition.replicas) for partition in partitions), default=0),
        in_sync=min((len(partition.isr) for partition in partitions), default=0),
        operations=frozenset(operation.name for operation in described.authorized_operations or ()),
    )


def ask_group(settings: KafkaSettings, partitions: int) -> GroupAnswer:
    """The group on so many partitions of the tick topic. KafkaException, TimeoutError where nobody answers."""
    places = [TopicPartition(settings.tick_topic, number) for number in range(partitions)]
    # First by a plain client: where the group is refused, the admin client waits instead of telling so.
    consumer = new_client(Consumer, settings, reader_properties(settings))
    try:
        found = consumer.committed(places, timeout=ASK_S)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.GROUP_AUTHORIZATION_FAILED:
            raise
        return GroupAnswer(refusal=error.args[0].str())
    finally:
        consumer.close()
    admin = new_client(AdminClient, settings, admin_properties(settings))
    described = admin.describe_consumer_groups([settings.group], request_timeout=ASK_S)[settings.group].result(ANSWER_S)
    begins, ends = _bounds(admin, places)
    return GroupAnswer(
        state=described.state.name,
        members=tuple(sorted(member.client_id for member in described.members)),
        commits={
            place.partition: Committed(place.offset, place.metadata or "") for place in found if place.offset >= 0
        },
        begins=begins,
        ends=ends,
        retention_minutes=_retention_minutes(admin),
    )


def _retention_minutes(admin: AdminClient) -> int | None:
    cluster = admin.describe_cluster(include_authorized_operations=True, request_timeout=ASK_S).result(ANSWER_S)
    # As of a topic: what we may not ask is left without an answer.
    if "DESCRIBE_CONFIGS" not in {operation.name for operation in cluster.authorized_operations or ()}:
        return None
    resource = ConfigResource(ConfigResource.Type.BROKER, str(cluster.nodes[0].id))
    config: Mapping[str, Any] = admin.describe_configs([resource], request_timeout=ASK_S)[resource].result(ANSWER_S)
    name = "offsets.retention.minutes"
    return int(config[name].value) if name in config else None


def ask_bounds(settings: KafkaSettings, partitions: int) -> tuple[dict[int, int], dict[int, int]]:
    """First offsets and ends of the tick topic's partitions. KafkaException, TimeoutError where nobody answers."""
    admin = new_client(AdminClient, settings, admin_properties(settings))
    return _bounds(admin, [TopicPartition(settings.tick_topic, number) for number in range(partitions)])


def _bounds(admin: AdminClient, places: Sequence[TopicPartition]) -> tuple[dict[int, int], dict[int, int]]:
    begins, ends = (
        {
            place.partition: answer.result(ANSWER_S).offset
            for place, answer in admin.list_offsets(
                dict.fromkeys(places, spec),
                isolation_level=IsolationLevel.READ_UNCOMMITTED,
                request_timeout=ASK_S,
            ).items()
        }
        for spec in (OffsetSpec.earliest(), OffsetSpec.latest())  # type: ignore[no-untyped-call]
    )
    return begins, ends


def ask_newest(settings: KafkaSettings, begins: Mapping[int, int], ends: Mapping[int, int]) -> list[Newest]:
    """The newest ticks of each partition; as many as come within SAMPLE_S."""
    starts = {number: max(begins[number], end - SAMPLE_RECORDS) for number, end in ends.items()}
    left = {number for number, start in starts.items() if start < ends[number]}
    consumer = new_client(Consumer, settings, reader_properties(settings))
    found: list[Newest] = []
    try:
        consumer.assign([TopicPartition(settings.tick_topic, number, starts[number]) for number in left])
        for _ in range(round(SAMPLE_S / 0.1)):
            for message in consumer.consume(SAMPLE_RECORDS * max(1, len(left)), 0.1):
                error, number = message.error(), message.partition() or 0
                if error is None:
                    found.append(Newest(number, message.key(), message.timestamp()[1]))
                elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the client's public constant
                    left.discard(number)
                else:
                    raise KafkaException(error)
            if not left:
                break
    finally:
        consumer.close()
    return found


def ask_transactions(settings: KafkaSettings) -> str:
    """Why a producer may not begin transactions as `settings.instance`; empty where it may."""
    producer = new_client(Producer, settings, transaction_properties(settings))
    try:
        producer.init_transactions(ASK_S)
    except KafkaException as error:
        cause: KafkaError = error.args[0]
        return cause.str()
    return ""


def ask_clock(settings: KafkaSettings, clock: Clock, topic: str) -> ClockAnswer | str:
    """The broker's clock by a record in our own topic, or why it is not known. See the module's text."""
    # Told of what went well too, and at once.
    ours = {"linger.ms": 0, "delivery.report.only.error": False}
    producer = new_client(Producer, settings, producer_properties(settings) | ours)
    # The first makes the connection, which may take a while; the second is the measurement.
    _stamped(producer, clock, topic)
    return _stamped(producer, clock, topic)


def _stamped(producer: Producer, clock: Clock, topic: str) -> ClockAnswer | str:
    answers: list[ClockAnswer | str] = ["no answer"]
    before_ms = clock.wall_ms()

    def delivered(error: KafkaError | None, message: Message) -> None:
        kind, at_ms = message.timestamp()
        if error is not None:
            answers.append(error.str())
        elif kind != TIMESTAMP_LOG_APPEND_TIME:
            answers.append("the broker did not stamp the record")
        else:
            answers.append(ClockAnswer(before_ms, clock.wall_ms(), at_ms))

    producer.produce(topic, None, CLOCK_KEY, 0, on_delivery=delivered)
    producer.flush(ASK_S / 2)
    return answers[-1]
