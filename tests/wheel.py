"""dist/ as `make wheel` leaves it: nothing in it that does not belong, and it runs where there is no cargo."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OF_THIS_MACHINE = (str(ROOT), str(Path.home()))


def _only(pattern: str) -> Path:
    (found,) = (ROOT / "dist").glob(pattern)
    return found


def _of_this_machine(files: dict[str, bytes]) -> list[tuple[str, str]]:
    return [(name, path) for name, data in files.items() for path in OF_THIS_MACHINE if f"{path}/".encode() in data]


def test_wheel_holds_the_package_and_nothing_else() -> None:
    with zipfile.ZipFile(_only("*.whl")) as wheel:
        files = {name: wheel.read(name) for name in wheel.namelist()}
    assert "-cp311-abi3-" in _only("*.whl").name
    sources = (ROOT / "src" / "streamingcandle").rglob("*")
    kept = {path for path in sources if path.suffix in (".py", ".pyi", ".csv", ".typed")}
    package = {str(path.relative_to(ROOT / "src")) for path in kept}
    packed = {name for name in files if not name.split("/")[0].endswith(".dist-info")}
    assert packed == package | {"streamingcandle/candles/_kernel.abi3.so"}
    assert {"streamingcandle/py.typed", "streamingcandle/candles/sessions.csv"} <= packed
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in files)
    assert _of_this_machine(files) == []


def test_sources_have_what_a_build_needs() -> None:
    with tarfile.open(_only("*.tar.gz")) as sources:
        files = {m.name.partition("/")[2]: data.read() for m in sources if (data := sources.extractfile(m)) is not None}
    assert {"LICENSE", "README.md", "pyproject.toml", "rust/Cargo.toml", "rust/Cargo.lock"} <= set(files)
    assert {f"rust/src/{path.name}" for path in (ROOT / "rust" / "src").iterdir()} <= set(files)
    assert [name for name in files if name.startswith(("tests/", "rust/fuzz/", "rust/target/"))] == []
    assert _of_this_machine(files) == []


def test_what_to_install_with_it_and_the_checksums_of_all() -> None:
    lines = [line.split("  ", 1) for line in (ROOT / "dist" / "SHA256SUMS").read_text().splitlines()]
    found = {path.name for path in (ROOT / "dist").iterdir() if path.is_file()} - {"SHA256SUMS"}
    assert {name for _, name in lines} == found
    for digest, name in lines:
        assert hashlib.sha256((ROOT / "dist" / name).read_bytes()).hexdigest() == digest
    requirements, parquet = ((ROOT / "dist" / f"requirements{more}.txt").read_text() for more in ("", "-parquet"))
    pinned = {line.partition("==")[0] for line in requirements.splitlines() if "==" in line and line[0] != " "}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {line.partition(">=")[0] for line in project["dependencies"]} <= pinned
    assert "pyarrow==" in parquet
    assert "pyarrow" not in requirements
    assert "://" not in requirements + parquet


@pytest.mark.timeout(900)  # everything it stands on is downloaded where pip has no cache
def test_installed_without_cargo(tmp_path: Path) -> None:
    """The first block of docs/getting-started.md, after its `make wheel`."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").symlink_to(Path(sys.base_prefix) / "bin" / "python3")
    variables = {name: text for name, text in os.environ.items() if not name.startswith("STREAMINGCANDLE_")}
    variables |= {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data")}
    assert shutil.which("cargo", path=variables["PATH"]) is None
    (tmp_path / "dist").symlink_to(ROOT / "dist")
    page = (ROOT / "docs" / "getting-started.md").read_text()
    install = re.findall(r"```sh\nmake wheel\n(.*?)```", page, re.DOTALL)[0]
    script = f"{install}streamingcandle demo --seconds 3\n"
    bash = shutil.which("bash")
    assert bash is not None
    done = subprocess.run([bash, "-euc", script], env=variables, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    said = done.stdout.decode() + done.stderr.decode()
    assert "streamingcandle 0.1.0 (confluent-kafka" in said
    assert "candles" in said


@pytest.mark.timeout(900)
def test_deployed_below_a_prefix(tmp_path: Path) -> None:
    """The wheel itself by `deploy-production.sh`, on the embedded log, its own doctor asked."""
    script, python = ROOT / "deploy" / "deploy-production.sh", ROOT / ".tools" / "bin" / "python"
    variables = {name: text for name, text in os.environ.items() if not name.startswith("STREAMINGCANDLE_")}
    command = [str(script), "--prefix", str(tmp_path), "--python", str(python), str(_only("*.whl"))]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    settings = tmp_path / "etc" / "streamingcandle" / "settings.toml"
    variables |= {"STREAMINGCANDLE_PROFILE": "production", "STREAMINGCANDLE_CONFIG": str(settings)}
    program = tmp_path / "opt" / "streamingcandle" / "current" / "bin" / "streamingcandle"
    for arguments in (["topics", "ensure"], ["run", "--until-end"]):
        subprocess.run([str(program), *arguments], env=variables, capture_output=True, check=True)
    state = tmp_path / "var" / "lib" / "kafka-streams" / "streamingcandle"
    assert (state / "candle-processor-ticktooneminprocessor" / "instance-0" / "lock").exists()
