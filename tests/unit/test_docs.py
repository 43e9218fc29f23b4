"""The pages for users are current, and what they tell to type is run by a test."""

import re
import subprocess
import tomllib
from pathlib import Path

from program import PROGRAM, environment
from settings_page import PAGE, page
from streamingcandle.settings import load_settings

DOCS = PAGE.parent
RUN_BY = {
    "deployment.md": "deploy/test_deploy.py",
    "disaster-recovery.md": "ops/test_backup.py",
    "README.md": "kafka/test_readme.py",
    "getting-started.md": "kafka/test_readme.py",  # its first block: tests/wheel.py
    "operations.md": "ops/test_operations.py",
    "security.md": "kafka/test_security.py",  # by what reads the options of `kafka-acls.sh`
    "candles-explained.md": "unit/test_docs.py",
    "sessions.md": "unit/test_docs.py",
    "upgrading.md": "kafka/test_odd_logs.py",
}


def _blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / name).read_text(), re.DOTALL)


def test_settings_page_is_current(tmp_path: Path) -> None:
    assert PAGE.read_text() == page(), "stale: make docs"
    example = tmp_path / "candles.toml"
    (text,) = _blocks("settings.md", "toml")
    example.write_text(text)
    assert tomllib.loads(text)
    settings = load_settings({"config": str(example), "profile": "staging"}, {})
    assert settings.text("application_id") == "candles-staging"
    assert settings.bootstrap_servers == "broker-1:9092,broker-2:9092"


def test_each_page_with_commands_has_its_test() -> None:
    pages = [DOCS.parent / "README.md", *DOCS.rglob("*.md")]
    assert {page.name for page in pages if "```sh" in page.read_text()} == set(RUN_BY)
    tests = DOCS.parent / "tests"
    assert [name for name, test in RUN_BY.items() if name not in (tests / test).read_text()] == []


def test_what_candles_explained_shows_happens(tmp_path: Path) -> None:
    variables = environment("t", tmp_path, None)
    (script,) = _blocks("candles-explained.md", "sh")
    script = re.sub(r"\bstreamingcandle ", f'"{PROGRAM}" ', script)
    done = subprocess.run(["bash", "-euc", script], env=variables, capture_output=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr.decode()
    rows = [re.split(r"[│\s]+", line.strip(" │")) for line in done.stdout.decode().splitlines() if "2026-01-02" in line]
    shown = [(row[1], row[5], row[7], row[10]) for row in rows]
    assert shown == [
        ("09:15:00", "100.0", "10", "no"),
        ("09:16:00", "102.0", "5", "no"),
        ("09:15:00", "99.0", "10", "yes"),
        ("09:16:00", "102.0", "5", "no"),
        ("09:15:00", "99.0", "10", "yes"),
        ("09:16:00", "102.0", "5", "no"),
        ("09:17:00", "103.0", "5", "no"),
    ]


def test_what_sessions_shows_happens(tmp_path: Path) -> None:
    scripts, shown = _blocks("sessions.md", "sh"), _blocks("sessions.md", "text")
    text = re.sub(r"\bstreamingcandle ", f'"{PROGRAM}" ', "".join(scripts))
    variables = environment("t", tmp_path, None)
    done = subprocess.run(
        ["bash", "-euc", text], env=variables, cwd=tmp_path, capture_output=True, timeout=280, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    expected = [line.split() for block in shown[: len(scripts)] for line in block.splitlines()]
    assert [line.split() for line in done.stdout.decode().splitlines()] == expected
