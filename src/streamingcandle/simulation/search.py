"""Stories by the thousand, and of one that fails the shortest failing prefix."""

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.context import SpawnContext

from streamingcandle.clock import SystemClock
from streamingcandle.simulation.check import Finding, check
from streamingcandle.simulation.events import Story, Tick
from streamingcandle.simulation.run import play
from streamingcandle.simulation.story import prefix, tell

PROGRESS_MS = 5_000
FINDINGS_MAX = 10
"""Of a failing story; the first ones say the most."""
TICKS_SHOWN = 5
CHUNK = 10


def findings(seed: int) -> list[Finding]:
    """Play a seed's story; what is wrong in the end."""
    return check(play(tell(seed)))


def shortest(story: Story, is_failing: Callable[[Story], bool]) -> Story:
    """The shortest prefix that still fails, as far as halving finds it; the story itself fails."""
    low, high = 0, len(story.events)
    while low < high:
        middle = (low + high) // 2
        if is_failing(prefix(story, middle)):
            high = middle
        else:
            low = middle + 1
    return prefix(story, high)


def report(seed: int) -> str:
    """A failing seed, to be read: the events up to where it fails, and what is wrong then."""
    story = shortest(tell(seed), lambda shorter: bool(check(play(shorter))))
    ticks = [event for event in story.events if isinstance(event, Tick)]
    shown = [event for event in story.events if not isinstance(event, Tick) or event in ticks[-TICKS_SHOWN:]]
    lines = [f"seed {seed}: {len(story.events)} events, {len(ticks)} of them ticks; {story.timeframes}"]
    lines += [f"  {event.at_ms - story.start_ms:>9} ms  {event}" for event in shown]
    lines += [f"  {finding}" for finding in check(play(story))[:FINDINGS_MAX]]
    return "\n".join(lines)


def _failing(seed: int) -> tuple[int, bool]:
    return seed, bool(findings(seed))


def pin(queue: "multiprocessing.Queue[int]") -> None:
    """Give a worker a core of its own: threads that hand each other a baton do it ten times faster on one."""
    os.sched_setaffinity(0, {queue.get()})


def cores(context: SpawnContext) -> "multiprocessing.Queue[int]":
    """One entry a core that we may use."""
    queue: multiprocessing.Queue[int] = context.Queue()
    for core in sorted(os.sched_getaffinity(0)):
        queue.put(core)
    return queue


def simulate(start: int, count: int) -> list[int]:
    """Play that many seeds on all cores, with a line of progress now and then; the seeds that failed."""
    context = multiprocessing.get_context("spawn")
    clock = SystemClock()
    begun_ms = said_ms = clock.monotonic_ms()
    failed = []
    with context.Pool(len(os.sched_getaffinity(0)), pin, (cores(context),)) as pool:
        seeds = pool.imap_unordered(_failing, range(start, start + count), CHUNK)
        for done, (seed, is_failing) in enumerate(seeds, start=1):
            if is_failing:
                failed.append(seed)
                print(f"seed {seed} fails", flush=True)
            now_ms = clock.monotonic_ms()
            if done == count or now_ms > said_ms + PROGRESS_MS:
                said_ms = now_ms
                print(f"{done} of {count} seeds, {done * 1_000 // (now_ms - begun_ms + 1)} a second", flush=True)
    return sorted(failed)
