"""Secrets from files: a variable's `..._FILE`, and the credentials systemd hands over (`LoadCredential=`)."""

import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from streamingcandle.errors import SettingsError
from streamingcandle.masking import hide, hide_within, is_secret
from streamingcandle.text_file import NOT_REGULAR, read_text

CREDENTIALS = "CREDENTIALS_DIRECTORY"
"""systemd's own variable: a folder with a file a credential."""
SECRET_MAX_BYTES = 131_072
"""What the kernel lets a variable hold; a key with its whole chain of certificates has a tenth."""


def read_secrets(
    environment: Mapping[str, str], prefix: str, is_name: Callable[[str], bool], warnings: list[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """The variables, `_FILE` ones replaced by what their files hold; and credentials, by the variable each stands for.

    A credential is named like its variable, in lower case without the prefix; `is_name` tells which are settings:
    others are there for their path. A variable goes over a credential. What is secret by its name is
    hidden from now on.
    SettingsError is one line.
    """
    found = dict(environment)
    for variable in [v for v in found if v.startswith(prefix) and v.endswith("_FILE")]:
        path, plain = Path(found.pop(variable)), variable.removesuffix("_FILE")
        if found.get(plain):
            raise SettingsError(f"{variable}: {plain} is set as well; unset one of the two")
        found[plain] = _text(variable, path)
        warn_if_open(path, variable, warnings)
    credentials = {}
    folder = found.get(CREDENTIALS)
    for path in sorted(Path(folder).iterdir()) if folder and Path(folder).is_dir() else ():
        variable = prefix + path.name.upper()
        if is_name(path.name) and not found.get(variable):
            credentials[variable] = _text(f"credential {path.name}", path)
    for variable, text in {**found, **credentials}.items():
        if variable.startswith(prefix):
            hide_within(text)
            if is_secret(variable):
                hide(text)
    return found, credentials


def _text(what: str, path: Path) -> str:
    try:
        text = read_text(path, SECRET_MAX_BYTES).strip()
    except OSError as error:
        # The value itself in the place of its file's name is a slip that would put it into a log.
        shown = path if "/" in str(path) else "what it names"
        raise SettingsError(f"{what}: {shown}: {error.strerror}; name a file that this user may read") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{what}: {path}: no UTF-8 text; give a file that holds the value alone") from error
    if not text:
        raise SettingsError(f"{what}: {path}: empty; write the value into it")
    return text


def check_location(what: str, path: Path) -> None:
    """SettingsError for a pipe or a device: the client library reads to an end that may never come.

    What is not there, and folders, are its own to tell of.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise SettingsError(f"{what}: {path}: {NOT_REGULAR}; give a file")


def warn_if_open(path: Path, what: str, warnings: list[str]) -> None:
    """A secret that every user of this host may read is said; a file that is not there is somebody else's to tell."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if mode & stat.S_IROTH:
        warnings.append(f"{what}: {path} is readable by every user; type: chmod o-rwx {path}")
