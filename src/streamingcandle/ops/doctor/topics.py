"""Topics as they must be, judged: partitions, retention, timestamps, compaction, replicas."""

from collections.abc import Mapping

from streamingcandle.kafka.survey import TopicAnswer
from streamingcandle.ops.doctor.finding import Deployment, Finding, fault, hours, ok, warning
from streamingcandle.ops.doctor.timestamps import judge_ahead

ENSURE = "make it with `streamingcandle topics ensure`"
OUTAGE_MS = 4 * 86_400_000
"""A service that stops before a long weekend finds its ticks after it."""
CHUNK_BYTES_MAX = 600_000
"""A snapshot's chunk with its headers (`kafka/snapshots.py`)."""
_ALTER = "kafka-configs --alter --entity-type topics --entity-name {} --add-config {}"


def judge_topics(deployment: Deployment, topics: Mapping[str, TopicAnswer]) -> list[Finding]:
    """A line a fault; one line for those that are as they must be."""
    found: list[Finding] = []
    good: list[str] = []
    for name in deployment.topics:
        topic = topics[name]
        check = "snapshots" if name == deployment.snapshots else "topics"
        own = [*_existence(deployment, topic, check)]
        if not topic.refusal:
            own += _replicas(deployment, topic, check)
            if topic.config is None:
                do = f"grant DESCRIBE_CONFIGS on topic {name}"
                own.append(warning(check, f"{name}: its settings cannot be read, and are not checked", do))
            elif name == deployment.ticks:
                own += [*_ticks(deployment, topic, topic.config), *judge_ahead(name, topic.config)]
            elif name == deployment.snapshots:
                own += _snapshots(topic, topic.config)
            else:
                own += _candles(deployment, topic, topic.config)
        found += own
        if not own:
            good.append(f"{name} ({topic.partitions})")
    if good:
        found.append(ok("topics", f"as they must be, with so many partitions: {', '.join(good)}"))
    return found


def _existence(deployment: Deployment, topic: TopicAnswer, check: str) -> list[Finding]:
    if topic.refusal == "missing":
        if topic.name == deployment.snapshots:
            # `run` makes it by itself, where it may.
            return [warning(check, f"{topic.name}: missing, so restarts on another host take longer", ENSURE)]
        return [fault(check, f"{topic.name}: missing", ENSURE)]
    if topic.refusal:
        say = warning if topic.name == deployment.snapshots else fault
        return [say(check, f"{topic.name}: {topic.refusal}", f"grant DESCRIBE on topic {topic.name}")]
    # Only the tick topic's count means something: an instrument's candles and letters go by key, whatever the count.
    if topic.name == deployment.ticks and topic.partitions < deployment.partitions:
        what = f"{topic.name}: {topic.partitions} partitions, the setting `partitions` says {deployment.partitions}"
        do = "add partitions between sessions if so many processes shall share the work, or lower the setting"
        return [warning(check, what, do)]
    return []


def _replicas(deployment: Deployment, topic: TopicAnswer, check: str) -> list[Finding]:
    wanted = int((topic.config or {}).get("min.insync.replicas", "1"))
    if topic.leaderless:
        what = f"{topic.name}: {topic.leaderless} of {topic.partitions} partitions have no leader"
        return [fault(check, what, "start the brokers that have their replicas")]
    if topic.in_sync < wanted:
        what = (
            f"{topic.name}: {topic.in_sync} replicas in sync, min.insync.replicas is {wanted}: nothing can be written"
        )
        return [fault(check, what, "start the brokers that are away, or lower min.insync.replicas")]
    if deployment.is_production and topic.replicas == 1:
        what = f"{topic.name}: one replica: with that broker's disk it is gone"
        return [warning(check, what, "raise the replication to 3 with kafka-reassign-partitions")]
    return []


def _is_compacted(config: Mapping[str, str]) -> bool:
    return "compact" in config.get("cleanup.policy", "")


def _uncompacted(topic: TopicAnswer, config: Mapping[str, str], why: str) -> list[Finding]:
    if not _is_compacted(config):
        return []
    do = _ALTER.format(topic.name, "cleanup.policy=delete")
    return [fault("topics", f"{topic.name}: compacted: {why}", do)]


def _retention_ms(config: Mapping[str, str]) -> int | None:
    """None without a limit."""
    retention_ms = int(config.get("retention.ms", "-1"))
    return retention_ms if retention_ms >= 0 and "delete" in config.get("cleanup.policy", "delete") else None


def _ticks(deployment: Deployment, topic: TopicAnswer, config: Mapping[str, str]) -> list[Finding]:
    found = _uncompacted(topic, config, "all but the last tick of an instrument go away before a restart reads them")
    retention_ms = _retention_ms(config)
    alter = _ALTER.format(topic.name, "retention.ms=-1")
    if retention_ms is not None and retention_ms < OUTAGE_MS:
        what = f"{topic.name}: retention.ms is {hours(retention_ms)}"
        if retention_ms < deployment.session_ms:
            why = f"{what}, below a session of {hours(deployment.session_ms)}: a restart cannot fold the day again"
            found.append(fault("topics", why, alter))
        else:
            why = f"{what}: ticks of a longer outage are gone before they are read"
            found.append(warning("topics", why, f"{alter} or above your longest outage"))
    if int(config.get("retention.bytes", "-1")) >= 0:
        what = f"{topic.name}: retention.bytes limits it: how long ticks stay depends on the feed"
        found.append(warning("topics", what, _ALTER.format(topic.name, "retention.bytes=-1")))
    before_ms = int(config.get("message.timestamp.before.max.ms", "-1"))
    # Kafka's default is 2**63-1: no limit.
    if 0 <= before_ms < 2**62:
        what = f"{topic.name}: message.timestamp.before.max.ms is {hours(before_ms)}: older ticks are refused"
        do = f"{_ALTER.format(topic.name, 'message.timestamp.before.max.ms=9223372036854775807')} to ingest past days"
        found.append(warning("topics", what, do))
    return found


def _candles(deployment: Deployment, topic: TopicAnswer, config: Mapping[str, str]) -> list[Finding]:
    """Candle topics, dead letters, late ticks: histories."""
    why = "records of one instrument go away"
    if topic.name in deployment.candles:
        why = "of an instrument's candles only the last one stays"
    found = _uncompacted(topic, config, why)
    retention_ms = _retention_ms(config)
    if retention_ms is not None and retention_ms < deployment.session_ms:
        what = f"{topic.name}: retention.ms is {hours(retention_ms)}: less than a session is kept"
        found.append(warning("topics", what, _ALTER.format(topic.name, "retention.ms=-1")))
    return found


def _snapshots(topic: TopicAnswer, config: Mapping[str, str]) -> list[Finding]:
    if not _is_compacted(config):
        do = _ALTER.format(topic.name, "cleanup.policy=compact")
        return [warning("snapshots", f"{topic.name}: not compacted: it grows without end, or loses snapshots", do)]
    limit_bytes = int(config.get("max.message.bytes", "1048588"))
    if limit_bytes < CHUNK_BYTES_MAX:
        do = _ALTER.format(topic.name, "max.message.bytes=1048588")
        return [warning("snapshots", f"{topic.name}: max.message.bytes is {limit_bytes}: too little", do)]
    return []
