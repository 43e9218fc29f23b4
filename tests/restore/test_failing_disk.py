"""The disk under the state directory fails while the service runs: it goes on, says so once, and recovers by itself."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from program import PROGRAM, environment, run_well
from streamingcandle.clock import SystemClock
from streamingcandle.embedded.store import EmbeddedStore
from streamingcandle.simulation.market import Market
from streamingcandle.state.files import PART_SUFFIX, SLOTS, snapshot_path

LIMIT_MS = 20_000
STEP_MS = 20
clock = SystemClock()


class Service:
    """A service on the embedded log with a feed: each look at it sends a tick."""

    def __init__(self, folder: Path) -> None:
        """Not started yet."""
        self.variables = environment("t", folder, None) | {
            "STREAMINGCANDLE_OUTSIDE_SESSION": "keep",
            "STREAMINGCANDLE_COMMIT_INTERVAL": "50ms",
            "STREAMINGCANDLE_SNAPSHOT_INTERVAL": "100ms",
        }
        self.state = folder / "state" / "t-app" / "instance-0"
        self._data = folder / "data" / "log.sqlite3"
        self._log = folder / "service.log"
        self._market = Market(3, seed=1)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start it; it must end well."""
        run_well(self.variables, "topics", "ensure", "--partitions", "1")
        with (
            self._log.open("wb") as output,
            subprocess.Popen([PROGRAM, "run"], env=self.variables, stderr=output) as run,
        ):
            try:
                yield
            finally:
                run.terminate()
            assert run.wait(LIMIT_MS / 1_000) == 0, self.text

    @property
    def text(self) -> str:
        """What it has said."""
        return self._log.read_text()

    def await_that(self, is_so: Callable[[], bool]) -> None:
        """Until it is so, with ticks going in."""
        until_ms = clock.monotonic_ms() + LIMIT_MS
        with closing(EmbeddedStore(self._data)) as store:
            while not is_so():
                assert clock.monotonic_ms() < until_ms, self.text
                tick = self._market.tick(clock.wall_ms())
                store.append("t-ticks", [(tick.key, tick.value, tick.at_ms, ())])
                clock.sleep_ms(STEP_MS)

    def has_snapshot(self) -> bool:
        """Whether one lies there."""
        return any(snapshot_path(self.state, 0, slot).is_file() for slot in range(SLOTS))


def test_disk_full(tmp_path: Path) -> None:
    service = Service(tmp_path)
    with service.running():
        service.await_that(service.has_snapshot)
        for slot in range(SLOTS):
            path = snapshot_path(service.state, 0, slot)
            part = path.with_name(path.name + PART_SUFFIX)
            service.await_that(lambda part=part: _is_on_a_full_disk(part))  # type: ignore[misc]
        service.await_that(lambda: "snapshots in the state directory are written again" in service.text)
    said = service.text
    assert said.count("snapshots in the state directory fail, the run goes on without") >= 1
    assert "No space left on device" in said
    assert b"usable" in run_well(service.variables, "state", "verify")


def _is_on_a_full_disk(part: Path) -> bool:
    with suppress(FileExistsError):
        part.symlink_to("/dev/full")
        return True
    return False


def test_state_directory_deleted_under_the_service(tmp_path: Path) -> None:
    service = Service(tmp_path)
    with service.running():
        service.await_that(service.has_snapshot)
        shutil.rmtree(service.state)
        service.await_that(service.has_snapshot)
    run_well(service.variables, "run", "--until-end")
