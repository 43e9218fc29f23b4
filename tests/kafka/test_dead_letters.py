"""`dead-letters retry` on the real broker: each record once, through kills, open transactions and a second retry."""

import json
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic, TopicPartition

from broker import Broker
from disturbance import kill_retries
from program import PROGRAM, environment, read_topic, run, run_well
from streamingcandle.candles.murmur2 import partition_of
from streamingcandle.clock import SystemClock
from streamingcandle.errors import OwnedError
from streamingcandle.kafka.client import KafkaSettings
from streamingcandle.kafka.letters import KafkaLetters
from streamingcandle.letters import Place, Retry

OPEN_MS = 1_767_325_500_000
clock = SystemClock()
BAD = b'{"half":'


def _reject(broker: Broker, prefix: str, folder: Path, count: int) -> dict[str, str]:
    variables = environment(prefix, folder, broker.bootstrap)
    run_well(variables, "topics", "ensure", "--partitions", "3")
    producer = Producer({"bootstrap.servers": broker.bootstrap, "partitioner": "murmur2_random"})
    for index in range(count):
        producer.produce(f"{prefix}-ticks", BAD + b"%d" % index, b"%d" % (index % 10), timestamp=OPEN_MS + index)
    assert producer.flush(30) == 0
    run_well(variables, "run", "--until-end")
    return variables


def _retried(broker: Broker, prefix: str) -> Counter[bytes]:
    found: Counter[bytes] = Counter()
    for message in read_topic(broker.bootstrap, f"{prefix}-ticks"):
        headers = dict(message.headers() or [])
        if "retried" in headers:
            number = int((message.value() or b"").removeprefix(BAD))
            assert message.key() == b"%d" % (number % 10)
            assert message.timestamp()[1] == OPEN_MS + number
            found[message.value() or b""] += 1
    return found


def test_a_record_goes_back_to_its_own_partition(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    """Its producer shares keys out by CRC-32, librdkafka's default: by ours they would be in two partitions."""
    variables = environment(topic_prefix, tmp_path, broker.bootstrap)
    run_well(variables, "topics", "ensure", "--partitions", "3")
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for token in range(12):
        tick = {"Exch": "N", "ExchType": "C", "Token": token, "TickDt": "2026-01-02 09:15:01"}
        for price in ({"LastRate": 1.5}, {"ltp": 2.5}):
            producer.produce(f"{topic_prefix}-ticks", json.dumps(tick | price), b"%d" % token, timestamp=OPEN_MS)
    assert producer.flush(30) == 0
    run_well(variables, "run", "--until-end")
    first = read_topic(broker.bootstrap, f"{topic_prefix}-ticks")
    homes = {message.key(): message.partition() for message in first}
    assert any(home != partition_of(key or b"", 3) for key, home in homes.items())
    run_well(variables, "dead-letters", "retry")
    back = read_topic(broker.bootstrap, f"{topic_prefix}-ticks")
    assert len(back) == len(first) + 12
    assert {(message.key(), message.partition()) for message in back} == set(homes.items())
    done = run(variables, "run", "--until-end", "--flush")
    assert done.returncode == 0, done.stderr


def test_retries_killed_in_a_loop_put_back_each_once(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    count = 12_000
    variables = _reject(broker, topic_prefix, tmp_path, count)
    watcher = Consumer(
        {"bootstrap.servers": broker.bootstrap, "group.id": "watcher", "isolation.level": "read_uncommitted"}
    )
    places = [TopicPartition(f"{topic_prefix}-ticks", number) for number in range(3)]

    def end() -> int:
        """Records of open transactions too: a kill is to meet one."""
        return sum((watcher.get_watermark_offsets(place, timeout=30) or (0, 0))[1] for place in places)

    kills = kill_retries(variables, end, seed=4, late_ms=40)
    watcher.close()
    run_well(variables, "dead-letters", "retry")
    found = _retried(broker, topic_prefix)
    assert len(found) == count
    assert set(found.values()) == {1}
    assert kills >= 2
    done = run(variables, "dead-letters", "retry")
    assert done.stderr.decode() == f"0 put back on {topic_prefix}-ticks, {count} were before\n"


def test_a_retry_waits_for_what_lies_behind_anothers_open_transaction(
    broker: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    variables = _reject(broker, topic_prefix, tmp_path, 20)
    properties = {"bootstrap.servers": broker.bootstrap, "transactional.id": f"{topic_prefix}-other"}
    other = Producer(properties)
    other.init_transactions(30)
    other.begin_transaction()
    for number in range(3):
        other.produce(f"{topic_prefix}-app-dead-letters", b"open", partition=number)
    assert other.flush(30) == 0
    with subprocess.Popen([PROGRAM, "dead-letters", "retry"], env=variables) as first:
        # It waits for the open transaction: marks of another retry could lie behind it.
        with pytest.raises(subprocess.TimeoutExpired):
            first.wait(4)
        other.abort_transaction(30)
        assert first.wait(60) == 0
    run_well(variables, "dead-letters", "retry")
    found = _retried(broker, topic_prefix)
    assert (len(found), set(found.values())) == (20, {1})


def test_of_two_retries_the_earlier_one_ends(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    variables = environment(topic_prefix, tmp_path, broker.bootstrap)
    run_well(variables, "topics", "ensure", "--partitions", "1")
    settings = KafkaSettings(
        bootstrap_servers=broker.bootstrap, group="g", tick_topic=f"{topic_prefix}-ticks", instance=f"{topic_prefix}-r"
    )
    first, second = (KafkaLetters(settings, clock, topic=f"{topic_prefix}-app-dead-letters") for _ in "ab")
    retry = Retry(
        letter=Place(0, 0),
        key=b"1",
        value=BAD + b"1",
        timestamp_ms=OPEN_MS + 1,
        headers=[("retried", b"x")],
        topic=f"{topic_prefix}-ticks",
        partition=0,
    )
    first.begin()
    second.begin()
    assert second.put_back([retry]) == 1
    with pytest.raises(OwnedError, match="another retry"):
        first.put_back([retry])
    assert _retried(broker, topic_prefix).total() == 1
    first.close()
    second.close()


def test_a_cut_letter_goes_back_whole_or_not_at_all(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    letters, ticks = f"{topic_prefix}-app-dead-letters", f"{topic_prefix}-ticks"
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    small = NewTopic(letters, num_partitions=1, replication_factor=1, config={"max.message.bytes": "100000"})
    admin.create_topics([small])[letters].result(30)
    variables = environment(topic_prefix, tmp_path, broker.bootstrap)
    run_well(variables, "topics", "ensure", "--partitions", "1")
    producer = Producer({"bootstrap.servers": broker.bootstrap, "message.max.bytes": 11_000_000})
    poison = b'{"Exch":"' + b"x" * 2_000_000
    for value in (poison, poison + b"y", b"{"):
        producer.produce(ticks, value, b"1", timestamp=OPEN_MS)
        assert producer.flush(30) == 0
    run_well(variables, "run", "--until-end")
    shown = run_well(variables, "dead-letters", "show", "0@0").decode()
    assert f"{len(poison)} bytes, cut to" in shown
    admin.delete_records([TopicPartition(ticks, 0, 1)])[TopicPartition(ticks, 0, 1)].result(30)
    done = run(variables, "dead-letters", "retry")
    assert done.returncode == 1
    first, error = done.stderr.decode().splitlines()
    assert first == f"2 put back on {ticks}, 0 were before"
    assert error.startswith("streamingcandle: 1 not put back, 0@0 the first")
    again = [message for message in read_topic(broker.bootstrap, ticks) if message.headers()]
    assert [message.value() for message in again] == [poison + b"y", b"{"]


def test_only_committed_letters_are_read(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    variables = _reject(broker, topic_prefix, tmp_path, 5)
    other = Producer({"bootstrap.servers": broker.bootstrap, "transactional.id": f"{topic_prefix}-aborted"})
    other.init_transactions(30)
    other.begin_transaction()
    headers = [("reason", b"json"), ("source.topic", b"t"), ("source.partition", b"0"), ("source.offset", b"77")]
    other.produce(f"{topic_prefix}-app-dead-letters", b"x", headers=[*headers, ("source.timestamp", b"1")])
    assert other.flush(30) == 0
    other.abort_transaction(30)
    lines = run_well(variables, "dead-letters", "ls", "--json").splitlines()
    assert len(lines) == 5
    assert all(json.loads(line)["source"] != "0@77" for line in lines)


@pytest.mark.parametrize("command", ["dead-letters ls", "dead-letters retry", "candles N:C:1", "simulate --ticks 1"])
def test_a_missing_topic_is_one_line(broker: Broker, topic_prefix: str, tmp_path: Path, command: str) -> None:
    done = run(environment(topic_prefix, tmp_path, broker.bootstrap), *command.split())
    (line,) = done.stderr.decode().splitlines()
    assert (done.returncode, "topics ensure" in line) == (2, True), line


def test_a_broker_that_is_not_there_yet_is_waited_for(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    variables = _reject(broker, topic_prefix, tmp_path, 5)
    broker.stop()
    command = [PROGRAM, "dead-letters", "ls", "--json"]
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr is not None
            assert b"no broker yet" in process.stderr.readline()
        finally:
            broker.start()
        told, _ = process.communicate(timeout=60)
    assert (process.returncode, len(told.splitlines())) == (0, 5)
