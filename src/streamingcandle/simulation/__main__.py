"""`python -m streamingcandle.simulation`: play stories; of one that fails, print the shortest failing prefix."""

import argparse
import sys

from streamingcandle.simulation.search import report, simulate

REPORTS_MAX = 3


def main() -> None:
    """Exit code 1 when a story failed."""
    parser = argparse.ArgumentParser(prog="python -m streamingcandle.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000, help="how many")
    parser.add_argument("--start", type=int, default=0, help="the first")
    options = parser.parse_args()
    failed = simulate(options.start, options.seeds)
    for seed in failed[:REPORTS_MAX]:
        print(report(seed))
    if failed:
        sys.exit(f"{len(failed)} of {options.seeds} stories fail: {failed}")


if __name__ == "__main__":
    main()
