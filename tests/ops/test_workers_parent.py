"""The parent of workers: who is started again, when, and when it gives up. The workers are processes of a few lines."""

import itertools
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from program import environment, run
from streamingcandle.ops.systemd import Supervisor
from streamingcandle.ops.workers import Workers
from systemd import NotifySocket

SPEED = 20
"""A pause of 30 s is half a second by this clock."""
WORKER = """
import os, signal, socket, sys, time
folder, script, _, number, descriptor = sys.argv[1:]
script, link = script.split(), socket.socket(fileno=int(descriptor))
life = 0
while True:  # two may begin at once
    try:
        os.mkdir(f"{folder}-{life}")
        break
    except FileExistsError:
        life += 1
open(f"{folder}/{life}-{number}", "w").close()
for word in script[min(life, len(script) - 1)].split("+"):
    if word == "ready":
        link.send(b'{"is_ready":true}')
    elif word == "still" and number == "1":
        time.sleep(2)
    elif word in ("turn", "still"):
        for _ in range(20):
            link.send(b'{"is_ready":true,"partitions":2,"delay_ms":700,"lag":3}')
            time.sleep(0.05)
    elif word == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif word == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif word == "stay":
        link.recv(1)
    else:
        sys.exit(int(word))
"""


class FastClock:
    """Implements `interfaces.Clock`."""

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() * SPEED // 1_000_000

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def sleep_ms(self, duration_ms: int) -> None:
        time.sleep(duration_ms / SPEED / 1_000)


def workers(
    folder: Path, script: str, *, count: int = 1, is_until_end: bool = False, variables: dict[str, str] | None = None
) -> Workers:
    """Life by life: what the worker does then, the last one repeated."""
    (folder / "lives").mkdir()
    (folder / "worker.py").write_text(WORKER)
    command = [sys.executable, str(folder / "worker.py"), str(folder / "lives"), script]
    supervisor = Supervisor({} if variables is None else variables)
    return Workers(command, count, clock=FastClock(), is_until_end=is_until_end, supervisor=supervisor)


def lives(folder: Path) -> int:
    return len(list((folder / "lives").iterdir()))


def until(is_true: Callable[[], bool]) -> Callable[[], bool]:
    """A stop as soon as this holds; and not never."""
    looks = itertools.count()

    def is_stopping() -> bool:
        assert next(looks) < 300
        return is_true()

    return is_stopping


def never() -> bool:
    return False


def test_the_dead_are_started_again_after_longer_and_longer_pauses(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert (
        workers(tmp_path, "ready+kill ready+1 0 3 3 4 kill 1 ready+stay").run(until(lambda: lives(tmp_path) == 9)) == 0
    )
    pauses = [record.getMessage().rpartition("again in ")[2] for record in caplog.records if "again" in record.message]
    assert pauses == ["0.5 s", "1.0 s", "2.0 s", "4.0 s", "8.0 s", "16.0 s", "30.0 s", "30.0 s"]
    assert "worker 1 ended with SIGKILL" in caplog.text


def test_a_minute_of_life_makes_a_worker_new(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pause_s = 60 / SPEED + 0.2
    script = WORKER.replace(
        'elif word == "stay"', f'elif word == "long":\n        time.sleep({pause_s})\n    elif word == "stay"'
    )
    family = workers(tmp_path, "kill kill long+4 4 long+4 4 stay")
    (tmp_path / "worker.py").write_text(script)
    assert family.run(until(lambda: lives(tmp_path) == 7)) == 0
    pauses = [record.getMessage().rpartition("again in ")[2] for record in caplog.records if "again" in record.message]
    assert pauses == ["0.5 s", "1.0 s", "0.5 s", "1.0 s", "0.5 s", "1.0 s"]


@pytest.mark.parametrize(
    ("script", "code", "number"),
    [
        ("2", 2, 1),
        ("ready+2", 2, 1),
        ("3", 3, 1),
        ("kill 3", 3, 2),
        ("ready+4", 4, 3),
        ("4 kill 4 4", 4, 4),
    ],
)
def test_what_no_restart_mends_ends_all(tmp_path: Path, script: str, code: int, number: int) -> None:
    assert workers(tmp_path, script).run(never) == code
    assert lives(tmp_path) == number


def test_the_others_are_stopped_with_the_one(tmp_path: Path) -> None:
    assert workers(tmp_path, "stay stay 2", count=3).run(never) == 2


def test_with_until_end_all_are_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert workers(tmp_path, "ready+0 ready+kill ready+0", count=2, is_until_end=True).run(never) == 0
    assert lives(tmp_path) == 3
    assert caplog.text.count("started again") == 1


def test_who_does_not_stop_is_killed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert workers(tmp_path, "deaf+ready+stay").run(until(lambda: "ready: 1 workers" in caplog.text)) == 3
    assert "has not stopped within 8 s: killed" in caplog.text


def test_who_is_stopped_before_it_can_listen_was_stopped_well(tmp_path: Path) -> None:
    assert workers(tmp_path, "stay", count=3).run(until(lambda: lives(tmp_path) == 3)) == 0


def test_systemd_hears_of_all_workers_and_no_watchdog_while_one_stands_still(tmp_path: Path) -> None:
    with NotifySocket(str(tmp_path / "notify")) as told:
        family = workers(tmp_path, "turn+still+turn+turn+turn+stay", count=2, variables=told.variables())
        seen: list[str] = []

        def is_over() -> bool:
            seen.extend(told.words(wait_s=0))
            return "STATUS=the loop of worker 1 stands still" in seen and seen[-2:] == ["WATCHDOG=1"] * 2

        assert family.run(until(is_over)) == 0
        seen += told.words(wait_s=0)
    assert seen.count("READY=1") == 1
    assert "STATUS=4 partitions, feed clock 0.7 s behind, 6 records behind" in seen
    # Nothing but the complaint, once, between the last turn before and the first turn after.
    complaint = seen.index("STATUS=the loop of worker 1 stands still")
    assert seen[complaint + 1].startswith("STATUS=")
    assert seen[-3:] == ["STOPPING=1", "STATUS=stopping", "WATCHDOG=1"]


def test_the_embedded_log_has_one_process(tmp_path: Path) -> None:
    done = run(environment("t", tmp_path, None), "run", "--workers", "2")
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert b"one process owns the embedded log" in done.stderr
    assert run(environment("t", tmp_path, None), "run", "--workers", "2", "--instance", "1").returncode == 2


def test_a_worker_stops_when_its_parent_died_without_hearing_it() -> None:
    ours, theirs = socket.socketpair()
    script = (
        "import sys, time; from streamingcandle.ops.workers import Parent; "
        "from streamingcandle.ops.turn import Progress; "
        "parent = Parent(int(sys.argv[1])); parent.tell(Progress(is_ready=True)); print(flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", script, str(theirs.fileno())]
    with subprocess.Popen(command, pass_fds=[theirs.fileno()], stdout=subprocess.PIPE) as worker, theirs:
        assert worker.stdout is not None
        worker.stdout.readline()
        theirs.close()
        ours.close()
        assert worker.wait(10) == -signal.SIGTERM
