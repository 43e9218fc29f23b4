"""What is delivered beside the program, and the tools that look at it (`make delivery`)."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CONTAINER = ROOT / "deploy" / "container"
KUBERNETES = ROOT / "deploy" / "kubernetes"
TOOLS = ROOT / ".cache" / "delivery"
LIMIT_S = 60
_TO_JSON = "import json, sys, yaml; json.dump(list(yaml.safe_load_all(sys.stdin)), sys.stdout)"


def tool(
    name: str, *arguments: str | Path, stdin: str | None = None, cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run a tool to its end, which may be a complaint."""
    path = TOOLS / "bin" / name
    assert path.exists(), f"{path} is missing: make delivery"
    command = [str(path), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, input=stdin, capture_output=True, text=True, timeout=LIMIT_S, check=False)


def run_tool(name: str, *arguments: str | Path, stdin: str | None = None) -> str:
    """Run a tool that must be content; its output."""
    done = tool(name, *arguments, stdin=stdin)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def documents(text: str) -> list[Any]:
    """YAML, read."""
    read: list[Any] = json.loads(run_tool("python", "-c", _TO_JSON, stdin=text))
    return read


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """`(FROM, ...)`: words and what follows them, lines joined, comments left out."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", dockerfile, flags=re.MULTILINE))
    split = (line.split(maxsplit=1) for line in text.splitlines() if line.strip())
    return [(word.upper(), rest) for word, rest in split]
