"""The group as an administrator sees it: who is in it, and its offsets set from outside."""

from collections.abc import Mapping

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition

from streamingcandle.errors import OwnedError
from streamingcandle.interfaces import Clock, Committed
from streamingcandle.kafka.brokers import ANSWER_TIMEOUT_S, CALL_TIMEOUT_S, Brokers
from streamingcandle.kafka.client import KafkaSettings

_IS_IN_USE = frozenset({KafkaError.UNKNOWN_MEMBER_ID, KafkaError.NON_EMPTY_GROUP, KafkaError.REBALANCE_IN_PROGRESS})
_NO_GROUP = frozenset({KafkaError.GROUP_ID_NOT_FOUND})


def check_idle(settings: KafkaSettings, clock: Clock) -> None:
    """OwnedError while the group has members, dead ones whose session is not over among them."""
    brokers = Brokers(settings, clock, lambda: False)

    def ask() -> list[str]:
        answers = brokers.admin.describe_consumer_groups([settings.group], request_timeout=CALL_TIMEOUT_S)
        try:
            found = answers[settings.group].result(ANSWER_TIMEOUT_S)
        except KafkaException as error:
            if error.args[0].code() in _NO_GROUP:
                return []
            raise
        return sorted(f"{member.client_id} on {member.host}" for member in found.members)

    members = brokers.ask(f"members of group {settings.group}", ask)
    if members:
        raise _in_use(settings, f"{len(members)} members, {members[0]} the first")


def set_offsets(settings: KafkaSettings, clock: Clock, offsets: Mapping[int, Committed]) -> None:
    """Commit these in the name of a group without members, in one request. OwnedError, OutsideError."""
    brokers = Brokers(settings, clock, lambda: False)
    wanted = [
        TopicPartition(settings.tick_topic, number, committed.offset, metadata=committed.metadata)
        for number, committed in offsets.items()
    ]

    def ask() -> None:
        answers = brokers.admin.alter_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(settings.group, wanted)], request_timeout=CALL_TIMEOUT_S
        )
        try:
            found = answers[settings.group].result(ANSWER_TIMEOUT_S)
        except KafkaException as error:
            if error.args[0].code() in _IS_IN_USE:
                raise _in_use(settings, "somebody has joined just now") from error
            raise
        for place in found.topic_partitions:
            if place.error is not None:
                raise KafkaException(place.error)

    brokers.ask(f"offsets of group {settings.group}", ask)


def _in_use(settings: KafkaSettings, who: str) -> OwnedError:
    return OwnedError(
        f"group {settings.group} at {settings.bootstrap_servers}: in use ({who}); stop the service everywhere; "
        "who has ended is a member until its session timeout is over, 30 s by default"
    )
