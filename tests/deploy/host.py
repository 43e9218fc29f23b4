"""A host of its own below a prefix, for `deploy/deploy-production.sh`: a stand-in `systemctl`, and wheels made here.

The stand-in writes down what it is called with and starts what the test lets start; the program in the wheels answers
`doctor` as the test says. Both are other programs to the script; all else is the script's own.
"""

import base64
import hashlib
import os
import shutil
import stat
import subprocess
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy" / "deploy-production.sh"
PYTHON = ROOT / ".tools" / "bin" / "python"
"""With pip, which `make setup` brought."""
MARK = "# Installed by streamingcandle"
SYSTEMCTL = """\
#!/bin/sh
# Stands in for systemctl: says what it was asked for, and starts what it may.
echo "$*" >>{fake}/calls
case "systemctl $*" in $(cat {fake}/killed-at)) kill -9 $PPID; exit ;; esac
wants={units}/multi-user.target.wants
case $1 in
    --version) echo "systemd $(cat {fake}/version) (of the test)" ;;
    enable) mkdir -p "$wants" && ln -s "../$2" "$wants/$2" ;;
    disable) rm -f "$wants/$3" "{fake}/up-$3" ;;
    is-active) test -e "{fake}/up-$3" ;;
    restart)
        rm -f "{fake}/up-$2"
        version=$(basename "$(readlink {current})")
        ! grep -q "^${{version%-*}}$" {fake}/hangs || exec sleep 60
        ! grep -qx -e "${{version%-*}}" -e "$2" -e "${{version%-*}} $2" {fake}/starts-not && touch "{fake}/up-$2"
        ;;
    list-units) cd {fake} && for up in up-*; do echo "${{up#up-}} loaded active running Of the test"; done ;;
esac
"""
COMMAND = """\
#!/bin/sh
case "${{0##*/}} $*" in $(cat {fake}/killed-at)) kill -9 $PPID; exit ;; esac
exec {real} "$@"
"""
PROGRAM = """\
import os, sys

VERSION, DOCTOR = {version!r}, {doctor!r}


def main():
    if sys.argv[1:] == ["doctor"]:
        for name in sorted(os.environ):
            print(f"  {{name}}={{os.environ[name]}}")
        sys.exit(DOCTOR)
    print(f"streamingcandle {{VERSION}}")
"""


class Host:
    """`folder` is everything; `prefix` is what the script may touch."""

    def __init__(self, folder: Path) -> None:
        self.prefix = folder / "root"
        self.home = self.prefix / "opt" / "streamingcandle"
        self.etc = self.prefix / "etc" / "streamingcandle"
        self.state = self.prefix / "var" / "lib" / "kafka-streams" / "streamingcandle"
        self.units = self.prefix / "etc" / "systemd" / "system"
        self._wheels = folder / "wheels"
        self._fake = folder / "fake"
        for made in (self.prefix, self._wheels, self._fake):
            made.mkdir()
        (self._fake / "calls").touch()
        self._heard = 0
        self.systemd_is(252)
        (self._fake / "killed-at").touch()
        self.starts_not()
        self.hangs()
        systemctl = self._fake / "systemctl"
        systemctl.write_text(SYSTEMCTL.format(fake=self._fake, units=self.units, current=self.home / "current"))
        systemctl.chmod(0o755)
        for name in ("find", "mv", "rm"):
            command = self._fake / name
            command.write_text(COMMAND.format(fake=self._fake, real=shutil.which(name)))
            command.chmod(0o755)

    def systemd_is(self, version: int) -> None:
        (self._fake / "version").write_text(str(version))

    def starts_not(self, *versions: str) -> None:
        """These do not start: a version, a unit, or `VERSION UNIT`."""
        (self._fake / "starts-not").write_text("".join(f"{version}\n" for version in versions))

    def hangs(self, *versions: str) -> None:
        """A start of these neither succeeds nor fails."""
        (self._fake / "hangs").write_text("".join(f"{version}\n" for version in versions))

    def wheel(self, version: str, *, doctor: int = 0, needs: str = "") -> str:
        """Path of a wheel of that version whose `doctor` ends so."""
        more = f"Requires-Dist: {needs}\n" if needs else ""
        info = f"streamingcandle-{version}.dist-info"
        files = {
            "streamingcandle_of_a_test.py": PROGRAM.format(version=version, doctor=doctor),
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: streamingcandle\nVersion: {version}\n{more}",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/entry_points.txt": "[console_scripts]\nstreamingcandle = streamingcandle_of_a_test:main\n",
        }
        lines = []
        for name, text in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            lines.append(f"{name},sha256={digest},{len(text.encode())}\n")
        files[f"{info}/RECORD"] = "".join([*lines, f"{info}/RECORD,,\n"])
        path = self._wheels / f"streamingcandle-{version}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            for name, text in files.items():
                wheel.writestr(zipfile.ZipInfo(name), text)
        self.sums()
        return str(path)

    def sums(self, requirements: str = "") -> None:
        """Beside the wheels what `make wheel` leaves there."""
        (self._wheels / "requirements.txt").write_text(requirements)
        names = sorted(path.name for path in self._wheels.iterdir() if path.name != "SHA256SUMS")
        digests = {name: hashlib.sha256((self._wheels / name).read_bytes()).hexdigest() for name in names}
        (self._wheels / "SHA256SUMS").write_text("".join(f"{digest}  {name}\n" for name, digest in digests.items()))

    def command(self, *arguments: str) -> list[str]:
        common = ("--prefix", str(self.prefix), "--python", str(PYTHON), "--wheels", str(self._wheels))
        return [str(SCRIPT), *common, *arguments]

    def variables(self, **more: str) -> dict[str, str]:
        variables = {name: text for name, text in os.environ.items() if not name.startswith("STREAMINGCANDLE_")}
        variables |= {"STREAMINGCANDLE_SYSTEMCTL": str(self._fake / "systemctl"), "STREAMINGCANDLE_SETTLE_S": "0"}
        variables["PATH"] = f"{self._fake}:{os.environ['PATH']}"
        return variables | more

    def run(
        self, *arguments: str, umask: int = 0o022, folder: str = "", called: str = "", **more: str
    ) -> tuple[int, str]:
        """Exit code, and what it said; `folder` is the current one, `called` another name of the script."""
        command = self.command(*arguments)
        done = subprocess.run(
            [called or command[0], *command[1:]],
            env=self.variables(**more),
            cwd=folder or None,
            umask=umask,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout

    def deploy(self, wheel: str, **more: str) -> str:
        """A run that must succeed; what it said."""
        code, said = self.run(wheel, umask=0o022, **more)
        assert code == 0, said
        return said

    def killed_at(self, command: str, *arguments: str) -> None:
        """A run of `arguments` that is killed when it comes to this command (a pattern of sh), which is not done."""
        (self._fake / "killed-at").write_text(command)
        code, said = self.run(*arguments)
        (self._fake / "killed-at").write_text("")
        assert code == -9, (command, said)

    def calls(self) -> list[str]:
        """What systemctl was asked to do since the last look; questions left out."""
        said = (self._fake / "calls").read_text().splitlines()[self._heard :]
        self._heard += len(said)
        return [call for call in said if not call.startswith(("--version", "is-active", "list-units"))]

    def up(self, *units: str) -> list[str]:
        """Units that run now; these too, by hand."""
        for unit in units:
            (self._fake / f"up-{unit}").touch()
        return sorted(path.name.removeprefix("up-") for path in self._fake.glob("up-*"))

    def down(self, unit: str) -> None:
        (self._fake / f"up-{unit}").unlink()

    def enabled(self) -> list[str]:
        return sorted(path.name for path in (self.units / "multi-user.target.wants").glob("*"))

    @property
    def current(self) -> str:
        """The version that runs, without its checksum; empty for none."""
        return self.linked("current")

    def linked(self, name: str) -> str:
        link = self.home / name
        return link.readlink().name.rpartition("-")[0] if link.is_symlink() else ""

    def tree(self) -> dict[str, tuple[int, int, int, int]]:
        """Every file with mode, owner and times: equal after what changes nothing."""
        found = {}
        for path in sorted(self.prefix.rglob("*")):
            seen = path.lstat()
            mtime_ns = 0 if stat.S_ISDIR(seen.st_mode) else seen.st_mtime_ns
            found[str(path.relative_to(self.prefix))] = (seen.st_mode, seen.st_uid, seen.st_gid, mtime_ns)
        return found

    def mode(self, path: Path) -> str:
        return oct(path.stat().st_mode & 0o7777)
