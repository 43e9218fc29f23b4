"""What no setting can mean: one line that says so, exit 2, at once; and nothing of it reaches a path."""

import itertools
import os
import resource
import subprocess
from pathlib import Path

import pytest

from program import PROGRAM, environment
from streamingcandle.errors import SettingsError
from streamingcandle.settings import load_settings

PREFIX = "STREAMINGCANDLE_"
LIMIT_S = 20
MEMORY_BYTES = 1_500_000_000
LINE_MAX = 1_000


def ends(variables: dict[str, str], *arguments: str) -> tuple[int, str]:
    """Exit code and the one line of a program that may take little time and memory."""
    done = subprocess.run(
        [PROGRAM, *arguments],
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES)),
    )
    (line,) = done.stderr.decode().splitlines()
    assert done.stdout == b""
    assert len(line) < LINE_MAX
    return done.returncode, line


def refused(variables: dict[str, str], **flags: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(flags, variables)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < LINE_MAX
    return str(caught.value)


def told(**settings: str) -> str:
    return refused({PREFIX + name.upper(): text for name, text in settings.items()})


@pytest.mark.parametrize(
    "text", ["", ".", "..", "a/../b", "/etc", "a/b", "a\\b", "a\0b", "a\nb", "a b", "a\x1b[2Jb", "é", "x" * 237]
)
def test_an_application_id_is_a_topic_s_name_and_one_folder(text: str) -> None:
    assert "application_id" in told(application_id=text).lower()


def test_the_longest_application_id_leaves_room_for_what_is_added() -> None:
    name = "x" * 236
    topics = load_settings({}, {PREFIX + "APPLICATION_ID": name}).topics()
    assert len(topics.dead_letters) == 249
    assert "at most 236" in told(application_id=name, instance="15m")


@pytest.mark.parametrize("name", ["tick_topic", "candle_topic", "candle_topic_days", "instance"])
@pytest.mark.parametrize("text", ["..", "../{n}", "a/{n}", "{n}\x1b", "{n}" + "x" * 250, "9" * 5_000])
def test_names_that_become_paths_or_topics(name: str, text: str) -> None:
    assert PREFIX + name.upper() in told(**{name: text})


@pytest.mark.parametrize("name", ["state_dir", "data_dir"])
@pytest.mark.parametrize("text", ["", "a\0b", "a\nb", "\x1b[2J", "x" * 5_000])
def test_a_folder_s_path_can_be_shown(name: str, text: str) -> None:
    assert "not a folder's path" in told(**{name: text})


@pytest.mark.parametrize(
    "name", ["wait", "grace", "allowed_lateness", "commit_interval", "snapshot_interval", "adopt_grace", "after_close"]
)
@pytest.mark.parametrize(
    "text", ["1e9h", "99999999999d", "99999999999h", "-1s", "9" * 400 + "h", "inf", "nan", "٣s", ""]
)
def test_absurd_durations(name: str, text: str) -> None:
    assert PREFIX + name.upper() in told(**{name: text})


@pytest.mark.parametrize("name", ["allowed_lateness", "commit_interval", "snapshot_interval"])
def test_durations_that_cannot_be_nothing(name: str) -> None:
    assert "not from 1ms to " in told(**{name: "0"})


def test_a_grace_of_a_timeframe_has_the_same_limit() -> None:
    assert "not from 0s to 24h" in told(grace="1s,5m=25h", allowed_lateness="100h")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("partitions", "1000000000"),
        ("partitions", "9" * 5_000),
        ("partitions", "0"),
        ("quantity_decimals", "9" * 5_000),
        ("start", "9" * 30),
        ("start", "1900-01-01T00:00:00+00:00"),
        ("timeframes", "x" * 100_000),
        ("timeframes", "99999h"),
        ("fields", "price=" + "x" * 100_000 + ",total=" + "x" * 100_000),
    ],
)
def test_absurd_numbers_and_texts(name: str, text: str) -> None:
    assert name.rstrip("s") in told(**{name: text}).lower()


def test_timeframes_have_a_limit() -> None:
    labels = [f"{count}m" for count in range(1, 42)]
    assert "41 timeframes, at most 32" in told(timeframes=",".join(labels))
    assert len(load_settings({}, {PREFIX + "TIMEFRAMES": ",".join(labels[:32])}).timeframes) == 32


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("price=ltp,quantity=ltp", "price and quantity would both be read from 'ltp'"),
        ("price=LastQty", "price and quantity would both be read from 'LastQty'"),
        ("price=ltp,price=last", "price is 'ltp' and 'last'"),
        ("price=ltp,price=ltp", "price is 'ltp' and 'ltp'"),
        ("price=", "'price' has no name"),
        ("=ltp", "'' is none of"),
        ("ltp", "'ltp' has no name"),
        ("prise=ltp", "nearest: price"),
    ],
)
def test_fields_that_clash(text: str, said: str) -> None:
    assert said in told(fields=text)


def test_fields_may_trade_names_and_have_blanks_around() -> None:
    fields = load_settings({}, {PREFIX + "FIELDS": " price = LastQty , quantity = LastRate,"}).rules().fields
    assert (fields.price, fields.quantity) == ("LastQty", "LastRate")


@pytest.mark.parametrize(
    ("use", "kind"),
    [
        *itertools.product(("sessions", "config", "secret"), ("zero", "pipe", "folder", "long", "missing")),
        ("key", "zero"),
        ("key", "pipe"),
    ],
)
def test_files_that_never_end(tmp_path: Path, use: str, kind: str) -> None:
    path = tmp_path / "given"
    if kind == "zero":
        path = Path("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "long":
        with path.open("wb") as file:
            file.truncate(1_000_000_000)
    variable = {"sessions": "SESSIONS", "secret": "KAFKA_SASL_PASSWORD_FILE", "key": "KAFKA_SSL_KEY_LOCATION"}.get(use)
    flags = {"config": str(path)} if use == "config" else {}
    line = refused({} if variable is None else {PREFIX + variable: str(path)}, **flags)
    assert str(path) in line
    assert ("longer than" if kind == "long" else "No such file" if kind == "missing" else "not a regular file") in line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = " + "[" * 10_000, "too deep"),
        ("grace = " + "{a=" * 10_000, "too deep"),
        ("[kafka]\n" + "a." * 10_000 + "a = 1", "too deep"),
        ("[" + "kafka." * 30_000 + "a]\nx = 1", "too deep"),
        ("grace = " + "9" * 10_000, "write TOML"),
        ("partitions = " + "9" * 4_000, "not a whole number"),
        ("partitions = inf", "not a whole number"),
        ("partitions = 1979-05-27T07:32:00Z", "not a whole number"),
        ("partitions = 6.0", "not a whole number"),
        ("state_dir = ['a', 1]", "state_dir is a list"),
        ("state_dir = [['a']]", "state_dir is a list"),
        ("state_dir = {a = 1}", "state_dir is a table"),
        ('state_dir = "a\\u0000b"', "not a folder's path"),
        ('sessions = "a\\u0000b"', "zero byte"),
        ("timeframes = [1, 2]", "timeframes is a list"),
        ("[kafka]\nsecurity.protocol = []", "security.protocol"),
        ("profile = []", "profile is no table"),
        ("[profile.x]\ngrace = {}", "grace is a table"),
        ("x" * 250_000 + " = 1", "unknown key"),
        ("[kafka]\n" + "x" * 250_000 + " = 1", "unknown client property"),
    ],
)
def test_a_settings_file_that_is_absurd(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    assert said in refused({}, config=str(path))


@pytest.mark.parametrize(
    "arguments", ["run --workers 1000000000", "run --instance 99999", "--profile ../../\x1b[2J config show"]
)
def test_absurd_numbers_of_a_command(tmp_path: Path, arguments: str) -> None:
    code, line = ends(environment("t", tmp_path, None), *arguments.split())
    assert (code, line.isprintable()) == (2, True)


def test_the_program_ends_at_once(tmp_path: Path) -> None:
    variables = environment("t", tmp_path, None)
    (tmp_path / "deep.toml").write_text("a = " + "[" * 10_000)
    for given, said in (
        ({PREFIX + "SESSIONS": "/dev/zero"}, "not a regular file"),
        ({PREFIX + "CONFIG": "/dev/zero"}, "not a regular file"),
        ({PREFIX + "CONFIG": str(tmp_path / "deep.toml")}, "too deep"),
        ({PREFIX + "APPLICATION_ID": ".."}, "not . or .."),
    ):
        code, line = ends(variables | given, "run", "--until-end")
        assert (code, said in line) == (2, True), line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep.toml"]
