"""`make sbom`: what the program consists of, as two CycloneDX files: its Python part and its kernel.

Both are the same bytes for the same locks. What lies inside a wheel of others (librdkafka and OpenSSL in
confluent-kafka's) is not in them: that wheel's own is.
"""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from delivered import ROOT, run_tool

PYTHON_NAME = "streamingcandle-python.cdx.json"
RUST_NAME = "streamingcandle-kernel.cdx.json"
SPEC = "1.6"
_MANIFEST = ROOT / "rust" / "Cargo.toml"
_SCHEMA = f"http://cyclonedx.org/schema/bom-{SPEC}.schema.json"


def write_python(path: Path) -> None:
    """What `pip install` of the wheel brings by the lock, without extras."""
    environment = ROOT / ".cache" / "runtime"
    variables = os.environ | {"UV_PROJECT_ENVIRONMENT": str(environment)}
    uv = os.environ.get("UV", str(ROOT / ".tools" / "bin" / "uv"))
    sync = [uv, "sync", "--quiet", "--locked", "--no-dev", "--no-install-project"]
    subprocess.run(sync, cwd=ROOT, env=variables, check=True)
    options = ["--pyproject", "pyproject.toml", "--output-reproducible", "--spec-version", SPEC]
    _write(path, json.loads(run_tool("cyclonedx-py", "environment", environment, *options)))


def write_kernel(path: Path) -> None:
    """Every crate that takes part in a build of the kernel; those that only build it are `excluded`."""
    asked = ["cargo", "metadata", "--locked", "--format-version", "1", "--manifest-path", str(_MANIFEST)]
    metadata = json.loads(subprocess.run(asked, capture_output=True, check=True).stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]
    lock = tomllib.loads(_MANIFEST.with_name("Cargo.lock").read_text(encoding="utf-8"))
    checksums = {(package["name"], package["version"]): package.get("checksum") for package in lock["package"]}
    linked = _linked(nodes, root)

    def component(identity: str) -> dict[str, Any]:
        package = packages[identity]
        name, version = package["name"], package["version"]
        found = {"type": "library", "bom-ref": _purl(package), "name": name, "version": version}
        found |= {"purl": _purl(package), "licenses": [{"expression": package["license"]}]}
        if identity != root:
            found["scope"] = "required" if identity in linked else "excluded"
            found["hashes"] = [{"alg": "SHA-256", "content": checksums[name, version]}]
        return found

    others = sorted((identity for identity in nodes if identity != root), key=lambda one: _purl(packages[one]))
    depends = [
        {
            "ref": _purl(packages[identity]),
            "dependsOn": sorted({_purl(packages[other["pkg"]]) for other in nodes[identity]["deps"]}),
        }
        for identity in sorted(nodes, key=lambda one: _purl(packages[one]))
    ]
    _write(
        path,
        {
            "$schema": _SCHEMA,
            "bomFormat": "CycloneDX",
            "specVersion": SPEC,
            "version": 1,
            "metadata": {"component": component(root)},
            "components": [component(identity) for identity in others],
            "dependencies": depends,
        },
    )


def _linked(nodes: dict[str, Any], root: str) -> set[str]:
    """What is reached by dependencies that are not for building or testing alone."""
    found, left = set(), [root]
    while left:
        identity = left.pop()
        if identity not in found:
            found.add(identity)
            ways = nodes[identity]["deps"]
            left += [way["pkg"] for way in ways if any(kind["kind"] is None for kind in way["dep_kinds"])]
    return found


def _purl(package: dict[str, Any]) -> str:
    return f"pkg:cargo/{package['name']}@{package['version']}"


def _write(path: Path, found: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_python(Path(sys.argv[1]) / PYTHON_NAME)
    write_kernel(Path(sys.argv[1]) / RUST_NAME)
