"""`doctor` without Kafka: settings, state directory, disk, store; and what one broker cannot show, by its judges."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from disk import Disk, mounted
from program import environment, run, run_well
from streamingcandle.candles.commit import Commit
from streamingcandle.candles.murmur2 import partition_of
from streamingcandle.interfaces import Committed
from streamingcandle.kafka.reach import BrokerAnswer, addresses
from streamingcandle.kafka.survey import GroupAnswer, TopicAnswer
from streamingcandle.ops.doctor.brokers import judge_brokers
from streamingcandle.ops.doctor.finding import Deployment, Finding
from streamingcandle.ops.doctor.group import judge_group
from streamingcandle.ops.doctor.host import MemoryAnswer, judge_memory
from streamingcandle.ops.doctor.partitioner import judge_keys
from streamingcandle.ops.doctor.timestamps import judge_ahead, judge_stamps
from streamingcandle.ops.doctor.topics import judge_topics

DEPLOYMENT = Deployment(
    application_id="app",
    ticks="ticks",
    candles=("1-min-candle",),
    letters=("app-dead-letters", "app-late"),
    snapshots="app-snapshots",
    partitions=3,
    session_ms=53_700_000,
    is_split_accepted=False,
    is_stopped_by_gone=True,
    is_production=True,
)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    """Give a disk with a megabyte."""
    with mounted(tmp_path_factory.mktemp("doctor") / "disk") as made:
        yield made


def _faults(variables: dict[str, str]) -> list[dict[str, Any]]:
    """As typed, for programs; exit 1 with any."""
    done = run(variables, "doctor", "--json")
    told = msgspec.json.decode(done.stdout)
    faults = [check for check in told["checks"] if check["state"] == "fault"]
    assert (done.returncode, told["faults"]) == (bool(faults), len(faults)), done.stderr
    assert all(check["do"] for check in faults)
    return faults


def test_the_embedded_log_is_sound_before_and_after_its_first_run(tmp_path: Path) -> None:
    variables = environment("t", tmp_path, None)
    for text in (b"not there yet, will be made", b"writable; 0 live instances"):
        said = run_well(variables, "doctor")
        assert text in said
        assert b"fault\t" not in said
        run_well(variables, "simulate", "--ticks", "100", "--date", "2026-01-02", "--speed", "0")
        run_well(variables, "run", "--until-end")


def test_a_wrong_setting_is_its_one_fault(tmp_path: Path) -> None:
    variables = environment("t", tmp_path, None) | {"STREAMINGCANDLE_TIMEFRAMES": "5q"}
    (found,) = _faults(variables)
    assert (found["check"], "5q" in found["what"]) == ("settings", True)


def test_the_line_a_person_reads(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "log.sqlite3").write_bytes(b"no database at all" * 100)
    done = run(environment("t", tmp_path, None), "doctor")
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.decode().splitlines() if line.startswith("fault\tstore\t")]
    assert "it is something else: move it away" in line
    assert "faults: 1" in done.stderr.decode()


@pytest.mark.parametrize(
    ("outage", "check", "said"),
    [(Disk.full, "disk", "No space left on device"), (Disk.read_only, "state directory", "Read-only file system")],
)
def test_the_state_directorys_disk(
    tmp_path: Path, disk: Disk, outage: Callable[[Disk], AbstractContextManager[None]], check: str, said: str
) -> None:
    variables = environment("t", tmp_path, None) | {"STREAMINGCANDLE_STATE_DIR": str(disk.path)}
    with outage(disk):
        assert [said in fault["what"] for fault in _faults(variables) if fault["check"] == check] == [True]


def test_the_store_has_another_programs_place(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"")
    (found,) = _faults(environment("t", tmp_path, None))
    assert found["check"] == "store"


@pytest.mark.parametrize(
    ("profile", "said"),
    [("production", "/var/lib/kafka-streams/streamingcandle\tprofile"), ("staging", "stop\tprofile")],
)
def test_config_show_marks_what_a_profile_changes(tmp_path: Path, profile: str, said: str) -> None:
    variables = {name: text for name, text in environment("t", tmp_path, None).items() if not name.endswith("_DIR")}
    shown = run_well(variables, "config", "show", "--profile", profile).decode()
    changed = [line for line in shown.splitlines() if "\tin development: " in line]
    assert any(f"{said} {profile}\tin development: " in line for line in changed), shown
    assert shown == run_well(variables, "--profile", profile, "config", "show").decode()
    told = msgspec.json.decode(run_well(variables, "config", "show", "--profile", profile, "--json"))
    assert [e["name"] for e in told["settings"] if "development" in e] == [line.split("\t")[0] for line in changed]
    assert "in development" not in run_well(variables, "config", "show").decode()


def _judged(**change: Any) -> list[Finding]:
    sound = {
        name: TopicAnswer(name=name, partitions=3, replicas=3, in_sync=3, config={"cleanup.policy": "delete"})
        for name in DEPLOYMENT.topics
    }
    sound["app-snapshots"] = msgspec.structs.replace(sound["app-snapshots"], config={"cleanup.policy": "compact"})
    sound["1-min-candle"] = msgspec.structs.replace(sound["1-min-candle"], **change)
    return [finding for finding in judge_topics(DEPLOYMENT, sound) if finding.state != "ok"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"leaderless": 1}, "1 of 3 partitions have no leader"),
        ({"in_sync": 1, "config": {"min.insync.replicas": "2"}}, "nothing can be written"),
        ({"replicas": 1, "in_sync": 1}, "one replica"),
        ({"config": None}, "cannot be read"),
        ({"config": {"retention.ms": "1000"}}, "less than a session"),
    ],
)
def test_topics_of_a_larger_cluster(change: dict[str, Any], said: str) -> None:
    (found,) = _judged(**change)
    assert said in found.what
    assert _judged() == []


def test_commits_and_members() -> None:
    gone = GroupAnswer(commits={0: Committed(5, Commit(partitions=2, open_windows=1).encode())}, begins={0: 9})
    stranger = GroupAnswer(members=("app-host-0", "kafka-ui"), state="STABLE")
    newer = GroupAnswer(commits={0: Committed(5, '{"v":99}')})
    said = [finding.what for group in (gone, stranger, newer) for finding in judge_group(DEPLOYMENT, group, 3)]
    assert ["partitions were added (2, now 3)" in said[0], "4 ticks of 1 partitions are gone" in said[1]] == [True] * 2
    assert ["kafka-ui" in said[2], "format 99" in said[3]] == [True] * 2


def test_offsets_that_expire_over_a_holiday() -> None:
    (found,) = judge_group(DEPLOYMENT, GroupAnswer(retention_minutes=1_440), 3)
    assert found.state == "warning"
    assert (
        "offsets.retention.minutes is 1440 at the brokers: a service stopped for 24 h loses its offsets" in found.what
    )
    assert "server.properties set offsets.retention.minutes=10080" in found.do
    for minutes in (None, 10_080, 100_000):
        assert [f.state for f in judge_group(DEPLOYMENT, GroupAnswer(retention_minutes=minutes), 3)] == ["ok"]


def test_partitions_added_and_keyless_ticks() -> None:
    keys: list[tuple[int, bytes | None]] = [(partition_of(b"%d" % token, 2), b"%d" % token) for token in range(40)]
    keys += [(partition_of(b"%d" % token, 3), b"%d" % token) for token in range(40, 80)]
    assert judge_keys(DEPLOYMENT, keys, 3).state == "ok"
    assert "have no key" in judge_keys(DEPLOYMENT, [*keys, (0, None)], 3).what
    assert "two partitions: its producers" in judge_keys(DEPLOYMENT, [(0, b"7"), (1, b"7")], 3).what
    assert judge_keys(DEPLOYMENT, [], 3).state == "not made"


AFTER, BOTH, NO_LIMIT = "message.timestamp.after.max.ms", "message.timestamp.difference.max.ms", str(2**63 - 1)


@pytest.mark.parametrize(
    ("config", "state"),
    [
        ({AFTER: "60000"}, None),
        ({AFTER: "3600000"}, None),
        ({AFTER: "3600001"}, "fault"),
        ({AFTER: NO_LIMIT}, "fault"),
        ({AFTER: NO_LIMIT, "message.timestamp.type": "LogAppendTime"}, None),
        # Kafka 3.6 to 3.9 have both, and the older one holds where the newer was not set.
        ({AFTER: NO_LIMIT, BOTH: NO_LIMIT}, "fault"),
        ({AFTER: NO_LIMIT, BOTH: "3600000"}, None),
        ({AFTER: "60000", BOTH: NO_LIMIT}, None),
        # Before that there is one for both directions.
        ({BOTH: NO_LIMIT}, "warning"),
        ({BOTH: "3600000"}, None),
        # Nobody told.
        ({}, None),
    ],
)
def test_how_far_ahead_of_the_brokers_clock_a_tick_may_be_stamped(config: dict[str, str], state: str | None) -> None:
    found = judge_ahead("ticks", config)
    assert [finding.state for finding in found] == ([] if state is None else [state])
    if state == "fault":
        assert found[0].do.endswith("--entity-name ticks --add-config message.timestamp.after.max.ms=60000")


def test_ticks_without_a_timestamp() -> None:
    assert judge_stamps("ticks", [1_767_325_500_000] * 50) == []
    (found,) = judge_stamps("ticks", [1_767_325_500_000, 0, -1, 946_684_799_999])
    assert (found.state, "3 of 4 of the newest ticks have no timestamp" in found.what) == ("fault", True)
    assert found.do.endswith("message.timestamp.type=LogAppendTime")


def test_addresses_and_an_advertised_broker_out_of_reach() -> None:
    assert addresses("SSL://a:1, b:2,,a:1") == ["a:1", "b:2"]
    answers = [BrokerAnswer(address="a:1"), BrokerAnswer(address="inner:9", trouble="name", said="Name not known")]
    found = judge_brokers(answers, ["a:1"], protocol="PLAINTEXT", mechanism="", now_ms=0)
    assert [finding.state for finding in found] == ["ok", "fault"]
    assert "advertised.listeners" in found[1].do


def test_memory() -> None:
    states = [judge_memory(MemoryAnswer(mib << 20, "the host"))[0].state for mib in (100, 300, 4_000)]
    assert states == ["fault", "warning", "ok"]
