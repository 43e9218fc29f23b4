"""The demo as a colleague sees it: on terminals of every size, with keys, and without a terminal."""

import re
import signal
from pathlib import Path

import pytest

from program import environment, run
from terminal import Terminal

ROW = re.compile(r"[●↻ ] [A-Z&]{2,}.* \d+\.\d\d")
SIZES = [(200, 60), (120, 40), (80, 24), (40, 10), (20, 5), (10, 3), (1, 1)]


def variables(folder: Path) -> dict[str, str]:
    return environment("t", folder, None) | {"TMPDIR": str(folder)}


def clock(lines: list[str]) -> str:
    """The feed clock's time of day; "" for none yet."""
    found = re.search(r"\d\d:\d\d:\d\d", lines[0])
    return found[0] if found else ""


def row_count(lines: list[str]) -> int:
    return sum(bool(ROW.match(line)) for line in lines)


def test_a_wide_terminal_shows_everything(tmp_path: Path) -> None:
    with Terminal(variables(tmp_path), "demo") as terminal:
        terminal.await_text("↻ late tick")
        text = "\n".join(terminal.await_that(lambda lines: row_count(lines) >= 20 and clock(lines) > "09:17", "rows"))
        for word in ("RELIANCE", "GOLDM FEB FUT", "2026-01-02 09:", "ticks/s", "folded", "revised", "too late"):
            assert word in text
        for word in ("rejected", "quotes", "instrument", "open", "volume", "state", "closes", "forming", "q quit"):
            assert word in text
        assert any(spark in text for spark in "▁▂▃▄▅▆▇█")
        assert {b"\x1b[32m", b"\x1b[31m"} <= set(re.findall(rb"\x1b\[3\dm", terminal.written))
        first = clock(terminal.text)
        terminal.await_that(lambda lines: clock(lines) > first, "the clock goes on")
        terminal.press("q")
        assert terminal.end() == 0
        assert re.fullmatch(r"candles so far: [\d,]+ 1m, .* revised\n", terminal.after)
    assert list(tmp_path.glob("streamingcandle-demo-*")) == []


@pytest.mark.parametrize("columns_lines", SIZES, ids=str)
def test_every_size_is_filled_and_none_overflows(tmp_path: Path, columns_lines: tuple[int, int]) -> None:
    columns, lines = columns_lines
    with Terminal(variables(tmp_path), "demo", columns=columns, lines=lines) as terminal:
        if columns >= 20:
            terminal.await_that(lambda text: row_count(text) >= min(8, lines - 4) and clock(text) > "09:16", "rows")
            # Nothing scrolled: the head is still the first line.
            assert "1m" in terminal.text[0]
        else:
            while terminal.written.count(b"\x1b[H") < 5:
                assert terminal.read() or terminal.process.poll() is None
        terminal.press("q")
        assert terminal.end() == 0
    frames = terminal.written.partition(b"\x1b[?7h")[0].split(b"\x1b[H")[1:]
    for frame in frames:
        plain = re.sub(r"\x1b\[[0-9;]*m", "", frame.decode())
        drawn = re.split(r"\r+\n", plain)  # the terminal's own line discipline adds one
        assert len(drawn) <= lines
        assert {len(line) for line in drawn} == {columns}


def test_keys_change_the_timeframe_and_scroll(tmp_path: Path) -> None:
    with Terminal(variables(tmp_path), "demo", columns=80, lines=12) as terminal:
        terminal.await_that(row_count, "rows")
        first = terminal.await_text("1-8 of 40")[3]
        terminal.press("\x1b[B")
        assert terminal.await_text("2-9 of 40")[3] != first
        terminal.press("\x1b[6~" * 9)
        terminal.await_text("33-40 of 40")
        terminal.press("\x1b[5~" * 9)
        terminal.await_text("1-8 of 40")

        def chosen() -> list[bytes]:
            return re.findall(rb"\x1b\[7m (\w+) \x1b\[0m", terminal.written)[-1:]

        for key, label in (
            ("3", b"3m"),
            ("\x1b[C", b"5m"),
            ("\t", b"15m"),
            ("\x1b[D", b"5m"),
            ("6", b"30m"),
            ("9", b"30m"),
        ):
            terminal.press(key)
            terminal.await_that(lambda _, wanted=label: chosen() == [wanted], label.decode())  # type: ignore[misc]
        terminal.press("\x1b[C")
        terminal.await_that(lambda _: chosen() == [b"1m"], "around the end")
        terminal.press("\x1b\x1b[200~zzz\x00\xff")
        terminal.press("Q")
        assert terminal.end() == 0


def test_a_terminal_that_changes_its_size_is_drawn_anew(tmp_path: Path) -> None:
    with Terminal(variables(tmp_path), "demo", columns=120, lines=40) as terminal:
        terminal.await_that(lambda lines: row_count(lines) >= 20, "rows")
        for columns, lines in ((20, 5), (80, 24), (200, 60), (40, 10)):
            terminal.resize(columns, lines)
            mark, wanted = len(terminal.written), min(20, lines - 7)

            def is_drawn(text: list[str], mark: int = mark, wanted: int = wanted) -> bool:
                frames = terminal.written[mark:].count(b"\x1b[H")
                return frames >= 4 and "1m" in text[0] and row_count(text) >= wanted

            terminal.await_that(is_drawn, f"{columns} x {lines}")
        terminal.press("q")
        assert terminal.end() == 0


@pytest.mark.parametrize("how", ["ctrl-c", "SIGTERM", "SIGHUP"])
def test_every_stop_leaves_the_terminal_and_the_disk_clean(tmp_path: Path, how: str) -> None:
    with Terminal(variables(tmp_path), "demo") as terminal:
        terminal.await_that(row_count, "rows")
        if how == "ctrl-c":
            terminal.press("\x03")
        assert terminal.end(None if how == "ctrl-c" else signal.Signals[how]) == 0
        assert terminal.after.startswith("candles so far: ")
    assert list(tmp_path.glob("streamingcandle-demo-*")) == []


def test_no_color_is_respected(tmp_path: Path) -> None:
    with Terminal(variables(tmp_path) | {"NO_COLOR": "1"}, "demo") as terminal:
        terminal.await_that(row_count, "rows")
        terminal.press("q")
        assert terminal.end() == 0
    assert set(re.findall(rb"\x1b\[([0-9;]*)m", terminal.written)) <= {b"", b"0", b"1", b"2", b"4", b"7"}


def test_a_terminal_without_unicode_gets_none(tmp_path: Path) -> None:
    with Terminal(variables(tmp_path) | {"PYTHONIOENCODING": "ascii"}, "demo") as terminal:
        terminal.await_that(lambda lines: "forming" in "".join(lines), "rows")
        terminal.press("q")
        assert terminal.end() == 0
    assert terminal.written.isascii()


def test_an_end_of_its_own_on_a_terminal(tmp_path: Path) -> None:
    with Terminal(variables(tmp_path), "demo", "--seconds", "2") as terminal:
        assert terminal.end() == 0
        assert terminal.after.startswith("candles so far: ")


@pytest.mark.parametrize("more", [{}, {"FORCE_COLOR": "1", "TERM": "xterm"}])
def test_without_a_terminal_there_is_a_plain_summary(tmp_path: Path, more: dict[str, str]) -> None:
    done = run(variables(tmp_path) | more, "demo", "--seconds", "4")
    assert done.returncode == 0, done.stderr
    assert b"\x1b" not in done.stdout
    text = done.stdout.decode()
    assert re.search(r"^RELIANCE +09:\d\d +\d+\.\d\d", text, re.MULTILINE)
    assert re.search(r"^candles so far: [\d,]+ 1m, ", text, re.MULTILINE)
