"""Topics on a broker: made and checked as the service needs them."""

from collections.abc import Mapping

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from streamingcandle.errors import MissingTopicError, OutsideError
from streamingcandle.kafka.client import KafkaSettings, admin_properties, new_client

TIMEOUT_S = 15.0
# Candles are a history: the later record of a window wins, and compaction would lose the earlier ones.
# Ticks are kept whatever their age: an old event time is no reason to delete them.
CONFIG: Mapping[str, str] = {"cleanup.policy": "delete", "retention.ms": "-1"}


def ensure_topics(
    settings: KafkaSettings,
    names: list[str],
    *,
    partitions: int,
    replication: int,
    own: Mapping[str, Mapping[str, str]] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> list[tuple[str, str]]:
    """Make what is missing; `(name, "made" or "there")` each. OutsideError when the broker refuses.

    `own`: the configuration of topics that do not have `CONFIG`.
    """
    admin = new_client(AdminClient, settings, admin_properties(settings))
    there = partition_counts(settings, timeout_s=timeout_s)
    missing = [name for name in names if name not in there]
    new = [
        NewTopic(
            name, num_partitions=partitions, replication_factor=replication, config=dict((own or {}).get(name, CONFIG))
        )
        for name in missing
    ]
    if new:
        for name, future in admin.create_topics(new, operation_timeout=timeout_s, request_timeout=timeout_s).items():
            try:
                future.result()
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise OutsideError(
                        f"topic {name} at {settings.bootstrap_servers}: {error.args[0].str()}"
                    ) from error
    return [(name, "made" if name in missing else "there") for name in names]


def partition_counts(settings: KafkaSettings, *, timeout_s: float = TIMEOUT_S) -> dict[str, int]:
    """Every topic we may see and its number of partitions. OutsideError without a broker."""
    try:
        metadata = new_client(AdminClient, settings, admin_properties(settings)).list_topics(
            timeout=settings.ask_s(timeout_s)
        )
    except KafkaException as error:
        message = f"broker {settings.bootstrap_servers}: {error.args[0].str()}; is it up, and the address right?"
        raise OutsideError(message) from error
    return {name: len(topic.partitions) for name, topic in metadata.topics.items()}


def partition_count(settings: KafkaSettings, name: str) -> int:
    """How many partitions a topic has. MissingTopicError; OutsideError without a broker."""
    counts = partition_counts(settings)
    if name not in counts:
        where = f"topic {name} at {settings.bootstrap_servers}"
        raise MissingTopicError(f"{where}: missing; make it with `streamingcandle topics ensure`")
    return counts[name]
