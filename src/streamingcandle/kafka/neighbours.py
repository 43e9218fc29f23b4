"""Other groups that make the same candles of the same ticks: each candle is then there twice, and neither says so.

A commit's metadata names the candle topics it went to, in short (`candles/commit.py`). Asked by plain clients: an admin
client that asks a group's coordinator may end the process (docs/decisions/0005).
"""

from collections.abc import Sequence
from contextlib import suppress
from difflib import SequenceMatcher

import msgspec
from confluent_kafka import Consumer, ConsumerGroupState, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from streamingcandle.candles.commit import Commit, topic_marks
from streamingcandle.errors import SettingsError
from streamingcandle.interfaces import Clock
from streamingcandle.kafka.client import KafkaSettings, admin_properties, new_client, reader_properties

ASK_S = 1.0
GROUPS_MAX = 30
"""Each takes a client and some 20 ms; those whose names are most like ours come first."""
LIMIT_MS = 3_000
_ALIVE = (
    ConsumerGroupState.STABLE,
    ConsumerGroupState.PREPARING_REBALANCING,
    ConsumerGroupState.COMPLETING_REBALANCING,
)


class Neighbour(msgspec.Struct, frozen=True):
    """A group with members, and those of our candle topics that it writes to as well."""

    group: str
    topics: tuple[str, ...]

    def __str__(self) -> str:
        """For the operator; what to do comes behind it."""
        return (
            f"group {self.group} makes candles of these ticks too, into {', '.join(self.topics)}: each is there twice"
        )


CURE = "stop one of the two, or give it other candle topics (STREAMINGCANDLE_CANDLE_TOPIC)"


def neighbours(
    settings: KafkaSettings, candles: Sequence[str], partitions: Sequence[int], clock: Clock
) -> list[Neighbour]:
    """Of the groups that we may see those that we find in time; none where nobody answers."""
    until_ms = clock.monotonic_ms() + LIMIT_MS
    admin = new_client(AdminClient, settings, admin_properties(settings))
    try:
        listed = admin.list_consumer_groups(states=set(_ALIVE), request_timeout=ASK_S).result(ASK_S + 1)
    except (KafkaException, TimeoutError):
        return []
    groups = [one.group_id for one in listed.valid if one.group_id != settings.group]
    groups.sort(key=lambda group: -SequenceMatcher(None, group, settings.group).ratio())
    places = [TopicPartition(settings.tick_topic, number) for number in partitions]
    wanted = {topic_marks([name]): name for name in candles}
    found = []
    for group in groups[:GROUPS_MAX]:
        if clock.monotonic_ms() > until_ms:
            break
        asker = new_client(Consumer, settings, reader_properties(msgspec.structs.replace(settings, group=group)))
        try:
            committed = asker.committed(places, timeout=ASK_S)
        except KafkaException:  # such as one that we may not see
            continue
        finally:
            asker.close()
        marks = set[str]()
        for place in committed:
            with suppress(SettingsError):  # of a newer version
                commit = Commit.decode(place.metadata or "")
                marks |= set(commit.marks) if commit is not None else set()
        if both := tuple(name for mark, name in wanted.items() if mark in marks):
            found.append(Neighbour(group, both))
    return found
