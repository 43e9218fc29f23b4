"""`state backup` and `state restore` on the embedded log: the file, the round trip, and every refusal in one line."""

import hashlib
import io
import json
import os
import re
import signal
import sqlite3
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
import zstandard

from disk import mounted
from disturbance import await_that
from program import PROGRAM, STEP_TIMEOUT_S, environment, run, run_well
from streamingcandle.candles.commit import Commit
from streamingcandle.clock import SystemClock
from streamingcandle.embedded.store import EmbeddedStore
from streamingcandle.embedded.tail import EmbeddedTail
from streamingcandle.errors import CheckError, SettingsError
from streamingcandle.interfaces import Committed
from streamingcandle.ops.backup import plan
from streamingcandle.state.backup import FORMAT, MANIFEST, MANIFEST_SUM, Manifest, Offset, read_backup
from streamingcandle.state.snapshot import Snapshot

TICKS = ("simulate", "--ticks", "600", "--rate", "20", "--date", "2026-01-02", "--speed", "0")
MARK = "planted-" + "x" * 8
SECRETS = {"STREAMINGCANDLE_KAFKA_SASL_PASSWORD": MARK, "STREAMINGCANDLE_GRACE": "2s"}


class Host:
    """A host's folders and settings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.variables = environment("t", folder, None)
        self.log = folder / "data" / "log.sqlite3"

    def refused(self, code: int, *arguments: str | Path, inside: Sequence[str] = (), **variables: str) -> str:
        """Run, which must end so with one line; that line. `inside`: goes before the command."""
        before = self.content()
        command = [*inside, PROGRAM, *arguments]
        done = subprocess.run(
            command, env=self.variables | variables, capture_output=True, timeout=STEP_TIMEOUT_S, check=False
        )
        said = done.stderr.decode()
        assert (done.returncode, said.count("\n")) == (code, 1), said
        assert self.content() == before
        return said

    def content(self) -> list[tuple[object, ...]]:
        """Every record and offset."""
        if not self.log.exists():
            return []
        with closing(sqlite3.connect(self.log)) as store:
            records = store.execute("SELECT topic, partition, offset, key, value FROM records ORDER BY 1, 2, 3")
            return [*records.fetchall(), *store.execute("SELECT * FROM offsets ORDER BY 1, 2, 3").fetchall()]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Host:
    """Give a host whose service was stopped in the middle of windows; a secret is set there, and a grace of its own."""
    host = Host(tmp_path_factory.mktemp("source"))
    host.variables |= SECRETS | {"STREAMINGCANDLE_SESSIONS": str(host.folder / "own.csv")}
    shipped = Path(__file__).parents[2] / "src" / "streamingcandle" / "candles" / "sessions.csv"
    (host.folder / "own.csv").write_bytes(shipped.read_bytes())
    run_well(host.variables, *TICKS)
    run_well(host.variables, "run", "--until-end")
    run_well(host.variables, "state", "backup", str(host.folder / "a.backup"))
    return host


@pytest.fixture(scope="module")
def backup(source: Host) -> Path:
    """Give its backup."""
    return source.folder / "a.backup"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """Give a new host."""
    return Host(tmp_path)


def test_round_trip_to_a_new_host(source: Host, backup: Path, host: Host) -> None:
    assert backup.stat().st_mode & 0o777 == 0o600
    assert list(backup.parent.glob("*.part")) == []
    would = run(host.variables, "state", "restore", str(backup), "--dry-run")
    assert (would.returncode, would.stderr) == (0, b"nothing was changed\n")
    assert not host.log.exists()
    told = run_well(host.variables, "state", "restore", str(backup)).decode()
    assert told == would.stdout.decode()
    assert "differs\tgrace = 2s in the backup, 1s here (default)\n" in told
    assert "secrets\tnot in a backup, to be set again: kafka.sasl.password\n" in told
    assert host.content() == source.content()
    # With the settings that came along, but for the secret and its own folders, the two go on alike.
    settings = str(host.folder / "state" / "t-app" / "settings.toml")
    assert f'sessions = "{settings.replace("settings.toml", "sessions.csv")}"' in Path(settings).read_text()
    ours = {name: host.variables[f"STREAMINGCANDLE_{name}"] for name in ("STATE_DIR", "DATA_DIR")}
    bare = {name: text for name, text in os.environ.items() if not name.startswith("STREAMINGCANDLE_")}
    bare |= {f"STREAMINGCANDLE_{name}": text for name, text in ours.items()}
    done = run(bare, "--config", settings, "run", "--until-end", "--flush")
    assert (done.returncode, b"snapshot at offset 600 (state directory) restored" in done.stderr) == (0, True)
    run_well(source.variables, "run", "--until-end", "--flush")
    candles = [row for row in host.content() if str(row[0]).endswith("-candle")]
    assert len(candles) > 100
    assert candles == [row for row in source.content() if str(row[0]).endswith("-candle")]


def test_no_secret_is_in_it(backup: Path) -> None:
    raw = zstandard.ZstdDecompressor().decompressobj().decompress(backup.read_bytes())
    assert MARK.encode() not in raw
    assert b"sasl.password" in raw
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        assert {entry.mode for entry in tar} == {0o600}
        names = tar.getnames()
    assert names == [MANIFEST, MANIFEST_SUM, "sessions.csv", "settings.toml", "snapshots/0", "log.sqlite3"]


def test_json(source: Host, tmp_path: Path) -> None:
    file = tmp_path / "b.backup"
    told = json.loads(run_well(source.variables, "state", "backup", str(file), "--json"))
    assert (told["size_bytes"], told["offsets"]) == (file.stat().st_size, {"0": 600})
    assert (told["snapshots"], told["left_out"]) == ([0], ["kafka.sasl.password"])


def test_nothing_is_written_over_unasked(backup: Path, host: Host) -> None:
    run_well(host.variables, *TICKS, "--seed", "9")
    run_well(host.variables, "run", "--until-end")
    assert "--replace" in host.refused(1, "state", "restore", backup)
    host.log.unlink()
    assert "snapshot-0-" in host.refused(1, "state", "restore", backup)
    run_well(host.variables, "state", "restore", str(backup), "--replace")
    assert len(host.content()) > 600


def test_of_another_application_or_log(backup: Path, host: Host) -> None:
    said = host.refused(2, "state", "restore", backup, STREAMINGCANDLE_APPLICATION_ID="other")
    assert "set STREAMINGCANDLE_APPLICATION_ID=t-app" in said
    assert "TICK_TOPIC=t-ticks" in host.refused(2, "state", "restore", backup, STREAMINGCANDLE_TICK_TOPIC="other")


def test_beside_a_running_service(backup: Path, host: Host) -> None:
    run_well(host.variables, *TICKS)
    with subprocess.Popen([PROGRAM, "run"], env=host.variables, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        try:
            while b"taken over" not in process.stderr.readline():
                assert process.poll() is None
            done = run(host.variables, "state", "restore", str(backup), "--replace")
            assert (done.returncode, done.stderr.count(b"\n")) == (4, 1), done.stderr
            assert f"run by pid {process.pid}".encode() in done.stderr
            run_well(host.variables, "state", "backup", str(host.folder / "b.backup"))
        finally:
            process.send_signal(signal.SIGKILL)
    read_backup(host.folder / "b.backup", log_into=None)


@pytest.mark.parametrize("number", range(5))
def test_what_the_page_tells_to_type(backup: Path, host: Host, number: int) -> None:
    """Each block of docs/disaster-recovery.md: where it restores, on a new host, else on one that has run."""
    page = (Path(__file__).parents[2] / "docs" / "disaster-recovery.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 5
    block = re.sub("^streamingcandle ", f'"{PROGRAM}" ', blocks[number], flags=re.MULTILINE)
    if "state restore" in block:
        (host.folder / "candles.backup").write_bytes(backup.read_bytes())
    else:
        run_well(host.variables, *TICKS)
    done = subprocess.run(
        ["bash", "-euc", block], cwd=host.folder, env=host.variables, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, (block, done.stderr.decode())


# ---- where offsets and snapshots may go back: what `plan` makes of a log


def _mirror(path: Path, source: Host, *, count: int = 600, partitions: int = 1, changed: int = -1) -> EmbeddedTail:
    """A tick topic of another id with so many of the same records, one of them `changed`."""
    with closing(sqlite3.connect(source.log)) as store:
        rows = store.execute(
            "SELECT key, value, timestamp_ms FROM records WHERE topic = 't-ticks' ORDER BY offset LIMIT ?", [count]
        ).fetchall()
    there = EmbeddedStore(path)
    there.ensure_topic("t-ticks", partitions)
    there.append("t-ticks", [(k, v + b" " * (n == changed), at, ()) for n, (k, v, at) in enumerate(rows)])
    return EmbeddedTail(there, group="t-app", topic="t-ticks", clock=SystemClock())


def _commit(path: Path, offset: int, metadata: str) -> None:
    store = EmbeddedStore(path)
    with store.transaction():
        store.commit_offset("t-app", "t-ticks", 0, offset=offset, metadata=metadata)
    store.close()


def test_a_mirror_with_the_same_ticks_takes_both(source: Host, backup: Path, tmp_path: Path) -> None:
    manifest, contents = read_backup(backup, log_into=None)
    log = _mirror(tmp_path / "log", source)
    found = plan(manifest, contents, log, is_replacing=False, has_candles=True)
    commit = Commit.decode(found.offsets[0].metadata)
    assert commit is not None
    assert commit.fingerprint is not None
    assert Snapshot.decode(found.snapshots[0]).fingerprint.topic_id == commit.fingerprint.topic_id == log.topic_id()
    assert log.topic_id() != manifest.topic_id
    # The same commit but for the topic's id.
    former = manifest.offsets[0].metadata.replace(manifest.topic_id, log.topic_id())
    assert found.offsets[0] == Committed(600, former)


@pytest.mark.parametrize(
    ("log", "has_candles", "reason"),
    [({"count": 0}, True, "empty"), ({"count": 0, "partitions": 2}, True, "empty"), ({}, False, "no candle topic")],
)
def test_where_the_service_begins_anew(
    source: Host, backup: Path, tmp_path: Path, log: dict[str, int], *, has_candles: bool, reason: str
) -> None:
    there = _mirror(tmp_path / "log", source, **log)
    found = plan(*read_backup(backup, log_into=None), there, is_replacing=False, has_candles=has_candles)
    assert (found.offsets, found.snapshots) == ({}, {})
    assert reason in found.reason


@pytest.mark.parametrize("is_replacing", [False, True])
@pytest.mark.parametrize(
    ("log", "said"),
    [
        ({"changed": 599}, "the record at 599 is not the one that the backup was made behind"),
        ({"count": 599}, "ends at 599 here, before the backup's offset 600; let the mirror come up to it"),
        ({"partitions": 2}, "2 partitions here, 1 in the backup"),
    ],
)
def test_another_log_is_refused(
    source: Host, backup: Path, tmp_path: Path, log: dict[str, int], said: str, *, is_replacing: bool
) -> None:
    there = _mirror(tmp_path / "log", source, **log)
    with pytest.raises(CheckError, match=said):
        plan(*read_backup(backup, log_into=None), there, is_replacing=is_replacing, has_candles=True)


def test_what_the_group_has_stays_unless_asked(source: Host, backup: Path, tmp_path: Path) -> None:
    manifest, contents = read_backup(backup, log_into=None)
    path = tmp_path / "log"
    log = _mirror(path, source)
    first = plan(manifest, contents, log, is_replacing=False, has_candles=True)
    # On the very topic the backup is of: as old as the backup, newer, older.
    same = msgspec.structs.replace(
        manifest, topic_id=log.topic_id(), offsets={0: Offset(600, first.offsets[0].metadata)}
    )
    for offset, reason in ((600, "are the backup's"), (601, "are newer than the backup's, and stay")):
        _commit(path, offset, first.offsets[0].metadata)
        found = plan(same, contents, log, is_replacing=False, has_candles=True)
        assert (found.offsets, list(found.snapshots)) == ({}, [0])
        assert reason in found.reason
    back = plan(same, contents, log, is_replacing=True, has_candles=True)
    assert (back.offsets[0].offset, "goes back by 1 ticks" in back.reason) == (600, True)
    _commit(path, 599, first.offsets[0].metadata)
    with pytest.raises(CheckError, match="has committed other offsets here; --replace"):
        plan(same, contents, log, is_replacing=False, has_candles=True)
    # On a mirror even newer ones are not known to be of these ticks.
    _commit(path, 601, "another program's")
    with pytest.raises(CheckError, match="has committed other offsets here; --replace"):
        plan(manifest, contents, log, is_replacing=False, has_candles=True)


def test_a_commit_of_an_earlier_topic_is_not_made_one_of_this(source: Host, backup: Path, tmp_path: Path) -> None:
    manifest, contents = read_backup(backup, log_into=None)
    stale = msgspec.structs.replace(manifest, topic_id="the one after it")
    found = plan(stale, contents, _mirror(tmp_path / "log", source), is_replacing=False, has_candles=True)
    assert found.offsets[0].metadata == manifest.offsets[0].metadata


# ---- the file


def test_any_damage_is_found(backup: Path, tmp_path: Path) -> None:
    whole, damaged = backup.read_bytes(), tmp_path / "damaged"
    intact = read_backup(backup, log_into=None)
    # All over it, and each place where the last block and the frame's own checksum lie.
    places = [*range(0, len(whole), len(whole) // 60), *range(len(whole) - 40, len(whole))]
    unfelt, said = 0, set[str]()
    for at in places:
        damaged.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        try:
            # Some bits of a packed stream are the same to whoever unpacks it: then every byte of it is.
            assert read_backup(damaged, log_into=None) == intact
            unfelt += 1
        except CheckError as error:
            said.add(str(error).rpartition(": damaged, or no backup: ")[0])
        damaged.write_bytes(whole[:at])
        with pytest.raises(CheckError, match="damaged, or no backup"):
            read_backup(damaged, log_into=None)
    assert unfelt < len(places) // 10
    assert said == {f"backup {damaged}"}
    for more in (b"\0", whole):
        damaged.write_bytes(whole + more)
        with pytest.raises(CheckError, match="damaged, or no backup: more behind its end"):
            read_backup(damaged, log_into=None)


def test_a_damaged_one_changes_nothing(backup: Path, host: Host, tmp_path: Path) -> None:
    whole = backup.read_bytes()
    (tmp_path / "damaged").write_bytes(whole[: len(whole) // 2])
    assert "take another one" in host.refused(1, "state", "restore", tmp_path / "damaged")
    assert not host.log.exists()
    assert "No such file" in host.refused(3, "state", "restore", tmp_path / "absent")


def _retold(backup: Path, changed: Mapping[str, object]) -> bytes:
    """The backup with other words in its manifest, its checksum right."""
    raw = zstandard.ZstdDecompressor().decompressobj().decompress(backup.read_bytes())
    target = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar, tarfile.open(fileobj=target, mode="w") as new:
        for entry in tar:
            file = tar.extractfile(entry)
            assert file is not None
            data = file.read()
            if entry.name == MANIFEST:
                data = told = msgspec.json.encode(msgspec.json.decode(data) | changed)
            elif entry.name == MANIFEST_SUM:
                data = hashlib.sha256(told).hexdigest().encode()
            entry.size = len(data)
            new.addfile(entry, io.BytesIO(data))
    return zstandard.ZstdCompressor().compress(target.getvalue())


def test_a_newer_programs_is_refused(backup: Path, host: Host, tmp_path: Path) -> None:
    newer = tmp_path / "newer"
    newer.write_bytes(_retold(backup, {"format": FORMAT + 1, "offsets": "in words of the future"}))
    said = host.refused(2, "state", "restore", newer)
    assert f"of format {FORMAT + 1}, this program reads up to {FORMAT}" in said
    newer.write_bytes(_retold(backup, {"format": FORMAT}))
    assert read_backup(newer, log_into=None)[0].format == FORMAT


def test_what_is_no_backup_keeps_its_name(source: Host, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    assert "no backup; name another file" in source.refused(2, "state", "backup", tmp_path / "notes")
    assert (tmp_path / "notes").read_text() == "mine"
    (tmp_path / "ours").write_bytes(b"\x28\xb5\x2f\xfd")
    run_well(source.variables, "state", "backup", str(tmp_path / "ours"))
    read_backup(tmp_path / "ours", log_into=None)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Give a host whose log takes a second or so to be put into a file: what is in it does not compress."""
    host = Host(tmp_path_factory.mktemp("large"))
    run_well(host.variables, "topics", "ensure")
    with closing(sqlite3.connect(host.log)) as store, store:
        rows = [("t-late", 0, offset, 0, None, os.urandom(1_000_000)) for offset in range(60)]
        store.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, NULL)", rows)
    yield host
    host.log.unlink()


def test_a_killed_one_leaves_no_half_file(large: Host, tmp_path: Path) -> None:
    file, part = tmp_path / "a.backup", tmp_path / "a.backup.part"
    with subprocess.Popen([PROGRAM, "state", "backup", file], env=large.variables) as process:
        await_that(lambda: part.exists() and part.stat().st_size > 0, "a half file", probe_ms=1)
        process.send_signal(signal.SIGSTOP)
        # Another one of that name does not disturb it.
        assert "another process is writing it" in large.refused(4, "state", "backup", file)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not file.exists()
    assert {"a.backup.log.part", "a.backup.part"} <= {path.name for path in tmp_path.iterdir()}
    run_well(large.variables, "state", "backup", str(file))
    assert list(tmp_path.iterdir()) == [file]
    assert isinstance(read_backup(file, log_into=None)[0], Manifest)


def test_a_disk_that_does_not_take_it(source: Host, large: Host, backup: Path, host: Host) -> None:
    folder = host.folder / "disk"
    with mounted(folder) as disk:
        # Where the log's copy finds no room, where the file itself finds none, and where a restore finds none.
        said = large.refused(3, "state", "backup", folder / "a.backup", inside=disk.inside)
        assert "a.backup.log.part: database or disk is full; free some space there" in said
        assert list(disk.path.iterdir()) == []
        with disk.read_only():
            said = source.refused(3, "state", "backup", folder / "a.backup", inside=disk.inside)
            assert "Read-only file system" in said
        with disk.full():
            said = source.refused(3, "state", "backup", folder / "a.backup", inside=disk.inside)
            assert "free some space there" in said
            data = {"STREAMINGCANDLE_DATA_DIR": str(folder)}
            said = host.refused(3, "state", "restore", backup, inside=disk.inside, **data)
            assert "No space left on device" in said
    said = source.refused(3, "state", "backup", host.folder / "absent" / "a.backup")
    assert "No such file or directory; as the service's user, name a file in a folder you may write" in said


def test_settings_error_is_no_damage() -> None:
    with pytest.raises(SettingsError):
        Manifest.decode(b'{"format": 99}', "x")
