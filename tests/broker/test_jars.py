"""A jar that is not the stated one runs nowhere, and is named: neither fetched nor on the disk since."""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from broker import HERE, LIBS
from broker.jars import LISTED, wrong_jars

MVN = """\
#!/bin/sh
# Stands in for mvn: copies what the test put into its repository.
for argument; do case $argument in -DoutputDirectory=*) exec cp -r "{repository}" "${{argument#*=}}" ;; esac; done
"""


def test_the_list_is_of_the_versions_that_pom_xml_names() -> None:
    names = {line.partition("  ")[2] for line in LISTED.read_text().splitlines()}
    pom = (HERE / "pom.xml").read_text()
    asked = re.findall(r"<dependency>.*?<artifactId>(.*?)</artifactId>\s*<version>(.*?)</version>", pom, re.DOTALL)
    assert len(asked) == 2
    assert {f"{artifact}-{version}.jar" for artifact, version in asked} <= names
    assert wrong_jars(LIBS) == ()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda libs: (libs / "b.jar").write_text("other"), "b.jar is not the one of jars.sha256"),
        (lambda libs: (libs / "b.jar").unlink(), "b.jar is missing"),
        (lambda libs: (libs / "c.jar").write_text("more"), "c.jar does not belong there"),
    ],
)
def test_a_jar_that_is_not_as_stated_is_named_and_never_used(
    tmp_path: Path, spoil: Callable[[Path], object], said: str
) -> None:
    there, repository, libs = tmp_path / "tests" / "broker", tmp_path / "repository", tmp_path / ".cache/kafka/libs"
    for folder in (there, repository, tmp_path / "bin"):
        folder.mkdir(parents=True)
    for name in ("fetch.sh", "pom.xml"):
        shutil.copy(HERE / name, there)
    for name in ("a.jar", "b.jar"):
        (repository / name).write_text(name)
    digests = [f"{hashlib.sha256(name.encode()).hexdigest()}  {name}\n" for name in ("a.jar", "b.jar")]
    (there / "jars.sha256").write_text("".join(digests))
    mvn = tmp_path / "bin" / "mvn"
    mvn.write_text(MVN.format(repository=repository))
    mvn.chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"

    def fetched(*arguments: str) -> tuple[int, str]:
        command = [str(there / "fetch.sh"), *arguments]
        done = subprocess.run(command, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    assert fetched() == (0, "")
    assert {path.name for path in libs.iterdir()} == {"a.jar", "b.jar"}
    # Changed since: seen by whoever starts a broker, and fetched anew.
    spoil(libs)
    assert wrong_jars(libs, there / "jars.sha256") == (said,)
    assert fetched() == (0, "")
    assert (libs / "b.jar").read_text() == "b.jar"
    # Changed where it comes from: refused.
    shutil.rmtree(libs)
    spoil(repository)
    code, text = fetched()
    assert (code, libs.exists(), text.count("\n")) == (1, False, 1)
    assert said.split(maxsplit=1)[0] in text
    assert "a.jar" not in text
    assert fetched("list") == (0, "")
    assert (there / "jars.sha256").read_text() != "".join(digests)
