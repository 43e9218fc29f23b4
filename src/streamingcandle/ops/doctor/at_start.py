"""What `run` says at its start of the tick topic: the part of `doctor` that no error tells of until candles are wrong.

How far ahead records may be stamped, whether they are stamped at all, and by which partitioner they lie. Asked beside
the run, whose start does not wait for it. Who does not answer, or may not be asked, is said nothing of.
"""

from confluent_kafka import KafkaException

from streamingcandle.errors import StreamingCandleError
from streamingcandle.kafka.client import KafkaSettings
from streamingcandle.kafka.survey import ask_bounds, ask_newest, ask_topics
from streamingcandle.ops.doctor.cluster import judge_newest
from streamingcandle.ops.doctor.finding import Deployment, Finding
from streamingcandle.ops.doctor.timestamps import judge_ahead


def look(settings: KafkaSettings, deployment: Deployment) -> list[Finding]:
    """Faults and warnings; takes some 15 s at the very most."""
    found: list[Finding] = []
    try:
        ticks = ask_topics(settings, [deployment.ticks])[deployment.ticks]
        if not ticks.refusal:
            found += judge_ahead(ticks.name, ticks.config or {})
        if "READ" in ticks.operations:
            newest = ask_newest(settings, *ask_bounds(settings, ticks.partitions))
            found += judge_newest(deployment, newest, ticks.partitions)
    except (KafkaException, TimeoutError, StreamingCandleError):
        pass  # the run itself says what is wrong with the brokers
    return [finding for finding in found if finding.state in ("fault", "warning")]
