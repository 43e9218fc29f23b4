"""`ingest`: each record with its own time, and files that are not what they seem."""

import gzip
import json
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from program import PROGRAM, environment, run
from streamingcandle.cli.lines import CHUNK_BYTES_MAX, LINE_BYTES_MAX, Chunk, DamagedError, Line, LineFile
from streamingcandle.clock import SystemClock
from streamingcandle.embedded.store import EmbeddedStore

TICK = {"Exch": "N", "ExchType": "C", "Token": 7, "LastRate": 1.5, "TickDt": "/Date(1767325501000)/"}
AT_MS = 1_767_325_501_000
MEMORY_BYTES = 1_000_000_000
"""Of addresses; the program and its libraries take some 400 MB of them."""


def _line(**fields: object) -> bytes:
    return json.dumps(TICK | fields).encode() + b"\n"


def _stored(folder: Path) -> list[tuple[int, bytes]]:
    store = EmbeddedStore(folder / "data" / "log.sqlite3")
    try:
        return [(record.timestamp_ms, record.value or b"") for record in store.read_to_end("t-ticks", 0)]
    finally:
        store.close()


def _said(done: subprocess.CompletedProcess[bytes]) -> list[str]:
    """What was said, but for how far it is, which a slow machine says too."""
    lines = [json.loads(line)["message"] if line[:1] == "{" else line for line in done.stderr.decode().splitlines()]
    return [line for line in lines if not line.endswith(" a second") and " a second, " not in line]


LINES = {
    "tick": (_line(), AT_MS),
    "quote": (_line(LastRate=0), AT_MS),
    "price": (_line(LastRate=-1), AT_MS),
    "no price": (_line(LastRate="x"), AT_MS),
    "local": (_line(TickDt="2026-01-02 09:15:01.250"), AT_MS + 250),
    "seconds": (_line(TickDt=1_767_325_501), AT_MS),
    "no time": (b'{"Exch":"N","ExchType":"C","Token":7,"LastRate":1.5}\n', "time"),
    "null time": (_line(TickDt=None), "time"),
    "zero": (_line(TickDt=0), "time"),
    "unreadable": (_line(TickDt="today"), "time"),
    "before 2000": (_line(TickDt="1999-12-31 09:15:00"), "time"),
    "a far year": (_line(TickDt="/Date(999999999999999)/"), "time"),
    "ahead": (_line(TickDt="2099-01-01 09:15:00"), "future"),
    "instrument": (_line(ExchType=""), "instrument"),
    "json": (b"{\n", "json"),
    "no object": (b"5\n", "json"),
}
"""Each kind of line: the timestamp it is sent with, or why it is not sent."""


def test_each_record_is_stamped_with_its_own_time_and_what_has_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "ticks.jsonl").write_bytes(b"".join(line for line, _ in LINES.values()))
    done = run(environment("t", tmp_path, None), "ingest", str(tmp_path / "ticks.jsonl"))
    assert done.returncode == 1
    wanted = [(at_ms, line.strip()) for line, at_ms in LINES.values() if isinstance(at_ms, int)]
    assert _stored(tmp_path) == wanted
    said = _said(done)
    for number, (_, reason) in enumerate(LINES.values(), 1):
        named = [line for line in said if f"ticks.jsonl:{number}: {reason}" in line]
        assert len(named) == (isinstance(reason, str)), (number, said)
    assert any("ticks.jsonl:3: price: sent" in line for line in said)
    assert "of these `run` will reject: price 2" in said
    assert said[-1] == "streamingcandle: 10 bad lines passed over, named above"


def test_now_is_for_who_asks_for_it(tmp_path: Path) -> None:
    began_ms = time.time_ns() // 1_000_000
    lines = [line for line, _ in LINES.values()]
    done = run(environment("t", tmp_path, None), "ingest", "--stamp", "now", "-", stdin=b"".join(lines))
    stored = _stored(tmp_path)
    assert [value for _, value in stored] == [line.strip() for line in lines[:-3]]
    assert all(began_ms <= at_ms <= time.time_ns() // 1_000_000 for at_ms, _ in stored)
    assert done.returncode == 1


def _two(pack: Callable[[bytes], bytes], whole: bytes, at: int) -> bytes:
    return pack(whole[:at]) + pack(whole[at:])


TEXT = b"".join(_line(Token=number) for number in range(2_000))
SKIPPED = b"\x50\x2a\x4d\x18\x04\x00\x00\x00none"
WHOLE = {
    "ticks.jsonl": TEXT,
    "no-end.jsonl": TEXT[:-1],
    "dos.jsonl": TEXT.replace(b"\n", b"\r\n"),
    "ticks.gz": gzip.compress(TEXT),
    "members.gz": _two(gzip.compress, TEXT, 12_345),
    "many.gz": b"".join(map(gzip.compress, TEXT.splitlines(keepends=True))),
    "padded.gz": gzip.compress(TEXT) + bytes(2_000),
    "ticks.zst": zstandard.compress(TEXT),
    "frames.zst": _two(zstandard.compress, TEXT, 12_345),
    "skipped.zst": SKIPPED + zstandard.compress(TEXT) + SKIPPED,
    "packed.jsonl": zstandard.compress(TEXT),
    "zst-in-name.gz": zstandard.compress(TEXT),
    "text.gz": TEXT,
    "text.zst": TEXT,
}


def _chunks(path: Path, lines_max: int = 5_000) -> Iterator[Chunk]:
    with LineFile(str(path), lambda: False) as file:
        yield from file.chunks(lines_max)


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_is_what_its_bytes_say(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(WHOLE[name])
    chunks = list(_chunks(tmp_path / name))
    lines = [line for chunk in chunks for line in chunk.lines]
    assert [text for _, text in lines] == TEXT.splitlines()
    assert [number for number, _ in lines] == list(range(1, 2_001))
    assert chunks[-1].done_bytes == len(WHOLE[name])


@pytest.mark.parametrize("kept", [0.001, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("name", ["ticks.gz", "members.gz", "many.gz", "ticks.zst", "frames.zst"])
def test_all_before_a_cut_is_handed_on(tmp_path: Path, name: str, kept: float) -> None:
    data = WHOLE[name][: int(len(WHOLE[name]) * kept)]
    (tmp_path / name).write_bytes(data)
    lines: list[Line] = []
    with pytest.raises(DamagedError) as caught:
        lines.extend(line for chunk in _chunks(tmp_path / name) for line in chunk.lines)
    assert [text for _, text in lines] == TEXT.splitlines()[: len(lines)]
    assert caught.value.line == len(lines) + 1
    assert f"{name}: byte {len(data):,}: " in str(caught.value)
    if name == "many.gz":
        assert len(lines) >= int(2_000 * kept) - 1


@pytest.mark.parametrize("name", ["ticks.gz", "ticks.zst"])
def test_damage_in_the_middle_is_told(tmp_path: Path, name: str) -> None:
    data = bytearray(WHOLE[name])
    for at in range(len(data) // 2, len(data) // 2 + 40):
        data[at] ^= 0x55
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DamagedError):
        list(_chunks(tmp_path / name))


@pytest.mark.parametrize("rest", [b"x", b"{}\n", b"\x1f", gzip.compress(TEXT)[:5]])
def test_what_follows_a_member_is_packed_too(tmp_path: Path, rest: bytes) -> None:
    (tmp_path / "ticks.gz").write_bytes(WHOLE["ticks.gz"] + rest)
    with pytest.raises(DamagedError):
        list(_chunks(tmp_path / "ticks.gz"))


def test_a_chunk_is_bounded_by_its_bytes_and_an_overlong_line_is_one_line(tmp_path: Path) -> None:
    lines = [b"a" * 300_000] * 40 + [b"b" * (LINE_BYTES_MAX + 1), b"c", b"d" * LINE_BYTES_MAX, b"", b"e"]
    (tmp_path / "ticks.jsonl").write_bytes(b"\n".join(lines))
    chunks = list(_chunks(tmp_path / "ticks.jsonl"))
    assert all(sum(len(text or b"") for _, text in chunk.lines[:-1]) < CHUNK_BYTES_MAX for chunk in chunks)
    found = dict(line for chunk in chunks for line in chunk.lines)
    assert (found[41], found[42], len(found[43] or b""), found[45]) == (None, b"c", LINE_BYTES_MAX, b"e")
    assert len(found) == 44


def test_an_empty_file_has_no_ticks_and_an_empty_packed_one_is_damaged(tmp_path: Path) -> None:
    for name, text in (("empty.jsonl", b""), ("nothing.gz", gzip.compress(b"")), ("nothing.zst", SKIPPED)):
        (tmp_path / name).write_bytes(text)
        assert list(_chunks(tmp_path / name)) == []
    for name in ("empty.gz", "empty.zst"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(DamagedError):
            list(_chunks(tmp_path / name))


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_a_file_that_is_cut_off_is_sent_up_to_there(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    (tmp_path / "whole.jsonl").write_bytes(_line())
    (tmp_path / "ticks.packed").write_bytes(packed := pack(TEXT)[:-5])
    (tmp_path / "after.jsonl").write_bytes(_line())
    names = [str(tmp_path / name) for name in ("whole.jsonl", "ticks.packed", "after.jsonl")]
    done = run(environment("t", tmp_path, None), "ingest", *names)
    assert (done.returncode, done.stdout) == (3, b"")
    *_, summary, error = _said(done)
    count = len(_stored(tmp_path))
    assert summary == f"{count} ticks into t-ticks, 0 bad lines"
    assert f"ticks.packed: byte {len(packed):,}: " in error
    assert f"{count:,} ticks sent, those of this file up to line {count - 1:,}" in error


def _limited(variables: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [PROGRAM, *arguments],
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES)),
    )


@pytest.mark.parametrize("pack", [lambda data: gzip.compress(data, 1), zstandard.compress], ids=["gz", "zst"])
def test_a_packed_line_without_end_is_one_bad_line(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    (tmp_path / "bomb").write_bytes(pack(bytes(90_000_000)) * 10 + pack(b"\n" + TEXT))
    done = _limited(environment("t", tmp_path, None), "ingest", str(tmp_path / "bomb"))
    assert done.returncode == 1, done.stderr
    named, summary, _ = _said(done)
    assert named.endswith("bomb:1: longer than 10,000,000 bytes: passed over")
    assert summary == "2000 ticks into t-ticks, 1 bad lines"


def test_a_line_that_never_ends_ends_the_reading(tmp_path: Path) -> None:
    done = _limited(environment("t", tmp_path, None), "ingest", "/dev/zero")
    assert done.returncode == 3
    assert "line 1 has no end within 1,000,000,000 bytes" in _said(done)[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    "arguments", ["ingest --rate 0.01 FILE", "simulate --rate 0.01", "simulate --speed 0.0001 --rate 1"]
)
def test_a_slow_feed_stops_at_a_signal(tmp_path: Path, arguments: str, number: int) -> None:
    (tmp_path / "ticks.jsonl").write_bytes(TEXT)
    words = [str(tmp_path / "ticks.jsonl") if word == "FILE" else word for word in arguments.split()]
    variables = environment("t", tmp_path, None)
    log = tmp_path / "data" / "log.sqlite3"
    with subprocess.Popen([PROGRAM, *words], env=variables, stderr=subprocess.PIPE) as process:
        try:
            # Made once signals are heeded.
            while process.poll() is None and not log.exists():
                SystemClock().sleep_ms(5)
            process.send_signal(number)
            assert process.wait(5) == 0
        finally:
            process.kill()


def test_a_broker_that_does_not_answer_is_no_reason_to_go_on_after_a_signal(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        variables = environment("t", tmp_path, address)
        with subprocess.Popen([PROGRAM, "simulate"], env=variables, stderr=subprocess.PIPE) as process:
            try:
                with silent.accept()[0]:
                    process.send_signal(signal.SIGTERM)
                    assert process.wait(5) == 3
                assert process.stderr is not None
                assert address.encode() in process.stderr.read()
            finally:
                process.kill()
