"""What a benchmark finds: one row of the table."""

from collections.abc import Sequence
from statistics import median

import msgspec


class Figure(msgspec.Struct, frozen=True):
    """Several runs of the same thing."""

    what: str
    runs: Sequence[float]
    unit: str
    wanted: str = ""
    """What issue or promise it is held against, as text."""

    def row(self) -> str:
        """A row of a Markdown table."""
        runs = " ".join(map(_text, sorted(self.runs)))
        return f"| {self.what} | {_text(median(self.runs))} {self.unit} | {self.wanted} | {runs} |"


HEAD = "| what | median | to reach | runs |\n|---|---|---|---|"


def _text(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
