"""Every command of docs/operations.md does what it says, on the embedded log (--workers: tests/kafka)."""

import re
import subprocess
from pathlib import Path

from program import PROGRAM, environment, run_well

DOCS = Path(__file__).parents[2] / "docs"


def test_commands(tmp_path: Path) -> None:
    variables = environment("t", tmp_path, None)
    blocks = re.findall(r"```sh\n(.*?)```", (DOCS / "operations.md").read_text(), re.DOTALL)
    assert len(blocks) >= 3
    run_well(variables, "simulate", "--ticks", "500", "--date", "2026-01-02", "--speed", "0")
    for block in blocks:
        if "--workers" in block:
            continue
        script = re.sub("^streamingcandle ", f'"{PROGRAM}" ', block, flags=re.MULTILINE)
        done = subprocess.run(
            ["bash", "-euc", script], cwd=tmp_path, env=variables, capture_output=True, timeout=60, check=False
        )
        assert done.returncode == 0, (block, done.stderr.decode())
