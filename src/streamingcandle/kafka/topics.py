"""Topics on a broker: made and checked as the service needs them."""

from collections.abc import Callable, Mapping

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from streamingcandle.errors import MissingTopicError, OutsideError
from streamingcandle.kafka.client import KafkaSettings, admin_properties, new_client
from streamingcandle.kafka.refusals import is_refusal, outside, refused
from streamingcandle.kafka.rights import Right

TIMEOUT_S = 15.0
PIECE_S = 3.0
"""Of a wait: between two of them it is looked whether we are refused."""
# Candles are a history: the later record of a window wins, and compaction would lose the earlier ones.
# Ticks are kept whatever their age: an old event time is no reason to delete them.
CONFIG: Mapping[str, str] = {"cleanup.policy": "delete", "retention.ms": "-1"}
AHEAD_KEY = "message.timestamp.after.max.ms"
AHEAD_MAX_MS = 60_000
"""The broker's clock is the one that all trust: a producer's clock further ahead is refused at the door."""
TICKS_CONFIG: Mapping[str, str] = {**CONFIG, AHEAD_KEY: str(AHEAD_MAX_MS)}


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

    `own`: the configuration of topics that do not have `CONFIG`, or the tick topic `TICKS_CONFIG`.
    """
    admin = new_client(AdminClient, settings, admin_properties(settings))
    there = partition_counts(settings, timeout_s=timeout_s)
    configs = {settings.tick_topic: TICKS_CONFIG, **(own or {})}
    states = dict.fromkeys(names, "there")

    def make(wanted: Mapping[str, Mapping[str, str]]) -> dict[str, KafkaError]:
        new = [
            NewTopic(name, num_partitions=partitions, replication_factor=replication, config=dict(config))
            for name, config in wanted.items()
        ]
        refused: dict[str, KafkaError] = {}
        for name, future in admin.create_topics(new, operation_timeout=timeout_s, request_timeout=timeout_s).items():
            try:
                future.result()
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    refused[name] = error.args[0]
        return refused

    missing = {name: configs.get(name, CONFIG) for name in names if name not in there}
    refused = make(missing) if missing else {}
    states |= dict.fromkeys(missing, "made")
    unknown = [name for name, error in refused.items() if is_unknown_config(error) and AHEAD_KEY in missing[name]]
    if unknown:
        less = {name: {key: text for key, text in missing[name].items() if key != AHEAD_KEY} for name in unknown}
        refused = {name: error for name, error in refused.items() if name not in unknown} | make(less)
        states |= dict.fromkeys(unknown, f"made, without {AHEAD_KEY}: this broker is older than it (Kafka 3.6)")
    for name, error in refused.items():
        raise outside(settings, f"topic {name}", error, Right("Create", "topic", name))
    return list(states.items())


def is_unknown_config(error: KafkaError) -> bool:
    """Whether a broker does not know the property that keeps clocks ahead out."""
    return error.code() == KafkaError.INVALID_CONFIG and AHEAD_KEY in error.str()


def partition_counts(
    settings: KafkaSettings, *, timeout_s: float = TIMEOUT_S, is_stopping: Callable[[], bool] | None = None
) -> dict[str, int]:
    """Every topic we may see and its number of partitions. OutsideError without a broker, or when we are to stop."""
    heard: list[KafkaError] = []
    admin = new_client(AdminClient, settings, {**admin_properties(settings), "error_cb": heard.append})
    left_s = settings.ask_s(timeout_s)
    while True:
        try:
            metadata = admin.list_topics(timeout=min(left_s, PIECE_S))
        except KafkaException as error:
            admin.poll(0)
            if refusals := [one for one in heard if is_refusal(one, is_running=False)]:
                raise refused(settings, refusals[0]) from error
            left_s -= PIECE_S
            if left_s <= 0 or (is_stopping is not None and is_stopping()):
                where = f"broker {settings.bootstrap_servers}"
                message = f"{where}: {error.args[0].str()}; is it up, and the address right?"
                raise OutsideError(message) from error
        else:
            return {name: len(topic.partitions) for name, topic in metadata.topics.items()}


def partition_count(settings: KafkaSettings, name: str, is_stopping: Callable[[], bool] | None = None) -> int:
    """How many partitions a topic has. MissingTopicError; OutsideError without a broker, or when we are to stop."""
    counts = partition_counts(settings, is_stopping=is_stopping)
    if name not in counts:
        where = f"topic {name} at {settings.bootstrap_servers}"
        raise MissingTopicError(f"{where}: missing; make it with `streamingcandle topics ensure`")
    return counts[name]
