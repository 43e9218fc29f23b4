"""Starting: a topic that is missing, one that comes while we wait, another program's offsets."""

import subprocess
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition

from broker import Broker
from program import PROGRAM, environment, run, run_well


def test_a_missing_topic_is_exit_2(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    variables = environment(topic_prefix, tmp_path, broker.bootstrap) | {"STREAMINGCANDLE_WAIT": "1s"}
    done = run(variables, "run", "--until-end")
    assert done.returncode == 2, done.stderr
    assert b"streamingcandle topics ensure" in done.stderr.splitlines()[-1]


def test_a_topic_that_comes_is_waited_for(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    variables = environment(topic_prefix, tmp_path, broker.bootstrap)
    with subprocess.Popen([PROGRAM, "run", "--until-end"], env=variables, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        while b"waiting up to" not in process.stderr.readline():
            assert process.poll() is None
        run_well(variables, "topics", "ensure", "--partitions", "1")
        assert process.wait(60) == 0


def test_another_programs_offsets_are_refused_without_adopt(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    variables = environment(topic_prefix, tmp_path, broker.bootstrap)
    run_well(variables, "topics", "ensure", "--partitions", "1")
    run_well(variables, "simulate", "--ticks", "50", "--date", "2026-01-02", "--speed", "0")
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": f"{topic_prefix}-app"})
    consumer.commit(offsets=[TopicPartition(f"{topic_prefix}-ticks", 0, 20)], asynchronous=False)
    consumer.close()
    done = run(variables, "run", "--until-end")
    assert done.returncode == 2
    assert b"--adopt" in done.stderr
    run_well(variables, "run", "--until-end", "--adopt")
