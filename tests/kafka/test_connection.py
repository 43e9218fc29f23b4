"""The way to the broker is cut, held up or slow, while ticks come in."""

import re
import subprocess
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, TopicPartition

from disturbance import Deployment, market
from program import PROGRAM, environment, run_well
from proxy import OFFSET_FETCH, Proxied

RESUMED_S = 5.0


def test_cut_and_mended(proxied: Proxied, topic_prefix: str, tmp_path: Path) -> None:
    feed = market(2_000)
    with Deployment(proxied.broker, topic_prefix, tmp_path, through=proxied.proxy.bootstrap) as deployment:
        service = deployment.start()
        deployment.await_partitions()
        for turn, piece in enumerate((feed[:1_000], feed[1_000:]), start=1):
            with deployment.feeding(piece, rate_per_s=1_000), proxied.proxy.cut():
                service.await_line("broker lost", count=turn)
            deployment.await_committed(limit_s=RESUMED_S)
        assert service.text.count("broker lost") == service.text.count("broker back") == 2, service.text
        deployment.stop_all()
        deployment.check()


def test_a_broker_that_does_not_answer(proxied: Proxied, topic_prefix: str, tmp_path: Path) -> None:
    feed = market(2_000)
    with Deployment(proxied.broker, topic_prefix, tmp_path, through=proxied.proxy.bootstrap) as deployment:
        service = deployment.start()
        deployment.feed(feed[:1_000])
        deployment.await_committed()
        with deployment.feeding(feed[1_000:], rate_per_s=1_000), proxied.proxy.held():
            service.await_line("broker lost")
        deployment.await_committed(limit_s=RESUMED_S)
        deployment.stop_all()
        deployment.check()


def test_a_broker_that_falls_silent_while_partitions_are_taken_over(
    proxied: Proxied, topic_prefix: str, tmp_path: Path
) -> None:
    with Deployment(proxied.broker, topic_prefix, tmp_path, through=proxied.proxy.bootstrap) as deployment:
        deployment.feed(market(2_000))
        proxied.proxy.hold_before(OFFSET_FETCH)
        service = deployment.start()
        proxied.proxy.await_met()
        service.await_line("broker lost")
        proxied.proxy.release()
        deployment.await_committed()
        deployment.stop_all()
        deployment.check()


def test_a_slow_way(proxied: Proxied, topic_prefix: str, tmp_path: Path) -> None:
    proxied.proxy.delay_s = 0.1
    try:
        with Deployment(proxied.broker, topic_prefix, tmp_path, through=proxied.proxy.bootstrap) as deployment:
            service = deployment.start()
            with deployment.feeding(market(2_000), rate_per_s=500):
                deployment.await_committed(1)
            deployment.await_committed()
            deployment.stop_all()
            assert "broker lost" not in service.text
            deployment.check()
    finally:
        proxied.proxy.delay_s = 0.0


def test_a_stop_while_nobody_answers(proxied: Proxied, topic_prefix: str, tmp_path: Path) -> None:
    with Deployment(proxied.broker, topic_prefix, tmp_path, through=proxied.proxy.bootstrap) as deployment:
        service = deployment.start()
        with deployment.feeding(market(2_000), rate_per_s=1_000):
            deployment.await_committed(1)
            with proxied.proxy.held():
                # Of what it could not read it cannot know: 0 where all it has read is committed.
                assert service.stop() in {0, 3}, service.text
        deployment.check()


def _end(watcher: Consumer, place: TopicPartition) -> int:
    """The partition's end; 0 while it has just been made and nobody has it yet."""
    try:
        return (watcher.get_watermark_offsets(place, timeout=30) or (0, 0))[1]
    except KafkaException:
        return 0


def test_a_feed_stops_while_nobody_answers(proxied: Proxied, topic_prefix: str, tmp_path: Path) -> None:
    variables = environment(topic_prefix, tmp_path, proxied.proxy.bootstrap)
    # Full at once, so that it is waited for.
    variables["STREAMINGCANDLE_KAFKA_QUEUE_BUFFERING_MAX_MESSAGES"] = "1000"
    run_well(variables, "topics", "ensure", "--partitions", "1")
    place = TopicPartition(f"{topic_prefix}-ticks", 0)
    watcher = Consumer({"bootstrap.servers": proxied.broker.inside_bootstrap, "group.id": topic_prefix})
    for disturbed in (proxied.proxy.cut, proxied.proxy.held):
        before = _end(watcher, place)
        arguments = [PROGRAM, "simulate", "--speed", "0"]
        with subprocess.Popen(arguments, env=variables, stderr=subprocess.PIPE) as feed:
            try:
                while _end(watcher, place) <= before:
                    assert feed.poll() is None
                with disturbed():
                    feed.terminate()
                    assert feed.wait(5) == 3
                assert feed.stderr is not None
                error = feed.stderr.read().decode().splitlines()[-1]
                assert f"topic {place.topic} at {proxied.proxy.bootstrap}: stopped before" in error
                assert re.search(r"at least \d+ are there", error)
            finally:
                feed.kill()
    watcher.close()
