"""Tick topics and groups that are not what one would wish: each has its answer, and none a wrong candle."""

import json
import re
import shutil
import subprocess
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from broker import Broker
from program import (
    LABELS,
    PROGRAM,
    Key,
    differences,
    environment,
    last_candles,
    read_topic,
    reference_candles,
    rules,
    run,
    run_well,
)
from streamingcandle.candles.candle import Candle, decode_candle
from streamingcandle.candles.murmur2 import partition_of
from streamingcandle.candles.reference import Record, Reference
from streamingcandle.clock import SystemClock
from streamingcandle.simulation.market import Market, MarketTick, ticks

OPEN_MS = 1_767_325_500_000
MINUTE_MS = 60_000
TICKS = list(ticks(Market(8, seed=3), start_ms=OPEN_MS, rate_per_s=1, count=900))
LIMIT_S = 15
END = ("run", "--until-end")


class Deployment:
    """Topics and a group of their own on the broker."""

    def __init__(self, broker: Broker, prefix: str, folder: Path) -> None:
        """Nothing is made yet."""
        self.bootstrap = broker.bootstrap
        self.topic = f"{prefix}-ticks"
        self.group = f"{prefix}-app"
        self.variables = environment(prefix, folder, broker.bootstrap)
        self.candle_topics = [f"{prefix}-{label[:-1]}-min-candle" for label in LABELS]
        self.admin = AdminClient({"bootstrap.servers": broker.bootstrap})

    def ensure(self, partitions: int) -> None:
        """Make the topics."""
        run_well(self.variables, "topics", "ensure", "--partitions", str(partitions))

    def widen(self, partitions: int) -> None:
        """Add partitions to the tick topic; there for everybody when it returns."""
        self.admin.create_partitions([NewPartitions(self.topic, partitions)])[self.topic].result(LIMIT_S)
        _await(lambda: len(self.admin.list_topics(self.topic).topics[self.topic].partitions) == partitions)

    def producer(self, **properties: str) -> Producer:
        """Make a producer of ticks as Java's would be."""
        return Producer({"bootstrap.servers": self.bootstrap, "partitioner": "murmur2_random", **properties})

    def produce(self, feed: Sequence[MarketTick], *, key: Callable[[MarketTick], bytes | None] | None = None) -> None:
        """Send ticks, by default keyed by token."""
        producer = self.producer()
        for tick in feed:
            producer.produce(self.topic, tick.value, tick.key if key is None else key(tick), timestamp=tick.at_ms)
        assert producer.flush(LIMIT_S) == 0

    def refused(self, *arguments: str, **variables: str) -> str:
        """Run, which must end with 2; its last line."""
        done = run(self.variables | variables, *arguments)
        said = done.stderr.decode()
        assert done.returncode == 2, said
        assert "Traceback" not in said
        return said.splitlines()[-1]

    def assert_right(self) -> None:
        """Flush, and compare everything with the reference."""
        run_well(self.variables, *END, "--flush")
        wanted = reference_candles(self.bootstrap, self.topic)
        found, _ = last_candles(self.bootstrap, self.candle_topics)
        assert len(wanted) > 50
        assert differences(found, wanted) == []

    def publications(self) -> dict[Key, list[Candle]]:
        """Every publication, by window."""
        found: dict[Key, list[Candle]] = {}
        for topic in self.candle_topics:
            for message in read_topic(self.bootstrap, topic):
                candle = decode_candle(message.value() or b"")
                key = ((message.key() or b"").decode(), candle.timeframe, candle.window_start_millis)
                found.setdefault(key, []).append(candle)
        return found


@pytest.fixture
def deployment(broker: Broker, topic_prefix: str, tmp_path: Path) -> Deployment:
    """Give a deployment of its own."""
    return Deployment(broker, topic_prefix, tmp_path)


def test_transactions_of_the_feed(deployment: Deployment) -> None:
    deployment.ensure(2)
    producer = deployment.producer(**{"transactional.id": deployment.topic})
    producer.init_transactions(LIMIT_S)
    for number, at in enumerate(range(0, len(TICKS), 90)):
        producer.begin_transaction()
        for tick in TICKS[at : at + 90]:
            producer.produce(deployment.topic, tick.value, tick.key, timestamp=tick.at_ms)
        producer.flush(LIMIT_S)
        if number % 3 == 2:
            producer.abort_transaction(LIMIT_S)
        else:
            producer.commit_transaction(LIMIT_S)
        if number == 4:
            run_well(deployment.variables, *END)
    deployment.assert_right()


def test_topic_made_anew(deployment: Deployment) -> None:
    deployment.ensure(2)
    deployment.produce(TICKS[:450])
    run_well(deployment.variables, *END)
    deployment.admin.delete_topics([deployment.topic])[deployment.topic].result(LIMIT_S)
    for topic in deployment.candle_topics:  # those of the old ticks
        deployment.admin.delete_topics([topic])[topic].result(LIMIT_S)
    _await(lambda: not set(deployment.admin.list_topics().topics) & {deployment.topic, *deployment.candle_topics})
    deployment.ensure(2)
    deployment.produce(TICKS[200:])
    deployment.assert_right()


def test_offsets_gone_before_they_were_read(deployment: Deployment) -> None:
    deployment.ensure(1)
    deployment.produce(TICKS[:300])
    run_well(deployment.variables, *END)
    deployment.produce(TICKS[300:])
    gone = {TopicPartition(deployment.topic, 0, 500): None}
    for future in deployment.admin.delete_records(list(gone)).values():
        future.result(LIMIT_S)
    stopped = run(deployment.variables | {"STREAMINGCANDLE_GONE_OFFSETS": "stop"}, *END)
    assert stopped.returncode == 3
    assert f"{deployment.topic}[0]: records 300 to 499 are gone" in stopped.stderr.decode().splitlines()[-1]
    done = run(deployment.variables, *END, "--flush")
    assert done.returncode == 0, done.stderr
    assert b"records 300 to 499 are gone" in done.stderr
    first_left_ms = TICKS[500].at_ms
    for (_, _, start_ms), published in deployment.publications().items():
        candle = published[-1]
        if candle.source_offset >= 500:
            assert candle.complete == (start_ms >= first_left_ms), candle


def test_a_tick_without_a_key(deployment: Deployment) -> None:
    deployment.ensure(2)
    deployment.produce([MarketTick(OPEN_MS, b"", b"rubbish")], key=lambda _: None)
    deployment.produce(TICKS[:10], key=lambda tick: None if tick is TICKS[5] else tick.key)
    said = deployment.refused(*END)
    assert "without a key" in said
    assert json.loads(TICKS[5].value)["ExchType"] in said
    assert b"without a key" in run(deployment.variables | {"STREAMINGCANDLE_PARTITION_CHECK": "warn"}, *END).stderr


def test_no_key_is_needed_where_there_is_one_partition(deployment: Deployment) -> None:
    deployment.ensure(1)
    deployment.produce(TICKS[:400], key=lambda _: None)
    deployment.assert_right()


def test_an_instrument_in_two_partitions(deployment: Deployment) -> None:
    deployment.ensure(2)
    one = [tick for tick in TICKS if tick.key == TICKS[0].key]
    deployment.produce(one, key=lambda tick: str(one.index(tick) % 16).encode())
    said = deployment.refused(*END)
    assert f":{(TICKS[0].key or b'').decode()} is in partitions" in said
    run_well(deployment.variables | {"STREAMINGCANDLE_PARTITION_CHECK": "warn"}, *END)


def test_partitions_added(deployment: Deployment) -> None:
    deployment.ensure(2)
    deployment.produce(TICKS[:300])
    run_well(deployment.variables, *END)
    deployment.widen(3)
    deployment.produce([tick for tick in TICKS[300:] if partition_of(tick.key, 3) == 2])
    said = deployment.refused(*END)
    assert "partitions were added (2, now 3) while windows are open" in said


def test_partitions_added_between_sessions(deployment: Deployment) -> None:
    deployment.ensure(2)
    deployment.produce(TICKS[:300])
    # Minutes after the last tick of each partition every window is due.
    late_ms = OPEN_MS + 14 * 3_600_000 + 40 * MINUTE_MS
    tail = [
        MarketTick(late_ms, key, b'{"Exch":"M","ExchType":"D","Token":9%s,"LastRate":1,"TickDt":%d}' % (key, late_ms))
        for key in (b"0", b"1", b"2", b"3")
    ]
    deployment.produce(tail)
    run_well(deployment.variables, *END)
    deployment.widen(4)
    day_ms = 3 * 86_400_000
    deployment.produce([*ticks(Market(8, seed=4), start_ms=OPEN_MS + day_ms, rate_per_s=1, count=200)])
    deployment.assert_right()


def _commit_as_another_program(deployment: Deployment, offset: int) -> None:
    other = Consumer({"bootstrap.servers": deployment.bootstrap, "group.id": deployment.group})

    def is_committed() -> bool:
        try:
            other.commit(offsets=[TopicPartition(deployment.topic, 0, offset)], asynchronous=False)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_MEMBER_ID:  # the group's member of before
                raise
            return False
        return True

    _await(is_committed)
    other.close()


def test_offsets_of_another_program(deployment: Deployment) -> None:
    deployment.ensure(1)
    deployment.produce(TICKS)
    _commit_as_another_program(deployment, 500)
    assert "--adopt" in deployment.refused(*END)
    run_well(deployment.variables, *END, "--adopt")
    run_well(deployment.variables, *END, "--flush")
    adopted_ms = TICKS[500].at_ms
    wanted = {
        key: candle
        for key, candle in reference_candles(deployment.bootstrap, deployment.topic).items()
        if candle.window_end_millis > adopted_ms
    }
    found = {key: published[-1] for key, published in deployment.publications().items()}
    assert differences({key: found[key] for key in found if key in wanted}, wanted) == []
    assert all(found[key].complete for key in wanted if key[2] > TICKS[0].at_ms)
    # What the other program had out is touched only where a late tick changed it.
    assert all(candle.source_offset >= 500 for key, candle in found.items() if key not in wanted)


def test_a_deleted_group_is_not_a_new_one(deployment: Deployment, tmp_path: Path) -> None:
    """By the snapshots topic alone, then by the candles alone."""
    deployment.variables["STREAMINGCANDLE_KAFKA_GROUP_PROTOCOL"] = "consumer"  # whose members leave at once
    deployment.ensure(2)
    deployment.produce(TICKS[:600])
    run_well(deployment.variables, *END)
    published = deployment.publications()

    def is_deleted() -> bool:
        try:
            deployment.admin.delete_consumer_groups([deployment.group])[deployment.group].result(LIMIT_S)
        except KafkaException as error:
            return bool(error.args[0].code() != KafkaError.NON_EMPTY_GROUP)
        return True

    _await(is_deleted)
    shutil.rmtree(tmp_path / "state")
    said = deployment.refused(*END)
    assert "has no offset (expired, or deleted), and a snapshot at offset " in said
    assert "(snapshots topic)" in said
    assert deployment.publications() == published
    run_well(deployment.variables, *END, "--adopt")
    assert deployment.publications() == published
    deployment.produce(TICKS[600:])
    deployment.assert_right()
    assert all(
        candles[: len(published[key])] == published[key]
        for key, candles in deployment.publications().items()
        if key in published
    )

    _await(is_deleted)
    topic = f"{deployment.group}-snapshots"
    deployment.admin.delete_topics([topic])[topic].result(LIMIT_S)
    shutil.rmtree(tmp_path / "state")
    assert "-candle has candles of these ticks up to offset" in deployment.refused(*END)


def _publish_as_another_service(deployment: Deployment, seen: int, grace_ms: int) -> set[Key]:
    """What a service of the old kind has done: windows out once its newest tick is the grace behind their end."""
    reference = Reference(rules())
    for offset, tick in enumerate(TICKS[:seen]):
        reference.fold(Record(tick.value, tick.at_ms, offset))
    newest_ms = TICKS[seen - 1].at_ms
    out = {key: c for key, c in reference.candles().items() if c.window_end_millis + grace_ms <= newest_ms}
    producer = deployment.producer()
    topics = dict(zip(LABELS, deployment.candle_topics, strict=True))
    for (name, label, _), candle in out.items():
        producer.produce(topics[label], msgspec.json.encode(candle), name)
    assert producer.flush(LIMIT_S) == 0
    _commit_as_another_program(deployment, seen)
    return set(out)


def test_cut_over_from_another_service(deployment: Deployment) -> None:
    deployment.ensure(1)
    deployment.produce(TICKS[:500])
    out = _publish_as_another_service(deployment, 500, 5_000)
    assert len(out) > 30
    deployment.produce(TICKS[500:])
    text = (Path(__file__).parents[2] / "docs" / "upgrading.md").read_text()
    steps = [textwrap.dedent(block) for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)]
    assert steps[2].split() == ["streamingcandle", "run"]
    program = f'"{PROGRAM}"'
    script = (steps[0] + steps[1] + "streamingcandle run --until-end --flush\n").replace(
        "streamingcandle ", f"{program} "
    )
    script = re.sub("export STREAMINGCANDLE_(KAFKA_BOOTSTRAP_SERVERS|APPLICATION_ID)=.*\n", "", script)
    done = subprocess.run(
        ["bash", "-euc", script], env=deployment.variables, capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    wanted = reference_candles(deployment.bootstrap, deployment.topic)
    published = deployment.publications()
    assert differences({key: candles[-1] for key, candles in published.items()}, wanted) == []
    for key, candles in published.items():
        # Once, but for what a later late tick changed.
        assert len(candles) == 1 or all(candle.source_offset >= 500 for candle in candles[1:]), key
    assert all(published[key][0].source_offset < 500 for key in out)


def test_offsets_reset_by_an_admin_tool(deployment: Deployment) -> None:
    deployment.variables["STREAMINGCANDLE_KAFKA_SESSION_TIMEOUT_MS"] = "6000"
    deployment.ensure(1)
    deployment.produce(TICKS[:600])
    run_well(deployment.variables, *END)
    _commit_as_another_program(deployment, 100)
    assert "offset reset" in deployment.refused(*END)
    run_well(deployment.variables, *END, "--adopt")
    deployment.produce(TICKS[600:])
    run_well(deployment.variables, *END, "--flush")
    found = {key: published[-1] for key, published in deployment.publications().items()}
    assert differences(found, reference_candles(deployment.bootstrap, deployment.topic)) == []


def _await(is_so: Callable[[], bool]) -> None:
    clock = SystemClock()
    until_ms = clock.monotonic_ms() + LIMIT_S * 1_000
    while not is_so():
        assert clock.monotonic_ms() < until_ms
        clock.sleep_ms(50)
