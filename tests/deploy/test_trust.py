"""What the script, which root runs, believes: nothing of where it is run, and only the bytes that are stated."""

import hashlib
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.host import PYTHON, SCRIPT, Host

MODULES = ("pip", "venv", "ensurepip", "sitecustomize", "usercustomize", "runpy", "subprocess", "zipfile")
PROGRAMS = (
    "awk",
    "cat",
    "cut",
    "dirname",
    "flock",
    "id",
    "python3",
    "sed",
    "sha256sum",
    "sort",
    "stat",
    "systemctl",
    "tr",
)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def _planted(folder: Path, mark: Path) -> dict[str, str]:
    """Fills the folder with what leaves a mark if it runs or is read; the variables that lead to it."""
    site = folder / f".local/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    for place in (folder, folder / "modules", site):
        place.mkdir(parents=True, exist_ok=True)
        for name in MODULES:
            (place / f"{name}.py").write_text(f"open({str(mark)!r}, 'a').write({str(place / name)!r})\n")
    for name in PROGRAMS:
        (folder / name).write_text(f"#!/bin/sh\necho {name} >>{mark}\n")
        (folder / name).chmod(0o755)
    (folder / "pip.conf").write_text(f"[global]\nlog = {mark}\nindex-url = http://127.0.0.1:9/\n")
    (folder / ".config/pip").mkdir(parents=True)
    (folder / ".config/pip/pip.conf").write_text((folder / "pip.conf").read_text())
    (folder / "bash").write_text(f"echo bash >>{mark}\n")
    return {
        "PATH": f".::{os.environ['PATH']}",
        "HOME": str(folder),
        "BASH_ENV": str(folder / "bash"),
        "ENV": str(folder / "bash"),
        "BASH_FUNC_stat%%": f'() {{ echo function >>{mark}; command stat "$@"; }}',
        "SHELLOPTS": "xtrace",
        "PS4": f"$(echo trace >>{mark})",
        "PYTHONPATH": str(folder / "modules"),
        "PYTHONUSERBASE": str(folder / ".local"),
        "PYTHONSTARTUP": str(folder / "pip.py"),
        "PYTHONHOME": str(folder),
        "PIP_CONFIG_FILE": str(folder / "pip.conf"),
        "PIP_LOG": str(mark),
        "PIP_TARGET": str(folder / "target"),
        "VIRTUAL_ENV": str(folder),
        "TMPDIR": str(folder / "nowhere"),
        **dict.fromkeys(("called_from", "script", "name", "found", "PWD", "OLDPWD", "CDPATH"), str(folder / "nowhere")),
    }


def test_nothing_of_the_current_folder_and_the_environment_runs(host: Host, tmp_path: Path) -> None:
    host.deploy(host.wheel("1.0"))
    mark = tmp_path / "mark"
    planted = tmp_path / "planted"
    planted.mkdir()
    variables = _planted(planted, mark) | {"PATH": f".::{host.variables()['PATH']}"}
    # A name that is relative is meant from there all the same.
    wheel = os.path.relpath(host.wheel("2.0"), planted)
    runs = (["--dry-run", wheel], ["--check", wheel], [wheel], ["--check"], ["--rollback"], ["--uninstall"])
    for arguments in runs:
        code, said = host.run(*arguments, umask=0o022, folder=str(planted), **variables)
        assert not mark.exists(), (arguments, mark.read_text(), said)
        assert code == (1 if arguments == ["--check", wheel] else 0), said
    assert not (planted / "target").exists()


def test_paths_are_meant_from_the_current_folder(host: Host, tmp_path: Path) -> None:
    host.wheel("1.0")
    python = os.path.relpath(PYTHON, tmp_path)
    named = ("--prefix", "root", "--wheels", "wheels", "--python", python)
    code, said = host.run("wheels/streamingcandle-1.0-py3-none-any.whl", *named, folder=str(tmp_path))
    assert code == 0, said
    assert host.current == "1.0"
    # So is the name of the script itself.
    (tmp_path / "deploy").symlink_to(SCRIPT.parent)
    assert host.run("--check", folder=str(tmp_path), called="deploy/deploy-production.sh")[0] == 0
    assert host.run("--check", folder=str(tmp_path / "deploy"), called="./deploy-production.sh")[0] == 0


def _dependency(host: Host, *, version: str = "1.0") -> tuple[str, str]:
    """A wheel that the next one of ours needs; its requirement with its checksum, and the name of its file."""
    name = f"needed-{version}-py3-none-any.whl"
    path = Path(host.wheel("9.0")).with_name(name)
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("needed.py", "")
        info = f"needed-{version}.dist-info"
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: needed\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return f"needed=={version} \\\n    --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n", name


def test_dependencies_are_installed_by_their_checksums(host: Host) -> None:
    requirement, name = _dependency(host)
    wheel = host.wheel("1.0", needs="needed")
    host.sums(requirement)
    host.deploy(wheel)
    (installed,) = (host.home / "versions").glob("1.0-*/lib/python3*/site-packages/needed.py")
    assert (installed.parents[3] / "requirements.txt").read_text() == requirement
    # Other bytes under the same name and version, as an index might serve them.
    with zipfile.ZipFile(Path(wheel).with_name(name), "a") as other:
        other.writestr("more.py", "")
    second = host.wheel("2.0", needs="needed")
    host.sums(requirement)
    code, said = host.run(second)
    assert (code, host.current) == (1, "1.0")
    assert "nothing was switched" in said.splitlines()[-1]
    # One that the file does not name.
    third = host.wheel("3.0", needs="needed")
    code, said = host.run(third)
    assert (code, host.current) == (1, "1.0")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda wheel: wheel.with_name("requirements.txt").unlink(), "requirements.txt: missing"),
        (lambda wheel: wheel.with_name("SHA256SUMS").unlink(), "SHA256SUMS: missing"),
        (lambda wheel: wheel.with_name("SHA256SUMS").write_text(""), "no line for"),
        (lambda wheel: wheel.write_bytes(wheel.read_bytes() + b"x"), "not the one that SHA256SUMS states"),
        (
            lambda wheel: wheel.with_name("requirements.txt").write_text("# other\n"),
            "requirements.txt: not the one that SHA256SUMS states",
        ),
    ],
)
def test_what_is_not_as_stated_is_refused_in_one_line(host: Host, spoil: Callable[[Path], object], said: str) -> None:
    wheel = host.wheel("1.0")
    spoil(Path(wheel))
    for arguments in ([wheel], ["--dry-run", wheel]):
        code, text = host.run(*arguments)
        assert (code, text.count("\n"), host.tree()) == (1, 1, {}), text
        assert said in text


@pytest.mark.parametrize(
    "line",
    [
        "click",
        "click==8.3.0",
        "--index-url http://127.0.0.1:9/",
        "-r /etc/hosts",
        "-e .",
        "click @ http://127.0.0.1:9/click.whl --hash=sha256:" + "0" * 64,
        "click==8.3.0 --global-option=x --hash=sha256:" + "0" * 64,
        "click==8.3.0 \\\n    --hash=md5:" + "0" * 32,
    ],
)
def test_requirements_that_are_more_than_pinned_names_with_checksums_are_refused(host: Host, line: str) -> None:
    wheel = host.wheel("1.0")
    host.sums(f"# of a test\n{line}\n")
    code, said = host.run(wheel)
    assert (code, said.count("\n"), host.tree()) == (1, 1, {}), said
    assert "requirements.txt: line " in said


def test_a_folder_that_others_may_write_is_refused(host: Host, tmp_path: Path) -> None:
    host.deploy(host.wheel("1.0"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    host.state.rmdir()
    host.state.symlink_to(elsewhere)
    for mode, said in ((0o757, "not root's alone"), (0o775, "a link, in a folder that a group may write")):
        host.state.parent.chmod(mode)
        code, text = host.run(host.wheel("2.0"))
        assert (code, host.current, text.count("\n")) == (1, "1.0", 1), text
        assert said in text
    host.state.parent.chmod(0o755)
    host.deploy(host.wheel("2.0"))
