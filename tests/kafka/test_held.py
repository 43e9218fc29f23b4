"""Commits that fail while rejects pour in: reading stops, and memory stays flat."""

from pathlib import Path

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource  # type: ignore[attr-defined]

from broker import Broker
from disturbance import Deployment, await_that
from program import read_topic

RECORDS, RECORD_BYTES = 300, 1_000_000
GROWTH_BYTES_MAX = 150_000_000
"""Held: 16 MB of letters and one poll more, in the client 32 MB to come and the letters on their way; without a bound
it is each record twice, 600 MB."""
FLAT_PROBES = 30


def test_rejects_behind_failing_commits_take_no_more_memory(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    with Deployment(broker, topic_prefix, tmp_path, partitions=2) as deployment:
        # No letter is on its way for less than a millisecond: all are refused, again and again.
        _set_age_max(broker, deployment.letter_topic, "1")
        service = deployment.start()
        deployment.await_partitions()
        before_bytes = _peak_bytes(service.process.pid)
        producer = Producer({"bootstrap.servers": broker.bootstrap, "message.max.bytes": 2_000_000})
        for number in range(RECORDS):
            producer.produce(deployment.tick_topic, b"%d" % number + b"x" * RECORD_BYTES, b"%d" % number)
            if number % 50 == 0:
                producer.flush(30)
        assert producer.flush(30) == 0
        service.await_line("transaction aborted")
        peaks = [0]

        def is_flat() -> bool:
            peaks.append(_peak_bytes(service.process.pid))
            return len(peaks) > FLAT_PROBES and peaks[-FLAT_PROBES] == peaks[-1]

        await_that(is_flat, "memory that stays", probe_ms=100)
        assert peaks[-1] - before_bytes < GROWTH_BYTES_MAX
        service.kill()
    assert read_topic(broker.bootstrap, deployment.letter_topic) == []


def _peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1_024


def _set_age_max(broker: Broker, topic: str, age_ms: str) -> None:
    entry = ConfigEntry("message.timestamp.before.max.ms", age_ms, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.incremental_alter_configs([resource])[resource].result(30)
