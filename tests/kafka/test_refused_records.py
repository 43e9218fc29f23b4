"""Records that a topic does not take, topics that are not there: no candle waits for a letter, the cause is named."""

import ctypes
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import pytest
from confluent_kafka import Message, Producer, cimpl
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from broker import Broker
from disturbance import Deployment, await_that, market
from program import environment, last_candles, read_topic, run, run_well

OPEN_MS = 1_767_325_500_000
TICK = {"Exch": "N", "ExchType": "C", "Token": 1, "LastRate": 10.5, "TickDt": f"/Date({OPEN_MS})/"}
QUICK = {"STREAMINGCANDLE_KAFKA_TRANSACTION_TIMEOUT_MS": "2000"}


class Feed:
    """A tick topic of one partition, and topics of the test's choosing."""

    def __init__(self, broker: Broker, prefix: str, folder: Path, topics: Mapping[str, Mapping[str, str]]) -> None:
        """`topics`: endings of those made here, and their configuration."""
        self.bootstrap, self.prefix = broker.bootstrap, prefix
        self.variables = environment(prefix, folder, broker.bootstrap) | QUICK
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        new = [NewTopic(f"{prefix}-{name}", num_partitions=1, config=dict(config)) for name, config in topics.items()]
        for made in admin.create_topics(new).values() if new else ():
            made.result(30)
        run_well(self.variables, "topics", "ensure", "--partitions", "1")
        self._producer = Producer({"bootstrap.servers": broker.bootstrap, "message.max.bytes": 11_000_000})

    def append(self, value: bytes, key: bytes | None = b"1", headers: Sequence[tuple[str, bytes | None]] = ()) -> None:
        self._producer.produce(f"{self.prefix}-ticks", value, key, timestamp=OPEN_MS, headers=list(headers))
        assert self._producer.flush(30) == 0

    def append_raw(self, value: bytes, headers: Sequence[tuple[bytes, bytes | None]]) -> None:
        """By the C library: Python's client takes no name that is not text."""
        library = ctypes.CDLL(cimpl.__file__)
        library.rd_kafka_conf_new.restype = library.rd_kafka_new.restype = ctypes.c_void_p
        reason = ctypes.create_string_buffer(512)
        conf = ctypes.c_void_p(library.rd_kafka_conf_new())
        library.rd_kafka_conf_set(conf, b"bootstrap.servers", self.bootstrap.encode(), reason, len(reason))
        client = ctypes.c_void_p(library.rd_kafka_new(0, conf, reason, len(reason)))
        parts: list[object] = [1, f"{self.prefix}-ticks".encode(), 4, value, ctypes.c_size_t(len(value))]
        parts += [5, b"1", ctypes.c_size_t(1), 8, ctypes.c_int64(OPEN_MS)]
        for name, text in headers:
            parts += [9, name, text, ctypes.c_ssize_t(len(text or b""))]
        assert library.rd_kafka_producev(client, *parts, 0) == 0
        assert library.rd_kafka_flush(client, 30_000) == 0
        library.rd_kafka_destroy(client)

    def run(self) -> str:
        """To the end; what it said."""
        done = run(self.variables, "run", "--until-end", "--flush")
        assert done.returncode == 0, done.stderr
        return done.stderr.decode()

    def letters(self) -> list[Message]:
        return read_topic(self.bootstrap, f"{self.prefix}-app-dead-letters")

    def candle_ticks(self) -> int:
        found, _ = last_candles(self.bootstrap, [f"{self.prefix}-1-min-candle"])
        return sum(candle.ticks for candle in found.values())


def test_big_keys_many_headers_and_names_that_are_no_text(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    feed = Feed(broker, topic_prefix, tmp_path, {"app-dead-letters": {"max.message.bytes": "1048588"}})
    good = json.dumps(TICK).encode()
    feed.append(good)
    feed.append(b"bad key", b"k" * 1_100_000)
    feed.append(b"bad headers", b"1", [(f"name {number}", b"x" * 2_000) for number in range(1_000)])
    feed.append(b"bad header", b"1", [("long", b"x" * 1_100_000)])
    names = [(b"plain", b"1"), (b"\xff\xfe", b"2"), ("é".encode(), b"3"), (b"\xfd", b"4"), (b"none", None)]
    feed.append_raw(b"bad names", names)
    feed.append_raw(json.dumps(TICK | {"LastRate": 11}).encode(), [(b"\xff", b"on a good record")])
    feed.run()
    assert feed.candle_ticks() == 2
    found = {(letter.value() or b"").decode(): _headers(letter) for letter in feed.letters()}
    assert sorted(found) == ["bad header", "bad headers", "bad key", "bad names"]
    said = {name: dict(headers) for name, headers in found.items()}
    assert said["bad key"]["source.key.length"] == b"1100000"
    assert said["bad key"]["source.key.sha256"] == hashlib.sha256(b"k" * 1_100_000).hexdigest().encode()
    assert said["bad headers"]["source.headers.count"] == b"1000"
    assert said["bad headers"]["name 0"] == b"x" * 2_000
    assert said["bad header"]["source.headers.length"] == b"1100004"
    kept = found["bad names"][:6]
    assert kept[0] == ("plain", b"1")
    assert [text for _, text in kept] == [b"1", b"2", b"3", b"4", None, b"2"]
    assert kept[2][0] == "é"
    assert kept[5] == ("headers.unreadable", b"2")
    # What was cut comes back whole: from the tick topic, where it still lies.
    retried = run(feed.variables, "dead-letters", "retry")
    assert retried.stderr.startswith(b"4 put back"), retried.stderr
    back = read_topic(feed.bootstrap, f"{topic_prefix}-ticks")[-4:]
    assert [len(record.key() or b"") for record in back] == [1_100_000, 1, 1, 1]
    assert len(_headers(back[1])) == 1_001


def test_a_letter_that_no_form_fits_is_named_and_holds_nothing_up(
    broker: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    feed = Feed(broker, topic_prefix, tmp_path, {"app-dead-letters": {"max.message.bytes": "200"}})
    feed.append(b"bad")
    feed.append(json.dumps(TICK).encode())
    said = feed.run()
    assert feed.candle_ticks() == 1
    assert feed.letters() == []
    (line,) = [line for line in said.splitlines() if "shortest form" in line]
    for part in (f"{topic_prefix}-ticks[0]@0", f"{topic_prefix}-app-dead-letters", "json", "max.message.bytes"):
        assert part in line
    assert hashlib.sha256(b"bad").hexdigest() in line


def test_a_letter_that_is_refused_for_what_it_is_goes_in_its_shortest_form(
    broker: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    # Without a key a compacted topic takes nothing.
    feed = Feed(broker, topic_prefix, tmp_path, {"app-dead-letters": {"cleanup.policy": "compact"}})
    feed.append(b"keyless", None)
    feed.append(b"keyed")
    feed.append(json.dumps(TICK).encode())
    feed.run()
    assert feed.candle_ticks() == 1
    # The client does not tell which one of a batch was refused: all of it goes so.
    assert {(letter.key(), letter.value()) for letter in feed.letters()} >= {(b"0@0", None)}
    assert {dict(_headers(letter))["source.offset"] for letter in feed.letters()} == {b"0", b"1"}


def test_candle_topics_that_take_little_get_small_batches(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    feed = Feed(broker, topic_prefix, tmp_path, {"1-min-candle": {"max.message.bytes": "2000"}})
    for token in range(300):
        feed.append(json.dumps(TICK | {"Token": token}).encode(), b"%d" % token)
    said = feed.run()
    assert feed.candle_ticks() == 300
    assert f"{topic_prefix}-1-min-candle takes no record or batch" in said


def test_a_topic_that_takes_no_candle_at_all_is_exit_2(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    feed = Feed(broker, topic_prefix, tmp_path, {"1-min-candle": {"max.message.bytes": "150"}})
    feed.append(json.dumps(TICK).encode())
    done = run(feed.variables, "run", "--until-end", "--flush")
    assert done.returncode == 2, done.stderr
    last = done.stderr.decode().splitlines()[-1]
    assert f"{topic_prefix}-1-min-candle" in last
    assert "max.message.bytes" in last


@pytest.mark.parametrize("missing", ["5-min-candle", "app-dead-letters"])
def test_a_topic_missing_at_the_start_is_exit_2(
    broker: Broker, topic_prefix: str, tmp_path: Path, missing: str
) -> None:
    feed = Feed(broker, topic_prefix, tmp_path, {})
    _delete(broker, f"{topic_prefix}-{missing}")
    done = run(feed.variables | {"STREAMINGCANDLE_WAIT": "1s"}, "run", "--until-end")
    assert done.returncode == 2, done.stderr
    last = done.stderr.decode().splitlines()[-1]
    assert f"{topic_prefix}-{missing}" in last
    assert "topics ensure" in last


def test_a_topic_deleted_during_the_run_is_exit_2(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    with Deployment(broker, topic_prefix, tmp_path, partitions=1, settings=QUICK) as deployment:
        service = deployment.start()
        feed = market(2_000)
        deployment.feed(feed[:1_000])
        deployment.await_committed()
        _delete(broker, deployment.candle_topics[0])
        deployment.feed(feed[1_000:])
        assert service.await_end() == 2, service.text
        last = service.text.splitlines()[-1]
        assert deployment.candle_topics[0] in last
        assert "topics ensure" in last


def _headers(message: Message) -> list[tuple[str, bytes | None]]:
    return cast("list[tuple[str, bytes | None]]", message.headers() or [])


def _delete(broker: Broker, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.delete_topics([topic])[topic].result(30)
    await_that(lambda: topic not in admin.list_topics(timeout=30).topics, "the topic gone")


def test_two_deployments_into_one_candle_topic_are_told_of(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    with Deployment(broker, topic_prefix, tmp_path, partitions=1) as deployment:
        service = deployment.start()
        deployment.feed(market(500))
        deployment.await_committed()
        other = {
            "STREAMINGCANDLE_APPLICATION_ID": f"{topic_prefix}-other",
            "STREAMINGCANDLE_TIMEFRAMES": "1m",
            "STREAMINGCANDLE_STATE_DIR": str(tmp_path / "other"),
        }
        run_well(deployment.variables | other, "topics", "ensure")
        refused = run(deployment.variables | other, "run", "--until-end")
        assert (refused.returncode, b"another application's" in refused.stderr) == (2, True)
        said = run(deployment.variables | other, "run", "--until-end", "--publish-again").stderr.decode()
        (line,) = [line for line in said.splitlines() if "each is there twice" in line]
        assert f"group {topic_prefix}-app " in line
        assert f"into {deployment.candle_topics[0]}:" in line
        asked = run(deployment.variables | other, "doctor")
        assert asked.returncode == 1
        assert b"each is there twice" in asked.stdout + asked.stderr
        # Elsewhere they do not disturb each other.
        apart = other | {"STREAMINGCANDLE_CANDLE_TOPIC": f"{topic_prefix}-apart-{{n}}"}
        run_well(deployment.variables | apart, "topics", "ensure")
        said = run(deployment.variables | apart, "run", "--until-end").stderr.decode()
        assert "each is there twice" not in said
        assert service.stop() == 0
