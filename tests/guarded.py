"""A broker that asks who one is: TLS, SASL and an authorizer, with certificates and users made for the test.

Whoever comes over CLIENT or INSIDE is the super user; over SASL a SCRAM or PLAIN user, over MUTUAL the name in the
client's certificate. EXPIRED shows a certificate whose time is over.
"""

import argparse
import re
import shlex
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialAlteration,
    UserScramCredentialUpsertion,
)
from confluent_kafka.cimpl import NewTopic
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from broker import Broker
from streamingcandle.kafka.rights import Right

LISTENERS = {"SASL": "SASL_SSL", "MUTUAL": "SSL", "EXPIRED": "SASL_SSL"}
HOST = "127.0.0.1"
LIMIT_S = 30.0
_OPERATION = re.compile(r"(?<=[a-z])(?=[A-Z])")
PLAIN_MODULE = "org.apache.kafka.common.security.plain.PlainLoginModule required"
SCRAM_MODULE = "org.apache.kafka.common.security.scram.ScramLoginModule required"


class Certificates:
    """An authority, one that nobody trusts, and what they have signed, as files."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._ours, self._strange = trustme.CA(), trustme.CA()
        self.ca = self._written("ca.pem", self._ours.cert_pem.bytes())
        self.strange_ca = self._written("strange-ca.pem", self._strange.cert_pem.bytes())

    def _written(self, name: str, content: bytes) -> Path:
        path = self._folder / name
        path.write_bytes(content)
        path.chmod(0o600)
        return path

    def issue(self, name: str, *, password: str = "", is_expired: bool = False, is_strange: bool = False) -> Path:
        """A key (encrypted if there is a password) and its certificate in one file, for the host or a client `name`."""
        now = datetime.now(UTC)
        signed = (self._strange if is_strange else self._ours).issue_cert(
            *([HOST] if name == HOST else [f"{name}@example.org"]),
            common_name=name,
            not_before=now - timedelta(days=30),
            not_after=now + timedelta(days=-1 if is_expired else 1),
        )
        key = load_pem_private_key(signed.private_key_pem.bytes(), None)
        encryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
        content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
        chain = b"".join(pem.bytes() for pem in signed.cert_chain_pems)
        return self._written(f"{name}{'-expired' * is_expired}{'-strange' * is_strange}.pem", content + chain)


class Guarded:
    """The broker, not started, and what an administrator does."""

    def __init__(self, folder: Path, plain_users: Mapping[str, str]) -> None:
        self.certificates = Certificates(folder / "certificates")
        right, expired = self.certificates.issue(HOST), self.certificates.issue(HOST, is_expired=True)
        users = "".join(f' user_{name}="{password}"' for name, password in plain_users.items())
        properties = {
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512,PLAIN",
            "listener.name.mutual.ssl.client.auth": "required",
            "listener.name.mutual.ssl.principal.mapping.rules": "RULE:^CN=([^,]+).*$/$1/",
            "listener.name.mutual.ssl.truststore.type": "PEM",
            "listener.name.mutual.ssl.truststore.location": str(self.certificates.ca),
        }
        for name, path in {"sasl": right, "mutual": right, "expired": expired}.items():
            properties[f"listener.name.{name}.ssl.keystore.type"] = "PEM"
            properties[f"listener.name.{name}.ssl.keystore.location"] = str(path)
            properties[f"listener.name.{name}.plain.sasl.jaas.config"] = f"{PLAIN_MODULE}{users};"
            properties[f"listener.name.{name}.scram-sha-512.sasl.jaas.config"] = f"{SCRAM_MODULE};"
        self.broker = Broker(folder / "broker", properties=properties, listeners=LISTENERS)

    def at(self, listener: str) -> str:
        """Where clients of a listener begin."""
        return f"{HOST}:{self.broker.ports[listener]}"

    def admin(self) -> AdminClient:
        """The super user."""
        return AdminClient({"bootstrap.servers": self.broker.inside_bootstrap, "log_level": 0})

    def add_users(self, users: Mapping[str, str]) -> None:
        """Users of SCRAM-SHA-512 and their passwords."""
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        wanted: list[UserScramCredentialAlteration] = [
            UserScramCredentialUpsertion(name, info, password.encode()) for name, password in users.items()
        ]
        admin = self.admin()
        for future in admin.alter_user_scram_credentials(wanted).values():
            future.result(LIMIT_S)

    def add_topics(self, names: Iterable[str]) -> None:
        """Of one partition each."""
        admin = self.admin()
        for future in admin.create_topics([NewTopic(name, 1, 1) for name in set(names)]).values():
            future.result(LIMIT_S)

    def allow(self, grants: Iterable[tuple[str, Right]]) -> None:
        """Rights of users; at once, since the broker is the only one."""
        admin = self.admin()
        for future in admin.create_acls([_acl(user, right) for user, right in grants]).values():
            future.result(LIMIT_S)

    def take(self, user: str, right: Right) -> None:
        """One right away."""
        acl = _acl(user, right)
        wanted = AclBindingFilter(
            acl.restype,
            acl.name,
            acl.resource_pattern_type,
            acl.principal,
            acl.host,
            acl.operation,
            acl.permission_type,
        )
        admin = self.admin()
        (future,) = admin.delete_acls([wanted]).values()
        assert len(future.result(LIMIT_S)) == 1


def _acl(user: str, right: Right) -> AclBinding:
    return AclBinding(
        ResourceType[right.resource.upper().replace("-", "_")],
        right.name,
        ResourcePatternType.PREFIXED if right.is_prefix else ResourcePatternType.LITERAL,
        f"User:{user}",
        "*",
        AclOperation[_OPERATION.sub("_", right.operation).upper()],
        AclPermissionType.ALLOW,
    )


def granted(command: str) -> list[tuple[str, Right]]:
    """What a line with `kafka-acls.sh` grants to whom, as its help says; the why is not in it."""
    words = shlex.split(command)
    assert words[0] == "kafka-acls.sh"
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--add", action="store_true", required=True)
    parser.add_argument("--bootstrap-server", required=True)
    parser.add_argument("--allow-principal", required=True)
    parser.add_argument("--operation", required=True)
    parser.add_argument("--resource-pattern-type", choices=["literal", "prefixed"], default="literal")
    for resource in ("topic", "group", "transactional-id"):
        parser.add_argument(f"--{resource}", action="append", default=[])
    found = parser.parse_args(words[1:])
    is_prefix = found.resource_pattern_type == "prefixed"
    return [
        (found.allow_principal.removeprefix("User:"), Right(found.operation, resource, name, is_prefix=is_prefix))
        for resource in ("topic", "group", "transactional-id")
        for name in getattr(found, resource.replace("-", "_"))
    ]
