"""Record timestamps, judged: a tick may move the feed clock at most as far as its record's timestamp lets it.

So a record stamped far ahead moves it far ahead, and a record without a timestamp as far as it likes. The brokers'
clock is the one that all trust: they refuse what is stamped ahead of it, or stamp records themselves.
"""

from collections.abc import Mapping, Sequence

from streamingcandle.kafka.topics import AHEAD_KEY, AHEAD_MAX_MS
from streamingcandle.ops.doctor.finding import Finding, fault, hours, warning

CHECK = "timestamps"
FAULT_MS = 3_600_000
"""Brokers from Kafka 4.0 on refuse what is further ahead, unless told otherwise; ticks that far ahead spoil an hour."""
_NO_LIMIT_MS = 2**62
_FIRST_MS = 946_684_800_000
"""2000-01-01: a timestamp before it is none (specification §1.5)."""
_BOTH_WAYS = "message.timestamp.difference.max.ms"
_ALTER = "kafka-configs --alter --entity-type topics --entity-name {} --add-config {}={}"


def judge_ahead(name: str, config: Mapping[str, str]) -> list[Finding]:
    """How far ahead of the broker's clock a record of the tick topic may be stamped; nothing where nobody told."""
    if config.get("message.timestamp.type") == "LogAppendTime":
        return []
    known = {key: int(config[key]) for key in (AHEAD_KEY, _BOTH_WAYS) if key in config}
    ahead_ms = known.get(AHEAD_KEY, _NO_LIMIT_MS)
    if ahead_ms >= _NO_LIMIT_MS:
        # Up to Kafka 3.9 the older property holds where the newer one was not set; before 3.6 there is no other.
        ahead_ms = known.get(_BOTH_WAYS, ahead_ms)
    if not known or ahead_ms <= FAULT_MS:
        return []
    far = "without a limit" if ahead_ms >= _NO_LIMIT_MS else f"up to {hours(ahead_ms)}"
    what = f"{name}: takes records stamped {far} ahead of the broker's clock: one wrong clock may close every window"
    if AHEAD_KEY not in known:
        do = f"brokers from Kafka 3.6 on have {AHEAD_KEY}; before, {_BOTH_WAYS} refuses past days as well"
        return [warning(CHECK, what, do)]
    return [fault(CHECK, what, _ALTER.format(name, AHEAD_KEY, AHEAD_MAX_MS))]


def judge_stamps(name: str, stamps_ms: Sequence[int]) -> list[Finding]:
    """`stamps_ms`: timestamps of the newest records, -1 where there is none."""
    missing = sum(stamp_ms < _FIRST_MS for stamp_ms in stamps_ms)
    if not missing:
        return []
    what = (
        f"{name}: {missing} of {len(stamps_ms)} of the newest ticks have no timestamp (or 0, or before 2000): nothing "
        "checks the time they claim, and one without a time is rejected"
    )
    do = f"let the producer leave the timestamp to its client, or {_ALTER.format(name, 'message.timestamp.type', '')}"
    return [fault(CHECK, what, f"{do}LogAppendTime")]
