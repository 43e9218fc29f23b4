"""Ticks of a file into a broker's topic, and their candles read by name."""

import csv
import json
from pathlib import Path

from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from broker import Broker
from program import environment, read_topic, run, run_well

AT_MS = 1_767_325_501_000
HOUR_MS = "3600000"
TICK = {"Exch": "N", "ExchType": "C", "Token": 7, "LastRate": 1.5, "TickDt": f"/Date({AT_MS})/"}


def _line(**fields: object) -> bytes:
    return json.dumps(TICK | fields).encode() + b"\n"


def test_records_have_their_own_time_and_candles_are_read_by_name(
    broker: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    variables = environment(topic_prefix, tmp_path, broker.bootstrap)
    run_well(variables, "topics", "ensure", "--partitions", "3")
    names = ((1, "RELIANCE"), (2, "TCS"), (3, "Infosys"))
    lines = [_line(Token=token, companyName=name) for token, name in names]
    done = run(variables, "ingest", "-", stdin=b"".join([*lines, _line(LastRate=0), _line(LastRate=-1)]))
    assert done.returncode == 0, done.stderr
    ticks = read_topic(broker.bootstrap, f"{topic_prefix}-ticks")
    assert [message.timestamp()[1] for message in ticks] == [AT_MS] * 5
    run_well(variables, "run", "--until-end", "--flush")
    (letter,) = read_topic(broker.bootstrap, f"{topic_prefix}-app-dead-letters")
    assert dict(letter.headers() or [])["reason"] == b"price"
    found = run_well(variables, "candles", "infosys", "N:C:1", "--format", "csv").decode().splitlines()
    assert [(row["instrument"], row["companyName"]) for row in csv.DictReader(found)] == [
        ("N:C:3", "Infosys"),
        ("N:C:1", "RELIANCE"),
    ]
    listed = run_well(variables, "candles", "--list", "--format", "json").splitlines()
    assert [json.loads(line)["instrument"] for line in listed] == ["N:C:1", "N:C:2", "N:C:3"]
    done = run(variables, "candles", "N:C:4")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"N:C:4: no instrument with 1m candles has this name; nearest: N:C:" in done.stderr


def test_a_topic_that_takes_no_past_times_is_named_with_its_setting(
    broker: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    variables = environment(topic_prefix, tmp_path, broker.bootstrap)
    topic = f"{topic_prefix}-ticks"
    config = {"message.timestamp.before.max.ms": HOUR_MS}
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic(topic, 1, 1, config=config)])[topic].result()
    done = run(variables, "ingest", "-", stdin=_line() * 3)
    assert (done.returncode, done.stdout) == (3, b"")
    error = done.stderr.decode().splitlines()[-1]
    assert f"topic {topic} at {broker.bootstrap}: its message.timestamp.before.max.ms refuses" in error
    assert "2026-01-02T03:45:01.000+00:00" in error, error[150:]
    assert "--add-config message.timestamp.before.max.ms=9223372036854775807" in error
    assert "; at least 0 are there" in error
    assert run(variables, "ingest", "--stamp", "now", "-", stdin=_line() * 3).returncode == 0
