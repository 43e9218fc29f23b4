"""`streamingcandle state`: what it shows, what it removes, and what it never touches."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from claimer import APPLICATION_ID, Claimer
from newer import newer_snapshot
from program import PROGRAM, environment, run, run_well
from streamingcandle.ops.state import InstanceState, StateFile, look, pulse, remains, remove
from streamingcandle.state.directory import TURN_NAME, take
from streamingcandle.state.snapshot import Snapshot

SIMULATE = ("simulate", "--ticks", "500", "--rate", "20", "--date", "2026-01-02", "--speed", "0")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Instance 0 of a service that ran to its end, with a snapshot."""
    variables = environment("t", tmp_path, None)
    run_well(variables, *SIMULATE)
    run_well(variables, "run", "--until-end")
    return tmp_path / "state" / "t-app" / "instance-0"


def state(tmp_path: Path, *arguments: str) -> bytes:
    return run_well(environment("t", tmp_path, None), "state", *arguments)


def shown(tmp_path: Path, *arguments: str) -> Any:
    return json.loads(state(tmp_path, *arguments, "--json"))


def copy(folder: Path, number: int, *, seconds: int) -> Path:
    """Another instance with the same snapshots, written later by so much."""
    other = folder.with_name(f"instance-{number}")
    shutil.copytree(folder, other)
    for path in other.glob("snapshot-*"):
        snapshot = Snapshot.decode(path.read_bytes())
        later = msgspec.structs.replace(snapshot, written_ms=snapshot.written_ms + seconds * 1_000)
        path.write_bytes(later.encode())
    return other


@contextmanager
def running(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The service on the embedded log, past its start."""
    with subprocess.Popen(
        [PROGRAM, "run"], env=environment("t", tmp_path, None), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        assert process.stderr is not None
        try:
            while b"taken over" not in process.stderr.readline():
                assert process.poll() is None
            yield process
        finally:
            process.kill()


def test_ls_tells_live_from_free_and_who_died(folder: Path, tmp_path: Path) -> None:
    (free,) = shown(tmp_path, "ls")["instances"]
    assert (free["number"], free["is_owned"], free["owner"], free["path"]) == (0, False, None, str(folder))
    assert [file["partition"] for file in free["files"] if file["partition"] is not None] == [0]
    assert b"t-app/0\tfree\t-\tsnapshots of partitions 0, " in state(tmp_path, "ls")
    with running(tmp_path) as process:
        (live,) = shown(tmp_path, "ls")["instances"]
        assert (live["is_owned"], live["owner"]["pid"]) == (True, process.pid)
        assert f"t-app/0\tlive\tpid {process.pid} on ".encode() in state(tmp_path, "ls")
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert b"\tfree\tpid " in state(tmp_path, "ls")
        assert b"gone without a word" in state(tmp_path, "ls")


def test_ls_shows_stand_ins_too(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    (tmp_path / "temp").mkdir()
    claimer = Claimer(tmp_path / "state", variables={"TMPDIR": str(tmp_path / "temp")})
    told = claimer.told()
    variables = environment("t", tmp_path, None) | {"TMPDIR": str(tmp_path / "temp")}
    (seen,) = json.loads(run_well(variables, "state", "ls", "--json"))["instances"]
    assert (seen["path"], seen["is_owned"], seen["application_id"]) == (told["path"], True, APPLICATION_ID)
    claimer.end()


def test_du_adds_up(folder: Path, tmp_path: Path) -> None:
    copy(folder, 1, seconds=0)
    sizes = shown(tmp_path, "du")
    wanted = sum(path.stat().st_size for path in folder.iterdir())
    assert sizes["instances"][0] == {"path": str(folder), "size_bytes": wanted}
    assert sizes["size_bytes"] == sum(each["size_bytes"] for each in sizes["instances"])
    assert state(tmp_path, "du").splitlines()[-1].endswith(b"\ttotal")


def test_without_a_state_directory_there_is_nothing_to_say(tmp_path: Path) -> None:
    assert shown(tmp_path, "ls") == {"instances": []}
    assert state(tmp_path, "du") == b"0 B\ttotal\n"
    assert state(tmp_path, "gc") == state(tmp_path, "verify") == b""


def test_verify_tells_good_from_damaged_foreign_and_newer(folder: Path, tmp_path: Path) -> None:
    variables = environment("t", tmp_path, None)
    (path,) = folder.glob("snapshot-*")
    (good,) = shown(tmp_path, "verify")["snapshots"]
    assert (good["verdict"], good["offset"]) == ("usable", 500)

    foreign = run(variables | {"STREAMINGCANDLE_TIMEFRAMES": "1m,7m"}, "state", "verify")
    assert foreign.returncode == 0
    assert b"other rules" in foreign.stdout

    data = path.read_bytes()
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    for bad, said in ((bytes(flipped), b"damaged"), (data[:40], b"damaged"), (b"", b"damaged")):
        path.write_bytes(bad)
        done = run(variables, "state", "verify")
        assert done.returncode == 1
        assert said in done.stdout
        assert done.stderr.count(b"\n") == 1
    path.write_bytes(newer_snapshot(data, 999))
    assert b"newer" in run(variables, "state", "verify").stdout
    path.unlink()
    (folder / "snapshot-7-0").write_bytes(data)
    assert b"of partition 0" in run(variables, "state", "verify").stdout


def test_gc_keeps_what_the_next_start_uses(folder: Path, tmp_path: Path) -> None:
    kept = sorted(folder.iterdir())
    assert state(tmp_path, "gc") == b""
    assert sorted(folder.iterdir()) == kept


def test_gc_removes_what_others_have_newer_and_what_a_crash_left(folder: Path, tmp_path: Path) -> None:
    newer, older = copy(folder, 1, seconds=5), copy(folder, 2, seconds=-5)
    for path in (newer / "snapshot-0-0.part", newer / "snapshot-3-0", older / "owner.part", older / "turn"):
        path.write_bytes(b"half")
    said = state(tmp_path, "gc", "--dry-run")
    assert folder.exists()
    assert older.exists()
    assert state(tmp_path, "gc") == said
    assert b"snapshot-3-0" in said
    assert not folder.exists()
    assert not older.exists()
    assert [Snapshot.decode(path.read_bytes()).partition for path in newer.glob("snapshot-*")] == [0]
    assert state(tmp_path, "gc") == b""
    run_well(environment("t", tmp_path, None), "run", "--until-end")


def test_gc_never_touches_what_is_owned_unknown_or_newer(folder: Path, tmp_path: Path) -> None:
    newer = copy(folder, 1, seconds=5)
    (newer / "notes").touch()
    (snapshot,) = newer.glob("snapshot-*")
    snapshot.write_bytes(newer_snapshot(snapshot.read_bytes(), 999))
    other = tmp_path / "state" / "other-app" / "instance-0"
    other.mkdir(parents=True)
    with running(tmp_path):
        (folder / "snapshot-5-0").write_bytes(b"half")
        (folder / "snapshot-5-0.part").write_bytes(b"half")
        assert state(tmp_path, "gc") == b""
        assert (folder / "snapshot-5-0.part").exists()
    assert other.exists()


def test_gc_of_what_is_taken_meanwhile_touches_nothing(folder: Path, tmp_path: Path) -> None:
    copy(folder, 1, seconds=5)
    found = remains(look(tmp_path / "state", "t-app"))
    assert [each.path for each in found] == [str(folder)]
    with running(tmp_path):
        assert not remove(found[0])
    assert list(folder.glob("snapshot-*"))
    # It has ended, and what it wrote is not what was judged.
    (snapshot,) = folder.glob("snapshot-*")
    snapshot.with_suffix(".part").write_bytes(snapshot.read_bytes())
    snapshot.with_suffix(".part").replace(snapshot)
    assert remove(found[0])
    assert snapshot.exists()


def test_processes_that_start_during_gc_get_a_place(tmp_path: Path) -> None:
    base = tmp_path / "state"
    for _ in range(8):
        claimers = [Claimer(base) for _ in range(2)]
        for found in remains(look(base, APPLICATION_ID)):
            remove(found)
        assert {claimer.told()["number"] for claimer in claimers} == {0, 1}
        for claimer in claimers:
            claimer.end()
    lock = take(base / APPLICATION_ID / "instance-0")
    assert lock is not None
    os.close(lock)


def alive(base: Path) -> tuple[int, Any, str]:
    """Exit code, the answer for programs, and the line on stderr."""
    variables = environment("t", base.parent, None) | {"STREAMINGCANDLE_APPLICATION_ID": APPLICATION_ID}
    done = run(variables, "state", "alive", "--json")
    return done.returncode, json.loads(done.stdout), done.stderr.decode()


def test_alive_is_a_lock_held_and_a_loop_that_turns(tmp_path: Path) -> None:
    base = tmp_path / "state"
    code, answer, said = alive(base)
    assert (code, answer) == (1, {"is_alive": False, "instances": []})
    assert said == f"streamingcandle: no instance of app in {base}; start `run` with these settings\n"

    claimers, turns = [], []
    for _ in range(2):
        claimers.append(Claimer(base))
        turns.append(Path(claimers[-1].told()["path"]) / TURN_NAME)
    code, answer, said = alive(base)
    assert (code, [each["turned_ms_ago"] for each in answer["instances"]]) == (1, [None, None])
    assert "app/0: its loop has not turned yet" in said

    turns[0].touch()
    code, answer, said = alive(base)
    assert (code, said) == (0, "")
    assert [each["is_alive"] for each in answer["instances"]] == [True, False]
    assert 0 <= answer["instances"][0]["turned_ms_ago"] < 30_000
    variables = environment("t", tmp_path, None) | {"STREAMINGCANDLE_APPLICATION_ID": APPLICATION_ID}
    assert run_well(variables, "state", "alive").startswith(b"app/0: its loop turned ")

    # A turn alone does not live: its process is killed, and another's loop stands still.
    claimers[0].kill()
    turns[1].touch()
    os.utime(turns[1], times=(turns[0].stat().st_mtime - 31,) * 2)
    code, answer, said = alive(base)
    assert (code, [each["is_owned"] for each in answer["instances"]]) == (1, [False, True])
    assert "app/1: its loop turned 3" in said
    assert "more than 30 s: it stands still, start it again\n" in said

    claimers[1].end()
    code, _, said = alive(base)
    assert (code, "no process has its lock" in said, said.count("\n")) == (1, True, 1)


def test_alive_is_another_application_s_business(tmp_path: Path) -> None:
    claimer = Claimer(tmp_path / "state")
    (Path(claimer.told()["path"]) / TURN_NAME).touch()
    done = run(environment("t", tmp_path, None), "state", "alive")
    assert (done.returncode, done.stdout) == (1, b"")
    claimer.end()


@pytest.mark.parametrize(
    ("ago_ms", "is_alive"), [(0, True), (29_999, True), (30_000, False), (-29_999, True), (-30_000, False)]
)
def test_a_turn_counts_for_thirty_seconds_also_when_the_clock_was_set_back(ago_ms: int, is_alive: bool) -> None:  # noqa: FBT001
    turn = StateFile(TURN_NAME, None, 0, 1_767_325_500_000, 1)
    state = InstanceState("app", 0, "/", is_owned=True, owner=None, files=(turn,))
    assert pulse(state, turn.written_ms + ago_ms).is_alive == is_alive
