"""`make bench`, or `python -m benchmarks kernel job`: the table, as Markdown."""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import confluent_kafka

from benchmarks import job, kernel, live
from benchmarks.figure import HEAD
from streamingcandle import __version__

BENCHES = {"kernel": kernel.bench, "job": job.bench, "close": live.bench_close, "restore": live.bench_restore}


def main() -> None:
    """Print rows as they come."""
    parser = argparse.ArgumentParser(description="Medians of several runs each; the machine should do nothing else.")
    parser.add_argument("names", nargs="*", choices=[[], *BENCHES], help="which ones; all by default")
    parser.add_argument("--ticks", type=int, default=2_000_000, help="ticks in the backlog (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=5, help="of each (default: %(default)s)")
    parser.add_argument("--part", dest="is_part", action="store_true", help="rows alone, without machine and head")
    options = parser.parse_args()
    names = options.names or list(BENCHES)
    if not options.is_part:
        say(f"{machine()}\n\n{HEAD}")
    for name in names:
        if len(names) == 1:
            for figure in BENCHES[name](options.ticks, options.runs):
                say(figure.row())
        else:
            # In a process of its own: Linux counts the memory of who starts a program as that program's.
            counts = ["--ticks", str(options.ticks), "--runs", str(options.runs)]
            subprocess.run([sys.executable, "-m", "benchmarks", "--part", *counts, name], check=True)


def machine() -> str:
    """What the figures depend on."""
    processor = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    load = " ".join(f"{one:.1f}" for one in os.getloadavg())
    return (
        f"streamingcandle {__version__}, Python {platform.python_version()}, "
        f"librdkafka {confluent_kafka.libversion()[0]}; {os.cpu_count()} x {processor}; "
        f"broker and reader on the same machine, the broker's log on {file_system(tempfile.gettempdir())}; "
        f"load at the start {load}"
    )


def file_system(folder: str) -> str:
    """What kind of it `folder` lies on."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    return max((mount for mount in mounts if Path(folder).is_relative_to(mount[0])), key=lambda mount: len(mount[0]))[1]


def say(line: str) -> None:
    """To stdout, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
