"""Every command of the README does what it says, against a broker of its own deployment."""

import os
import re
import subprocess
import sys
from pathlib import Path

from broker import Broker
from program import environment, run_well

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
