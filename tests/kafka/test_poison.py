"""A record too large for the dead-letter topic: cut, told in full, and the neighbours' candles come."""

import hashlib
import json
from pathlib import Path

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from broker import Broker
from program import environment, last_candles, read_topic, run_well

OPEN_MS = 1_767_325_500_000


def test_a_ten_megabyte_record_is_cut_and_costs_no_neighbour(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    letters = f"{topic_prefix}-app-dead-letters"
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    small = NewTopic(letters, num_partitions=1, replication_factor=1, config={"max.message.bytes": "100000"})
    admin.create_topics([small])[letters].result(30)
    variables = environment(topic_prefix, tmp_path, broker.bootstrap)
    run_well(variables, "topics", "ensure", "--partitions", "1")
    poison = b'{"Exch":"' + b"x" * 10_000_000
    tick = {"Exch": "N", "ExchType": "C", "Token": 1, "LastRate": 10.5, "TickDt": f"/Date({OPEN_MS})/"}
    nested = json.dumps(tick)[:-1].encode() + b',"Deep":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    producer = Producer({"bootstrap.servers": broker.bootstrap, "message.max.bytes": 11_000_000})
    for value in (poison, nested, json.dumps(tick | {"LastRate": 11}).encode()):
        producer.produce(f"{topic_prefix}-ticks", value, b"1", timestamp=OPEN_MS)
    assert producer.flush(30) == 0
    run_well(variables, "run", "--until-end", "--flush")
    (letter,) = read_topic(broker.bootstrap, letters)
    headers = dict(letter.headers() or [])
    assert poison.startswith(letter.value() or b"-")
    assert 90_000 < len(letter.value() or b"") < 100_000
    assert headers["reason"] == b"json"
    assert headers["source.length"] == str(len(poison)).encode()
    assert headers["source.sha256"] == hashlib.sha256(poison).hexdigest().encode()
    found, _ = last_candles(broker.bootstrap, [f"{topic_prefix}-1-min-candle"])
    (candle,) = found.values()
    assert (candle.open, candle.close, candle.ticks) == (10.5, 11, 2)
