"""`dead-letters` on the embedded log: found, shown, and back on the tick topic once."""

import base64
import json
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from disturbance import kill_retries
from program import environment, run, run_well
from streamingcandle.clock import SystemClock
from streamingcandle.embedded.letters import EmbeddedLetters
from streamingcandle.embedded.store import EmbeddedStore, NewRecord
from streamingcandle.interfaces import Origin
from streamingcandle.letters import Place, mark_of, marked, ours, read_letter, retry_of

clock = SystemClock()
OPEN_MS = 1_767_325_500_000
TICK = {"Exch": "N", "ExchType": "C", "Token": 7, "LastRate": 1.5, "TickDt": "2026-01-02 09:15:01"}
BAD = {
    "json": b'{"half":\x1b[31m',
    "price": json.dumps(TICK | {"LastRate": -1}).encode(),
    "instrument": json.dumps(TICK | {"Token": "x"}).encode(),
}


def _store(folder: Path) -> EmbeddedStore:
    return EmbeddedStore(folder / "data" / "log.sqlite3")


def _reject(folder: Path, *, partitions: int = 1, each: int = 1) -> dict[str, str]:
    """Put bad records between good ones, and have them rejected."""
    variables = environment("t", folder, None)
    run_well(variables, "topics", "ensure", "--partitions", str(partitions))
    records: list[NewRecord] = []
    for index in range(each):
        at_ms = OPEN_MS + 1_000 * index
        records.append((b"7", json.dumps(TICK).encode(), at_ms, ()))
        for number, (reason, value) in enumerate(BAD.items()):
            records.append((b"%d" % number, value, at_ms, [("feed", reason.encode())]))
    store = _store(folder)
    store.append("t-ticks", records)
    store.close()
    run_well(variables, "run", "--until-end", "--flush")
    return variables


def _ticks(folder: Path) -> list[tuple[bytes | None, bytes | None, int, dict[str, bytes | None]]]:
    store = _store(folder)
    found = [
        (record.key, record.value, record.timestamp_ms, dict(record.headers))
        for partition in range(store.topic("t-ticks")[0])
        for record in store.read("t-ticks", partition, 0, 100_000)
    ]
    store.close()
    return found


def _ls(variables: dict[str, str], *arguments: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in run_well(variables, "dead-letters", "ls", "--json", *arguments).splitlines()]


def test_ls_tells_where_why_and_how_many_and_filters(tmp_path: Path) -> None:
    variables = _reject(tmp_path, each=3)
    done = run(variables, "dead-letters", "ls")
    assert done.returncode == 0
    assert done.stderr.decode().splitlines() == ["3 json, 3 price, 3 instrument"]
    table = done.stdout.decode()
    assert "0@1 " in table
    assert "2026-01-02 03:45:02Z" in table
    assert "\x1b" not in table

    assert [letter["source"] for letter in _ls(variables, "--reason", "price")] == ["0@2", "0@6", "0@10"]
    assert [letter["reason"] for letter in _ls(variables, "--source", "0@3")] == ["instrument"]
    assert len(_ls(variables, "--source", "0")) == 9
    assert _ls(variables, "--source", "1") == []
    span = ("--from", "2026-01-02T09:15:01+05:30", "--to", "2026-01-02T09:15:02+05:30")
    assert {letter["timestamp_ms"] for letter in _ls(variables, *span)} == {OPEN_MS + 1_000}
    nothing = run(variables, "dead-letters", "ls", "--reason", "prise")
    assert nothing.stderr.decode().splitlines() == ["none; reasons there: instrument, json, price"]


def test_ls_of_late_ticks(tmp_path: Path) -> None:
    variables = environment("t", tmp_path, None)
    store = _store(tmp_path)
    store.ensure_topic("t-ticks", 1)
    times = ("09:45:00", "09:15:00")
    store.append("t-ticks", [(b"7", json.dumps(TICK | {"TickDt": f"2026-01-02 {at}"}).encode(), 0, ()) for at in times])
    store.close()
    variables["STREAMINGCANDLE_FUTURE_TOLERANCE"] = "999999h"
    run_well(variables, "run", "--until-end")
    (late,) = _ls(variables, "--late")
    assert (late["source"], late["reason"]) == ("0@1", "1m,2m,3m,5m,15m")
    assert b"1m,2m,3m,5m,15m" in run_well(variables, "dead-letters", "show", "0@1", "--late")


def test_a_log_without_letters(tmp_path: Path) -> None:
    variables = environment("t", tmp_path, None)
    done = run(variables, "dead-letters", "ls")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"none\n")
    assert run(variables, "dead-letters", "retry").returncode == 0
    shown = run(variables, "dead-letters", "show", "0@1")
    assert shown.returncode == 1
    assert shown.stderr.count(b"\n") == 1


def test_show_has_everything_in_each_form(tmp_path: Path) -> None:
    variables = _reject(tmp_path)
    text = run_well(variables, "dead-letters", "show", "0@2").decode()
    for part in (
        "t-ticks[0]@2",
        "reason\tprice",
        "what\tLastRate is -1",
        "header feed\tprice",
        "put back\tno",
        BAD["price"].decode(),
    ):
        assert part in text
    # Bytes that a terminal would obey are never shown as they are.
    dump = run_well(variables, "dead-letters", "show", "0@1").decode()
    assert "00000000  7b 22 68" in dump
    assert "\x1b" not in dump
    assert run_well(variables, "dead-letters", "show", "0@1", "--as", "raw") == BAD["json"]
    assert run_well(variables, "dead-letters", "show", "0@1", "--as", "base64").split()[-1] == base64.b64encode(
        BAD["json"]
    )
    assert "what\tinvalid character at byte 8: \\x1b[31m" in dump
    letter = json.loads(run_well(variables, "dead-letters", "show", "0@2", "--json"))
    assert letter["what"] == "LastRate is -1"
    assert [letter["what"] for letter in _ls(variables, "--reason", "instrument")] == ['Token is "x"']
    assert letter["text"] == BAD["price"].decode()
    assert letter["headers"] == [["feed", "price"]]


@pytest.mark.parametrize("partitions", [1, 3])
def test_retry_puts_back_what_was_there_once(tmp_path: Path, partitions: int) -> None:
    variables = _reject(tmp_path, partitions=partitions, each=2)
    before = _ticks(tmp_path)
    dry = run(variables, "dead-letters", "retry", "--dry-run")
    assert (dry.returncode, dry.stderr) == (0, b"6 would be put back on t-ticks, 0 were before\n")
    assert _ticks(tmp_path) == before

    first = run(variables, "dead-letters", "retry", "--reason", "price")
    assert first.stderr == b"2 put back on t-ticks, 0 were before\n"
    again = [tick for tick in _ticks(tmp_path) if "retried" in tick[3]]
    assert [tick[:3] for tick in again] == [(b"1", BAD["price"], OPEN_MS), (b"1", BAD["price"], OPEN_MS + 1_000)]
    assert [tick[3]["feed"] for tick in again] == [b"price", b"price"]
    assert again[0][3]["retried"] is not None
    assert sum(bool(letter["is_put_back"]) for letter in _ls(variables)) == 2

    rest = json.loads(run_well(variables, "dead-letters", "retry", "--json"))
    assert rest == {"put_back": 4, "before": 2, "lost": [], "is_dry_run": False}
    everything = Counter(tick[:2] for tick in _ticks(tmp_path))
    assert run(variables, "dead-letters", "retry").stderr == b"0 put back on t-ticks, 6 were before\n"
    assert Counter(tick[:2] for tick in _ticks(tmp_path)) == everything


def test_a_record_rejected_again_is_a_new_letter_with_the_same_reason(tmp_path: Path) -> None:
    variables = _reject(tmp_path)
    for round_number in (1, 2):
        assert run(variables, "dead-letters", "retry", "--reason", "price").stderr.startswith(b"1 put back")
        run_well(variables, "run", "--until-end")
        letters = _ls(variables, "--reason", "price")
        assert [letter["is_put_back"] for letter in letters] == [True] * round_number + [False]
        last = json.loads(run_well(variables, "dead-letters", "show", str(letters[-1]["source"]), "--json"))
        assert [name for name, _ in last["headers"]] == ["feed", "retried"]
        assert last["text"] == BAD["price"].decode()


def test_what_is_good_by_new_settings_becomes_a_candle(tmp_path: Path) -> None:
    variables = environment("t", tmp_path, None)
    other = {"Exch": "N", "ExchType": "C", "Token": 8, "ltp": 2.5, "TickDt": "2026-01-02 09:15:01"}
    store = _store(tmp_path)
    store.ensure_topic("t-ticks", 1)
    store.append("t-ticks", [(b"8", json.dumps(other).encode(), OPEN_MS, ())])
    store.close()
    run_well(variables, "run", "--until-end")
    assert [letter["reason"] for letter in _ls(variables)] == ["price"]
    mended = variables | {"STREAMINGCANDLE_FIELDS": "price=ltp"}
    run_well(mended, "dead-letters", "retry")
    run_well(mended, "run", "--until-end", "--flush")
    assert json.loads(run_well(mended, "candles", "N:C:8", "--format", "json"))["close"] == 2.5


def test_retries_killed_at_any_moment_put_back_each_once(tmp_path: Path) -> None:
    variables = _reject(tmp_path, each=4_000)
    store = _store(tmp_path)
    kills = kill_retries(variables, lambda: store.end("t-ticks", 0), seed=3, late_ms=20)
    store.close()
    run_well(variables, "dead-letters", "retry")
    again = Counter(tick[3]["retried"] for tick in _ticks(tmp_path) if "retried" in tick[3])
    assert len(again) == 12_000
    assert set(again.values()) == {1}
    assert kills >= 2


def test_two_retries_at_once_put_back_each_once(tmp_path: Path) -> None:
    """Both have read the same letters without a mark before either writes."""
    _reject(tmp_path, each=3).clear()
    both = [EmbeddedLetters(_store(tmp_path), clock, topic="t-app-dead-letters", tick_topic="t-ticks") for _ in "ab"]
    read = [[read_letter(place, record) for place, record in letters.read(letters.ends())] for letters in both]
    for letters, found in zip(both, read, strict=True):
        counts = [letters.put_back([retry_of(letter, letter.value)]) for letter in found if letter is not None]
        assert counts == [int(letters is both[0])] * 9
        letters.close()


def test_letters_are_read_as_they_are_written() -> None:
    own = [("reason", b"mine"), ("source.offset", b"x"), ("retried", b"1@1")]
    origin = Origin(None, b"bytes", 5, 120, own)
    headers = ours(origin, "reason", "json", topic="ticks", partition=3)
    letter = read_letter(Place(0, 9), Origin(None, b"bytes", 77, 9, headers))
    assert letter is not None
    assert (letter.reason, letter.source, letter.timestamp_ms, letter.headers) == ("json", Place(3, 120), 5, own)
    retry = retry_of(letter, letter.value)
    assert retry.headers == [("reason", b"mine"), ("source.offset", b"x"), ("retried", b"3@120")]
    assert [retry.home(topic, count) for topic, count in (("ticks", 4), ("ticks", 3), ("other", 4))] == [3, None, None]
    value, headers = mark_of([Place(1, 5), Place(0, 2), Place(1, 4)])
    mark = Origin(None, value, 0, 0, headers)
    assert read_letter(Place(0, 0), mark) is None
    assert marked(mark) == [Place(0, 2), Place(1, 4), Place(1, 5)]
    assert msgspec.json.decode(value) == {"0": [2], "1": [4, 5]}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("ls --source x", "'x' is no partition like 3, nor a record like 3@120"),
        ("show 3", "3@120"),
        ("retry --from today", "not a time like"),
    ],
)
def test_a_wrong_filter_is_one_line_and_exit_2(tmp_path: Path, arguments: str, said: str) -> None:
    done = run(environment("t", tmp_path, None), "dead-letters", *arguments.split())
    assert (done.returncode, done.stdout) == (2, b"")
    (line,) = done.stderr.decode().splitlines()
    assert said in line
