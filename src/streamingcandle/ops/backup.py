"""`state backup` and `state restore`: what is taken of an instance, and what of it may be believed elsewhere.

A commit says how far candles are out, for one log; a snapshot is the state of a prefix of one log. So both go back
only where that log is: the same topic, or one whose record at the place of the last commit is the same one (a mirror
that keeps offsets). They are then said again under that topic's id. Anywhere else they would let candles out wrongly
or keep them back, and the group begins as one without offsets (docs/decisions/0009).
"""

import json
import logging
from collections.abc import Iterable, Mapping

import msgspec

from streamingcandle.candles.commit import Commit, Fingerprint
from streamingcandle.errors import CheckError, OutsideError
from streamingcandle.interfaces import Committed, Snapshots, Tail
from streamingcandle.partition import fingerprint_of
from streamingcandle.state.backup import SESSIONS, Manifest, Offset, snapshot_name
from streamingcandle.state.snapshot import Snapshot, UnusableError

logger = logging.getLogger(__name__)


class Taken(msgspec.Struct, frozen=True):
    """The log's part of a backup; the snapshots by partition."""

    topic_id: str
    partitions: int
    offsets: dict[int, Offset]
    snapshots: dict[int, bytes]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a restore does: `offsets` to commit, `snapshots` to write, and why, for the operator."""

    offsets: dict[int, Committed]
    snapshots: dict[int, bytes]
    reason: str


# ---- what is taken ----


def take(log: Tail, stores: Iterable[Snapshots]) -> Taken:
    """The newest snapshots and the committed offsets, beside a running service.

    In this order: a snapshot is written after the commit it is of, so none is ahead of the offsets read after it.
    SettingsError where a newer program wrote one of them.
    """
    numbers = log.partitions()
    found = {number: _decoded(stores, number) for number in numbers}
    committed = {number: one for number, one in log.committed(numbers).items() if one is not None}
    topic_id = log.topic_id()
    snapshots = {}
    for number, one in committed.items():
        Commit.decode(one.metadata)
        fitting = [
            (snapshot.offset, data)
            for snapshot, data in found[number]
            if snapshot.offset <= one.offset and snapshot.fingerprint.topic_id == topic_id
        ]
        if fitting:
            snapshots[number] = max(fitting)[1]
    offsets = {number: Offset(one.offset, one.metadata) for number, one in committed.items()}
    return Taken(topic_id, len(numbers), offsets, snapshots)


def _decoded(stores: Iterable[Snapshots], number: int) -> list[tuple[Snapshot, bytes]]:
    found = []
    for store in stores:
        try:
            for data in store.load(number):
                try:
                    snapshot = Snapshot.decode(data)
                except UnusableError as error:
                    logger.warning("a snapshot of partition %d (%s) is left out: %s", number, store.name, error)
                else:
                    if snapshot.partition == number:
                        found.append((snapshot, data))
        except OutsideError as error:
            logger.warning("no snapshots of partition %d from the %s: %s", number, store.name, error)
    return found


def settings_text(values: Mapping[str, str], properties: Mapping[str, str]) -> bytes:
    """A settings file of these; the client properties under `[kafka]`."""
    lines = [f"{name} = {_quoted(text)}" for name, text in values.items()]
    lines += ["", "[kafka]", *(f"{_quoted(name)} = {_quoted(text)}" for name, text in properties.items())]
    return ("\n".join(lines) + "\n").encode()


def placed(settings: bytes, sessions: str) -> bytes:
    """The same settings file where its sessions lie at this path."""
    former, now = (f"sessions = {_quoted(path)}\n".encode() for path in (SESSIONS, sessions))
    return settings.replace(former, now)


def _quoted(text: str) -> str:
    """A basic string of TOML: JSON's, but for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


# ---- what goes back ----


def plan(
    manifest: Manifest, contents: Mapping[str, bytes], log: Tail, *, is_replacing: bool, has_candles: bool
) -> Plan:
    """What of the backup's offsets and snapshots this log can take. CheckError: none, and what to do instead.

    `has_candles`: whether any candle topic holds something. Nothing is changed here.
    """
    numbers = log.partitions()
    where = f"topic {manifest.tick_topic}"
    topic_id = log.topic_id()
    is_same = topic_id == manifest.topic_id
    snapshots = {
        number: Snapshot.decode(contents[name]) for number in numbers if (name := snapshot_name(number)) in contents
    }
    ends = log.ends(numbers)
    if not is_same and not any(ends.values()):
        return _begin_anew("the tick topic is another one, and empty; the service begins with what comes")
    if len(numbers) != manifest.partitions:
        raise CheckError(
            f"{where}: {len(numbers)} partitions here, {manifest.partitions} in the backup, so keys lie elsewhere; "
            f"make it with `topics ensure --partitions {manifest.partitions}`, or begin under another application_id"
        )
    here = {number: one for number, one in log.committed(numbers).items() if one is not None}
    if not here and not has_candles and manifest.offsets:
        return _begin_anew("no candle topic holds any; the service makes them all from the ticks that are there")
    if not is_same:
        _check_mirror(manifest, snapshots, log, ends)
    wanted = {number: _said_of(one, manifest.topic_id, topic_id) for number, one in manifest.offsets.items()}
    written = {number: _of(snapshot, topic_id).encode() for number, snapshot in snapshots.items()}
    if here == wanted:
        return Plan(offsets={}, snapshots=written, reason="the group's are the backup's")
    if not here or is_replacing:
        back = sum(max(0, one.offset - wanted[number].offset) for number, one in here.items() if number in wanted)
        reason = f"the group goes back by {back} ticks: what it published of them comes again" if back else "set"
        return Plan(offsets=wanted, snapshots=written, reason=reason)
    if is_same and all(number in here and here[number].offset >= one.offset for number, one in wanted.items()):
        return Plan(offsets={}, snapshots=written, reason="the group's are newer than the backup's, and stay")
    raise CheckError(
        f"{where}: the group {manifest.application_id} has committed other offsets here; --replace puts the "
        "backup's in their place (docs/disaster-recovery.md says what that does)"
    )


def _begin_anew(reason: str) -> Plan:
    return Plan(offsets={}, snapshots={}, reason=f"not set: {reason}")


def _check_mirror(manifest: Manifest, snapshots: Mapping[int, Snapshot], log: Tail, ends: Mapping[int, int]) -> None:
    """CheckError unless the same offsets are the same ticks here as where the backup was made."""
    advice = "or begin under another application_id, into candle topics of its own (docs/disaster-recovery.md)"
    for number, one in manifest.offsets.items():
        where = f"topic {manifest.tick_topic}[{number}]"
        commit = Commit.decode(one.metadata)
        if commit is None:
            raise CheckError(f"{where}: offset {one.offset} of the backup is another program's; {advice[3:]}")
        if ends[number] < one.offset:
            raise CheckError(
                f"{where}: ends at {ends[number]} here, before the backup's offset {one.offset}; let the mirror come "
                f"up to it, restore an older backup, {advice}"
            )
        if commit.fingerprint is None or commit.fingerprint.topic_id != manifest.topic_id:
            continue  # of no record, or of an earlier topic: the service sees to that
        if not _is_at(log, number, commit.fingerprint):
            raise CheckError(
                f"{where}: the record at {commit.fingerprint.offset} is not the one that the backup was made behind; "
                f"mirror the ticks with their offsets and timestamps, {advice}"
            )
    for number, snapshot in snapshots.items():
        found = log.record_at(number, snapshot.fingerprint.offset)
        if found is not None and not _is_at(log, number, snapshot.fingerprint):
            raise CheckError(
                f"topic {manifest.tick_topic}[{number}]: the record at {snapshot.fingerprint.offset} is not the one of "
                f"the backup's snapshot; mirror the ticks with their offsets and timestamps, {advice}"
            )


def _is_at(log: Tail, number: int, fingerprint: Fingerprint) -> bool:
    record = log.record_at(number, fingerprint.offset)
    return record is not None and fingerprint_of(record, fingerprint.topic_id) == fingerprint


def _said_of(one: Offset, former_id: str, topic_id: str) -> Committed:
    """The commit as one of the topic here; what was no commit of ours on the former one stays as it is."""
    commit = Commit.decode(one.metadata)
    fingerprint = None if commit is None else commit.fingerprint
    if commit is None or fingerprint is None or fingerprint.topic_id != former_id:
        return Committed(one.offset, one.metadata)
    moved = msgspec.structs.replace(fingerprint, topic_id=topic_id)
    return Committed(one.offset, msgspec.structs.replace(commit, fingerprint=moved).encode())


def _of(snapshot: Snapshot, topic_id: str) -> Snapshot:
    moved = msgspec.structs.replace(snapshot.fingerprint, topic_id=topic_id)
    return msgspec.structs.replace(snapshot, fingerprint=moved)
