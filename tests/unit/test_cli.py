"""What a user types wrong, and what the commands say: exit codes and one line."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from program import environment, run, run_well
from streamingcandle.candles.candle import decode_candle
from streamingcandle.cli import cli


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        ("TIMEFRAMES", "1m,5q", "nearest: 5s"),
        ("TIMEFRAMES", "60m,1h", "same length"),
        ("CANDLE_TOPIC", "candles", "{n}-min-candle"),
        ("CANDLE_TOPIC_SECONDS", "{n} sec", "{n}"),
        ("GRACE", "soon", "duration"),
        ("GRACE", "10m", "allowed_lateness"),
        ("ALLOWED_LATENESS", "1s", "allowed_lateness"),
        ("START", "yesterday", "earliest, session, latest"),
        ("PROFILE", "prod", "nearest: production"),
        ("OUTSIDE_SESSION", "kep", "nearest: keep"),
        ("TICK_TOPIC", "a b", "topic name"),
        ("SESSIONS", "/nowhere.csv", "/nowhere.csv"),
        ("INSTANCE", "64", "not below 64"),
        ("INSTANCE", "1q", "nearest: 1s"),
    ],
)
def test_a_wrong_setting_is_one_line_and_exit_2(tmp_path: Path, variable: str, text: str, said: str) -> None:
    variables = environment("t", tmp_path, None) | {f"STREAMINGCANDLE_{variable}": text}
    done = run(variables, "config", "show")
    assert done.returncode == 2
    assert said in done.stderr.decode()
    assert done.stderr.decode().count("\n") == 1


def test_config_show_masks_secrets_and_names_origins(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hunter2\n")
    variables = environment("t", tmp_path, "127.0.0.1:1") | {
        "STREAMINGCANDLE_KAFKA_SASL_PASSWORD_FILE": str(tmp_path / "password"),
        "STREAMINGCANDLE_NONSENSE": "x",
    }
    done = run(variables, "config", "show")
    assert done.returncode == 0
    assert b"kafka.sasl.password\t********\tenvironment" in done.stdout
    assert b"hunter2" not in done.stdout + done.stderr
    assert b"grace\t1s\tdefault" in done.stdout
    assert b"STREAMINGCANDLE_NONSENSE is not known" in done.stderr


def test_an_unknown_key_in_a_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text('timeframe = "1m"\n')
    done = run(environment("t", tmp_path, None), "--config", str(tmp_path / "settings.toml"), "config", "show")
    assert done.returncode == 2
    assert b"nearest: timeframes" in done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"a = [", 'write TOML, like grace = "1s"'),
        (b"\xff\xfe", "write TOML"),
        (b'profile = "x"', "write [profile.NAME]"),
        (b"[profile]\nx = 1", "write [profile.NAME]"),
        (b'kafka = "x"', "write [kafka]"),
        (b'fields = "price"', "like price=ltp"),
        (None, "No such file or directory; name a file"),
    ],
)
def test_a_settings_file_that_is_none_is_one_line_and_exit_2(tmp_path: Path, text: bytes | None, said: str) -> None:
    path = tmp_path / "settings.toml"
    if text is not None:
        path.write_bytes(text)
    done = run(environment("t", tmp_path, None), "--config", str(path), "config", "show")
    assert (done.returncode, done.stdout) == (2, b"")
    (line,) = done.stderr.decode().splitlines()
    assert str(path) in line or "fields" in line
    assert said in line


def test_a_secret_file_that_is_no_text_is_one_line_and_exit_2(tmp_path: Path) -> None:
    (tmp_path / "password").write_bytes(b"\xff\xfe")
    variables = environment("t", tmp_path, None)
    variables["STREAMINGCANDLE_KAFKA_SASL_PASSWORD_FILE"] = str(tmp_path / "password")
    done = run(variables, "config", "show")
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert b"KAFKA_SASL_PASSWORD_FILE" in done.stderr


def test_embedded_from_simulate_to_candles(tmp_path: Path) -> None:
    variables = environment("t", tmp_path, None)
    run_well(variables, "simulate", "--ticks", "3000", "--rate", "20", "--date", "2026-01-02", "--speed", "0")
    run_well(variables, "run", "--until-end", "--flush")
    first = run_well(variables, "candles", "N:C:1000", "--format", "json")
    candles = [decode_candle(line) for line in first.splitlines()]
    assert [candle.window_start_millis for candle in candles] == [1767325500000, 1767325560000, 1767325620000]
    run_well(variables, "run", "--until-end", "--flush")
    assert run_well(variables, "candles", "N:C:1000", "--format", "json") == first
    table = run_well(variables, "candles", "N:C:1000", "--timeframe", "5m", "--format", "csv")
    assert table.startswith(b"open,high,low,close,volume,")


def test_ingest_names_bad_lines_and_goes_on(tmp_path: Path) -> None:
    good = {"Exch": "N", "ExchType": "C", "Token": 7, "LastRate": 1.5, "TickDt": "2026-01-02 09:15:01"}
    lines = [json.dumps(good), "{", json.dumps(good | {"Token": "x"}), json.dumps(good)]
    (tmp_path / "ticks.jsonl").write_text("\n".join(lines))
    variables = environment("t", tmp_path, None)
    done = run(variables, "ingest", str(tmp_path / "ticks.jsonl"))
    assert done.returncode == 1
    assert b"ticks.jsonl:2: json" in done.stderr
    assert b"ticks.jsonl:3: instrument" in done.stderr
    assert b"2 ticks into t-ticks, 2 bad lines" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("candles", "streamingcandle candles: Missing argument 'INSTRUMENT'; see `streamingcandle candles --help`"),
        ("cndles", "streamingcandle: No such command 'cndles'"),
        ("run --flush", "--flush goes with --until-end"),
        ("candles N:C:1 --formt csv", "--format"),
        ("candles N:C:1 --from yesterday", "--from"),
        ("candles N:C:1 --from 2026-01-02", "2026-01-02T00:00:00Z"),
        ("candles N:C", "N:C"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_2(tmp_path: Path, arguments: str, said: str) -> None:
    done = run(environment("t", tmp_path, None), *arguments.split())
    assert (done.returncode, done.stdout) == (2, b"")
    (line,) = done.stderr.decode().splitlines()
    assert said in line


def _commands(command: click.Command, path: list[str]) -> Iterator[tuple[list[str], click.Command]]:
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below is not None
        yield from _commands(below, [*path, name])


def test_every_help_has_examples_and_they_can_be_typed() -> None:
    for path, command in _commands(cli, []):
        shown = command.get_help(click.Context(command))
        examples = re.findall(r"^ +streamingcandle (.*)$", shown.partition("Examples:")[2], re.MULTILINE)
        assert examples, path
        for example in examples:
            words = shlex.split(re.split(" [<>] ", example)[0])
            assert words[: len(path)] == path
            command.make_context(path[-1], words[len(path) :])


def test_no_broker_is_exit_3(tmp_path: Path) -> None:
    variables = environment("t", tmp_path, "127.0.0.1:1") | {"STREAMINGCANDLE_WAIT": "1s"}
    done = run(variables, "run", "--until-end")
    assert done.returncode == 3, done.stderr
    assert b"127.0.0.1:1" in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        "candles N:C:1",
        "ingest -",
        "simulate --ticks 1",
        "topics describe",
        "topics ensure",
    ],
)
def test_no_broker_is_one_line_for_who_asks_once(tmp_path: Path, command: str) -> None:
    variables = environment("t", tmp_path, "127.0.0.1:1") | {"STREAMINGCANDLE_WAIT": "1s"}
    done = run(variables, *command.split(), stdin=b"")
    assert (done.returncode, done.stdout) == (3, b"")
    (line,) = done.stderr.decode().splitlines()
    assert "127.0.0.1:1" in line
    assert re.search("is (the broker|it) up", line)


@pytest.mark.parametrize("command", ["dead-letters ls", "dead-letters retry"])
def test_no_broker_is_one_line_more_for_who_waits(tmp_path: Path, command: str) -> None:
    variables = environment("t", tmp_path, "127.0.0.1:1") | {"STREAMINGCANDLE_WAIT": "1s"}
    done = run(variables, *command.split())
    assert (done.returncode, done.stdout) == (3, b"")
    *waiting, line = done.stderr.decode().splitlines()
    # Where the time is over before a look at the broker is, nothing was said of waiting.
    assert waiting == [] or (len(waiting) == 1 and "no broker yet" in waiting[0])
    assert "127.0.0.1:1" in line
    assert "is the broker up" in line


def test_sessions_show(tmp_path: Path) -> None:
    variables = environment("t", tmp_path, None)
    assert b"N:*\t2026-01-02\t09:15-15:30" in run_well(variables, "sessions", "show", "--date", "2026-01-02")
    assert run_well(variables, "sessions", "show", "--exchange", "X", "--date", "9999-12-31").startswith(b"X\t9999")
    assert b"24:00" in run_well(variables, "sessions", "show", "--date", "9999-12-31")
    assert b"M:*\t2026-07-01\t09:00-23:30" in run_well(variables, "sessions", "show", "--date", "2026-07-01")


def test_demo_ends_by_itself_with_a_summary(tmp_path: Path) -> None:
    done = run_well(environment("t", tmp_path, None), "demo", "--seconds", "3")
    assert b"candles so far" in done
