"""Wrong credentials are no broker to wait for."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker import Broker
from program import environment, run
from streamingcandle.clock import SystemClock

LIMIT_MS = 20_000
"""Well below the minute for which an absent broker is waited for."""


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Broker]:
    """Give a broker whose client port asks for a password."""
    broker = Broker(tmp_path / "broker")
    inside = int(broker.inside_bootstrap.rpartition(":")[2])
    settings = broker.directory / "server.properties"
    login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    settings.write_text(
        settings.read_text(encoding="utf-8").replace(
            "CLIENT:PLAINTEXT,INSIDE:PLAINTEXT", "CLIENT:SASL_PLAINTEXT,INSIDE:PLAINTEXT"
        )
        + "sasl.enabled.mechanisms=PLAIN\n"
        + f'listener.name.client.plain.sasl.jaas.config={login} user_feed="right";\n',
        encoding="utf-8",
    )
    # The broker's own look at whether it is ready knows no password.
    broker.port, guarded_port = inside, broker.port
    with broker:
        broker.port = guarded_port
        yield broker


def test_a_wrong_password_is_told_at_once(guarded: Broker, tmp_path: Path) -> None:
    variables = environment("t", tmp_path, guarded.bootstrap) | {
        "STREAMINGCANDLE_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "STREAMINGCANDLE_KAFKA_SASL_MECHANISM": "PLAIN",
        "STREAMINGCANDLE_KAFKA_SASL_USERNAME": "feed",
        "STREAMINGCANDLE_KAFKA_SASL_PASSWORD": "wrong",
    }
    clock = SystemClock()
    began_ms = clock.monotonic_ms()
    done = run(variables, "run")
    assert clock.monotonic_ms() - began_ms < LIMIT_MS
    assert done.returncode == 3
    said = done.stderr.decode().splitlines()[-1]
    assert "refuses us" in said
    assert "check the credentials" in said
    assert "wrong" not in done.stderr.decode()
