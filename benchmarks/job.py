"""The whole job on a backlog, beside a plain read of the same topic."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import perf_counter, process_time

import msgspec
from confluent_kafka import Consumer, TopicPartition

from benchmarks.feed import fill
from benchmarks.figure import Figure
from broker import Broker
from program import PROGRAM, environment, run_well

PARTITIONS = 6
RUN_TIMEOUT_S = 600
SERVER_JVM = ("-XX:TieredStopAtLevel=4",)
"""The tests' broker starts fast; here it must run fast."""


class _Run(msgspec.Struct, frozen=True):
    wall_s: float
    cpu_s: float
    memory_mb: float


def bench(ticks: int, runs: int) -> Iterator[Figure]:
    """1,000 instruments, alone and with two workers, then 10,000 and 50,000."""
    with tempfile.TemporaryDirectory() as folder, Broker(Path(folder, "broker"), jvm_flags=SERVER_JVM) as broker:
        for instruments in (1_000, 10_000, 50_000):
            prefix = f"bench-{instruments}"
            variables = environment(prefix, Path(folder), broker.bootstrap)
            run_well(variables, "topics", "ensure", "--partitions", str(PARTITIONS))
            fill(broker.bootstrap, f"{prefix}-ticks", ticks, instruments)
            name = f"{ticks / 1e6:g} M ticks, {instruments:,} instruments"
            if instruments == 1_000:
                plain = [_plain_read(broker.bootstrap, f"{prefix}-ticks") for _ in range(runs)]
                yield Figure(f"plain consume() and value(), {name}", [ticks / 1e6 / r.wall_s for r in plain], "M/s")
                yield Figure("its CPU", [r.cpu_s / ticks * 1e6 for r in plain], "s a million")
                _job(variables, f"{prefix}-first")  # a server that has just started runs its code for the first time
            alone = [_job(variables, f"{prefix}-{number}") for number in range(runs)]
            yield from _figures(f"whole job, {name}", alone, ticks, "0.4")
            if instruments == 1_000:
                two = [_job(variables, f"{prefix}-workers-{number}", "--workers", "2") for number in range(runs)]
                yield from _figures(f"whole job, --workers 2, {name}", two, ticks, "")


def _figures(name: str, runs: list[_Run], ticks: int, wanted: str) -> Iterator[Figure]:
    yield Figure(name, [ticks / 1e6 / run.wall_s for run in runs], "M ticks/s", wanted)
    yield Figure("its CPU", [run.cpu_s / ticks * 1e6 for run in runs], "s a million", wanted and "3")
    yield Figure("its memory at most", [run.memory_mb for run in runs], "MB")


def _job(variables: Mapping[str, str], name: str, *arguments: str) -> _Run:
    """`run` as a user types it, from start to end, under names of its own."""
    own = {
        **variables,
        "STREAMINGCANDLE_APPLICATION_ID": name,
        "STREAMINGCANDLE_CANDLE_TOPIC": f"{name}-{{n}}-min-candle",
    }
    run_well(own, "topics", "ensure", "--partitions", str(PARTITIONS))
    return _timed([PROGRAM, "run", "--until-end", "--flush", *arguments], own)


def _timed(command: list[str], variables: Mapping[str, str]) -> _Run:
    """CPU and memory as the kernel accounts them to the process and the children it waited for."""
    began = perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, env=dict(variables), stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            output.seek(0)
            raise RuntimeError(f"{command}: exit code {process.returncode}: {output.read()[-2_000:].decode()}")
    return _Run(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1_000)


def _plain_read(bootstrap: str, topic: str) -> _Run:
    command = [sys.executable, "-m", "benchmarks.job", bootstrap, topic]
    done = subprocess.run(command, capture_output=True, check=True, timeout=RUN_TIMEOUT_S)
    return msgspec.json.decode(done.stdout, type=_Run)


def _read(bootstrap: str, topic: str) -> None:
    """What reading alone costs, with the service's own way to fetch."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "plain",
            "isolation.level": "read_committed",
            "fetch.queue.backoff.ms": 10,
        }
    )
    places = [TopicPartition(topic, number, 0) for number in range(PARTITIONS)]
    left = sum(consumer.get_watermark_offsets(place)[1] for place in places)
    began, began_cpu = perf_counter(), process_time()
    consumer.assign(places)
    while left > 0:
        left -= len([message.value() for message in consumer.consume(10_000, 1)])
    run = _Run(perf_counter() - began, process_time() - began_cpu, 0)
    consumer.close()
    sys.stdout.write(json.dumps(msgspec.to_builtins(run)))


if __name__ == "__main__":
    _read(*sys.argv[1:])
