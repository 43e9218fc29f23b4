"""A process that claims an instance, tells which, and holds it until its standard input ends."""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streamingcandle.errors import StreamingCandleError
from streamingcandle.state.directory import claim

APPLICATION_ID = "app"


class Claimer:
    """Such a process, seen from a test."""

    def __init__(self, base: Path, *, number: int | None = None, variables: Mapping[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(base), *([] if number is None else [str(number)])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **(variables or {})},
            text=True,
        )

    def told(self) -> dict[str, Any]:
        """The next thing it says: what it claimed, then how it ended."""
        assert self.process.stdout is not None
        told: dict[str, Any] = json.loads(self.process.stdout.readline())
        return told

    def kill(self) -> None:
        """As the kernel would for want of memory."""
        self.process.kill()
        self.process.communicate()

    def end(self) -> None:
        """Let it give its place up."""
        self.process.communicate()


def main() -> None:
    """Claim, say so, hold."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)

    def tell(**facts: object) -> None:
        sys.stdout.write(json.dumps(facts | {"log": lines}) + "\n")
        sys.stdout.flush()
        lines.clear()

    try:
        number = int(sys.argv[2]) if len(sys.argv) > 2 else None
        instance = claim(Path(sys.argv[1]), APPLICATION_ID, now_ms=time.time_ns() // 1_000_000, number=number)
        path = instance.path and str(instance.path)
        tell(number=instance.number, path=path, identity=instance.identity("a"))
        for line in sys.stdin:
            assert line == "hold\n"
            instance.hold()
            tell()
        instance.release()
    except StreamingCandleError as error:
        tell(error=str(error), exit=error.exit_code)


if __name__ == "__main__":
    main()
