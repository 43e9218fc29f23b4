"""What `run` says of itself at its start, and what it does where its tick topic is missing."""

import json
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from program import PROGRAM, environment, run, run_well
from streamingcandle.embedded.store import EmbeddedStore
from streamingcandle.kafka.client import KafkaSettings
from streamingcandle.kafka.exposure import exposures
from streamingcandle.settings import load_settings

PREFIX = "STREAMINGCANDLE_"
TICK = {"Exch": "N", "ExchType": "C", "Token": 7, "LastRate": 1.5, "TickDt": "2026-01-02 09:15:01"}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("BOOTSTRAP_SERVERS", "KAFKA_BOOTSTRAP_SERVERS"),
        ("KAFKA_BROKERS", "KAFKA_BOOTSTRAP_SERVERS"),
        ("BROKERS", "KAFKA_BOOTSTRAP_SERVERS"),
        ("BROKER_URL", "KAFKA_BOOTSTRAP_SERVERS"),
        ("KAFKA_BOOTSTRAP_SERVER", "KAFKA_BOOTSTRAP_SERVERS"),
        ("SASL_PASSWORD", "KAFKA_SASL_PASSWORD"),
        ("SECURITY_PROTOCOL", "KAFKA_SECURITY_PROTOCOL"),
        ("SSL_CA_LOCATION", "KAFKA_SSL_CA_LOCATION"),
        ("TOPIC", "TICK_TOPIC"),
        ("KAFKA_TOPIC", "TICK_TOPIC"),
        ("INPUT_TOPIC", "TICK_TOPIC"),
        ("OUTPUT_TOPIC", "CANDLE_TOPIC"),
        ("TIMEFRAME", "TIMEFRAMES"),
        ("GROUP", "APPLICATION_ID"),
        ("APP_NAME", "APPLICATION_ID"),
        ("STATE_FOLDER", "STATE_DIR"),
        ("GRACCE", "GRACE"),
        ("PROFILES", "PROFILE"),
    ],
)
def test_a_variable_that_is_not_known_names_the_one_that_was_meant(typed: str, meant: str) -> None:
    (said,) = load_settings({}, {PREFIX + typed: "x"}).warnings
    assert said.endswith(f"; nearest: {PREFIX}{meant}")


def test_where_it_reads_writes_and_keeps(tmp_path: Path) -> None:
    variables = environment("t", tmp_path, None)
    run_well(variables, "topics", "ensure", "--partitions", "1")
    first = json.loads(run(variables, "run", "--until-end").stderr.splitlines()[0])["message"]
    assert first == (
        f"reads t-ticks of the embedded log {tmp_path}/data/log.sqlite3 as group t-app; writes t-1-min-candle, "
        "t-2-min-candle, t-3-min-candle, t-5-min-candle, t-15-min-candle, t-30-min-candle; "
        f"keeps its state in {tmp_path}/state/t-app"
    )
    given = {
        f"{PREFIX}KAFKA_BOOTSTRAP_SERVERS": "u:hunter2@127.0.0.1:1",
        f"{PREFIX}KAFKA_SECURITY_PROTOCOL": "sasl_plaintext",
        f"{PREFIX}KAFKA_SASL_MECHANISM": "PLAIN",
        f"{PREFIX}KAFKA_SASL_USERNAME": "u",
        f"{PREFIX}KAFKA_SASL_PASSWORD": "hunter2",
        f"{PREFIX}WAIT": "1s",
    }
    done = run(variables | given, "run", "--until-end")
    messages = [json.loads(line)["message"] for line in done.stderr.splitlines() if line.startswith(b"{")]
    assert messages[0].startswith("reads t-ticks of the brokers u:********@127.0.0.1:1 as group t-app; ")
    assert (
        "KAFKA_SECURITY_PROTOCOL is SASL_PLAINTEXT with PLAIN: the password goes over the network in clear"
        in messages[1]
    )
    assert b"hunter2" not in done.stderr
    doctor = run(variables | given, "doctor").stdout.decode()
    assert "warning\tsasl\tSTREAMINGCANDLE_KAFKA_SECURITY_PROTOCOL is SASL_PLAINTEXT with PLAIN: " in doctor


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ({}, []),
        ({"sasl.password": "x"}, []),
        ({"security.protocol": "SASL_PLAINTEXT"}, []),  # Kerberos
        ({"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN"}, ["the password goes"]),
        ({"security.protocol": "sasl_plaintext", "sasl.mechanisms": "SCRAM-SHA-512"}, ["can be guessed from"]),
        ({"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "OAUTHBEARER"}, ["the token goes"]),
        ({"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN"}, []),
        ({"security.protocol": "SSL", "enable.ssl.certificate.verification": "False"}, ["is off"]),
        ({"security.protocol": "SASL_SSL", "ssl.endpoint.identification.algorithm": "none"}, ["is none"]),
        ({"security.protocol": "PLAINTEXT", "enable.ssl.certificate.verification": "false"}, []),
        ({"security.protocol": "SSL", "enable.ssl.certificate.verification": "true"}, []),
    ],
)
def test_what_a_connection_gives_away(properties: dict[str, str], said: list[str]) -> None:
    settings = KafkaSettings(bootstrap_servers="", group="g", tick_topic="t", instance="i", properties=properties)
    found = exposures(settings)
    assert len(found) == len(said)
    assert all(text in exposure.what for text, exposure in zip(said, found, strict=True))


def test_a_mistyped_tick_topic_of_the_embedded_log_is_exit_2(tmp_path: Path) -> None:
    variables = environment("t", tmp_path, None)
    run_well(variables, "simulate", "--ticks", "10", "--rate", "10", "--speed", "0")
    wrong = variables | {f"{PREFIX}TICK_TOPIC": "t-tikcs", f"{PREFIX}WAIT": "0s"}
    done = run(wrong, "run", "--until-end")
    line = done.stderr.decode().splitlines()[-1]
    assert (done.returncode, done.stdout) == (2, b"")
    assert "topic t-tikcs in " in line
    assert "missing; there is t-ticks: correct the name, or make it with `streamingcandle topics ensure`" in line
    assert run(wrong, "watch").returncode == 2
    assert b"t-tikcs\tmissing" in run(wrong, "topics", "describe").stdout
    with closing(EmbeddedStore(tmp_path / "data" / "log.sqlite3")) as store:
        assert [name for name, _ in store.topics()] == ["t-ticks"]
    doctor = run(wrong, "doctor")
    assert (doctor.returncode, b"no topic t-tikcs" in doctor.stdout) == (1, True)


def test_a_first_run_waits_for_what_another_process_ingests(tmp_path: Path) -> None:
    variables = environment("t", tmp_path, None) | {f"{PREFIX}LOG_FORMAT": "text"}
    with subprocess.Popen([PROGRAM, "run", "--until-end"], env=variables, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        try:
            lines = iter(process.stderr.readline, b"")
            assert any(b"waiting up to 60s: topic t-ticks in" in line for line in lines)
            done = run(variables, "ingest", "-", stdin=json.dumps(TICK).encode())
            assert done.returncode == 0, done
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_a_stop_ends_the_wait_for_a_topic(tmp_path: Path) -> None:
    variables = environment("t", tmp_path, None) | {f"{PREFIX}LOG_FORMAT": "text"}
    with subprocess.Popen([PROGRAM, "run"], env=variables, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        try:
            assert any(b"waiting up to" in line for line in iter(process.stderr.readline, b""))
            process.terminate()
            assert process.wait(10) == 0
        finally:
            process.kill()
