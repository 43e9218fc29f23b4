"""What no linter checks: nothing of this machine, no loose ends, no overlong module."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINES_MAX = 450
LOOSE = re.compile(r"\b(TODO|FIXME|XXX)\b")
SECTION = re.compile(r"§(\d+(?:\.\d+)?)")
HEADING = re.compile(r"^#{2,3} (\d+(?:\.\d+)?) ", re.MULTILINE)
SKIPS = re.compile(r"pytest\.(skip|mark\.skip|mark\.xfail|importorskip)|#\[ignore")


def _listed(*patterns: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, check=True).stdout
    return [ROOT / name for name in listed.decode().splitlines()]


def _tracked(*patterns: str) -> list[Path]:
    return [path for path in _listed(*patterns) if path.is_file() and path != Path(__file__)]


def test_nothing_names_this_machine() -> None:
    paths = re.compile(rf"{re.escape(str(ROOT.parent))}/|{re.escape(str(Path.home()))}/")
    assert [path for path in _tracked() if paths.search(path.read_text(errors="ignore"))] == []


def test_no_link_leads_out() -> None:
    assert [path for path in _listed() if path.is_symlink()] == []


def test_no_loose_ends_and_no_skips() -> None:
    sources = [(path, path.read_text()) for path in _tracked("*.py", "*.rs", "*.md", "Makefile")]
    assert [path for path, text in sources if LOOSE.search(text) or SKIPS.search(text)] == []


def test_modules_are_short() -> None:
    sources = _tracked("src/*.py", "rust/src/*.rs")
    assert [path for path in sources if len(path.read_text().splitlines()) > LINES_MAX] == []


def test_every_section_that_is_named_is_in_the_specification() -> None:
    headings = set(HEADING.findall((ROOT / "docs" / "specification.md").read_text()))
    sources = _tracked("*.py", "*.pyi", "*.rs", "*.md", "*.toml", "*.csv")
    named = [(str(path.relative_to(ROOT)), number) for path in sources for number in SECTION.findall(path.read_text())]
    assert len(headings) > 30
    assert len(set(named)) > 50
    # Decisions and the changelog tell of their day.
    past = ("docs/decisions/", "CHANGELOG.md")
    assert [one for one in named if one[1] not in headings and not one[0].startswith(past)] == []
