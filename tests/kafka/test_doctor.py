"""`doctor` in broken worlds of a real broker, which asks for TLS, a password and rights at one of its two ports."""

import json
import socket
import subprocess
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from broker import Broker
from program import environment, run
from streamingcandle.candles.commit import Commit
from streamingcandle.candles.murmur2 import partition_of
from streamingcandle.cli.doctor import diagnose
from streamingcandle.cli.world import World
from streamingcandle.clock import SystemClock
from streamingcandle.errors import OutsideError
from streamingcandle.kafka.feed import TickProducer
from streamingcandle.kafka.snapshots import CONFIG
from streamingcandle.kafka.topics import ensure_topics
from streamingcandle.ops.doctor.finding import Finding
from streamingcandle.settings import load_settings

LIMIT_MS = 20_000
PARTITIONS = 3
OFF_MS = 90_000
SECRET, STORE_SECRET = "right", "of-this-test"
CERTIFICATE_DAYS = 5


class Guarded(msgspec.Struct, frozen=True):
    """A broker; `bootstrap` takes everybody as a super user, `port` only who is "feed", over TLS."""

    broker: Broker
    bootstrap: str
    port: int
    ca: Path


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """Give it running."""
    folder = tmp_path_factory.mktemp("guarded")
    store, ca = _certificate(folder, "-ext", "san=ip:127.0.0.1", "-validity", str(CERTIFICATE_DAYS))
    login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    broker = Broker(
        folder / "broker",
        properties={
            "listener.security.protocol.map": "CLIENT:SASL_SSL,INSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.client.plain.sasl.jaas.config": f'{login} user_feed="{SECRET}";',
            "listener.name.client.ssl.keystore.location": str(store),
            "listener.name.client.ssl.keystore.password": STORE_SECRET,
            "listener.name.client.ssl.keystore.type": "PKCS12",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        },
    )
    # The broker's own look at whether it is ready knows no password.
    port, broker.port = broker.port, int(broker.inside_bootstrap.rpartition(":")[2])
    with broker:
        yield Guarded(broker, broker.inside_bootstrap, port, ca)


def _certificate(folder: Path, *details: str) -> tuple[Path, Path]:
    """A key store of one key, and the certificate beside it."""
    store, ca = folder / "store.p12", folder / "ca.pem"
    common = ["-alias", "one", "-keystore", str(store), "-storepass", STORE_SECRET]
    made = ["keytool", "-genkeypair", "-keyalg", "EC", "-dname", "CN=one", *details, *common]
    subprocess.run(made, check=True, capture_output=True)
    shown = ["keytool", "-exportcert", "-rfc", "-file", str(ca), *common]
    subprocess.run(shown, check=True, capture_output=True)
    return store, ca


class Off(SystemClock):
    """A host whose clock is off."""

    def __init__(self, by_ms: int) -> None:
        self._by_ms = by_ms

    def wall_ms(self) -> int:
        return super().wall_ms() + self._by_ms


class Ward:
    """A deployment on that broker, sound at first."""

    def __init__(self, guarded: Guarded, prefix: str, folder: Path) -> None:
        self.guarded = guarded
        self.prefix = prefix
        self.bootstrap = guarded.bootstrap
        self.variables = environment(prefix, folder, guarded.bootstrap) | {
            "STREAMINGCANDLE_TIMEFRAMES": "1m,5m",
            "STREAMINGCANDLE_PARTITIONS": str(PARTITIONS),
        }
        self.ticks = f"{prefix}-ticks"
        self.candle = f"{prefix}-5-min-candle"

    def ensure(
        self, *, partitions: int = PARTITIONS, without: str = "", own: Mapping[str, Mapping[str, str]] | None = None
    ) -> None:
        """Make the topics, but for one."""
        names = [f"{self.prefix}-{name}" for name in ("ticks", "1-min-candle", "5-min-candle")]
        names += [f"{self.prefix}-app-{name}" for name in ("dead-letters", "late", "snapshots")]
        configs = {f"{self.prefix}-app-snapshots": CONFIG, **(own or {})}
        settings = load_settings({}, self.variables | self.at(self.guarded.bootstrap)).kafka_settings("test")
        made = [name for name in names if name != without]
        ensure_topics(settings, made, partitions=partitions, replication=-1, own=configs)

    def at(self, bootstrap: str) -> dict[str, str]:
        return {"STREAMINGCANDLE_KAFKA_BOOTSTRAP_SERVERS": bootstrap}

    def feed(self, place: Callable[[bytes], int], timestamp_ms: int = 0) -> None:
        """Twenty ticks' keys, each where `place` says; stamped then, 0 for now."""
        producer = Producer({"bootstrap.servers": self.guarded.bootstrap})
        for token in range(1_000, 1_020):
            key = str(token).encode()
            producer.produce(self.ticks, b"{}", key, place(key), timestamp=timestamp_ms)
        assert producer.flush(10) == 0

    def commit(self, metadata: str) -> None:
        """As whoever commits for the group."""
        with closing(
            Consumer({"bootstrap.servers": self.guarded.bootstrap, "group.id": f"{self.prefix}-app"})
        ) as group:
            group.commit(offsets=[TopicPartition(self.ticks, 0, 0, metadata)], asynchronous=False)

    def secured(self, **others: str) -> None:
        """Go in by the guarded port."""
        properties = {
            "BOOTSTRAP_SERVERS": f"127.0.0.1:{self.guarded.port}",
            "SECURITY_PROTOCOL": "SASL_SSL",
            "SASL_MECHANISM": "PLAIN",
            "SASL_USERNAME": "feed",
            "SASL_PASSWORD": SECRET,
            "SSL_CA_LOCATION": str(self.guarded.ca),
        } | others
        self.variables |= {f"STREAMINGCANDLE_KAFKA_{name}": text for name, text in properties.items()}

    def allow(self, *rights: tuple[ResourceType, str, AclOperation]) -> None:
        """Each on what begins with that name."""
        allowed = [
            AclBinding(kind, name, ResourcePatternType.PREFIXED, "User:feed", "*", operation, AclPermissionType.ALLOW)
            for kind, name, operation in rights
        ]
        admin = AdminClient({"bootstrap.servers": self.guarded.bootstrap})
        for future in admin.create_acls(allowed).values():
            future.result(10)

    def examine(self, clock: SystemClock | None = None) -> list[Finding]:
        """In this process, in time."""
        world = World({}, is_debug=False)
        world.__dict__["settings"] = load_settings({}, self.variables)
        world.clock = clock or world.clock
        began_ms = SystemClock().monotonic_ms()
        found = diagnose(world)
        assert SystemClock().monotonic_ms() - began_ms < LIMIT_MS
        return found


@pytest.fixture
def ward(guarded: Guarded, topic_prefix: str, tmp_path: Path) -> Ward:
    """Give a deployment without topics yet."""
    return Ward(guarded, topic_prefix, tmp_path)


def _of(findings: list[Finding], state: str) -> list[tuple[str, str]]:
    return [(finding.check, finding.what) for finding in findings if finding.state == state]


def _murmur2(key: bytes) -> int:
    return partition_of(key, PARTITIONS)


def _only(findings: list[Finding], check: str, *said: str, state: str = "fault") -> None:
    """The one fault, and what it says; it says what to do as well."""
    found = _of(findings, "fault")
    if state == "warning":
        assert found == []
        found = _of(findings, "warning")
    assert [name for name, _ in found] == [check], findings
    assert all(part in found[0][1] for part in said), found
    assert all(finding.do for finding in findings if finding.state in ("fault", "warning"))


def test_a_sound_world_as_typed(ward: Ward) -> None:
    ensured = run(ward.variables, "topics", "ensure")
    assert f"{ward.prefix}-app-snapshots\tmade" in ensured.stdout.decode()
    assert f"{ward.prefix}-app-snapshots\t{PARTITIONS}" in run(ward.variables, "topics", "describe").stdout.decode()
    ward.feed(_murmur2)
    done = run(ward.variables, "doctor", "--json")
    told = msgspec.json.decode(done.stdout)
    assert (done.returncode, told["faults"], told["warnings"]) == (0, 0, 0), done.stdout
    assert {entry["state"] for entry in told["checks"]} == {"ok"}
    assert [entry["check"] for entry in told["checks"]] == [
        *("settings", "broker", "topics", "rights", "group", "partitioner", "clock"),
        *("state directory", "disk", "memory", "store"),
    ]


def test_no_broker(ward: Ward) -> None:
    ward.variables |= ward.at("127.0.0.1:1")
    found = ward.examine()
    _only(found, "broker", "127.0.0.1:1 cannot be reached", "refused")
    ((_, left_out),) = _of(found, "not made")
    assert "topics, partitioner, rights, group, snapshots, clock" in left_out
    assert {"state directory", "disk", "memory", "store"} <= {check for check, _ in _of(found, "ok")}


def test_another_service_listens_there(ward: Ward) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        ward.variables |= ward.at(f"127.0.0.1:{other.getsockname()[1]}")
        _only(ward.examine(), "broker", "something listens")


def test_a_broker_of_the_list_is_away(ward: Ward) -> None:
    ward.ensure()
    ward.variables |= ward.at(f"{ward.guarded.bootstrap},127.0.0.1:1")
    found = ward.examine()
    _only(found, "broker", "127.0.0.1:1 cannot be reached", state="warning")
    assert "topics" in dict(_of(found, "ok"))


@pytest.mark.parametrize("name", ["ticks", "5-min-candle"])
def test_a_topic_is_missing(ward: Ward, name: str) -> None:
    ward.ensure(without=f"{ward.prefix}-{name}")
    found = ward.examine()
    _only(found, "topics", f"{ward.prefix}-{name}: missing")
    assert ("group" in dict(_of(found, "not made"))) == (name == "ticks")


def test_one_partition_too_few(ward: Ward) -> None:
    ward.ensure(partitions=PARTITIONS - 1)
    ward.commit(Commit(partitions=PARTITIONS).encode())
    found = ward.examine()
    _only(found, "group", "2 partitions, 3 at the group's last commit")
    # The setting alone is a warning, and of the tick topic only: candles and letters go by key, whatever the count.
    ((check, said),) = _of(found, "warning")
    assert (check, ward.ticks in said) == ("topics", True)


@pytest.mark.parametrize(
    ("name", "config", "said", "state"),
    [
        ("5-min-candle", {"cleanup.policy": "compact"}, "only the last one stays", "fault"),
        ("ticks", {"cleanup.policy": "compact"}, "compacted", "fault"),
        ("ticks", {"retention.ms": "3600000"}, "retention.ms is 1 h, below a session", "fault"),
        ("ticks", {"retention.ms": "172800000"}, "retention.ms is 48 h", "warning"),
        ("ticks", {"message.timestamp.before.max.ms": "3600000"}, "older ticks are refused", "warning"),
        ("ticks", {"message.timestamp.after.max.ms": "7200000"}, "up to 2 h ahead", "fault"),
    ],
)
def test_a_topic_is_made_otherwise(ward: Ward, name: str, config: dict[str, str], said: str, state: str) -> None:
    ward.ensure(own={f"{ward.prefix}-{name}": config})
    check = "timestamps" if "ahead" in said else "topics"
    _only(ward.examine(), check, f"{ward.prefix}-{name}: ", said, state=state)


def test_a_topic_made_by_us_refuses_a_clock_that_is_ahead(ward: Ward) -> None:
    run(ward.variables, "topics", "ensure")
    failed: list[object] = []
    producer = Producer({"bootstrap.servers": ward.guarded.bootstrap})
    for ahead_ms in (30_000, 90_000):
        stamp_ms = SystemClock().wall_ms() + ahead_ms
        producer.produce(
            ward.ticks, b"{}", b"7", 0, timestamp=stamp_ms, on_delivery=lambda error, _: failed.append(error)
        )
        assert producer.flush(10) == 0
    assert [error is None for error in failed] == [True, False]
    settings = load_settings({}, ward.variables).kafka_settings("test")
    ticks = TickProducer(settings, SystemClock(), lambda: False)
    ticks.append([(b"7", b"{}", SystemClock().wall_ms() + 90_000)])
    with pytest.raises(OutsideError, match=r"message\.timestamp\.after\.max\.ms refuses .*; see that the clocks"):
        ticks.flush()


def test_what_a_run_says_at_its_start(ward: Ward) -> None:
    ward.ensure(own={ward.ticks: {"message.timestamp.after.max.ms": "7200000"}})
    ward.feed(lambda key: zlib.crc32(key) % PARTITIONS, timestamp_ms=1)
    done = run(ward.variables, "run", "--until-end")
    said = [json.loads(line)["message"] for line in done.stderr.decode().splitlines() if '"warning"' in line]
    for part in (
        "up to 2 h ahead of the broker's clock",
        "lie by CRC-32",
        "20 of 20 of the newest ticks have no timesta",
    ):
        assert sum(part in line for line in said) == 1, said
    found = _of(ward.examine(), "fault")
    assert [check for check, _ in found] == ["timestamps", "partitioner", "timestamps"]


def test_a_run_that_may_not_ask_says_nothing_of_it(ward: Ward) -> None:
    ward.ensure(own={ward.ticks: {"message.timestamp.after.max.ms": "7200000"}})
    ward.secured()
    ward.allow(
        (ResourceType.TOPIC, f"{ward.prefix}-", AclOperation.READ),
        (ResourceType.TOPIC, f"{ward.prefix}-", AclOperation.WRITE),
        (ResourceType.GROUP, ward.prefix, AclOperation.READ),
        (ResourceType.TRANSACTIONAL_ID, f"{ward.prefix}-app-", AclOperation.WRITE),
    )
    done = run(ward.variables, "run", "--until-end")
    assert done.returncode == 0, done.stderr
    assert b"ahead of the broker" not in done.stderr
    assert ("topics", f"{ward.ticks}: its settings cannot be read, and are not checked") in _of(
        ward.examine(), "warning"
    )


def test_ticks_by_crc_32(ward: Ward) -> None:
    ward.ensure()
    ward.feed(lambda key: zlib.crc32(key) % PARTITIONS)
    _only(ward.examine(), "partitioner", "CRC-32")
    ward.variables["STREAMINGCANDLE_PARTITION_CHECK"] = "warn"
    _only(ward.examine(), "partitioner", "CRC-32", state="warning")


def test_another_programs_offsets(ward: Ward) -> None:
    ward.ensure()
    ward.commit("another's")
    _only(ward.examine(), "group", "partitions 0 are another program's")


@pytest.mark.parametrize("by_ms", [OFF_MS, -OFF_MS])
def test_the_clock_is_off(ward: Ward, by_ms: int) -> None:
    ward.ensure()
    way = "ahead of" if by_ms > 0 else "behind"
    _only(ward.examine(Off(by_ms)), "clock", f"{way} the broker's")


def test_no_right_to_write(ward: Ward) -> None:
    ward.ensure()
    ward.secured()
    looking = (AclOperation.READ, AclOperation.DESCRIBE_CONFIGS)
    ward.allow(
        *((ResourceType.TOPIC, f"{ward.prefix}-", operation) for operation in looking),
        (ResourceType.TOPIC, f"{ward.prefix}-app-", AclOperation.WRITE),
        (ResourceType.TOPIC, f"{ward.prefix}-1-", AclOperation.WRITE),
        (ResourceType.GROUP, ward.prefix, AclOperation.READ),
        (ResourceType.TRANSACTIONAL_ID, f"{ward.prefix}-app-", AclOperation.WRITE),
    )
    found = ward.examine()
    _only(found, "rights", f"{ward.candle}: no WRITE right")
    assert dict(_of(found, "ok"))["sasl"] == "PLAIN accepted"
    ((check, said),) = _of(found, "warning")
    assert (check, "certificate" in said) == ("tls", True)


def test_no_right_at_all(ward: Ward) -> None:
    ward.ensure()
    ward.secured()
    said = [what for _, what in _of(ward.examine(), "fault")]
    assert len([line for line in said if "Topic authorization failed" in line]) == 5, (
        said
    )  # of the snapshots topic it is a warning
    assert any("transactional ids" in line for line in said), said


def test_refused_at_the_door(ward: Ward, tmp_path: Path) -> None:
    ward.secured(SASL_PASSWORD=SECRET[::-1])
    _only(ward.examine(), "sasl", "refuses us", "Invalid username or password")
    _, other = _certificate(tmp_path)
    ward.secured(SSL_CA_LOCATION=str(other))
    _only(ward.examine(), "tls", "its certificate is of no authority in", str(other))
