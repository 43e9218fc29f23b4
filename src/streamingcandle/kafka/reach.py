"""One broker by its address: whether it listens, speaks Kafka, and takes us; its certificate's last day.

Asked one by one, since a client that is given several goes on with the first that answers and tells of no other.
"""

import re
import socket
import ssl
from contextlib import suppress
from typing import Literal

import msgspec
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from streamingcandle.kafka.client import KafkaSettings, admin_properties, new_client
from streamingcandle.kafka.refusals import is_refusal, refused

DEFAULT_PORT = 9092
CONNECT_TIMEOUT_S = 3.0
PIECE_S = 0.5
"""Between two pieces of the wait the client's errors are looked at: a refusal is final."""
PIECES = 10
"""Five seconds: a handshake with TLS and SASL over a slow line takes one."""
LIMIT_S = CONNECT_TIMEOUT_S + PIECE_S * PIECES + 2.0

Trouble = Literal["", "name", "closed", "silent", "tls", "credentials"]


class BrokerAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What came back from one address. `trouble` is empty where it took us."""

    address: str
    trouble: Trouble = ""
    said: str = ""
    """The client's or the system's own words; of a refusal what it means."""
    cure: str = ""
    """What to do about a refusal."""
    advertised: tuple[str, ...] = ()
    """Where the cluster sends clients."""
    certificate_ends_ms: int | None = None
    """None without TLS, or where the certificate cannot be verified by what Python knows."""


def addresses(bootstrap_servers: str) -> list[str]:
    """Of the list, without protocols, each once."""
    listed = (part.strip().rpartition("://")[2] for part in bootstrap_servers.split(","))
    return list(dict.fromkeys(part for part in listed if part))


def ask_broker(settings: KafkaSettings, address: str) -> BrokerAnswer:
    """Within LIMIT_S, where the resolver of names answers."""
    host, port = _parts(address)
    try:
        socket.create_connection((host, port), CONNECT_TIMEOUT_S).close()
    except socket.gaierror as error:
        return BrokerAnswer(address=address, trouble="name", said=str(error.strerror))
    except OSError as error:
        return BrokerAnswer(address=address, trouble="closed", said=error.strerror or str(error))
    answer = _as_client(settings, address)
    is_tls = settings.properties.get("security.protocol", "").lower().endswith("ssl")
    ends_ms = _certificate_ends_ms(settings, host, port) if is_tls and not answer.trouble else None
    return msgspec.structs.replace(answer, certificate_ends_ms=ends_ms)


def _parts(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return address.strip("[]"), DEFAULT_PORT
    return host.strip("[]"), int(port)


def _as_client(settings: KafkaSettings, address: str) -> BrokerAnswer:
    errors: list[KafkaError] = []
    properties = admin_properties(settings) | {"bootstrap.servers": address}
    admin = new_client(AdminClient, settings, {**properties, "error_cb": errors.append})
    for _ in range(PIECES):
        try:
            found = admin.list_topics(settings.tick_topic, timeout=PIECE_S)
        except KafkaException:
            admin.poll(0)
            for error in errors:
                if is_refusal(error, is_running=False):
                    is_tls = error.code() != KafkaError._AUTHENTICATION  # noqa: SLF001 - the client's public constant
                    said, _, cure = str(refused(settings, error)).rpartition("; ")
                    return BrokerAnswer(
                        address=address, trouble="tls" if is_tls else "credentials", said=said, cure=cure
                    )
        else:
            advertised = sorted(f"{broker.host}:{broker.port}" for broker in found.brokers.values())
            return BrokerAnswer(address=address, advertised=tuple(advertised))
    words = [_words(error) for error in errors if error.code() != KafkaError._ALL_BROKERS_DOWN]  # noqa: SLF001
    return BrokerAnswer(address=address, trouble="silent", said=words[0] if words else "")


def _words(error: KafkaError) -> str:
    """Without the client's name of the connection, and how long it has been in which state."""
    return re.sub(r"^\w+://\S+: | \(after .*\)$", "", error.str())


def _certificate_ends_ms(settings: KafkaSettings, host: str, port: int) -> int | None:
    """A handshake of our own: the client tells no dates. None where Python's is not taken."""
    place = settings.properties.get("ssl.ca.location", "")
    with suppress(OSError, ValueError):
        context = ssl.create_default_context(cafile=place or None)
        if "ssl.certificate.location" in settings.properties:
            context.load_cert_chain(
                settings.properties["ssl.certificate.location"],
                settings.properties.get("ssl.key.location"),
                settings.properties.get("ssl.key.password", ""),
            )
        with (
            socket.create_connection((host, port), CONNECT_TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=host) as wrapped,
        ):
            certificate = wrapped.getpeercert()
            if certificate:
                return round(ssl.cert_time_to_seconds(str(certificate["notAfter"])) * 1_000)
    return None
