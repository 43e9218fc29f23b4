"""`make drill`: each disaster of docs/disaster-recovery.md on a real broker, its steps, and the comparison at the end.

A drill strikes, does what the page tells to type, and ends when candles come again; then what a reader of the candle
topics holds is compared with the reference over the ticks. Prints a line each, and exits 1 when one fails.
"""

import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from broker import Broker
from disturbance import QUICK, Deployment, Service, market, reference
from mirror import mirror_candles, mirror_ticks, once_idle
from newer import newer_snapshot
from program import LABELS, Key, differences, last_candles, read_topic, run, run_well, values
from streamingcandle.candles.candle import Candle, decode_candle
from streamingcandle.clock import SystemClock
from streamingcandle.state.snapshot import VERSION

TICKS = market(12_000, instruments=40)
HALF, MOST = 6_000, 9_500
SETTINGS = QUICK | {"STREAMINGCANDLE_SNAPSHOT_INTERVAL": "500ms"}
SNAPSHOTS = "-app-snapshots"

clock = SystemClock()


class Drill:
    """One disaster: a deployment that has run for a while, what is done about it, and how long that takes."""

    def __init__(self, folder: Path, first: Broker, second: Broker, name: str) -> None:
        """`second`: another cluster, which knows nothing."""
        self.name = name
        self.folder = folder
        self.first = first
        self.second = second
        self.backup = folder / "a.backup"
        self._struck_ms = 0
        self.took_s = 0.0

    def deployment(self, broker: Broker, folder: str = "here") -> Deployment:
        """Its topics on that broker, its host's folders."""
        (self.folder / folder).mkdir()
        return Deployment(broker, self.name, self.folder / folder, settings=SETTINGS)

    def running(self, deployment: Deployment, *, settings: Mapping[str, str] | None = None) -> Service:
        """The service, which has made candles of half of the ticks; then a backup, then more."""
        service = deployment.start(settings=settings)
        deployment.feed(TICKS[:HALF])
        deployment.await_committed()
        run_well(deployment.variables | dict(settings or {}), "state", "backup", str(self.backup))
        deployment.feed(TICKS[HALF:MOST])
        deployment.await_committed()
        return service

    def strike(self) -> None:
        """From here on it is timed."""
        self._struck_ms = clock.monotonic_ms()

    def over(self) -> None:
        """Candles come again."""
        self.took_s = (clock.monotonic_ms() - self._struck_ms) / 1_000

    def goes_on(self, deployment: Deployment, *, settings: Mapping[str, str] | None = None) -> Service:
        """Start the service; the disaster is over when it has made candles of what came since."""
        deployment.feed(TICKS[MOST:])
        service = deployment.start(settings=settings)
        deployment.await_committed()
        self.over()
        return service

    def restored(self, deployment: Deployment, *arguments: str) -> str:
        """What `state restore` tells."""
        done = once_idle(deployment.variables, "state", "restore", str(self.backup), *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode()


def lost_host(drill: Drill) -> str:
    """The machine is gone, and all that it had; the backup lay elsewhere."""
    with drill.deployment(drill.first) as deployment:
        service = drill.running(deployment)
        drill.strike()
        service.kill()
        shutil.rmtree(drill.folder / "here" / "state")
        deployment.variables["STREAMINGCANDLE_STATE_DIR"] = str(drill.folder / "new")
        told = drill.restored(deployment)
        assert "newer than the backup's, and stay" in told
        drill.goes_on(deployment)
        deployment.stop_all()
        deployment.check()
    return "nothing"


def lost_state(drill: Drill) -> str:
    """The state directory and the snapshots topic are gone at once."""
    with drill.deployment(drill.first) as deployment:
        service = drill.running(deployment)
        drill.strike()
        service.kill()
        shutil.rmtree(drill.folder / "here" / "state")
        deployment.begin_anew(f"{drill.name}{SNAPSHOTS}")
        service = drill.goes_on(deployment)
        assert "snapshot at offset" not in service.text
        deployment.stop_all()
        deployment.check()
    return "nothing"


def lost_candle_topics(drill: Drill) -> str:
    """All candle topics are gone; the ticks make them again, for a new group."""
    with drill.deployment(drill.first) as deployment:
        service = drill.running(deployment)
        drill.strike()
        assert service.stop() == 0
        deployment.begin_anew(*deployment.candle_topics)
        rebuilt = {"STREAMINGCANDLE_APPLICATION_ID": f"{drill.name}-2-app"}
        run_well(deployment.variables | rebuilt, "topics", "ensure", "--partitions", str(deployment.partitions))
        deployment.feed(TICKS[MOST:])
        run_well(deployment.variables | rebuilt, "run", "--until-end")
        drill.over()
        run_well(deployment.variables | rebuilt, "run", "--until-end", "--flush")
        _check(deployment, deployment.candle_topics)
    return "nothing"


def wrong_candles(drill: Drill) -> str:
    """Candles were made under wrong settings; right ones are made beside them, and readers change over."""
    wrong = {"STREAMINGCANDLE_SINCE_ZERO": "*"}
    with drill.deployment(drill.first) as deployment:
        live = drill.running(deployment, settings=wrong)
        found, _ = last_candles(deployment.bootstrap, deployment.candle_topics)
        wanted = reference(read_topic(deployment.bootstrap, deployment.tick_topic))
        assert [key for key in differences(found, wanted) if key in found], "the wrong candles are right"
        drill.strike()
        beside = {
            "STREAMINGCANDLE_APPLICATION_ID": f"{drill.name}-2-app",
            "STREAMINGCANDLE_CANDLE_TOPIC": f"{drill.name}-2-{{n}}-min-candle",
        }
        right = [f"{drill.name}-2-{label[:-1]}-min-candle" for label in LABELS]
        run_well(deployment.variables | beside, "topics", "ensure", "--partitions", str(deployment.partitions))
        run_well(deployment.variables | beside, "run", "--until-end")
        assert live.stop() == 0
        deployment.feed(TICKS[MOST:])
        run_well(deployment.variables | beside, "run", "--until-end")
        drill.over()
        run_well(deployment.variables | beside, "run", "--until-end", "--flush")
        _check(deployment, right)
        # Who reads on in the live topics until he changes over saw nothing of it: each candle came once there too.
        assert max(_seen(deployment, deployment.candle_topics)[1].values()) == 1
    return "nothing"


def lost_tick_topic(drill: Drill) -> str:
    """The ticks are gone, and come again from now on: the windows open then lack what is gone."""
    with drill.deployment(drill.first) as deployment:
        service = drill.running(deployment)
        before = reference(read_topic(deployment.bootstrap, deployment.tick_topic))
        drill.strike()
        assert service.stop() == 0
        out, _ = last_candles(deployment.bootstrap, deployment.candle_topics)
        deployment.begin_anew(deployment.tick_topic)
        drill.goes_on(deployment)
        deployment.stop_all()
        run_well(deployment.variables, "run", "--until-end", "--flush")
        deployment.await_settled()
        after = reference(read_topic(deployment.bootstrap, deployment.tick_topic))
        found, _ = last_candles(deployment.bootstrap, deployment.candle_topics)
        kept = {key: candle for key, candle in before.items() if key in out}
        assert differences(found, kept | after) == []
        touched = [key for key in before if key not in out or key in after]
        lengths = Counter(key[1] for key in touched)
        opened = max(before[key].window_end_millis for key in out)
        assert all(before[key].window_end_millis > opened - 30 * 60_000 for key in touched)
    return f"open windows: {lengths['1m']} of 1m, {lengths['30m']} of 30m"


def lost_cluster_mirrored(drill: Drill) -> str:
    """The cluster is gone; another has a mirror of its topics, the ticks at the same offsets."""
    with drill.deployment(drill.first) as former:
        service = drill.running(former)
        former.await_settled()
        with drill.deployment(drill.second, "there") as deployment:
            mirror_ticks(former, deployment)
            mirror_candles(former, deployment)
            drill.strike()
            service.kill()
            told = drill.restored(deployment)
            assert ", set" in told, told
            drill.goes_on(deployment)
            deployment.stop_all()
            run_well(deployment.variables, "run", "--until-end", "--flush")
            again = _check(deployment, deployment.candle_topics, times_max=2)
    return f"nothing; {again} candles came twice, alike"


def lost_cluster(drill: Drill) -> str:
    """The cluster is gone and nothing is mirrored; the feed sends to a new one."""
    with drill.deployment(drill.first) as former:
        service = drill.running(former)
        with drill.deployment(drill.second, "there") as deployment:
            drill.strike()
            service.kill()
            assert "not set: the tick topic is another one, and empty" in drill.restored(deployment)
            drill.goes_on(deployment)
            deployment.stop_all()
            deployment.check()
    return "what the cluster had"


def bad_deployment(drill: Drill) -> str:
    """A newer version has left its snapshots, and goes back: the older one refuses them, until they are gone."""
    with drill.deployment(drill.first) as deployment:
        service = drill.running(deployment)
        assert service.stop() == 0
        files = list((drill.folder / "here" / "state").rglob("snapshot-*"))
        for path in files:
            path.write_bytes(newer_snapshot(path.read_bytes(), VERSION + 1))
        assert files
        drill.strike()
        done = run(deployment.variables, "run", "--until-end")
        assert (done.returncode, b"a newer streamingcandle ran here" in done.stderr) == (2, True), done.stderr
        for path in files:
            path.unlink()
        deployment.begin_anew(f"{drill.name}{SNAPSHOTS}")
        drill.goes_on(deployment)
        deployment.stop_all()
        deployment.check()
    return "nothing"


def _check(deployment: Deployment, topics: Sequence[str], *, times_max: int = 1) -> int:
    """A reader of these has the reference's candles, each so often at most; how many are there twice, alike."""
    deployment.await_settled()
    found, seen = _seen(deployment, topics)
    wanted = reference(read_topic(deployment.bootstrap, deployment.tick_topic))
    assert [(found.get(key), wanted.get(key)) for key in differences(found, wanted)] == []
    assert max(seen.values()) <= times_max
    return sum(count > 1 for count in seen.values())


def _seen(deployment: Deployment, topics: Sequence[str]) -> tuple[dict[Key, Candle], Counter[tuple[object, ...]]]:
    """Of each window the later candle, and how often each was published."""
    found: dict[Key, Candle] = {}
    seen: Counter[tuple[object, ...]] = Counter()
    for message in read_topic(deployment.bootstrap, *topics):
        candle = decode_candle(message.value() or b"")
        key = ((message.key() or b"").decode(), candle.timeframe, candle.window_start_millis)
        found[key] = candle
        seen[key, values(candle)] += 1
    return found, seen


DRILLS: Mapping[str, Callable[[Drill], str]] = {
    "lost host": lost_host,
    "lost state": lost_state,
    "lost candle topics": lost_candle_topics,
    "lost tick topic": lost_tick_topic,
    "lost cluster, mirrored": lost_cluster_mirrored,
    "lost cluster": lost_cluster,
    "bad deployment": bad_deployment,
    "wrong candles": wrong_candles,
}


def main() -> int:
    """Exit code. Arguments: which drills, all without."""
    wanted = sys.argv[1:] or list(DRILLS)
    failed = []
    with (
        tempfile.TemporaryDirectory() as folder,
        Broker(Path(folder, "first")) as first,
        Broker(Path(folder, "second")) as second,
    ):
        print(f"{'drill':24}{'lost':52}{'s':>6}  candles")
        for title in wanted:
            name = title.replace(" ", "-").replace(",", "")
            place = Path(folder, name)
            place.mkdir()
            drill = Drill(place, first, second, name)
            try:
                lost = DRILLS[title](drill)
            except Exception:  # noqa: BLE001 - the others are to be seen as well
                failed.append(title)
                print(f"{title:24}{'?':52}{drill.took_s:6.1f}  FAILED\n{traceback.format_exc()}", flush=True)
            else:
                print(f"{title:24}{lost:52}{drill.took_s:6.1f}  as the reference", flush=True)
    return min(1, len(failed))


if __name__ == "__main__":
    sys.exit(main())
