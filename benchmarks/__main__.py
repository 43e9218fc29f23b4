"""`make bench`, or `python -m benchmarks kernel job`: the table, as Markdown."""

import argparse
import os
import platform
import sys
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
    parser.add_argument("--runs", type=int, default=3, help="of each (default: %(default)s)")
    options = parser.parse_args()
    say(machine())
    say(f"\n{HEAD}")
    for name in options.names or BENCHES:
        for figure in BENCHES[name](options.ticks, options.runs):
            say(figure.row())


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
        f"broker and reader on the same machine; load at the start {load}"
    )


def say(line: str) -> None:
    """To stdout, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
