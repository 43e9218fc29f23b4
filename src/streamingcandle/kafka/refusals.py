"""What the client library's errors mean when a broker refuses us, in one line: what, where, what to do.

    who we are    password, mechanism, certificates: no question is answered, the client's `error_cb` is told why
    what we may   a right is missing: the answer to a question, or the error of a record

Neither is worth a wait. The library has one sentence for every certificate it does not take; which of the three
faults it is (authority, time, name) Python's `ssl` is asked, at the address that the library names.
"""

import re
import socket
import ssl
from collections.abc import Sequence

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from streamingcandle.errors import OutsideError, RefusedError
from streamingcandle.kafka.client import KafkaSettings
from streamingcandle.kafka.rights import Right, group_right, told, transactional_right

ASK_TLS_S = 2.0
"""For a handshake with a broker that has just had one with us."""
ANSWER_TIMEOUT_S = 3.0
NO_RIGHT = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)
_ADDRESS = re.compile(r"^\w+://(?P<host>.+):(?P<port>\d+)/\S+: ")
_STATE = re.compile(r" \(after \d+ms in state \w+\)$")
_TIME_CODES = frozenset({9, 10})  # X509_V_ERR_CERT_NOT_YET_VALID, _HAS_EXPIRED
_NAME_CODES = frozenset({62, 64})  # X509_V_ERR_HOSTNAME_MISMATCH, _IP_ADDRESS_MISMATCH
_PLAINTEXT = "connecting to a PLAINTEXT broker listener?"
_ALERT = "SSL alert number"


def is_refusal(error: KafkaError, *, is_running: bool) -> bool:
    """Whether the error says that we are not let in.

    A handshake that fails is a wrong certificate at the start, and a broker's restart later.
    """
    code = error.code()
    if code == KafkaError._AUTHENTICATION:  # noqa: SLF001 - the client's public constants
        return True
    is_tls = code == KafkaError._SSL or (  # noqa: SLF001
        code == KafkaError._TRANSPORT and (_ALERT in error.str() or _PLAINTEXT in error.str())  # noqa: SLF001
    )
    return is_tls and not is_running


def refused(settings: KafkaSettings, error: KafkaError) -> RefusedError:
    """What to raise for an error that `is_refusal`; takes ASK_TLS_S where a certificate is the reason."""
    address = _ADDRESS.match(error.str())
    reason = _STATE.sub("", _ADDRESS.sub("", error.str()))
    where = f"{address['host']}:{address['port']}" if address else settings.bootstrap_servers
    if error.code() == KafkaError._AUTHENTICATION:  # noqa: SLF001 - the client's public constant
        mechanism = _property(settings, "sasl.mechanism", "sasl.mechanisms", "sasl mechanism")
        who = f"user {principal(settings)!r} by {mechanism}"
        names = ", ".join(settings.place(f"sasl.{name}") for name in ("username", "password", "mechanism"))
        return RefusedError(f"broker {where} refuses us, {who}: {reason}; check the credentials: {names}")
    if _PLAINTEXT in reason:
        protocol = settings.place("security.protocol")
        return RefusedError(f"broker {where}: no TLS at this port; set {protocol} without SSL, or another port")
    if _ALERT in reason:
        names = ", ".join(settings.place(f"ssl.{name}.location") for name in ("certificate", "key"))
        return RefusedError(
            f"broker {where} refuses us, our certificate: {reason}; give one that has not expired, "
            f"of an authority the broker trusts: {names}"
        )
    fault = _certificate_fault(settings, address["host"], int(address["port"])) if address else None
    return RefusedError(f"broker {where}: {fault or f'{reason}; check the certificates'}")


def _certificate_fault(settings: KafkaSettings, host: str, port: int) -> str | None:
    """What is wrong with the certificate shown there, and what to do; None where it cannot be told."""
    ca = settings.properties.get("ssl.ca.location")
    try:
        context = ssl.create_default_context(cafile=ca, cadata=settings.properties.get("ssl.ca.pem"))
        if settings.properties.get("ssl.endpoint.identification.algorithm") == "none":
            context.check_hostname = False
        with (
            socket.create_connection((host, port), ASK_TLS_S) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return None
    except ssl.SSLCertVerificationError as error:
        said = error.verify_message.removesuffix(".")
        if error.verify_code in _TIME_CODES:
            return f"its certificate is out of its time ({said}); have it renewed, or set this host's clock"
        if error.verify_code in _NAME_CODES:
            return (
                f"its certificate is for another host ({said}); use a name that is in it for "
                f"{settings.place('bootstrap.servers')} and the broker's advertised.listeners"
            )
        source = ca or "this host's store"
        return (
            f"its certificate is of no authority in {source} ({said}); "
            f"name the file of the right one: {settings.place('ssl.ca.location')}"
        )
    except (OSError, ValueError):
        return None


def principal(settings: KafkaSettings) -> str:
    """The broker's name for us, as far as we know: of a certificate it is the subject, or what rules make of it."""
    return settings.properties.get("sasl.username", "NAME")


def _property(settings: KafkaSettings, *names: str) -> str:
    """The first that is set; the last is what to say where none is."""
    return next((settings.properties[name] for name in names if name in settings.properties), names[-1])


# ---- rights ----


def outside(settings: KafkaSettings, what: str, error: KafkaError, right: Right | None = None) -> OutsideError:
    """What to raise for an answer that is an error; `right` is what the question takes, where it is not a usual one."""
    if error.code() not in NO_RIGHT:
        return OutsideError(f"{what} at {settings.bootstrap_servers}: {error.str()}")
    if right is None:
        match error.code():
            case KafkaError.GROUP_AUTHORIZATION_FAILED:
                right = group_right(settings.group)
            case KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
                right = transactional_right(settings.group)
            case _:
                right = Right("Read", "topic", settings.tick_topic)
    return no_right(settings, [right])


def no_right(settings: KafkaSettings, missing: Sequence[Right]) -> RefusedError:
    """What to raise where rights are missing."""
    return RefusedError(told(missing, settings.bootstrap_servers, principal(settings)))


def missing_rights(settings: KafkaSettings, admin: AdminClient, timeout_s: float) -> list[Right]:
    """Of the rights on topics that are needed those not granted. KafkaException where nobody answers.

    Brokers tell what we may with a topic that we may look at. One that is not there is no question of rights.
    """
    needed = [right for right in settings.rights if right.is_needed and right.resource == "topic"]
    if not needed:
        return []
    names = TopicCollection(sorted({right.name for right in needed}))
    answers = admin.describe_topics(names, include_authorized_operations=True, request_timeout=timeout_s)
    granted: dict[str, frozenset[str]] = {}
    for name, answer in answers.items():
        try:
            operations = answer.result(ANSWER_TIMEOUT_S).authorized_operations
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                granted[name] = frozenset()
            elif error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
        else:
            if operations:  # a broker of before Kafka 2.3 does not tell
                granted[name] = frozenset(operation.name.replace("_", "").lower() for operation in operations)
    return [r for r in needed if r.name in granted and r.operation.lower() not in granted[r.name]]
