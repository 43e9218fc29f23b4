"""A session of ticks through a real broker: the six topics equal the reference, nothing is published twice."""

import random
from collections import Counter
from pathlib import Path

from confluent_kafka import Producer

from broker import Broker
from program import (
    LABELS,
    differences,
    environment,
    last_candles,
    read_topic,
    reference_candles,
    run,
    run_well,
)
from streamingcandle.simulation.market import Market, ticks

OPEN_MS = 1_767_325_500_000
GARBAGE = (b"not json", b'{"Exch":"N"', b"", None, b"\xff\xfe", b'{"Exch":"N","ExchType":"C","Token":1,"LastRate":-1}')


def _session(count: int) -> list[bytes]:
    """Lines of a session with disorder (1 %, up to 5 s) and duplicates."""
    rng = random.Random(7)
    lines = []
    for tick in ticks(Market(300, seed=3), start_ms=OPEN_MS, rate_per_s=25, count=count):
        lines.append(tick.value)
        if rng.random() < 0.01:
            lines.append(rng.choice(lines[-50:]))
    return lines


def _put_garbage(bootstrap: str, topic: str) -> None:
    producer = Producer({"bootstrap.servers": bootstrap})
    for value in GARBAGE:
        producer.produce(topic, value, b"1", timestamp=OPEN_MS)
    assert producer.flush(30) == 0


def _topics(prefix: str) -> list[str]:
    return [f"{prefix}-{label[:-1]}-min-candle" for label in LABELS]


def _candles_equal(broker: Broker, prefix: str) -> int:
    found, count = last_candles(broker.bootstrap, _topics(prefix))
    wanted = reference_candles(broker.bootstrap, f"{prefix}-ticks")
    assert len(wanted) > 1_000
    assert differences(found, wanted) == []
    return count


def test_session_equals_the_reference_and_a_second_run_publishes_nothing(
    broker: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    variables = environment(topic_prefix, tmp_path, broker.bootstrap)
    run_well(variables, "topics", "ensure", "--partitions", "3")
    lines = _session(8_000)
    (tmp_path / "ticks.jsonl").write_bytes(b"\n".join([*lines[:10], b"garbage", *lines[10:]]))
    done = run(variables, "ingest", str(tmp_path / "ticks.jsonl"))
    assert done.returncode == 1
    assert b"ticks.jsonl:11: json" in done.stderr
    _put_garbage(broker.bootstrap, f"{topic_prefix}-ticks")
    run_well(variables, "run", "--until-end", "--flush")
    count = _candles_equal(broker, topic_prefix)

    letters = read_topic(broker.bootstrap, f"{topic_prefix}-app-dead-letters")
    assert Counter(m.value() or b"" for m in letters) == Counter(value or b"" for value in GARBAGE)
    reasons = Counter(dict(m.headers() or [])["reason"] for m in letters)
    assert reasons == {b"empty": 1, b"json": 3, b"price": 1, b"tombstone": 1}

    run_well(variables, "run", "--until-end", "--flush")
    assert last_candles(broker.bootstrap, _topics(topic_prefix))[1] == count


def test_five_pieces_and_a_new_process_for_each(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    variables = environment(topic_prefix, tmp_path, broker.bootstrap)
    run_well(variables, "topics", "ensure", "--partitions", "3")
    lines = _session(5_000)
    size = len(lines) // 5 + 1
    for piece in range(5):
        path = tmp_path / f"{piece}.jsonl"
        path.write_bytes(b"\n".join(lines[piece * size : (piece + 1) * size]))
        run_well(variables, "ingest", str(path))
        run_well(variables, "run", "--until-end", "--flush")
    _candles_equal(broker, topic_prefix)
