"""What is secret is shown as stars: in `config show`, errors, tracebacks, and every line of the log.

By name (a setting whose name says so), by value (whatever was set under such a name is known here for the life of
the process), and by form: a password in a URL, a private key, `password=...` as in JAAS. The last two also hold
where a secret stands in the text of a setting that should have none.
"""

import json
import re
import resource
import sys
import threading
import traceback
from types import TracebackType
from urllib.parse import quote

STARS = "********"
VALUE_CHARACTERS_MIN = 4
"""A shorter one is not looked for as such: it would be found in half of all words."""
SHOWN_MAX = 200
"""Of a value in an error: an operator reads the line, not a page."""
_NAME = re.compile(
    r"password|passphrase|secret|key[._]pem|sasl[._]jaas|sasl[._]oauthbearer[._]config|token", re.IGNORECASE
)
# One slash is what is left of two where a URL was taken for a path.
# An unescaped slash or question mark in a password is what a driver complains of: all up to the last @ is it.
_URL = re.compile(r"(\b[a-z][a-z0-9+._-]*://?)[^\s/?#'\"@:]*:(?!\d{1,5}[/?#])([^\s'\"]*)@", re.IGNORECASE)
_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)", re.DOTALL)
_SAID = re.compile(
    r"((?:password|passwd|passphrase|secret)\\*[\"']?\s*=\s*|(?:password|passwd|passphrase|secret)\\*[\"']\s*:\s*)"
    r"(\\*[\"'])?(?(2)[^\"'\\]+|[^\s\"'\\;,&]+)",
    re.IGNORECASE,
)

_hidden: set[str] = set()


def is_secret(name: str) -> bool:
    """Whether a setting of this name holds a secret."""
    return _NAME.search(name) is not None


def hide(value: str) -> None:
    """From now on this value is stars, also escaped as in Python, JSON or a URL; each line of one with many."""
    for part in {value, *value.splitlines()}:
        if len(part.strip()) >= VALUE_CHARACTERS_MIN and not part.startswith("-----"):
            shown = repr(part)[1:-1]
            _hidden.update({part.strip(), shown, json.dumps(part)[1:-1], json.dumps(shown)[1:-1], quote(part, safe="")})


def hide_within(text: str) -> None:
    """From now on the passwords in this text are stars, also where only a piece of it is shown."""
    for match in _URL.finditer(text):
        hide(match[2])
    for match in _SAID.finditer(text):
        hide(match[0].removeprefix(match[1]).strip("\"'\\"))


def masked(name: str, text: str) -> str:
    """The text of a setting as it may be shown."""
    return STARS if text and is_secret(name) else clean(text)


def clean(text: str) -> str:
    """The text without what is secret in it."""
    for value in sorted(_hidden, key=len, reverse=True):
        text = text.replace(value, STARS)
    text = _KEY.sub(STARS, text)
    text = _URL.sub(rf"\1{STARS}@", text)
    return _SAID.sub(rf"\1\2{STARS}", text)


def cut(text: str) -> str:
    """What an error shows of a text that may be long: its beginning, cleaned before it is cut."""
    text = clean(text)
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…"


def forbid_core() -> None:
    """From now on a crash leaves no file of this process's memory, where every secret stands in clear."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def clean_tracebacks() -> None:
    """From now on what Python itself prints of an exception that nobody caught is clean, in every thread."""

    def told(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        sys.stderr.write(clean("".join(traceback.format_exception(kind, error, trace))))

    sys.excepthook = told
    threading.excepthook = lambda ended: told(ended.exc_type, ended.exc_value, ended.exc_traceback)
    sys.unraisablehook = lambda ended: told(ended.exc_type, ended.exc_value, ended.exc_traceback)
