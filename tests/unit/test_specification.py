"""Every section that code, tests and docs name is one of docs/specification.md."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
SPECIFICATION = ROOT / "docs" / "specification.md"
_HEADING = re.compile(r"^#{2,3} (\d+(?:\.\d+)?) ", re.MULTILINE)
_NAMED = re.compile(r"§(\d+(?:\.\d+)?)")


def _texts() -> list[tuple[str, str]]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = [name for name in listed.split("\0") if name.endswith((".py", ".pyi", ".rs", ".md", ".toml", ".csv"))]
    return [(name, (ROOT / name).read_text(encoding="utf-8")) for name in names if (ROOT / name).exists()]


def test_every_section_named_is_there() -> None:
    headings = set(_HEADING.findall(SPECIFICATION.read_text(encoding="utf-8")))
    named = {(name, number) for name, text in _texts() for number in _NAMED.findall(text)}
    assert len(headings) > 30
    assert len(named) > 50
    # Decisions and the changelog tell of their day.
    past = ("docs/decisions/", "CHANGELOG.md")
    unknown = [(name, number) for name, number in sorted(named) if number not in headings]
    assert [(name, number) for name, number in unknown if not name.startswith(past)] == []
