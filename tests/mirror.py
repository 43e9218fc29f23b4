"""What an operator has beside our program: a mirror between two clusters, and patience.

A mirror makes the same records at the same offsets, in a topic of another id.
"""

import subprocess
from collections.abc import Mapping, Sequence

from confluent_kafka import Message, Producer

from disturbance import LIMIT_S, Deployment, await_that
from program import read_topic, run
from streamingcandle.simulation.market import MarketTick


def mirror_ticks(source: Deployment, target: Deployment) -> None:
    """What is new in the tick topic, which nobody else writes to there."""
    messages = read_topic(source.bootstrap, source.tick_topic)
    there = read_topic(target.bootstrap, target.tick_topic)
    for number in range(source.partitions):
        have = len(_of(there, number))
        feed = [MarketTick(m.timestamp()[1], m.key() or b"", m.value() or b"") for m in _of(messages, number)]
        target.feed(feed[have:], partition=number)


def mirror_candles(source: Deployment, target: Deployment) -> None:
    """What a reader of committed records sees, letters too."""
    producer = Producer({"bootstrap.servers": target.bootstrap, "log_level": 0})
    for message in read_topic(source.bootstrap, *source.candle_topics, source.letter_topic):
        producer.produce(
            message.topic() or "",
            message.value(),
            message.key(),
            message.partition() or 0,
            headers=message.headers() or [],
        )
    assert producer.flush(LIMIT_S) == 0


def _of(messages: Sequence[Message], number: int) -> list[Message]:
    return [message for message in messages if message.partition() == number]


def once_idle(variables: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run it until the group's last members are gone: each stays one until its session is over."""
    done: list[subprocess.CompletedProcess[bytes]] = []

    def is_idle() -> bool:
        done.append(run(variables, *arguments))
        assert done[-1].returncode != 4 or b"until its session timeout is over" in done[-1].stderr, done[-1].stderr
        return done[-1].returncode != 4

    await_that(is_idle, "a group without members")
    return done[-1]
