"""Each broker, TLS and SASL: what `kafka/reach.py` brought, judged."""

from collections.abc import Sequence

from streamingcandle.kafka.reach import BrokerAnswer
from streamingcandle.ops.doctor.finding import Finding, fault, hours, ok, warning

CERTIFICATE_WARN_MS = 14 * 86_400_000
"""Two weeks: whoever renews certificates may be on leave."""

_CURES = {
    "name": "correct the name in STREAMINGCANDLE_KAFKA_BOOTSTRAP_SERVERS, or make this host resolve it",
    "closed": "start the broker, correct the address, or open the firewall between",
    "silent": "see that it is a broker's port and STREAMINGCANDLE_KAFKA_SECURITY_PROTOCOL that listener's",
}
_WORDS = {
    "name": "cannot be resolved",
    "closed": "cannot be reached",
    "silent": "something listens, but does not answer as a broker does",
}
_ADVERTISED = "the cluster sends clients there: correct that broker's advertised.listeners, or make it reachable"


def judge_brokers(
    answers: Sequence[BrokerAnswer], bootstrap: Sequence[str], *, protocol: str, mechanism: str, now_ms: int
) -> list[Finding]:
    """A line a broker; one for TLS and one for SASL where they are used and went well."""
    taken = [answer for answer in answers if not answer.trouble]
    listed = [answer for answer in taken if answer.address in bootstrap]
    found = [
        _broker(answer, is_advertised=answer.address not in bootstrap, is_one_of_many=bool(listed))
        for answer in answers
    ]
    troubles = {answer.trouble for answer in answers}
    if taken and protocol.endswith("SSL") and "tls" not in troubles:
        found += _certificates(taken, now_ms)
    if taken and protocol.startswith("SASL") and "credentials" not in troubles:
        found.append(ok("sasl", f"{mechanism} accepted"))
    return found


def _broker(answer: BrokerAnswer, *, is_advertised: bool, is_one_of_many: bool) -> Finding:
    """A broker of the list that is away is a warning where another one of it answers: `run` goes on with that."""
    whose = " (advertised)" if is_advertised else ""
    where = f"{answer.address}{whose}"
    if not answer.trouble:
        return ok("broker", f"{where} answers")
    if answer.cure:
        return fault("tls" if answer.trouble == "tls" else "sasl", answer.said, answer.cure)
    said = f": {answer.said}" if answer.said else ""
    say = warning if is_one_of_many and not is_advertised else fault
    return say(
        "broker",
        f"{where} {_WORDS[answer.trouble]}{said}",
        _ADVERTISED if is_advertised else _CURES[answer.trouble],
    )


def _certificates(answers: Sequence[BrokerAnswer], now_ms: int) -> list[Finding]:
    ends = {answer.address: answer.certificate_ends_ms for answer in answers if answer.certificate_ends_ms is not None}
    late = [
        warning(
            "tls",
            f"the certificate of {address} ends in {hours(ends_ms - now_ms)}",
            "have it renewed: after that no client connects any more",
        )
        for address, ends_ms in ends.items()
        if ends_ms < now_ms + CERTIFICATE_WARN_MS
    ]
    return late or [ok("tls", "the brokers' certificates are accepted")]
