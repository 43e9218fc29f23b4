"""What is secret is shown as stars: in `config show`, errors, tracebacks, and every line of the log.

By name (a setting whose name says so), by value (whatever was set under such a name is known here for the life of
the process), and by form: a password in a URL, a private key, `password=...` as in JAAS. The last two also hold
where a secret stands in the text of a setting that should have none.
"""

import ctypes
import json
import re
import resource
import sys
import threading
import traceback
from types import TracebackType
from urllib.parse import quote

from streamingcandle.printable import printable_lines

STARS = "********"
VALUE_CHARACTERS_MIN = 4
"""A shorter one is not looked for as such: it would be found in half of all words."""
SHOWN_MAX = 200
"""Of a value in an error: an operator reads the line, not a page."""
PR_SET_DUMPABLE = 4
"""linux/prctl.h."""
_NAME = re.compile(
    r"passw(?:or)?d|(?<![a-z])pwd|passphrase|secret|api[._-]?key|access[._-]?key|key[._]pem|authorization"
    r"|sasl[._]jaas|sasl[._]oauthbearer[._]config|token",
    re.IGNORECASE,
)
_WORD = (
    r"(?:passw(?:or)?d|passphrase|(?<![a-z])pwd|(?<![a-z])pass|api[._-]?key|access[._-]?key"
    r"|secret(?:[._-]?(?:access[._-]?)?key)?|(?:access|api|auth|bearer|(?<![a-z])id|oauth|refresh|security|session)[._-]?token)"
)
"""What people call a secret where they write it beside a value. `token` alone is an instrument here."""
_LIST = r"""\[(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\]"'])*\]|\[[^\]]*\]|\{[^}]*\}"""
_QUOTED = r"(?P<quote>\\*[\"'])(?P<secret>(?:(?!(?P=quote))(?:\\.|.))+)"
_LOGIN = (
    r"(?<![^\s,;'\"=(\[{|])(?P<secret>[^\s:/@,;'\"=(){}\[\]|]+:(?!//|/?\*{8})[^\s'\",]*)@"
    r"(?=\d+\.\d+\.\d+\.\d+|[\w.-]*[a-z]|\[)"
)
"""Without a scheme, as among the brokers; what comes after the @ is a host and no offset."""
_SAID_OF = (
    rf"(?<![^\s\"'{{(\[,;])[\w.-]*{_WORD}\\*[\"']?\s*:(?:\s+|(?!\d{{1,5}}\b))"
    r"(?!/[^\s:]*:\s|\*{8})(?P<secret>[^\s\"'\\;,&\[{][^\s\"'\\;,&]*)"
)
"""With a colon. No path ends in the name, and none with a colon behind it follows: that is where an error is."""
_FORMS = tuple(
    re.compile(form, re.IGNORECASE | re.DOTALL if "KEY" in form else re.IGNORECASE)
    for form in (
        r"(?P<secret>-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$))",
        # A header of HTTP, also as a value in JSON.
        r"authorization\\*[\"']?\s*[:=]\s*\\*[\"']?(?P<secret>(?:(?:bearer|basic|digest|negotiate)\s+)?[^\s\"'\\,;]+)",
        r"\bbearer\s+(?P<secret>[a-z0-9._~+/=-]{8,})",
        # One slash is what is left of two where a URL was taken for a path. An unescaped slash or question mark in a
        # password is what a driver complains of: all up to the last @ is it. After http: a port and a path are none.
        r"\b(?!(?:http|ws)s?:)[a-z][a-z0-9+._-]{0,30}://?(?P<secret>[^\s/?#'\"@:]*:[^\s'\"]*)@",
        r"\b(?:http|ws)s?://?(?P<secret>[^\s/?#'\"@:]*:(?!\d{1,5}[/?#])[^\s'\"]*)@",
        r"\b[a-z][a-z0-9+._-]{0,30}://?(?P<secret>[^\s/?#'\"@:]+)@",
        _LOGIN,
        rf"{_WORD}\\*[\"']?\s*[:=]\s*(?P<secret>{_LIST})",
        rf"{_WORD}\\*[\"']?\s*[:=]\s*{_QUOTED}",
        rf"{_WORD}\\*[\"']?\s*=\s*(?P<secret>[^\s\"'\\;,&\[{{][^\s\"'\\;,&]*)",
        _SAID_OF,
        r"[?&](?:token|key|sig|signature|auth|code|credential)=(?P<secret>[^\s\"'\\&#;]+)",
    )
)
LOGIN_CHARACTERS_MIN = 12
"""Who stands alone before the @ of a URL is a token when as long, and else may be a user like `candles`."""

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
    for form in _FORMS:
        for match in form.finditer(text):
            login, is_login, password = match["secret"].partition(":")
            if text[match.end("secret") :].startswith("@") and is_login:
                hide(password)
            elif not text[match.end("secret") :].startswith("@") or len(login) >= LOGIN_CHARACTERS_MIN:
                hide(match["secret"])


def masked(name: str, text: str) -> str:
    """The text of a setting as it may be shown."""
    return STARS if text and is_secret(name) else clean(text)


def clean(text: str) -> str:
    """The text without what is secret in it."""
    for value in sorted(_hidden, key=len, reverse=True):
        text = text.replace(value, STARS)
    for form in _FORMS:
        text = form.sub(_starred, text)
    return text


def _starred(match: re.Match[str]) -> str:
    start, end = (at - match.start() for at in match.span("secret"))
    return f"{match[0][:start]}{STARS}{match[0][end:]}"


def cut(text: str) -> str:
    """What an error shows of a text that may be long: its beginning, cleaned before it is cut."""
    text = clean(text)
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…"


def is_any_hidden() -> bool:
    """Whether a secret was given to this process."""
    return bool(_hidden)


def close_memory() -> None:
    """From now on no other process of this user reads our memory or environment, where every secret stands in clear.

    On Linux; and a crash leaves no file of it anywhere. What tells of a process from outside (`stat`, `statm`,
    `cmdline`, `limits`) stays readable. A program that is started gets all of it back, and has to ask again.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    ask = getattr(ctypes.CDLL(None), "prctl", None)
    if ask is not None:
        ask(PR_SET_DUMPABLE, 0, 0, 0, 0)


def clean_tracebacks() -> None:
    """From now on what Python itself prints of an exception that nobody caught is clean, in every thread."""

    def told(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        sys.stderr.write(printable_lines(clean("".join(traceback.format_exception(kind, error, trace)))))

    sys.excepthook = told
    threading.excepthook = lambda ended: told(ended.exc_type, ended.exc_value, ended.exc_traceback)
    sys.unraisablehook = lambda ended: told(ended.exc_type, ended.exc_value, ended.exc_traceback)
