"""Client properties by variable and file: what the library does not know or take is told in one line."""

import socket
from pathlib import Path

import pytest
from confluent_kafka import Producer

from program import environment, run, run_well
from streamingcandle.kafka import client
from streamingcandle.kafka.client import (
    KafkaSettings,
    admin_properties,
    consumer_properties,
    producer_properties,
    transaction_properties,
)
from streamingcandle.kafka.properties import is_known, known, nearest, refusal


@pytest.mark.parametrize("name", ["SERVICE_HOST", "PORT", "PORT_9092_TCP_ADDR", "SASL_USER_NAME", "ERROR_CB"])
def test_an_unknown_variable_is_a_warning(tmp_path: Path, name: str) -> None:
    variables = environment("t", tmp_path, None) | {f"STREAMINGCANDLE_KAFKA_{name}": "10.0.0.1"}
    done = run(variables, "config", "show")
    assert done.returncode == 0
    assert f"STREAMINGCANDLE_KAFKA_{name} names no client property, ignored; nearest: " in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1
    assert b"10.0.0.1" not in done.stdout


@pytest.mark.parametrize(
    ("line", "nearest_name"),
    [
        ('"sasl.user.name" = "me"', "sasl.username"),
        ('ssl.calocation = "/ca.pem"', "ssl.ca.location"),
        ('bootstrap_servers = "localhost:9092"', "bootstrap.servers"),
    ],
)
def test_an_unknown_property_in_the_file_names_the_nearest(tmp_path: Path, line: str, nearest_name: str) -> None:
    (tmp_path / "settings.toml").write_text(f"[kafka]\n{line}\n")
    done = run(environment("t", tmp_path, None), "--config", str(tmp_path / "settings.toml"), "config", "show")
    assert done.returncode == 2
    (said,) = done.stderr.decode().splitlines()
    assert str(tmp_path / "settings.toml") in said
    assert said.endswith(f"nearest: {nearest_name}")


def test_a_file_may_quote_a_property_or_not(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text(
        '[kafka]\n"ssl.ca.location" = "/ca.pem"\nenable.ssl.certificate.verification=true\n'
    )
    done = run(environment("t", tmp_path, None), "--config", str(tmp_path / "settings.toml"), "config", "show")
    assert b"kafka.ssl.ca.location\t/ca.pem\tfile\n" in done.stdout
    assert b"kafka.enable.ssl.certificate.verification\ttrue\tfile\n" in done.stdout


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("SECURITY_PROTOCOL", "SSLL", 'Invalid value "SSLL" for configuration property "security.protocol"'),
        ("SESSION_TIMEOUT_MS", "soon", "session.timeout.ms"),
        ("ACKS", "some", "Invalid value"),
        ("QUEUED_MIN_MESSAGES", "0", "value 0 is outside allowed range 1..10000000"),
        ("ENABLE_AUTO_COMMIT", "maybe", "Expected bool value"),
        ("PARTITIONER", "any", "any"),
    ],
)
def test_a_value_the_library_refuses_is_exit_2(tmp_path: Path, name: str, text: str, reason: str) -> None:
    variables = environment("t", tmp_path, None) | {f"STREAMINGCANDLE_KAFKA_{name}": text}
    done = run(variables, "config", "show")
    assert done.returncode == 2
    (said,) = done.stderr.decode().splitlines()
    assert said.startswith(f"streamingcandle: STREAMINGCANDLE_KAFKA_{name}='{text}' (environment): ")
    assert reason in said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"SECURITY_PROTOCOL": "SSL", "SSL_CA_LOCATION": "/nowhere.pem"}, "STREAMINGCANDLE_KAFKA_SSL_CA_LOCATION: "),
        ({"SECURITY_PROTOCOL": "SASL_SSL", "SASL_MECHANISM": "FOO"}, "Unsupported SASL mechanism: FOO"),
    ],
)
@pytest.mark.parametrize("command", [("run",), ("topics", "describe"), ("candles", "N:C:7"), ("simulate",)])
def test_values_refused_together_are_exit_2(
    tmp_path: Path, given: dict[str, str], said: str, command: tuple[str, ...]
) -> None:
    variables = environment("t", tmp_path, "127.0.0.1:1")
    done = run(variables | {f"STREAMINGCANDLE_KAFKA_{name}": text for name, text in given.items()}, *command)
    assert done.returncode == 2
    *where, line = done.stderr.decode().splitlines()
    assert len(where) == (command == ("run",))
    assert said in line
    assert "STREAMINGCANDLE_KAFKA_S" in line


def test_asking_the_library_connects_to_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.5)
        assert refusal("bootstrap.servers", f"127.0.0.1:{server.getsockname()[1]}") is None
        with pytest.raises(TimeoutError):
            server.accept()


def test_the_list_is_the_librarys() -> None:
    assert len(known()) > 150
    assert [name for name in known() if not is_known(name)] == []
    assert not is_known("service.host")
    assert nearest("boostrap.servers") == "bootstrap.servers"


def test_each_client_gets_what_is_its_own() -> None:
    users = {"retries": "5", "auto.commit.interval.ms": "100", "socket.nagle.disable": "true"}
    settings = KafkaSettings(bootstrap_servers="b", group="g", tick_topic="t", instance="i", properties=users)
    given = {
        name: users.keys() & make(settings)
        for name, make in vars(client).items()
        if name.endswith("_properties") and callable(make)
    }
    assert given == {
        "consumer_properties": {"auto.commit.interval.ms", "socket.nagle.disable"},
        "reader_properties": {"auto.commit.interval.ms", "socket.nagle.disable"},
        "transaction_properties": {"retries", "socket.nagle.disable"},
        "producer_properties": {"retries", "socket.nagle.disable"},
        "admin_properties": {"socket.nagle.disable"},
    }
    assert {known()[name] for name in client.CONSUMER} <= {"C", "*"}
    assert {known()[name] for name in client.PRODUCER | client.TRANSACTION} <= {"P", "*"}


def test_defaults_are_shown_and_give_way_to_a_variable(tmp_path: Path) -> None:
    variables = environment("t", tmp_path, "127.0.0.1:1") | {"STREAMINGCANDLE_KAFKA_SESSION_TIMEOUT_MS": "45000"}
    shown = run_well(variables, "config", "show").decode().splitlines()
    assert {
        "kafka.retry.backoff.ms\t100\tdefault",
        "kafka.reconnect.backoff.ms\t50\tdefault",
        "kafka.request.timeout.ms\t40000\tdefault",
        "kafka.session.timeout.ms\t45000\tenvironment",
        "kafka.heartbeat.interval.ms\t3000\tdefault",
    } <= set(shown)
    assert "kafka.session.timeout.ms\t30000\tdefault" not in shown


def test_each_default_goes_to_the_clients_that_have_it() -> None:
    settings = KafkaSettings(bootstrap_servers="127.0.0.1:1", group="g", tick_topic="t", instance="i")
    for properties in (consumer_properties(settings), producer_properties(settings), admin_properties(settings)):
        assert (properties["retry.backoff.ms"], properties["reconnect.backoff.ms"]) == (100, 50)
    member, producer = consumer_properties(settings), producer_properties(settings)
    assert (member["session.timeout.ms"], member["heartbeat.interval.ms"]) == (30_000, 3_000)
    assert (producer["request.timeout.ms"], transaction_properties(settings)["request.timeout.ms"]) == (40_000, 40_000)


def test_no_request_of_a_producer_overtakes_another() -> None:
    """Else a partition just made may lose its first records, and nobody is told (KAFKA-15591)."""
    settings = KafkaSettings(bootstrap_servers="127.0.0.1:1", group="g", tick_topic="t", instance="i")
    for properties in (producer_properties(settings), transaction_properties(settings)):
        assert properties["max.in.flight.requests.per.connection"] == 1
        Producer(properties)


def test_a_shorter_transaction_shortens_what_may_not_outlast_it() -> None:
    settings = KafkaSettings(
        bootstrap_servers="127.0.0.1:1",
        group="g",
        tick_topic="t",
        instance="i",
        properties={"transaction.timeout.ms": "3000"},
    )
    properties = transaction_properties(settings)
    assert (properties["socket.timeout.ms"], properties["message.timeout.ms"]) == (3_000, 3_000)
