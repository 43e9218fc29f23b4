"""`run --workers N` on a real broker: shared partitions, a killed worker, signals, a killed parent."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from broker import Broker
from program import LABELS, PROGRAM, differences, environment, last_candles, reference_candles, run, run_well
from systemd import NotifySocket

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
PARTITIONS = 4
SIMULATE = ("simulate", "--instruments", "60", "--rate", "60", "--date", "2026-01-02", "--speed", "0", "--ticks")


class Family:
    """A parent, its workers, and what they say."""

    def __init__(self, variables: dict[str, str], *arguments: str) -> None:
        self.process = subprocess.Popen(
            [PROGRAM, "run", *arguments], env=variables, stderr=subprocess.PIPE, text=True, process_group=0
        )
        self.lines: list[str] = []

    def wait_for(self, pattern: str) -> str:
        """The next line that has it."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if re.search(pattern, line):
                return line
        raise AssertionError((pattern, self.lines[-20:]))

    def workers(self) -> list[int]:
        """Process ids."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def end(self) -> int:
        """Read to the end: every process that could write has ended then; the parent's exit code."""
        assert self.process.stderr is not None
        if not self.process.stderr.closed:
            with self.process.stderr as rest:
                self.lines += rest.readlines()
        return self.process.wait()


@contextmanager
def family(variables: dict[str, str], *arguments: str) -> Iterator[Family]:
    started = Family(variables, *arguments)
    try:
        yield started
    finally:
        started.process.kill()
        started.end()


def prepare(broker: Broker, prefix: str, folder: Path, count: int) -> dict[str, str]:
    variables = environment(prefix, folder, broker.bootstrap)
    run_well(variables, "topics", "ensure", "--partitions", str(PARTITIONS))
    run_well(variables, *SIMULATE, str(count))
    return variables


def surplus_over_the_reference(broker: Broker, prefix: str) -> int:
    """How many publications more than windows there are."""
    wanted = reference_candles(broker.bootstrap, f"{prefix}-ticks")
    topics = [f"{prefix}-{label.removesuffix('m')}-min-candle" for label in LABELS]
    found, count = last_candles(broker.bootstrap, topics)
    assert differences(found, wanted) == []
    return count - len(wanted)


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_two_workers_come_to_the_end(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    variables = prepare(broker, topic_prefix, tmp_path, 4_000)
    done = run(variables, "run", "--workers", "2", "--until-end", "--flush")
    assert done.returncode == 0, done.stderr
    assert surplus_over_the_reference(broker, topic_prefix) == 0
    (documented,) = re.findall(r"^streamingcandle (.*--workers.*)$", OPERATIONS.read_text(), re.MULTILINE)
    run_well(variables, *documented.split())
    # Nothing is left to flush, and nobody waits for a flush of the other's.
    assert run(variables, "run", "--workers", "2", "--until-end", "--flush").returncode == 0
    assert surplus_over_the_reference(broker, topic_prefix) == 0


def test_a_killed_worker_is_started_again(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    variables = prepare(broker, topic_prefix, tmp_path, 2_000)
    with (
        NotifySocket(str(tmp_path / "notify")) as systemd,
        family(variables | systemd.variables(0), "--workers", "2") as two,
    ):
        two.wait_for("ready: 2 workers")
        words = systemd.await_word("STATUS=4 partitions, feed clock ")
        assert words.count("READY=1") == 1
        while "0 records behind" not in words[-1]:
            words += systemd.await_word("STATUS=")
        logged = [json.loads(line) for line in two.lines]
        told = {entry.get("worker") for entry in logged}
        assert {None} < told <= {None, 1, 2}
        first, second = two.workers()
        for _ in range(2):
            os.kill(second, signal.SIGKILL)
            run_well(variables, *SIMULATE, "1000")
            two.wait_for(r"worker [12] ended with SIGKILL: started again in (0\.5|1\.0) s")
            two.wait_for("ready: 2 workers")
            assert first in two.workers()
            second = next(pid for pid in two.workers() if pid != first)
        two.process.terminate()
        assert two.end() == 0, two.lines[-20:]
    run_well(variables, "run", "--workers", "2", "--until-end", "--flush")
    surplus_over_the_reference(broker, topic_prefix)
    assert sorted(path.name for path in (tmp_path / "state" / f"{topic_prefix}-app").iterdir()) == [
        "instance-0",
        "instance-1",
    ]


def test_sigterm_to_all_of_them_ends_all_in_time(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    variables = prepare(broker, topic_prefix, tmp_path, 2_000)
    with family(variables, "--workers", "3") as three:
        three.wait_for("ready: 3 workers")
        pids = three.workers()
        assert len(pids) == 3
        # As a supervisor does that signals every process of a service.
        began_s = time.perf_counter()
        for pid in (*pids, three.process.pid):
            os.kill(pid, signal.SIGTERM)
        assert three.end() == 0, three.lines[-20:]
        assert time.perf_counter() - began_s < 5
        assert all(is_gone(pid) for pid in pids)
        assert not [line for line in three.lines if "killed" in line]


def test_workers_stop_when_their_parent_is_killed(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    variables = prepare(broker, topic_prefix, tmp_path, 2_000)
    with family(variables, "--workers", "2") as two:
        two.wait_for("ready: 2 workers")
        pids = two.workers()
        two.process.kill()
        began_s = time.perf_counter()
        two.end()
        assert time.perf_counter() - began_s < 5
        assert all(is_gone(pid) for pid in pids)
    # They stopped as if they had been asked to: nobody waits for their places.
    assert b"gone without a word" not in run_well(variables, "state", "ls")


def test_more_workers_than_partitions_are_ready_too(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    variables = environment(topic_prefix, tmp_path, broker.bootstrap)
    run_well(variables, "topics", "ensure", "--partitions", "1")
    with family(variables, "--workers", "2") as two:
        two.wait_for("ready: 2 workers")
        two.process.send_signal(signal.SIGINT)
        assert two.end() == 0, two.lines[-20:]


def test_a_missing_topic_is_exit_2_of_all(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    variables = environment(topic_prefix, tmp_path, broker.bootstrap) | {"STREAMINGCANDLE_WAIT": "1s"}
    done = run(variables, "run", "--workers", "2")
    assert done.returncode == 2, done.stderr
    assert b"ended with exit code 2: stopping all" in done.stderr
