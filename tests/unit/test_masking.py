"""Where secrets come from, and that they go nowhere else."""

import json
import os
import secrets
import socket
import string
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from program import environment, run
from streamingcandle.masking import STARS, clean, hide, hide_within, masked
from streamingcandle.settings import load_settings
from streamingcandle.state.owner import Owner, this_process

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


FORMS = (
    "https://{}@host/x",
    "see https://{}@host:8080, then",
    "http://u:{}@host",
    "mongodb://u:{}@h",
    "mongodb://u:12345/{}@h",
    "postgresql://u:{}/x@h:5432/db",
    "u:{}@broker-1:9092,u:{}@broker-2:9092",
    "bootstrap.servers=u:{}@10.0.0.1:9092",
    "Failed to resolve 'u:{}@broker:9092'",
    "pwd={}",
    "PWD: {}",
    "user=a;pass={};x=1",
    "api_key={}",
    "apikey={}&x=1",
    "x-api-key: {}",
    "aws_secret_access_key = {}",
    "access_token={}",
    "password: {}",
    "password:{}",
    "  - password:   {}\n  - user: x",
    "SASL_PASSWORD: {}",
    "secret:\t{}",
    '"password": "{}"',
    "{{'password': '{}', 'x': 1}}",
    "{{'sasl.password': ['{}', '{}']}}",
    '{{"passwd": ["{}", "a] b"], "x": 1}}',
    '"api_key":"{}"',
    '{{"m": "{{\\"password\\": \\"{}\\"}}"}}',
    'required username="u" password="{}";',
    "password='{}'",
    "Authorization: Bearer {}",
    "Authorization: Basic {}",
    '{{"authorization": "Bearer {}"}}',
    "sent Bearer {} to",
    "https://h/x?token={}&y=1",
    "https://h/x?y=1&sig={}",
    "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----",
)
BARE = string.ascii_letters + string.digits + "-._~+"
"""What can stand in each form without an escape of its own."""


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=60, derandomize=True, deadline=None)
@given(secret=st.text(BARE, min_size=9, max_size=40).filter(lambda text: len(set(text)) > 5))
def test_nothing_of_a_secret_is_left(form: str, secret: str) -> None:
    said = clean(form.replace("{{", "{").replace("}}", "}").replace("{}", secret))
    assert STARS in said
    pieces = {secret[at : at + 4] for at in range(len(secret) - 3)}
    assert not [piece for piece in pieces if piece in said and piece not in form], said


@pytest.mark.parametrize("secret", ['p"q\\"r', "p w", "p;q,r&s", "a]b", "p@q", "/p/q", "p:q"])
def test_a_quoted_secret_may_hold_anything(secret: str) -> None:
    quoted = f"password={json.dumps(secret)}; x"
    assert clean(quoted) == f'password="{STARS}"; x'
    assert clean(f"{{'a': {json.dumps({'secret': [secret]})}}}") == f"{{'a': {{\"secret\": {STARS}}}}}"


INNOCENT = (
    "N:C:2885",
    "topic[3]@812",
    "forwardtesting-data[3]@812: N:C:2885 without a key",
    "tick 3@120 of N:C:2885",
    "ticks:3@120",
    "broker-1:9092,broker-2:9092",
    "SASL_SSL://b1:9093,SASL_SSL://b2:9093",
    "http://127.0.0.1:8710/chart?instrument=N:C:2885&from=1",
    "http://broker:9092/a@b",
    "https://example.com/a/b@v2.1",
    "/var/lib/kafka-streams/streamingcandle/instance-0/lock",
    "fields: price=ltp,token=instrument_token",
    '{"Exch":"N","ExchType":"C","Token":2885,"LastRate":1.5}',
    "KAFKA_SASL_PASSWORD_FILE: /run/secrets/x: empty; write the value into it",
    "credential kafka_sasl_password: /run/credentials/x: empty",
    "nearest: STREAMINGCANDLE_KAFKA_SASL_PASSWORD",
    "wrong password or mechanism",
    "my-secret:9092,other:9092",
    "2026-01-02 09:15:00.500 INFO ready",
    "mail to ops@example.com",
    "key 2885 of topic a, compass=north, bypass: on",
    "sasl.mechanism=SCRAM-SHA-512",
)


@pytest.mark.parametrize("text", INNOCENT)
def test_what_is_no_secret_stays(text: str) -> None:
    assert clean(text) == text
    hide_within(text)
    assert clean(text) == text


def test_a_login_alone_is_a_token_only_when_it_is_long() -> None:
    token = secrets.token_hex(8)
    hide_within(f"https://{token}@host and kafka://candler@host")
    assert clean(f"{token} candler") == f"{STARS} candler"


def test_a_secret_that_is_a_list_in_the_file(tmp_path: Path) -> None:
    first, second = secrets.token_hex(6), secrets.token_hex(6)
    path = tmp_path / "settings.toml"
    path.write_text(f'[kafka]\nsasl.password = ["{first}", "{second}"]\n')
    load_settings({"config": str(path)}, {})
    assert clean(f"{first} {second}") == f"{STARS} {STARS}"


READ = """
import ctypes, resource, sys
from streamingcandle.cli.world import World
World({}, is_debug=False).settings
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE)[0], flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("given", "is_open"),
    [
        ({}, True),
        ({"KAFKA_BOOTSTRAP_SERVERS": "h:9092"}, True),
        ({"KAFKA_SASL_PASSWORD": "hunter2"}, False),
        ({"KAFKA_BOOTSTRAP_SERVERS": "u:hunter2@h:9092"}, False),
        ({"KAFKA_SSL_KEY_LOCATION": "key.pem"}, False),
    ],
)
def test_memory_with_a_secret_in_it_is_closed(given: dict[str, str], *, is_open: bool) -> None:
    variables = dict(os.environ) | {f"STREAMINGCANDLE_{name}": text for name, text in given.items()}
    command = [sys.executable, "-c", READ]
    with subprocess.Popen(command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        dumpable, core = process.stdout.readline().split()
        # What this program and its tests read of other processes.
        for name in ("stat", "statm", "cmdline", "limits", f"task/{process.pid}/children"):
            assert Path(f"/proc/{process.pid}/{name}").read_text() is not None
        seen = Owner(process.pid, socket.gethostname(), "", "", this_process(0).mark[:36] + "/x").is_running()
    assert seen is False  # looked at, and another's
    assert (dumpable == b"1") is is_open
    assert is_open or core == b"0"
