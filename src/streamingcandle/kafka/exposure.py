"""What the settings of the connection give away to whoever is between us and the brokers."""

import msgspec

from streamingcandle.kafka.client import KafkaSettings

_OFF = ("false", "f", "0")
"""What the client library takes for false."""


class Exposure(msgspec.Struct, frozen=True):
    """One line; `check` is `sasl` or `tls`."""

    check: str
    what: str
    do: str


def exposures(settings: KafkaSettings) -> list[Exposure]:
    """In the order in which a connection is made; none for what the protocol does not use."""
    properties = settings.properties
    protocol = properties.get("security.protocol", "plaintext").lower()
    mechanism = properties.get("sasl.mechanism", properties.get("sasl.mechanisms", "GSSAPI"))
    found = []
    if protocol == "sasl_plaintext" and mechanism.upper() != "GSSAPI":
        given = {"PLAIN": "the password goes", "OAUTHBEARER": "the token goes"}.get(
            mechanism.upper(), "what the password can be guessed from goes"
        )
        where = settings.place("security.protocol")
        what = f"{where} is SASL_PLAINTEXT with {mechanism}: {given} over the network in clear"
        found.append(Exposure("sasl", what, "set it to SASL_SSL, with a listener of the brokers for it"))
    if protocol in ("ssl", "sasl_ssl"):
        name = "enable.ssl.certificate.verification"
        if properties.get(name, "").lower() in _OFF:
            what = f"{settings.place(name)} is off: whoever is between can pass for a broker, and read and change all"
            found.append(Exposure("tls", what, "remove it, and set ssl.ca.location to the brokers' authority"))
        name = "ssl.endpoint.identification.algorithm"
        if properties.get(name, "").lower() == "none":
            what = (
                f"{settings.place(name)} is none: whoever has any certificate of that authority can pass for a broker"
            )
            found.append(Exposure("tls", what, "remove it, and let the brokers' certificates name their hosts"))
    return found
