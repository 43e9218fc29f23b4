"""Who has which instance: among real processes, since the lock is the system's."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from claimer import APPLICATION_ID, Claimer
from streamingcandle import __version__
from streamingcandle.state.directory import INSTANCES_MAX, claim, fallback, is_owned
from streamingcandle.state.owner import read_owner

CROWD = 20
FLOCK = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/syscall.h>
/* A file server without a lock daemon: no lock below the folder NO_LOCKS. */
int flock(int file, int operation) {
    char link[64], path[4096] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    readlink(link, path, sizeof path - 1);
    const char *folder = getenv("NO_LOCKS");
    if (strncmp(path, folder, strlen(folder)) == 0) { errno = ENOLCK; return -1; }
    return syscall(SYS_flock, file, operation);
}
"""


@contextmanager
def claimers(base: Path, count: int, variables: dict[str, str] | None = None) -> Iterator[list[Claimer]]:
    started = [Claimer(base, variables=variables) for _ in range(count)]
    try:
        yield started
    finally:
        for claimer in started:
            claimer.kill()


def folder_of(base: Path, number: int) -> Path:
    return base / APPLICATION_ID / f"instance-{number}"


def test_processes_that_start_at_once_are_as_many_instances(tmp_path: Path) -> None:
    with claimers(tmp_path, CROWD) as crowd:
        told = [claimer.told() for claimer in crowd]
        assert sorted(each["number"] for each in told) == list(range(CROWD))
        assert len({each["identity"] for each in told}) == CROWD
        for claimer, each in zip(crowd, told, strict=True):
            owner = read_owner(Path(each["path"]))
            assert owner is not None
            assert (owner.pid, owner.host, owner.version) == (claimer.process.pid, socket.gethostname(), __version__)
            assert abs((datetime.now(UTC) - datetime.fromisoformat(owner.started)).total_seconds()) < 60


def test_a_killed_process_leaves_its_place_at_once(tmp_path: Path) -> None:
    with claimers(tmp_path, 3) as three:
        told = [claimer.told() for claimer in three]
        for _ in range(3):
            three[1].kill()
            assert not is_owned(Path(told[1]["path"]))
            three[1] = Claimer(tmp_path)
            assert three[1].told() == told[1]


def test_a_place_given_up_is_the_next_ones(tmp_path: Path) -> None:
    first = claim(tmp_path, "a", now_ms=0)
    assert first.path is not None
    first.release()
    assert read_owner(first.path) is None
    second = claim(tmp_path, "a", now_ms=0)
    assert (second.number, second.identity("a")) == (0, first.identity("a"))
    second.release()


def test_a_number_asked_for_is_refused_by_its_owners_name(tmp_path: Path) -> None:
    with claimers(tmp_path, 1) as (owner,):
        owner.told()
        refused = Claimer(tmp_path, number=0)
        told = refused.told()
        refused.end()
        assert told["exit"] == 4
        assert f"run by pid {owner.process.pid} on {socket.gethostname()} since 2" in told["error"]
        other = Claimer(tmp_path, number=5)
        assert other.told()["number"] == 5
        other.end()


def test_an_owner_is_never_seen_half_written(tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    script = f"while [ ! -e {stop} ]; do cat {folder_of(tmp_path, 0)}/owner 2>/dev/null; done; true"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True) as reader:
        for _ in range(100):
            claim(tmp_path, APPLICATION_ID, now_ms=0).release()
        stop.touch()
        assert reader.stdout is not None
        seen = reader.stdout.readlines()
    assert all(json.loads(line)["pid"] == os.getpid() for line in seen)


def test_a_lock_file_deleted_by_hand_frees_nothing(tmp_path: Path) -> None:
    with claimers(tmp_path, 1) as (owner,):
        owner.told()
        (folder_of(tmp_path, 0) / "lock").unlink()
        assert is_owned(folder_of(tmp_path, 0))
        other = Claimer(tmp_path)
        assert other.told()["number"] == 1
        other.end()
        assert "made again" in _hold(owner)["log"][0]
        refused = Claimer(tmp_path, number=0)
        assert refused.told()["exit"] == 4
        refused.end()


def test_a_folder_deleted_while_in_use_is_made_again(tmp_path: Path) -> None:
    with claimers(tmp_path, 1) as (owner,):
        owner.told()
        shutil.rmtree(tmp_path / APPLICATION_ID)
        assert "made again" in _hold(owner)["log"][0]
        assert is_owned(folder_of(tmp_path, 0))
        assert (read_owner(folder_of(tmp_path, 0)) or pytest.fail("no owner")).pid == owner.process.pid
        assert _hold(owner)["log"] == []


def test_who_lost_its_place_to_another_gives_way(tmp_path: Path) -> None:
    with claimers(tmp_path, 1) as (owner,):
        owner.told()
        shutil.rmtree(tmp_path / APPLICATION_ID)
        other = Claimer(tmp_path)
        assert other.told()["number"] == 0
        told = _hold(owner)
        assert told["exit"] == 4
        assert f"taken by pid {other.process.pid}" in told["error"]
        other.end()


def test_a_disk_that_goes_away_while_running_is_said_once(tmp_path: Path) -> None:
    with claimers(tmp_path, 1) as (owner,):
        owner.told()
        shutil.rmtree(tmp_path / APPLICATION_ID)
        (tmp_path / APPLICATION_ID).touch()
        assert ["going on without" in line for line in _hold(owner)["log"]] == [True]
        assert _hold(owner)["log"] == []
        (tmp_path / APPLICATION_ID).unlink()
        assert "made again" in _hold(owner)["log"][0]


def test_all_taken_is_exit_4(tmp_path: Path) -> None:
    held = [claim(tmp_path, APPLICATION_ID, now_ms=0, number=number) for number in range(INSTANCES_MAX)]
    with claimers(tmp_path, 1) as (refused,):
        told = refused.told()
        assert told["exit"] == 4
        assert "all of 64 instances are taken" in told["error"]
    for instance in held:
        instance.release()


def test_a_base_that_cannot_be_written_has_a_private_stand_in(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    base = tmp_path / "file" / "state"
    variables = _temp(tmp_path)
    with claimers(base, 2, variables) as two:
        told = [claimer.told() for claimer in two]
        assert sorted(each["number"] for each in told) == [0, 1]
        assert len({each["identity"] for each in told}) == 2
        private = tmp_path / "temp" / f"streamingcandle-{os.getuid()}"
        assert all(each["path"].startswith(f"{private}/") for each in told)
        assert private.stat().st_mode & 0o777 == 0o700
        assert "Not a directory" in told[0]["log"][0]
        assert "STREAMINGCANDLE_STATE_DIR" in told[0]["log"][0]
    with claimers(base, 1, variables) as (again,):
        assert again.told()["identity"] in {each["identity"] for each in told}


def test_a_base_that_cannot_be_locked_has_a_stand_in(tmp_path: Path) -> None:
    (tmp_path / "flock.c").write_text(FLOCK)
    library = str(tmp_path / "flock.so")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, str(tmp_path / "flock.c")], check=True)
    variables = _temp(tmp_path) | {"LD_PRELOAD": library, "NO_LOCKS": str(tmp_path / "state")}
    with claimers(tmp_path / "state", 2, variables) as two:
        told = [claimer.told() for claimer in two]
        assert sorted(each["number"] for each in told) == [0, 1]
        assert all(str(tmp_path / "temp") in each["path"] for each in told)
        assert "No locks available" in told[0]["log"][0]


def test_without_any_folder_there_is_still_one_identity_each(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    variables = _temp(tmp_path)
    Path(variables["TMPDIR"], f"streamingcandle-{os.getuid()}").symlink_to("/")
    with claimers(tmp_path / "file", CROWD, variables) as crowd:
        told = [claimer.told() for claimer in crowd]
        assert sorted(each["number"] for each in told) == list(range(CROWD))
        assert len({each["identity"] for each in told}) == CROWD
        assert {each["path"] for each in told} == {None}
        assert "running without one" in told[0]["log"][0]
        assert _hold(crowd[0])["log"] == []
        crowd[3].kill()
        crowd[3] = Claimer(tmp_path / "file", variables=variables)
        assert crowd[3].told() == told[3]


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o777])
def test_a_stand_in_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "file").touch()
    variables = _temp(tmp_path)
    private = Path(variables["TMPDIR"], f"streamingcandle-{os.getuid()}")
    private.mkdir()
    private.chmod(mode)
    with claimers(tmp_path / "file", 1, variables) as (claimer,):
        told = claimer.told()
    assert told["path"] is None
    assert "open to others: remove it" in told["log"][0]


def test_the_stand_in_is_the_same_for_another_spelling(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "state")
    assert fallback(tmp_path / "link") == fallback(tmp_path / "state")


def _temp(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "temp").mkdir()
    return {"TMPDIR": str(tmp_path / "temp")}


def _hold(claimer: Claimer) -> dict[str, Any]:
    assert claimer.process.stdin is not None
    claimer.process.stdin.write("hold\n")
    claimer.process.stdin.flush()
    return claimer.told()
