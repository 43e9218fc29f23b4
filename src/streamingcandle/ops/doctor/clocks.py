"""The host's clock against the broker's, judged."""

from streamingcandle.kafka.survey import ClockAnswer
from streamingcandle.ops.doctor.finding import Finding, fault, ok, warning

CHECK = "clock"
FAULT_MS = 2_000
"""After a restart idle time counts from 2 s after the wall time of the last tick, which may be another host's."""
WARN_MS = 500


def judge_clock(answer: ClockAnswer) -> Finding:
    """By as much as it must be off at least: the time that the question took is on our side."""
    off_ms = max(answer.before_ms - answer.broker_ms, answer.broker_ms - answer.after_ms, 0)
    way = "ahead of" if answer.before_ms > answer.broker_ms else "behind"
    took_ms = answer.after_ms - answer.before_ms
    if off_ms <= WARN_MS:
        return ok(CHECK, f"this host's agrees with the broker's, asked within {took_ms} ms")
    what = f"this host's is {off_ms / 1_000:.1f} s {way} the broker's"
    do = "let both follow one source of time: chrony or systemd-timesyncd, `timedatectl` shows it"
    if off_ms <= FAULT_MS:
        return warning(CHECK, what, do)
    return fault(CHECK, f"{what}: a partition taken over may close its windows at the wrong moment", do)
