"""`watch` beside a service: what it says as lines, against the reference."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from disturbance import await_that
from program import PROGRAM, Key, values
from streamingcandle.candles.candle import Candle

Line = dict[str, Any]


class Watching:
    """A running `watch --json`."""

    def __init__(self, process: subprocess.Popen[bytes], out: Path, log: Path) -> None:
        self.process = process
        self._out = out
        self._log = log

    @property
    def lines(self) -> list[Line]:
        """What it has told, whole lines only."""
        whole, _, _ = self._out.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    @property
    def log(self) -> str:
        return self._log.read_text()

    def latest(self, state: str) -> dict[Key, Candle]:
        """Of each window told in this state the last."""
        found = {}
        for line in self.lines:
            if line["state"] == state:
                key = (line["instrument"], line["timeframe"], line["windowStartMillis"])
                found[key] = msgspec.convert(line, Candle)
        return found

    def await_equal(self, state: str, wanted: Mapping[Key, Candle]) -> None:
        """Until these windows and no other were told in this state, with these values."""
        plain = {key: values(candle) for key, candle in wanted.items()}

        def is_so() -> bool:
            assert self.process.poll() is None, self.log
            return {key: values(candle) for key, candle in self.latest(state).items()} == plain

        await_that(is_so, lambda: f"{len(wanted)} windows {state}: {self.log[-2_000:]}")

    def await_all(self, wanted: Mapping[Key, Candle], *, label: str, last_ms: int) -> None:
        """Until each window of this timeframe was last told with these values, and as closed if it ended by then.

        Those that end later form, or have been closed by idle time where the machine took so long.
        """
        plain = {key: values(candle) for key, candle in wanted.items() if key[1] == label}
        ended = {key for key in plain if wanted[key].window_end_millis <= last_ms}

        def wrong() -> list[Key]:
            told = self.told()
            return [
                key
                for key in sorted(plain.keys() | told.keys())
                if key not in plain
                or key not in told
                or told[key][0] != plain[key]
                or (key in ended and told[key][1] == "forming")
            ]

        def is_so() -> bool:
            assert self.process.poll() is None, self.log
            return not wrong()

        def missing() -> str:
            told, keys = self.told(), wrong()
            few = [(key, plain.get(key), told.get(key)) for key in keys[:5]]
            return (
                f"{len(plain)} windows {label}, {len(keys)} of them wrong, wanted and told: {few}: {self.log[-2_000:]}"
            )

        await_that(is_so, missing)
        assert self.latest("forming")

    def await_line(self, text: str, *, count: int = 1) -> None:
        """Until it has said that so often in its log."""
        await_that(lambda: self.log.count(text) >= count, lambda: f"{text!r} in {self.log[-2_000:]}")

    def told(self) -> dict[Key, tuple[tuple[object, ...], str]]:
        """Of each window what was told last, and in which state."""
        return {
            (line["instrument"], line["timeframe"], line["windowStartMillis"]): (
                values(msgspec.convert(line, Candle)),
                line["state"],
            )
            for line in self.lines
        }

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        self.process.terminate()
        return self.process.wait(5)


@contextmanager
def watching(variables: Mapping[str, str], folder: Path, *arguments: str) -> Iterator[Watching]:
    """Ended when the context is left."""
    out, log = folder / "watch.out", folder / "watch.log"
    with out.open("wb") as stdout, log.open("wb") as stderr:
        process = subprocess.Popen(
            [PROGRAM, "watch", "--json", *arguments], env=dict(variables), stdout=stdout, stderr=stderr
        )
    try:
        yield Watching(process, out, log)
    finally:
        process.kill()
        process.wait()
