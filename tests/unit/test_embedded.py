"""What is special to SQLite: the lock, the disk, other writers, other threads. The promises are in `tests/contract`."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from program import environment, run, run_well
from streamingcandle.candles.murmur2 import partition_of
from streamingcandle.clock import SystemClock
from streamingcandle.embedded import reader as reader_module
from streamingcandle.embedded import store as store_module
from streamingcandle.embedded.log import EmbeddedLog
from streamingcandle.embedded.reader import POLL_RECORDS_MAX
from streamingcandle.embedded.store import APPEND_RECORDS_MAX, EmbeddedStore, NewRecord
from streamingcandle.errors import OutsideError, OwnedError
from streamingcandle.interfaces import Committed, Letter, NotCommittedError, Transaction

PAGE_BYTES = 4_096
LIMIT_S = 30.0
HOLDER = """
import pathlib, sys
from streamingcandle.clock import SystemClock
from streamingcandle.embedded.log import EmbeddedLog
from streamingcandle.embedded.store import EmbeddedStore
log = EmbeddedLog(EmbeddedStore(pathlib.Path(sys.argv[1])), group="group", topic="ticks", clock=SystemClock())
print("held", flush=True)
sys.stdin.read()
"""


class FromZero:
    """Takes every partition from its beginning."""

    def __init__(self) -> None:
        self.assignments: list[Sequence[int]] = []

    def assigned(self, partitions: Sequence[int]) -> Mapping[int, int]:
        self.assignments.append(list(partitions))
        return dict.fromkeys(partitions, 0)

    def revoked(self, partitions: Sequence[int]) -> None:
        raise AssertionError(partitions)

    def gone(self, partition: int, offset: int) -> None:
        raise AssertionError((partition, offset))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the file of a log with one tick topic of two partitions."""
    path = tmp_path / "data" / "log.sqlite3"
    with closing(EmbeddedStore(path)) as store:
        store.ensure_topic("ticks", 2)
    return path


@pytest.fixture
def log(path: Path) -> Iterator[EmbeddedLog]:
    """Give a log on `path` whose partitions are assigned."""
    with closing(open_log(EmbeddedStore(path))) as log:
        assert list(log.poll(0, FromZero())) == []
        yield log


def open_log(store: EmbeddedStore, group: str = "group") -> EmbeddedLog:
    try:
        return EmbeddedLog(store, group=group, topic="ticks", clock=SystemClock())
    except BaseException:
        store.close()
        raise


def ticks(count: int, key: bytes | None = b"M:D:1") -> list[NewRecord]:
    return [(key, str(number).encode(), 1_000 + number, ()) for number in range(count)]


def candles(count: int, *, value_bytes: int = 470) -> Transaction:
    records = [(f"M:D:{number}".encode(), b"c" * value_bytes) for number in range(count)]
    return Transaction(candles=[("1-min-candle", records)], letters=[], offsets={0: Committed(7, "metadata")})


def count_of(path: Path, topic: str) -> int:
    with closing(EmbeddedStore(path)) as store:
        return sum(store.end(topic, number) for number in range(dict(store.topics()).get(topic, 0)))


# ---- one owner


def test_a_second_owner_is_refused_and_told_who_has_it(path: Path, log: EmbeddedLog) -> None:
    with pytest.raises(OwnedError, match=rf"pid {os.getpid()} on {socket.gethostname()}\b.*stop it"):
        open_log(EmbeddedStore(path))
    log.commit(candles(1))


def test_another_group_is_another_owner(path: Path, log: EmbeddedLog) -> None:
    log.commit(candles(1))
    with closing(open_log(EmbeddedStore(path), "../other group")) as other:
        assert other.committed([0]) == {0: None}
        assert log.committed([0]) == {0: Committed(7, "metadata")}
    assert {file.name for file in path.parent.glob("*.lock")} == {"group.lock", "..%2Fother%20group.lock"}


def test_the_lock_is_free_after_close_and_its_file_stays(path: Path) -> None:
    open_log(EmbeddedStore(path)).close()
    assert (path.parent / "group.lock").exists()
    open_log(EmbeddedStore(path)).close()


def test_the_lock_goes_with_a_killed_process(path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(OwnedError, match=f"pid {holder.pid} on"):
            open_log(EmbeddedStore(path))
        holder.send_signal(signal.SIGKILL)
        holder.wait(LIMIT_S)
    open_log(EmbeddedStore(path)).close()


def test_who_deletes_the_lock_file_lets_nobody_publish_beside_us(path: Path, log: EmbeddedLog) -> None:
    (path.parent / "group.lock").unlink()
    with closing(open_log(EmbeddedStore(path))) as second:
        list(second.poll(0, FromZero()))
        second.commit(candles(1))
        with pytest.raises(OwnedError, match=r"group\.lock: deleted by somebody.*start again"):
            log.commit(candles(1))
    assert count_of(path, "1-min-candle") == 1


def test_a_lock_that_cannot_be_made_is_the_worlds_fault(path: Path) -> None:
    (path.parent / "group.lock").mkdir()
    with pytest.raises(OutsideError, match=r"group\.lock: Is a directory; set STREAMINGCANDLE_DATA_DIR"):
        open_log(EmbeddedStore(path))


# ---- the disk


def test_a_full_disk_publishes_nothing_and_passes(path: Path, log: EmbeddedLog) -> None:
    log.commit(candles(1))
    limit = "PRAGMA max_page_count"
    store = log._store  # noqa: SLF001 - the limit is the connection's own
    pages = store.connection.execute("PRAGMA page_count").fetchone()[0]
    store.connection.execute(f"{limit}={pages + 5}")
    big = candles(500)
    with pytest.raises(NotCommittedError, match=rf"{path}: database or disk is full; free some space") as raised:
        log.commit(at_offset(big, 9))
    assert "\n" not in str(raised.value)
    assert log.committed([0]) == {0: Committed(7, "metadata")}
    assert count_of(path, "1-min-candle") == 1
    store.connection.execute(f"{limit}={pages + 5_000}")
    log.commit(at_offset(big, 9))
    assert log.committed([0]) == {0: Committed(9, "metadata")}
    assert count_of(path, "1-min-candle") == 501


def at_offset(transaction: Transaction, offset: int) -> Transaction:
    return Transaction(
        candles=transaction.candles, letters=transaction.letters, offsets={0: Committed(offset, "metadata")}
    )


def test_a_full_disk_takes_no_ticks(path: Path) -> None:
    with closing(EmbeddedStore(path)) as store:
        store.connection.execute("PRAGMA max_page_count=20")
        with pytest.raises(OutsideError, match=r"database or disk is full; free some space"):
            store.append("ticks", ticks(10_000))
        assert not store.connection.in_transaction
    assert count_of(path, "ticks") == 0


def test_a_file_that_may_not_be_written_is_not_committed(log: EmbeddedLog) -> None:
    log._store.connection.execute("PRAGMA query_only=1")  # noqa: SLF001 - root may write everywhere
    with pytest.raises(NotCommittedError, match=r"readonly database; make the file and its folder writable"):
        log.commit(candles(1))


def test_a_damaged_file_is_no_matter_of_waiting(path: Path) -> None:
    with closing(EmbeddedStore(path)) as store:
        store.append("ticks", ticks(1_000))
        store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek(PAGE_BYTES)
        file.write(b"\xff" * (path.stat().st_size - PAGE_BYTES))
    with pytest.raises(OutsideError, match=r"malformed; it is damaged"):
        open_log(EmbeddedStore(path))


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite3"
    path.write_bytes(b"not a database" * 1_000)
    with pytest.raises(OutsideError, match=r"log\.sqlite3: file is not a database; it is something else"):
        EmbeddedStore(path)


def test_a_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutsideError, match=r"set STREAMINGCANDLE_DATA_DIR"):
        EmbeddedStore(tmp_path / "file" / "log.sqlite3")


def test_a_missing_tick_topic_is_named_with_what_to_type(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite3"
    with pytest.raises(OutsideError, match=r"topic ticks in .*: missing; .*`streamingcandle topics ensure`"):
        open_log(EmbeddedStore(path))
    assert not (tmp_path / "group.lock").exists()


# ---- others beside us


def test_a_writer_that_does_not_end_is_not_committed(
    path: Path, log: EmbeddedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "BUSY_TIMEOUT_MS", 20)
    with closing(EmbeddedStore(path)) as other, other.transaction():
        with pytest.raises(NotCommittedError, match=r"database is locked; another process has been writing"):
            log.commit(candles(1))
        assert log.committed([0]) == {0: None}
        assert log.ends([0, 1]) == {0: 0, 1: 0}
    log.commit(candles(1))


def test_a_commit_waits_for_a_writer_that_ends(path: Path, log: EmbeddedLog) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def write() -> None:
        with closing(EmbeddedStore(path)) as other, other.transaction():
            other.append_within("ticks", ticks(3))
            begun.set()
            may_end.wait(LIMIT_S)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        assert begun.wait(LIMIT_S)
        threading.Timer(0.1, may_end.set).start()
        log.commit(candles(1))
        writing.result(LIMIT_S)
    assert count_of(path, "1-min-candle") == 1


def test_a_reader_sees_all_of_a_commit_or_nothing(path: Path) -> None:
    with closing(EmbeddedStore(path)) as writer, closing(EmbeddedStore(path)) as reader:
        with writer.transaction():
            writer.append_within("ticks", ticks(10))
            writer.commit_offset("group", "ticks", 0, offset=5, metadata="")
            assert sum(reader.end("ticks", number) for number in range(2)) == 0
            assert reader.committed("group", "ticks") == {}
        assert sum(reader.end("ticks", number) for number in range(2)) == 10
        assert reader.committed("group", "ticks") == {0: (5, "")}


def test_an_abandoned_transaction_leaves_nothing(path: Path) -> None:
    def abandon(store: EmbeddedStore) -> None:
        with store.transaction():
            store.append_within("ticks", ticks(10))
            raise KeyboardInterrupt

    with closing(EmbeddedStore(path)) as store:
        with pytest.raises(KeyboardInterrupt):
            abandon(store)
        store.append("ticks", ticks(1))
    assert count_of(path, "ticks") == 1


def test_many_make_the_file_at_once(tmp_path: Path) -> None:
    start = threading.Barrier(8)

    def make(turn: int) -> None:
        start.wait(LIMIT_S)
        with closing(EmbeddedStore(tmp_path / "new" / "log.sqlite3")) as store:
            store.ensure_topic("ticks", turn + 1)
            store.append("ticks", ticks(10))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(make, range(8)))
    assert count_of(tmp_path / "new" / "log.sqlite3", "ticks") == 80


def test_made_in_one_thread_used_in_another(path: Path) -> None:
    log = open_log(EmbeddedStore(path))
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: list(log.poll(0, FromZero()))).result(LIMIT_S) == []
        pool.submit(log.commit, candles(1)).result(LIMIT_S)
        pool.submit(log.close).result(LIMIT_S)
    assert count_of(path, "1-min-candle") == 1


def test_waiting_costs_next_to_nothing(log: EmbeddedLog) -> None:
    before_s = time.process_time()
    assert list(log.poll(0.5, FromZero())) == []
    assert time.process_time() - before_s < 0.1


# ---- topics, appending, sharing


def test_topics_that_are_missing_are_made_as_wide_as_the_ticks(path: Path, log: EmbeddedLog) -> None:
    with closing(EmbeddedStore(path)) as store:
        assert store.ensure_topic("late", 5) == 5
    letters = [Letter("dead-letters", b"k", None, [("reason", b"empty")]), Letter("late", b"k", b"v", [])]
    log.commit(Transaction(candles=[("1-min-candle", [(b"k", b"v")])], letters=letters, offsets={}))
    with closing(EmbeddedStore(path)) as store:
        assert store.topics() == [("1-min-candle", 2), ("dead-letters", 2), ("late", 5), ("ticks", 2)]
        assert store.ensure_topic("late", 7) == 5
        assert len({store.topic(name)[1] for name, _ in store.topics()}) == 4


def test_a_commit_of_partitions_that_are_not_ours_is_our_bug(path: Path) -> None:
    with closing(open_log(EmbeddedStore(path))) as log:
        with pytest.raises(ValueError, match=r"not assigned: \[0\]"):
            log.commit(candles(1))
        list(log.poll(0, FromZero()))
        with pytest.raises(ValueError, match=r"not assigned: \[2\]"):
            log.commit(Transaction(candles=[], letters=[], offsets={2: Committed(0, "")}))
    assert count_of(path, "1-min-candle") == 0


def test_nothing_is_committed_after_close(path: Path) -> None:
    log = open_log(EmbeddedStore(path))
    list(log.poll(0, FromZero()))
    log.close()
    log.close()
    with pytest.raises((ValueError, sqlite3.ProgrammingError)):
        log.commit(candles(1))
    assert count_of(path, "1-min-candle") == 0


def test_partitions_that_appear_are_assigned(path: Path) -> None:
    listener = FromZero()
    with closing(open_log(EmbeddedStore(path))) as log, closing(EmbeddedStore(path)) as store:
        list(log.poll(0, listener))
        store.connection.execute("UPDATE topics SET partitions = 4 WHERE name = 'ticks'")
        store.append("ticks", ticks(8, key=None))
        found = {records.partition: len(records.values) for records in log.poll(0, listener)}
        assert list(log.partitions()) == [0, 1, 2, 3]
    assert listener.assignments == [[0, 1], [2, 3]]
    assert found == {0: 2, 1: 2, 2: 2, 3: 2}


def test_records_without_a_key_take_turns_over_appends(path: Path) -> None:
    with closing(EmbeddedStore(path)) as store:
        for _ in range(4):
            store.append("ticks", ticks(1, key=None))
        assert [store.end("ticks", number) for number in range(2)] == [2, 2]


@pytest.mark.parametrize("busy", [0, 1])
def test_one_partitions_backlog_gets_what_the_others_leave(path: Path, busy: int) -> None:
    keys = {partition_of(key, 2): key for key in (b"%d" % number for number in range(99))}
    with closing(EmbeddedStore(path)) as store:
        store.append("ticks", ticks(POLL_RECORDS_MAX + 500, key=keys[busy]))
        store.append("ticks", ticks(200, key=keys[1 - busy]))
    with closing(open_log(EmbeddedStore(path))) as log:
        first = {records.partition: len(records.values) for records in log.poll(0, FromZero())}
        second = {records.partition: len(records.values) for records in log.poll(0, FromZero())}
    assert first == {1 - busy: 200, busy: POLL_RECORDS_MAX - 200}
    assert second == {busy: 700}


def test_two_backlogs_share_a_poll_evenly(path: Path) -> None:
    with closing(EmbeddedStore(path)) as store:
        store.append("ticks", ticks(4 * POLL_RECORDS_MAX, key=None))
    with closing(open_log(EmbeddedStore(path))) as log:
        shares = [len(records.values) for records in log.poll(0, FromZero())]
    assert shares == [POLL_RECORDS_MAX // 2, POLL_RECORDS_MAX // 2]


def test_a_partition_is_read_to_its_end_however_big_its_records_are(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "READ_BYTES_MAX", 2_000)
    monkeypatch.setattr(store_module, "PAGE_RECORDS", 5)
    with closing(EmbeddedStore(path)) as store:
        store.append("ticks", [(b"k", b"v" * (900 if number < 7 else 1), 0, ()) for number in range(20)])
        assert [record.offset for record in store.read_to_end("ticks", 0)] == list(range(20))


def test_big_records_come_in_smaller_batches(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "POLL_BYTES_MAX", 2_000)
    with closing(EmbeddedStore(path)) as store:
        store.append("ticks", [(b"k", b"v" * 900, 0, ()) for _ in range(7)])
    with closing(open_log(EmbeddedStore(path))) as log:
        counts = [len(records.values) for _ in range(3) for records in log.poll(0, FromZero())]
    assert counts == [3, 3, 1]


def test_an_append_has_a_limit(path: Path) -> None:
    with closing(EmbeddedStore(path)) as store, pytest.raises(ValueError, match="records in one append, at most"):
        store.append("ticks", ticks(1) * (APPEND_RECORDS_MAX + 1))
    assert count_of(path, "ticks") == 0


def test_a_hundred_thousand_records_are_appended_well_within_two_cpu_seconds(path: Path) -> None:
    records: list[NewRecord] = [(b"M:D:%d" % (number % 1_000), b"x" * 340, number, ()) for number in range(100_000)]
    begun_s = time.process_time()
    with closing(EmbeddedStore(path)) as store:
        assert store.append("ticks", records) == 100_000
    assert time.process_time() - begun_s < 2


def test_a_mistyped_tick_topic_is_exit_2_and_the_nearest_is_named(tmp_path: Path) -> None:
    variables = environment("t", tmp_path, None)
    run_well(variables, "simulate", "--ticks", "10", "--date", "2026-01-02", "--speed", "0")
    mistyped = {"STREAMINGCANDLE_TICK_TOPIC": "t-tiks", "STREAMINGCANDLE_WAIT": "1s"}
    done = run(variables | mistyped, "run", "--until-end")
    assert done.returncode == 2
    assert b"topic t-tiks" in done.stderr.splitlines()[-1]
    assert b"there is t-ticks: correct the name" in done.stderr.splitlines()[-1]
    run_well(variables, "run", "--until-end")
