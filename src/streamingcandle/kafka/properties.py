"""What the client library says of its own properties. Asked of it, so that no list here grows old; nothing connects."""

import ctypes
import os
import re
import tempfile
from difflib import get_close_matches
from functools import cache

from confluent_kafka import KafkaException, Producer, cimpl

_NO_PROPERTY = "no.such.property"
_UNKNOWN = "No such configuration property"


def _said(name: str, text: str) -> str:
    """The library's reason against a property, empty when it takes it."""
    try:
        # Properties are read in order and the second is refused always: no client comes to be.
        Producer({name: text, _NO_PROPERTY: ""})
    except KafkaException as error:
        reason = " ".join(error.args[0].str().split())
        return "" if _NO_PROPERTY in reason else reason
    except (TypeError, AttributeError) as error:  # names that are functions and tables in Python
        return str(error)
    raise AssertionError(name)


def is_known(name: str) -> bool:
    """Whether there is such a property."""
    return not _said(name, "").startswith(_UNKNOWN)


def refusal(name: str, text: str) -> str | None:
    """The library's reason against the text of a known property; None when it takes it."""
    return _said(name, text) or None


def nearest(name: str) -> str:
    """The known property whose name is most like this one."""
    return get_close_matches(name, known(), n=1, cutoff=0.0)[0]


@cache
def known() -> dict[str, str]:
    """Every property that text can set, and whose it is: `C` consumers', `P` producers', `*` both.

    The library can only print the list, into a C file, and Python's binding does not offer even that.
    """
    library, c = ctypes.CDLL(cimpl.__file__), ctypes.CDLL(None)
    c.fdopen.restype = ctypes.c_void_p
    with tempfile.TemporaryFile() as file:
        stream = ctypes.c_void_p(c.fdopen(os.dup(file.fileno()), b"w"))
        library.rd_kafka_conf_properties_show(stream)
        c.fclose(stream)
        file.seek(0)
        text = file.read().decode()
    # Names with underscores are functions and pointers.
    return dict(re.findall(r"^([a-z0-9.]+) +\| +([CP*]) +\|", text, re.MULTILINE))
