"""`state`: what lies in the state directory, who owns it, what of it is good, and what nobody needs.

`remains` never looks at what is owned, and keeps of each partition the newest snapshot that any instance of the
application has, so that a service that is down starts again as fast as it would have. What goes is removed with
the instance's lock in hand and only if it is still the file that was judged: a process that starts meanwhile
loses nothing.
"""

import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from operator import itemgetter
from pathlib import Path

import msgspec

from streamingcandle.candles.book import new_book
from streamingcandle.candles.rules import Rules
from streamingcandle.errors import OutsideError, SettingsError
from streamingcandle.state.directory import LOCK_NAME, TURN_NAME, fallback, instances, is_owned, number_of, take
from streamingcandle.state.files import PART_SUFFIX
from streamingcandle.state.owner import NAME as OWNER_NAME
from streamingcandle.state.owner import Owner, read_owner
from streamingcandle.state.snapshot import Snapshot, UnusableError

SIGNS = (TURN_NAME, OWNER_NAME, LOCK_NAME)
"""What an owner's life leaves behind, in the order in which it can go."""

TURN_MAX_MS = 30_000
"""A loop turns every second, and waits for a broker are turns too: one that has not for so long stands still."""
SNAPSHOT_NAME = re.compile(r"snapshot-(\d+)-(\d+)")


class StateFile(msgspec.Struct, frozen=True):
    """A file of an instance as it was looked at. `partition` is None for what is no snapshot."""

    name: str
    partition: int | None
    size_bytes: int
    written_ms: int
    inode: int


class InstanceState(msgspec.Struct, frozen=True):
    """An instance's folder. Who is named as `owner` of one that is not owned died without giving it up."""

    application_id: str
    number: int
    path: str
    is_owned: bool
    owner: Owner | None
    files: tuple[StateFile, ...]

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(file.size_bytes for file in self.files)


class Pulse(msgspec.Struct, frozen=True):
    """Whether a process has an instance and its loop turns; `reason` is one line for the operator."""

    application_id: str
    number: int
    is_alive: bool
    is_owned: bool
    turned_ms_ago: int | None
    """None before the first turn."""
    reason: str


class Verdict(msgspec.Struct, frozen=True):
    """What a snapshot is worth: `usable`, `other rules`, `newer` than this program, or `damaged`; and why."""

    path: str
    partition: int
    offset: int | None
    verdict: str
    reason: str


class Remains(msgspec.Struct, frozen=True):
    """What can go of an instance that nobody owns: some files, or with `is_all` the whole folder."""

    path: str
    files: tuple[StateFile, ...]
    is_all: bool


def look(base: Path, application_id: str | None = None) -> list[InstanceState]:
    """Every instance below the base and its stand-in, or those of one application."""
    try:
        found = [path for place in (base, fallback(base)) for path in instances(place)]
        return [
            InstanceState(path.parent.name, number_of(path), str(path), is_owned(path), read_owner(path), _files(path))
            for path in found
            if application_id in (None, path.parent.name)
        ]
    except OSError as error:
        raise _unreadable(error) from error


def pulse(state: InstanceState, now_ms: int) -> Pulse:
    """Alive: its lock is held, and its loop turned a moment ago."""
    turned_ms = next((file.written_ms for file in state.files if file.name == TURN_NAME), None)
    ago_ms = None if turned_ms is None else now_ms - turned_ms
    # Ahead of us by as much is a clock set back, and nothing since: a loop that goes on would have touched it.
    is_alive = state.is_owned and ago_ms is not None and abs(ago_ms) < TURN_MAX_MS
    if not state.is_owned:
        reason = "no process has its lock; start `run`, or see what ended it in its log"
    elif ago_ms is None:
        reason = "its loop has not turned yet; it waits for the broker or the tick topic, its log says for which"
    else:
        reason = f"its loop turned {ago_ms / 1_000:.1f} s ago"
        reason += "" if is_alive else f", more than {TURN_MAX_MS // 1_000} s: it stands still, start it again"
    return Pulse(state.application_id, state.number, is_alive, state.is_owned, ago_ms, reason)


def verify(states: Iterable[InstanceState], rules: Rules) -> list[Verdict]:
    """Read every snapshot as a restore would."""
    found = (_verdict(state, file, rules) for state in states for file in state.files if file.partition is not None)
    return [verdict for verdict in found if verdict is not None]


def remains(states: Sequence[InstanceState]) -> list[Remains]:
    """What can go of one application's instances."""
    written_ms = {state.path: _written_ms(state) for state in states}
    # Of two that are equal the owned one's is kept, then the one of the smaller number.
    keepers: dict[int, tuple[int, str]] = {}
    for state in sorted(states, key=lambda state: (not state.is_owned, state.number)):
        for file in state.files:
            at_ms = written_ms[state.path].get(file.name)
            if file.partition is not None and at_ms is not None:
                keepers[file.partition] = max(
                    keepers.get(file.partition, (-1, "")), (at_ms, state.path), key=itemgetter(0)
                )
    found = []
    for state in states:
        if state.is_owned:
            continue
        kept = {partition for partition, (_, path) in keepers.items() if path == state.path}
        gone = [file for file in state.files if _is_waste(file, written_ms[state.path], kept)]
        is_all = all(file in gone or file.name in SIGNS for file in state.files)
        if gone or is_all:
            found.append(Remains(state.path, tuple(gone), is_all))
    return found


def remove(found: Remains) -> bool:
    """Remove it with the lock in hand; False, and nothing is touched, when somebody owns the instance by now."""
    folder = Path(found.path)
    try:
        lock = take(folder)
        if lock is None:
            return False
        try:
            there = {file.name: file for file in _files(folder)}
            for file in found.files:
                if there.get(file.name) == file:
                    (folder / file.name).unlink()
                    del there[file.name]
            if found.is_all and there.keys() <= set(SIGNS):
                for name in SIGNS:
                    (folder / name).unlink(missing_ok=True)
                folder.rmdir()
        finally:
            os.close(lock)
    except OSError as error:
        raise _unreadable(error) from error
    return True


def _files(path: Path) -> tuple[StateFile, ...]:
    """By name; what goes away meanwhile is left out."""
    files = []
    for file in sorted(path.glob("*")):
        try:
            seen = file.stat()
        except FileNotFoundError:
            continue
        match = SNAPSHOT_NAME.fullmatch(file.name)
        partition = None if match is None else int(match[1])
        files.append(StateFile(file.name, partition, seen.st_size, seen.st_mtime_ns // 1_000_000, seen.st_ino))
    return tuple(files)


def _written_ms(state: InstanceState) -> dict[str, int | None]:
    """When each snapshot was written, by file; None for a damaged one. A newer program's are left out."""
    found: dict[str, int | None] = {}
    for file in state.files:
        if file.partition is not None:
            with suppress(FileNotFoundError, SettingsError):
                try:
                    found[file.name] = _decoded(state, file).written_ms
                except UnusableError:
                    found[file.name] = None
    return found


def _is_waste(file: StateFile, written_ms: dict[str, int | None], kept: set[int]) -> bool:
    """Damaged, superseded by another instance's, or left by a crash; never what is not ours or a newer program's."""
    if file.partition is None:
        return file.name.endswith(PART_SUFFIX)
    return file.name in written_ms and (written_ms[file.name] is None or file.partition not in kept)


def _verdict(state: InstanceState, file: StateFile, rules: Rules) -> Verdict | None:
    """None for a file that is gone by now."""
    offset, verdict, reason = None, "usable", ""
    try:
        snapshot = _decoded(state, file)
        offset = snapshot.offset
        if snapshot.rules != rules.digest:
            verdict, reason = "other rules", "a restart passes it over"
        else:
            new_book(rules, partition=snapshot.partition).load(snapshot.book)
    except FileNotFoundError:
        return None
    except SettingsError as error:
        verdict, reason = "newer", str(error)
    except (UnusableError, ValueError) as error:
        verdict, reason = "damaged", str(error)
    assert file.partition is not None
    return Verdict(str(Path(state.path, file.name)), file.partition, offset, verdict, reason)


def _decoded(state: InstanceState, file: StateFile) -> Snapshot:
    """Raises UnusableError, SettingsError for a newer program's, FileNotFoundError."""
    try:
        data = Path(state.path, file.name).read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        # A bad sector is damage as much as a flipped bit is.
        raise UnusableError(f"cannot be read: {error.strerror}") from error
    snapshot = Snapshot.decode(data)
    if snapshot.partition != file.partition:
        raise UnusableError(f"of partition {snapshot.partition}")
    return snapshot


def _unreadable(error: OSError) -> OutsideError:
    return OutsideError(f"{error.filename}: {error.strerror}; run this as the user that the service runs as")
