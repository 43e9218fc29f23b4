"""What systemd is told, over a real socket, by `run` as it is: ready, status, watchdog, stopping, and silence."""

import logging
import os
import re
import shutil
import signal
import socket
import subprocess
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from program import PROGRAM, environment, run_well
from streamingcandle import pipeline
from streamingcandle.clock import SystemClock
from streamingcandle.embedded.log import EmbeddedLog
from streamingcandle.embedded.store import EmbeddedStore
from streamingcandle.ops.status import Status
from streamingcandle.ops.systemd import Supervisor
from streamingcandle.ops.turn import Progress, Turn, TurnFile, progress_of, span, together
from streamingcandle.settings import load_settings
from streamingcandle.simulation.clock import ProcessClock, VirtualTime
from systemd import WATCHDOG_S, NotifySocket

TICKS = 30_000
"""Three polls."""


def age_s(path: Path) -> float:
    return SystemClock().wall_ms() / 1_000 - path.stat().st_mtime


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an embedded log, read to the end."""
    folder = tmp_path_factory.mktemp("filled")
    variables = environment("t", folder, None)
    run_well(variables, "simulate", "--ticks", str(TICKS), "--date", "2026-01-02", "--speed", "0")
    run_well(variables, "run", "--until-end")
    return folder


def test_a_service_from_ready_to_stopping_and_its_watchdog_only_while_it_turns(filled: Path) -> None:
    folder = filled / "state" / "t-app" / "instance-0"
    with ExitStack() as stack:
        told = stack.enter_context(NotifySocket(f"@streamingcandle-test-{os.getpid()}"))
        variables = environment("t", filled, None) | told.variables()
        # WATCHDOG_PID is that of the process itself, as systemd sets it.
        command = ["sh", "-c", 'WATCHDOG_PID=$$ exec "$0" run', PROGRAM]
        process = stack.enter_context(subprocess.Popen(command, env=variables, stderr=subprocess.PIPE))
        stack.callback(process.kill)
        before = told.await_word("READY=1")
        assert before[0].startswith("EXTEND_TIMEOUT_USEC=")
        ready = told.await_word("WATCHDOG=1")
        while not any(word.startswith("STATUS=1 partitions, feed clock ") for word in before + ready):
            ready += told.await_word("STATUS=")
        assert (before + ready).count("READY=1") == 1
        assert age_s(folder / "turn") < WATCHDOG_S

        # Frozen whole.
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        told.words(wait_s=0)
        assert told.words(wait_s=WATCHDOG_S) == []
        assert age_s(folder / "turn") > WATCHDOG_S - 1
        process.send_signal(signal.SIGCONT)
        told.await_word("WATCHDOG=1")

        # Alive, and the loop in a call of the disk that does not come back: opening a FIFO waits for its other end.
        os.mkfifo(folder / "fifo")
        (folder / "fifo").rename(folder / "owner")
        told.words(wait_s=1.5)
        assert told.words(wait_s=WATCHDOG_S) == []
        assert process.poll() is None
        (folder / "owner").open("wb").close()
        told.await_word("WATCHDOG=1")

        process.terminate()
        assert told.await_word("STOPPING=1")
        assert process.wait(5) == 0
        assert told.words(wait_s=0)[-1:] in ([], ["STATUS=stopping"], ["WATCHDOG=1"])
    assert not (folder / "turn").exists()


def test_a_start_that_waits_is_given_time_and_is_never_ready(tmp_path: Path) -> None:
    with socket.socket() as closed, NotifySocket(str(tmp_path / "notify")) as told:
        closed.bind(("127.0.0.1", 0))  # nobody listens there
        variables = environment("t", tmp_path, f"127.0.0.1:{closed.getsockname()[1]}") | told.variables()
        variables |= {"STREAMINGCANDLE_WAIT": "3s"}
        done = subprocess.run([PROGRAM, "run"], env=variables, capture_output=True, timeout=60, check=False)
        assert done.returncode == 3, done.stderr
        words = told.words(wait_s=0)
    assert words.count("EXTEND_TIMEOUT_USEC=60000000") >= 2
    assert "READY=1" not in words
    assert [word for word in words if word.startswith("STATUS=")] == ["STATUS=starting", "STATUS=stopping"]


def test_a_restore_tells_how_much_is_left_and_is_ready_after_it(filled: Path) -> None:
    shutil.copytree(filled / "data", filled / "other")
    settings = load_settings({}, environment("t", filled, None))
    clock = SystemClock()
    store = EmbeddedStore(filled / "other" / "log.sqlite3")
    seen: list[Progress] = []
    with closing(EmbeddedLog(store, group="t-app", topic="t-ticks", clock=clock)) as log:

        def turned(path: pipeline.Path) -> None:
            held, ends = path.partitions.values(), log.known_ends(path.partitions)
            seen.append(progress_of(held, ends, wall_ms=clock.wall_ms(), is_shared=bool(held)))

        def is_over() -> bool:
            return bool(seen) and seen[-1].is_ready

        pipeline.run(log, clock, settings.rules(), settings.path(), is_over, (), None, turned)
    assert [str(progress) for progress in seen[:2]] == ["starting"] * 2  # the first turn, and a partition taken over
    left = [progress.restoring for progress in seen[2:]]
    assert left == sorted(left, reverse=True)
    assert left[-1] == 0 < left[0] < TICKS
    assert str(seen[2]) == f"1 partitions, restoring, {left[0]} records to go"
    assert [progress.is_ready for progress in seen] == [False] * (len(seen) - 1) + [True]
    assert seen[-1].lag == 0
    assert seen[2].lag == left[0]


def test_a_line_of_status_each_minute(filled: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    shutil.copytree(filled / "data", filled / "minute")
    time = VirtualTime(0)
    clock = ProcessClock(time, booted_ms=0, wall_error_ms=0, sleep=lambda _ms: None)
    settings = load_settings({}, environment("t", filled, None))
    status = Status(clock)
    store = EmbeddedStore(filled / "minute" / "log.sqlite3")
    with closing(EmbeddedLog(store, group="anew", topic="t-ticks", clock=SystemClock())) as log:

        def turned(path: pipeline.Path) -> None:
            held, ends = path.partitions.values(), log.known_ends(path.partitions)
            time.now_ms += 30_000
            status.turned(path, progress_of(held, ends, wall_ms=clock.wall_ms(), is_shared=bool(held)))

        until_end = settings.path(is_until_end=True, is_publishing_again=True)
        pipeline.run(log, SystemClock(), settings.rules(), until_end, lambda: False, (), None, turned)
    said = [record.getMessage() for record in caplog.records if record.name == "streamingcandle.ops.status"]
    assert said
    line = r"1 partitions, feed clock .* behind, \d+ records behind; \d+ records a second and \d+ candles in 60 s; "
    assert re.fullmatch(line + r"[1-9]\d* instruments, [1-9]\d* MiB", said[-1]), said


def test_what_cannot_be_told_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    nobody = Supervisor({"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    nobody.tell(Progress(is_ready=True))
    nobody.tell(Progress(is_ready=True))
    assert [record.getMessage().count("nobody: No such file") for record in caplog.records] == [1]
    variables = {"NOTIFY_SOCKET": "vsock:2:1234", "WATCHDOG_USEC": "1", "PATH": "/bin"}
    Supervisor(variables).tell(Progress())
    assert "vsock:2:1234: neither a path nor an abstract name" in caplog.text
    assert variables == {"PATH": "/bin"}


def test_ready_is_told_again_until_it_is_heard_and_the_watchdog_of_another_is_left_alone(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    told = NotifySocket(address)
    ours = Supervisor({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": str(os.getppid())})
    ours.tell(Progress(is_ready=True, partitions=2, lag=0, delay_ms=900))
    with told:
        ours.tell(Progress(is_ready=True, partitions=2, lag=5, delay_ms=90_000))
        ours.tell(Progress(is_ready=True, partitions=2, lag=5, delay_ms=90_000))
        ours.stopping()
        ours.stopping()
        ours.tell(Progress())
        assert told.words(wait_s=0) == [
            "READY=1",
            "STATUS=2 partitions, feed clock 90.0 s behind, 5 records behind",
            "STOPPING=1",
            "STATUS=stopping",
        ]


class SteppedClock(SystemClock):
    """Implements `interfaces.Clock`; time passes by hand."""

    now_ms = 0

    def monotonic_ms(self) -> int:
        return self.now_ms


def test_watchers_are_told_once_a_second_and_at_once_of_readiness(tmp_path: Path) -> None:
    clock = SteppedClock()
    told: list[bool] = []

    class Listening:
        def tell(self, progress: Progress) -> None:
            told.append(progress.is_ready)

    turn = Turn(clock)
    turn.watch(Listening())
    for now_ms, is_ready in ((0, False), (500, False), (600, True), (700, True), (1_599, True), (1_600, True)):
        clock.now_ms = now_ms
        if turn.is_due:
            turn.turned(Progress(is_ready=is_ready))
    assert told == [False, True, True]
    turn.waited()
    assert len(told) == 3
    clock.now_ms = 2_600
    turn.waited()
    assert told[3:] == [True]
    file = TurnFile(tmp_path)
    file.tell(Progress())
    os.utime(tmp_path / "turn", (0, 0))
    file.tell(Progress())
    assert age_s(tmp_path / "turn") < 10
    TurnFile(tmp_path / "gone").tell(Progress())


def test_figures_for_a_person() -> None:
    assert [span(ms) for ms in (0, 950, 119_900, 120_000, 7_200_000, 172_800_000)] == [
        "0.0 s", "0.9 s", "119.9 s", "2 min", "2 h", "2 d",
    ]  # fmt: skip
    both = together([Progress(is_ready=True, partitions=1, delay_ms=5, lag=2), Progress(partitions=2, restoring=7)])
    assert both == Progress(is_ready=False, partitions=3, delay_ms=5, lag=None, restoring=7)
    assert str(Progress(is_ready=True, partitions=1)) == "1 partitions, no tick yet, lag not known yet"
