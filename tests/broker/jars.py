"""The broker's jars are those of `jars.sha256`, byte for byte, and nothing else lies beside them: `java -cp libs/*`."""

import functools
import hashlib
from pathlib import Path
from typing import Final

LISTED: Final = Path(__file__).with_name("jars.sha256")


@functools.cache  # 45 MB: a fifth of a second, once a process
def wrong_jars(libs: Path, listed: Path = LISTED) -> tuple[str, ...]:
    """Names with what is wrong with each: "x.jar is missing". Empty: java may have them."""
    stated = {name: digest for digest, name in (line.split("  ", 1) for line in listed.read_text().splitlines())}
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(libs.glob("*.jar"))}
    wrong = [f"{name} is missing" for name in stated if name not in found]
    wrong += [
        f"{name} is not the one of {listed.name}" for name in found if stated.get(name, found[name]) != found[name]
    ]
    wrong += [f"{name} does not belong there" for name in found if name not in stated]
    return tuple(wrong)
