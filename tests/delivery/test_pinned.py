"""What builds, tests and runs is taken by checksum; docs/security.md names the exceptions, pinned by version."""

import json
import re
import shlex
import subprocess
import tomllib
from typing import Any

from delivered import CONTAINER, ROOT, instructions

MAKEFILE = (ROOT / "Makefile").read_text()
PROJECT: Any = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKED: Any = {one["name"]: one for one in tomllib.loads((ROOT / "uv.lock").read_text())["package"]}
SHA256 = re.compile("sha256:[0-9a-f]{64}")


def _installs(text: str) -> list[list[str]]:
    """Commands of pip that install."""
    lines = [shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines() if " pip" in line]
    return [words for words in lines if "install" in words]


def _of_image() -> list[list[str]]:
    runs = [rest for word, rest in instructions((CONTAINER / "Dockerfile").read_text()) if word == "RUN"]
    return [words for words in map(json.loads, runs) if "pip" in words and "install" in words]


def test_every_pip_that_installs_wants_checksums_or_has_no_index() -> None:
    for found, count in ((_installs(MAKEFILE), 1), (_of_image(), 3)):
        assert len(found) == count, found
        for words in found:
            assert "--no-index" in words or {"--require-hashes", "--only-binary"} <= set(words), words


def test_what_begins_is_one_tool_with_its_checksums() -> None:
    lines = [line for line in (ROOT / "build-tools.txt").read_text().splitlines() if not line.startswith("#")]
    assert re.fullmatch(r"uv==\d+\.\d+\.\d+ \\", lines[0])
    assert len(lines) > 10
    assert [line for line in lines[1:] if not re.fullmatch(rf"    --hash={SHA256.pattern}( \\)?", line)] == []


def test_what_builds_the_package_is_what_is_locked() -> None:
    (required,) = PROJECT["build-system"]["requires"]
    (constraint,) = PROJECT["tool"]["uv"]["build-constraint-dependencies"]
    locked = LOCKED["maturin"]
    assert required == constraint["requirement"] == f"maturin=={locked['version']}"
    assert required in PROJECT["dependency-groups"]["dev"]
    assert set(constraint["hashes"]) == {one["hash"] for one in [locked["sdist"], *locked["wheels"]]}
    assert PROJECT["tool"]["uv"]["require-build-hashes"] is True


def test_every_locked_package_has_a_wheel_and_checksums_of_everything() -> None:
    for name, one in LOCKED.items():
        if name != "streamingcandle":
            files = [*one["wheels"], *([one["sdist"]] if "sdist" in one else [])]
            assert [each for each in files if not SHA256.fullmatch(each["hash"])] == [], name
    crates = [tomllib.loads(path.read_text())["package"] for path in (ROOT / "rust").rglob("Cargo.lock")]
    assert len(crates) >= 2
    loose = [one["name"] for lock in crates for one in lock if "source" in one and "checksum" not in one]
    assert loose == []


def test_cargo_builds_by_its_lock_and_installs_by_version() -> None:
    texts = [MAKEFILE, (ROOT / "rust" / "fuzz" / "run").read_text()]
    commands = [
        line for text in texts for line in text.splitlines() if re.search(r"\bcargo (build|test|clippy)\b", line)
    ]
    assert len(commands) >= 3
    assert [line for line in commands if "--locked" not in line] == []
    tracked = subprocess.run(["git", "ls-files", "*.md", "*.sh", "Makefile"], cwd=ROOT, capture_output=True, check=True)
    for name in tracked.stdout.decode().split():
        for rest in re.findall(r"cargo install (.*)", (ROOT / name).read_text()):
            assert re.match(r"--locked [a-z-]+@", rest), (name, rest)
