"""Where secrets come from, and that they go nowhere else."""

import json
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from program import environment, run
from streamingcandle.masking import STARS, clean, hide, hide_within, masked

VARIABLE = "STREAMINGCANDLE_KAFKA_SASL_PASSWORD"
CRASH = """
import sys, threading
from streamingcandle.masking import clean_tracebacks, hide
secret = sys.stdin.read()
hide(secret)
clean_tracebacks()
def fail():
    raise RuntimeError(secret, {"password": secret})
thread = threading.Thread(target=fail)
thread.start()
thread.join()
class Dying:
    def __del__(self):
        fail()
Dying()
fail()
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("at mongodb://app:x@y:27017/db, again", f"at mongodb://{STARS}@y:27017/db, again"),
        ("mongodb+srv://a:b:c@d", f"mongodb+srv://{STARS}@d"),
        ("mongodb+srv://a:b/c?d@e", f"mongodb+srv://{STARS}@e"),
        ("SASL_SSL://a:b@c:1", f"SASL_SSL://{STARS}@c:1"),
        ("'mongodb:/a:b@c'", f"'mongodb:/{STARS}@c'"),
        ("http://broker:9092/a@b", "http://broker:9092/a@b"),
        ('Module required username="u" password="p q";', f'Module required username="u" password="{STARS}";'),
        (json.dumps({"m": 'password="p";'}), json.dumps({"m": f'password="{STARS}";'})),
        ("-----BEGIN EC PRIVATE KEY-----\nMIIC\n-----END EC PRIVATE KEY----- b", f"{STARS} b"),
        ("-----BEGIN PRIVATE KEY-----\\nMIIC", STARS),
        ("KAFKA_SASL_PASSWORD: /secret: No such file", "KAFKA_SASL_PASSWORD: /secret: No such file"),
    ],
)
def test_by_form(text: str, said: str) -> None:
    assert clean(text) == said


def test_by_value_however_it_is_written() -> None:
    value = f'it\'s "{secrets.token_urlsafe(9)}" \\ \u20ac'
    hide(value)
    for written in (value, repr(value), json.dumps(value), repr([value]), json.dumps(repr(value))):
        assert value[5:17] not in clean(written)
    inner = secrets.token_urlsafe(9)
    hide_within(f"mongodb://app:{inner}@host")
    assert clean(f"no file /{inner}") == f"no file /{STARS}"
    assert masked("kafka.ssl.key.password", "x") == STARS
    assert masked("kafka.sasl.oauthbearer.assertion.private.key.passphrase", "x") == STARS


def test_doctor_and_a_slip_tell_none(tmp_path: Path) -> None:
    inner = secrets.token_urlsafe(9)
    variables = environment("t", tmp_path, None)
    for slip in (
        {"STREAMINGCANDLE_START": f"mongodb://u:{inner}@h/x"},
        {"STREAMINGCANDLE_KAFKA_BOOTSTRAP_SERVERS": f"SASL_SSL://u:{inner}@127.0.0.1:1"},
        {f"{VARIABLE}_FILE": inner},
    ):
        for arguments in (["doctor"], ["doctor", "--json"]):
            done = run(variables | slip, *arguments)
            assert done.returncode == 1, done
            assert inner not in (done.stdout + done.stderr).decode()
    assert masked("grace", "1s") == "1s"


def test_what_nobody_caught() -> None:
    value = f"marked\n{secrets.token_urlsafe(12)}"
    done = subprocess.run(
        [sys.executable, "-c", CRASH], input=value.encode(), capture_output=True, timeout=60, check=False
    )
    said = done.stderr.decode()
    assert done.returncode == 1
    assert said.count("RuntimeError") == 3, said
    assert value.splitlines()[1] not in said


def test_a_file_that_all_may_read_is_a_warning_and_an_empty_one_exit_2(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("hunter2\n")
    variables = environment("t", tmp_path, None) | {f"{VARIABLE}_FILE": str(path)}
    for mode, count in ((0o644, 1), (0o640, 0)):
        path.chmod(mode)
        done = run(variables, "config", "show")
        assert (done.returncode, done.stderr.decode().count(f"chmod o-rwx {path}")) == (0, count)
    path.write_text("\n")
    done = run(variables, "config", "show")
    assert done.returncode == 2
    assert done.stderr.decode() == f"streamingcandle: {VARIABLE}_FILE: {path}: empty; write the value into it\n"
    done = run(variables | {VARIABLE: "hunter3"}, "config", "show")
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert b"unset one of the two" in done.stderr


def test_credentials_of_systemd(tmp_path: Path) -> None:
    folder = tmp_path / "credentials"
    folder.mkdir()
    for name in ("kafka_sasl_password", "tick_topic", "client.pem"):
        (folder / name).write_text("hunter2\n")
    variables = environment("t", tmp_path, None) | {"CREDENTIALS_DIRECTORY": str(folder)}
    del variables["STREAMINGCANDLE_TICK_TOPIC"]
    done = run(variables, "config", "show")
    assert done.stderr == b""
    assert f"kafka.sasl.password\t{STARS}\tcredential\n" in done.stdout.decode()
    assert f"tick_topic\t{STARS}\tcredential\n" in done.stdout.decode()
    done = run(variables | {VARIABLE: "hunter3", "STREAMINGCANDLE_TICK_TOPIC": "ticks"}, "config", "show")
    assert f"kafka.sasl.password\t{STARS}\tenvironment\n" in done.stdout.decode()
    assert b"tick_topic\tticks\tenvironment\n" in done.stdout
    (folder / "kafka_sasl_password").write_text("")
    done = run(variables, "config", "show")
    assert done.returncode == 2
    assert b"credential kafka_sasl_password: " in done.stderr
