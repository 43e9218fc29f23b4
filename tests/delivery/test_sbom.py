"""The bills of material: valid, complete, the same twice, and without a word of this machine."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from delivered import ROOT, run_tool
from sbom import PYTHON_NAME, RUST_NAME, SPEC, write_kernel, write_python

VALIDATE = f"""
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

validator = JsonStrictValidator(SchemaVersion.from_version("{SPEC}"))
for path in sys.argv[1:]:
    print(validator.validate_str(open(path).read()))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both files."""
    made = tmp_path_factory.mktemp("sbom")
    write_python(made / PYTHON_NAME)
    write_kernel(made / RUST_NAME)
    return made


def read(path: Path) -> Any:
    return json.loads(path.read_bytes())


def test_both_are_valid_and_a_broken_one_is_not(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text((folder / RUST_NAME).read_text().replace('"library"', '"book"'))
    said = run_tool("python", "-c", VALIDATE, folder / PYTHON_NAME, folder / RUST_NAME, broken).splitlines()
    assert said[:2] == ["None", "None"]
    assert "'book' is not" in said[2]
    for name in (PYTHON_NAME, RUST_NAME):
        assert read(folder / name)["specVersion"] == SPEC
        text = (folder / name).read_text()
        assert [place for place in (ROOT, Path.home()) if f"{place}/" in text] == []


def test_python_part_is_what_the_wheel_brings_by_the_lock(folder: Path) -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    locked = {package["name"]: package for package in lock["package"]}
    wanted, left = set(), ["streamingcandle"]
    while left:
        name = left.pop()
        if name not in wanted:
            wanted.add(name)
            left += [one["name"] for one in locked[name].get("dependencies", []) if "marker" not in one]
    found = {component["name"].lower(): component for component in read(folder / PYTHON_NAME)["components"]}
    assert {name: found[name]["version"] for name in found} == {
        name: locked[name]["version"] for name in wanted - {"streamingcandle"}
    }
    assert [name for name, component in found.items() if not component["licenses"]] == []
    assert read(folder / PYTHON_NAME)["metadata"]["component"]["name"] == "streamingcandle"


def test_kernel_is_every_locked_crate_and_says_which_are_linked(folder: Path) -> None:
    lock = tomllib.loads((ROOT / "rust" / "Cargo.lock").read_text())
    locked = {(package["name"], package["version"]): package.get("checksum") for package in lock["package"]}
    bill = read(folder / RUST_NAME)
    found = {(each["name"], each["version"]): each for each in bill["components"]}
    root = bill["metadata"]["component"]
    assert set(found) | {(root["name"], root["version"])} == set(locked)
    assert {key: each["hashes"][0]["content"] for key, each in found.items()} == {key: locked[key] for key in found}
    scopes = {name: each["scope"] for (name, _), each in found.items()}
    assert (scopes["serde_json"], scopes["pyo3-build-config"]) == ("required", "excluded")
    references = {each["ref"]: each["dependsOn"] for each in bill["dependencies"]}
    assert set(references) == {each["bom-ref"] for each in [root, *found.values()]}
    assert {name for name in references[root["bom-ref"]] if name.startswith("pkg:cargo/serde_json@")}


def test_twice_is_the_same(folder: Path, tmp_path: Path) -> None:
    write_python(tmp_path / PYTHON_NAME)
    write_kernel(tmp_path / RUST_NAME)
    for name in (PYTHON_NAME, RUST_NAME):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
