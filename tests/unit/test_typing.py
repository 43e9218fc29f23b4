"""How the program feels under the fingers: quick, completed by the shell, JSON for programs, no colour unasked."""

import importlib
import json
import re
import resource
import subprocess
import sys
from pathlib import Path
from statistics import median

import click
import pytest

from program import PROGRAM, environment, run, run_well
from streamingcandle.cli import MODULES, cli
from terminal import OnTerminal

HELP_CPU_MAX_S = 0.3
"""Takes 0.10 s; with Kafka's client, rich and asyncio it took 0.47 s. Of the CPU: by the wall others count too."""
HEAVY = {"confluent_kafka", "rich.console", "asyncio", "msgspec", "streamingcandle.settings", "importlib.metadata"}


def test_help_reads_nothing_that_it_does_not_need() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "streamingcandle", "--help"], capture_output=True, check=True
    )
    read = set(re.findall(r"\| +([\w.]+)$", done.stderr.decode(), re.MULTILINE))
    assert "click" in read
    assert read & HEAVY == set()


def test_help_is_quick() -> None:
    took_s = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([PROGRAM, "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took_s.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert median(took_s) < HELP_CPU_MAX_S


def test_every_command_stands_in_the_table_as_its_help_says() -> None:
    names = {name for name, _ in MODULES.values()}
    found = {
        command.name: (name, (command.help or "").splitlines()[0])
        for name in names
        for command in importlib.import_module(f"streamingcandle.cli.{name}").COMMANDS
    }
    assert found.keys() == MODULES.keys()
    for command, (name, text) in MODULES.items():
        assert found[command][0] == name
        assert found[command][1].startswith(text)


def _completed(folder: Path, *words: str) -> list[str]:
    """What bash offers for the last word, by the script that `completion bash` prints."""
    script = f"""
        source <("{PROGRAM}" completion bash)
        complete -p streamingcandle >&2
        COMP_WORDS=(streamingcandle {" ".join(f"'{word}'" for word in words)})
        COMP_CWORD={len(words)}
        _streamingcandle_completion "{PROGRAM}"
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "-euc", script], env=environment("t", folder, None), capture_output=True, check=False, cwd=folder
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"_streamingcandle_completion streamingcandle" in done.stderr
    return done.stdout.decode().split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["dead-l"], ["dead-letters"]),
        (["dead-letters", ""], ["ls", "retry", "show"]),
        (["candles", "N:C:1", "--format", ""], ["table", "json", "csv", "parquet"]),
        (["state", "ls", "--j"], ["--json"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
    ],
)
def test_bash_completes(tmp_path: Path, words: list[str], offered: list[str]) -> None:
    assert sorted(_completed(tmp_path, *words)) == sorted(offered)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_scripts_ask_the_program_and_are_answered(tmp_path: Path, shell: str) -> None:
    variables = environment("t", tmp_path, None)
    script = run_well(variables, "completion", shell).decode()
    assert f"_STREAMINGCANDLE_COMPLETE={shell}_complete" in script
    asked = {"_STREAMINGCANDLE_COMPLETE": f"{shell}_complete", "COMP_WORDS": "streamingcandle dead-l"}
    asked["COMP_CWORD"] = "dead-l" if shell == "fish" else "1"
    assert b"dead-letters" in run(variables | asked).stdout


@pytest.mark.parametrize(
    ("command", "holds"),
    [
        ("topics describe", {"topics"}),
        ("config show", {"profile", "settings"}),
        ("sessions show", {"sessions"}),
        ("version", {"streamingcandle", "librdkafka"}),
        ("state ls", {"instances"}),
        ("state du", {"size_bytes"}),
        ("state verify", {"snapshots"}),
    ],
)
def test_json_is_one_document_and_nothing_else(tmp_path: Path, command: str, holds: set[str]) -> None:
    variables = environment("t", tmp_path, None)
    variables["STREAMINGCANDLE_KAFKA_SASL_PASSWORD"] = "hunter2"
    done = run(variables, *command.split(), "--json")
    assert done.returncode == int(command == "topics describe"), done.stderr
    assert holds <= json.loads(done.stdout).keys()
    assert b"hunter2" not in done.stdout


def test_json_has_the_values_that_the_lines_have(tmp_path: Path) -> None:
    variables = environment("t", tmp_path, None)
    settings = json.loads(run_well(variables, "config", "show", "--json"))["settings"]
    lines = [f"{row['name']}\t{row['value']}\t{row['origin']}" for row in settings]
    assert run_well(variables, "config", "show").decode().splitlines()[1:] == lines
    run_well(variables, "topics", "ensure", "--partitions", "2")
    topics = json.loads(run_well(variables, "topics", "describe", "--json"))["topics"]
    assert [row["partitions"] for row in topics] == [2] * 9


@pytest.mark.parametrize(("no_color", "has_colour"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_heed_no_color(tmp_path: Path, no_color: dict[str, str], *, has_colour: bool) -> None:
    terminal = OnTerminal(environment("t", tmp_path, None) | no_color, "simulate", "--ticks", "30", "--rate", "60")
    terminal.end()
    assert bool(re.search(rb"\x1b\[[0-9;]*3[0-9]", terminal.raw)) == has_colour


def test_every_option_that_names_a_file_completes_files() -> None:
    context = click.Context(cli)
    ingest = cli.get_command(context, "ingest")
    assert ingest is not None
    for parameter in (*ingest.params, *cli.params):
        if "FILE" in (parameter.metavar or ""):
            assert isinstance(parameter.type, click.Path)
