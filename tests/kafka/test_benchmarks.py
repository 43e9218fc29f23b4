"""`make bench` runs: a short backlog, each figure there and above 0."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_kernel_and_job() -> None:
    variables = os.environ | {"PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}"}
    command = [sys.executable, "-m", "benchmarks", "kernel", "job", "--ticks", "20000", "--runs", "1"]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=280, check=True)
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    assert [what.strip() for what, *_ in rows if "whole job" in what] == [
        "whole job, 0.02 M ticks, 1,000 instruments",
        "whole job, --workers 2, 0.02 M ticks, 1,000 instruments",
        "whole job, 0.02 M ticks, 10,000 instruments",
        "whole job, 0.02 M ticks, 50,000 instruments",
    ]
    assert all(float(middle.split()[0].replace(",", "")) > 0 for _, middle, _, _ in rows)
