"""The broker the other tests stand on: it does transactions, and keeps its word over a stop and a kill."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

import broker as broker_module
from broker import Broker

LIMIT_S = 30.0


def create_topic(broker: Broker, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic(topic, num_partitions=1)])[topic].result(LIMIT_S)


def publish(broker: Broker, topic: str, value: bytes, *, commit: bool = True) -> None:
    """Publish one message in a transaction of its own, which is then committed or aborted."""
    producer = Producer({"bootstrap.servers": broker.bootstrap, "transactional.id": topic})
    producer.init_transactions(LIMIT_S)
    producer.begin_transaction()
    producer.produce(topic, value)
    producer.flush(LIMIT_S)
    if commit:
        producer.commit_transaction(LIMIT_S)
    else:
        producer.abort_transaction(LIMIT_S)


def read_committed(broker: Broker, topic: str, count: int) -> list[bytes | None]:
    """Read the first `count` committed messages of the topic; fewer if they do not come within LIMIT_S."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap,
            "group.id": topic,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    try:
        consumer.subscribe([topic])
        return [message.value() for message in consumer.consume(count, LIMIT_S)]
    finally:
        consumer.close()


def test_only_what_a_transaction_committed_is_read(broker: Broker, topic_prefix: str) -> None:
    create_topic(broker, topic_prefix)
    publish(broker, topic_prefix, b"aborted", commit=False)
    publish(broker, topic_prefix, b"committed")
    assert read_committed(broker, topic_prefix, 1) == [b"committed"]


@pytest.mark.parametrize("end", [Broker.stop, Broker.kill], ids=["stop", "kill"])
def test_port_and_data_outlive_the_process(broker: Broker, topic_prefix: str, end: Callable[[Broker], None]) -> None:
    create_topic(broker, topic_prefix)
    publish(broker, topic_prefix, b"before")
    bootstrap = broker.bootstrap

    end(broker)
    assert not broker.running
    broker.start()

    assert broker.bootstrap == bootstrap
    publish(broker, topic_prefix, b"after")
    assert read_committed(broker, topic_prefix, 2) == [b"before", b"after"]


def test_a_frozen_broker_answers_again_once_thawed(broker: Broker, topic_prefix: str) -> None:
    create_topic(broker, topic_prefix)
    broker.freeze()
    try:
        assert broker.running
        with pytest.raises(KafkaException):
            AdminClient({"bootstrap.servers": broker.bootstrap}).list_topics(timeout=0.5)
    finally:
        broker.thaw()
    publish(broker, topic_prefix, b"thawed")
    assert read_committed(broker, topic_prefix, 1) == [b"thawed"]


def test_what_was_spawned_goes_with_the_process_that_spawned_it() -> None:
    """The command inherits the pipe we read from: the pipe's end is the proof that both are gone."""
    code = (
        "import broker, pathlib, sys\n"
        "broker.spawn(['/bin/sh', '-c', 'echo up; exec sleep 600'], cwd=pathlib.Path('/'), output=None)\n"
        "sys.stdin.read()"
    )
    tests = Path(broker_module.__file__).parents[1]
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=tests, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        parent.kill()
        rest, _ = parent.communicate(timeout=LIMIT_S)
    assert rest == b""
