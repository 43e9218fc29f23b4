"""Every command of README.md and docs/getting-started.md does what it says, each as a deployment of its own."""

import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

from broker import Broker
from program import PROGRAM, environment, run_well

ROOT = Path(__file__).parents[2]


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"make ([a-z]+)", "\n".join(_blocks("sh")))
    assert {"demo", "test", "setup"} <= set(targets)
    for target in targets:
        assert f"\n{target}:" in makefile


def test_completion_is_where_the_readme_puts_it(tmp_path: Path) -> None:
    program = f'"{Path(sys.executable).with_name("streamingcandle")}"'
    steps = _blocks("sh")[2].replace(".venv/bin/streamingcandle", program)
    variables = environment("t", tmp_path, None) | {"HOME": str(tmp_path)}
    done = subprocess.run(["bash", "-euc", steps], env=variables, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    script = tmp_path / ".local/share/bash-completion/completions/streamingcandle"
    assert "complete -o nosort -F" in script.read_text()


def test_first_steps_with_ones_own_kafka(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    variables = environment(topic_prefix, tmp_path, None)
    steps = _blocks("sh")[1].replace("make setup\n", "").replace("localhost:9092", broker.bootstrap)
    program = f'"{Path(sys.executable).with_name("streamingcandle")}"'
    steps = steps.replace(".venv/bin/streamingcandle", program)
    done = subprocess.run(["bash", "-euc", steps], env=variables, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert "09:15" in done.stdout.decode()
    assert b"N:*" in run_well(variables, "sessions", "show")

    reader = _blocks("python")[0].replace("localhost:9092", broker.bootstrap)
    reader = (
        reader.replace('"1-min-candle"', f'"{topic_prefix}-1-min-candle"') + "print(len(candles))\nconsumer.close()\n"
    )
    seen = subprocess.run(
        [sys.executable, "-c", reader], env=dict(os.environ), capture_output=True, timeout=120, check=False
    )
    assert seen.returncode == 0, seen.stderr.decode()
    assert int(seen.stdout) > 0


def test_getting_started(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    """Its blocks in their order; that of the installation is tests/wheel.py's."""
    page = (ROOT / "docs" / "getting-started.md").read_text()
    blocks = re.findall(r"```(sh|python)\n(.*?)```", page, re.DOTALL)
    assert [language for language, _ in blocks] == ["sh", "sh", "sh", "python", "sh", "sh", "python"]
    names = {"localhost:9092": broker.bootstrap} | {
        name: f"{topic_prefix}-{name}" for name in ("my-candles", "my-ticks", "my-reader", "1-min-candle")
    }
    variables = environment(topic_prefix, tmp_path, None)
    own = ("APPLICATION_ID", "TICK_TOPIC")
    variables = {name: value for name, value in variables.items() if not name.endswith(own)}
    variables["STREAMINGCANDLE_CONFIG"] = "candles.toml"
    for language, block in blocks[1:]:
        text = block
        for name, replaced in names.items():
            text = text.replace(name, replaced)
        text = re.sub("^streamingcandle ", f'"{PROGRAM}" ', text, flags=re.MULTILINE)
        command = ["bash", "-euc", text] if language == "sh" else [sys.executable, "-c", text]
        done = subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, timeout=120, check=False)
        assert done.returncode == 0, (block, done.stderr.decode())
    store = sqlite3.connect(tmp_path / "candles.db")
    found = store.execute("SELECT instrument, open, high, low, close, volume FROM candles ORDER BY start_ms").fetchall()
    store.close()
    assert found == [("N:C:2885", 100.0, 101.5, 100.0, 101.5, 25), ("N:C:2885", 101.0, 101.0, 101.0, 101.0, 15)]
