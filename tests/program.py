"""The program as a user starts it, and the reference over what lies in a tick topic."""

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from streamingcandle.candles.candle import Candle, decode_candle
from streamingcandle.candles.reference import Record, Reference
from streamingcandle.candles.rules import Rules
from streamingcandle.settings import load_settings

PROGRAM = str(Path(sys.executable).with_name("streamingcandle"))
STEP_TIMEOUT_S = 240
PAGE_KB = 4
Key = tuple[str, str, int]
LABELS = ("1m", "2m", "3m", "5m", "15m", "30m")


def environment(prefix: str, folder: Path, bootstrap: str | None) -> dict[str, str]:
    """Variables of a deployment of its own on a shared broker."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("STREAMINGCANDLE_")}
    variables |= {
        "STREAMINGCANDLE_APPLICATION_ID": f"{prefix}-app",
        "STREAMINGCANDLE_TICK_TOPIC": f"{prefix}-ticks",
        "STREAMINGCANDLE_CANDLE_TOPIC": f"{prefix}-{{n}}-min-candle",
        "STREAMINGCANDLE_STATE_DIR": str(folder / "state"),
        "STREAMINGCANDLE_DATA_DIR": str(folder / "data"),
    }
    if bootstrap is not None:
        variables["STREAMINGCANDLE_KAFKA_BOOTSTRAP_SERVERS"] = bootstrap
    return variables


def run(
    variables: Mapping[str, str], *arguments: str, stdin: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run the program to its end."""
    return subprocess.run(
        [PROGRAM, *arguments],
        env=dict(variables),
        input=stdin,
        capture_output=True,
        timeout=STEP_TIMEOUT_S,
        check=False,
    )


def run_well(variables: Mapping[str, str], *arguments: str) -> bytes:
    """Run the program, which must succeed; its output."""
    done = run(variables, *arguments)
    assert done.returncode == 0, (arguments, done.returncode, done.stderr.decode()[-2_000:])
    return done.stdout


def rules() -> Rules:
    """The default rules."""
    return load_settings({}, {}).rules()


def read_topic(bootstrap: str, *topics: str) -> list[Message]:
    """Everything a read_committed reader sees, of each partition in order."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"{topics[0]}-reader",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    try:
        known = consumer.list_topics(timeout=10).topics
        open_ends = {(topic, number) for topic in topics for number in known[topic].partitions}
        consumer.assign([TopicPartition(topic, number, 0) for topic, number in open_ends])
        messages: list[Message] = []
        while open_ends:
            for message in consumer.consume(10_000, 0.2):
                error = message.error()
                if error is None:
                    messages.append(message)
                elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the client's public constant
                    open_ends.discard((message.topic() or "", message.partition() or 0))
                else:
                    raise AssertionError(error)
        return messages
    finally:
        consumer.close()


def last_candles(bootstrap: str, topics: Sequence[str]) -> tuple[dict[Key, Candle], int]:
    """Of each window the later record, and how many records there are."""
    found: dict[Key, Candle] = {}
    count = 0
    for message in read_topic(bootstrap, *topics):
        candle = decode_candle(message.value() or b"")
        found[((message.key() or b"").decode(), candle.timeframe, candle.window_start_millis)] = candle
        count += 1
    return found, count


def reference_candles(bootstrap: str, topic: str) -> dict[Key, Candle]:
    """What the reference makes of the tick topic."""
    return folded(records_of(read_topic(bootstrap, topic)))


def records_of(messages: Iterable[Message]) -> list[tuple[int, Record]]:
    """Ticks as the reference takes them, each with its partition."""
    return [(m.partition() or 0, Record(m.value(), m.timestamp()[1], m.offset() or 0)) for m in messages]


def folded(records: Iterable[tuple[int, Record]]) -> dict[Key, Candle]:
    """What the reference makes of them. The rules are made once: they read the table of sessions."""
    made = rules()
    references: dict[int, Reference] = {}
    for number, record in records:
        references.setdefault(number, Reference(made, number)).fold(record)
    return {key: candle for reference in references.values() for key, candle in reference.candles().items()}


def values(candle: Candle) -> tuple[object, ...]:
    """What is compared: all but how a publication describes itself."""
    return tuple(
        getattr(candle, name)
        for name in candle.__struct_fields__
        if name not in ("complete", "revised", "source_partition")
    )


def differences(found: Mapping[Key, Candle], wanted: Mapping[Key, Candle]) -> list[Key]:
    """Windows that are not equal in both."""
    return [
        key
        for key in sorted(set(found) | set(wanted))
        if key not in found or key not in wanted or values(found[key]) != values(wanted[key])
    ]


def percentile(ordered: Sequence[float], percent: int) -> float:
    """The value below which so many of a hundred lie; 100 is the last."""
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def resident_mb(pid: int) -> float:
    """Memory that a process holds now."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * PAGE_KB / 1_000
