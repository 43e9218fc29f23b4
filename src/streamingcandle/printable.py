"""What others wrote, as it may be shown: a terminal obeys control characters, and a line break makes a second line.

Escapes that end in nothing but letters, and directions of writing that turn a line around, are among them.
"""

import re

_OBEYED = re.compile(r"[^\x20-\x7e]")


def printable(text: str) -> str:
    """On one line, and nothing in it that a terminal obeys: such characters as Python writes them."""
    return text if text.isprintable() else _OBEYED.sub(_escaped, text)


def printable_lines(text: str) -> str:
    """The same, its lines and tabs left as they are."""
    return text if text.isprintable() else "".join(map(_laid_out, re.split(r"([\n\t])", text)))


def printable_json(text: str) -> str:
    """The same for JSON, which stays JSON of the same values: what is obeyed stands only within its strings."""
    return text if text.isprintable() else _OBEYED.sub(_as_json, text)


def _laid_out(part: str) -> str:
    return part if part in ("\n", "\t") else printable(part)


def _escaped(match: re.Match[str]) -> str:
    return match[0] if match[0].isprintable() else repr(match[0])[1:-1]


def _as_json(match: re.Match[str]) -> str:
    if match[0].isprintable() or match[0] == "\n":
        return match[0]
    units = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
