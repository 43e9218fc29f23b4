"""`candles` into a file: every format says the same, and the file is whole or not there."""

import csv
import json
import re
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import click
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from program import PROGRAM, environment, run, run_well
from streamingcandle.cli.instruments import chosen, holdings
from streamingcandle.cli.options import time_ms
from streamingcandle.embedded.store import READ_BYTES_MAX, EmbeddedStore
from streamingcandle.errors import CheckError, SettingsError

CANDLES = ("candles", "N:C:1000")


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Give a deployment whose log holds candles."""
    made = environment("t", tmp_path_factory.mktemp("world"), None)
    run_well(made, "simulate", "--ticks", "3000", "--rate", "20", "--date", "2026-01-02", "--speed", "0")
    run_well(made, "run", "--until-end", "--flush")
    return made


def test_parquet_holds_what_json_says(variables: Mapping[str, str], tmp_path: Path) -> None:
    wanted = [json.loads(line) for line in run_well(variables, *CANDLES, "--format", "json").splitlines()]
    said = run_well(variables, *CANDLES, "--format", "parquet", "--output", str(tmp_path / "candles.parquet"))
    assert said == b""
    assert [path.name for path in tmp_path.iterdir()] == ["candles.parquet"]
    table = pq.read_table(tmp_path / "candles.parquet")
    rows = table.to_pylist()
    for row in rows:
        for start, millis in (("windowStart", "windowStartMillis"), ("windowEnd", "windowEndMillis")):
            assert row.pop(start) == datetime.fromtimestamp(row[millis] / 1_000, UTC)
    assert rows == wanted
    assert len(wanted) == 3
    types = {name: table.schema.field(name).type for name in table.schema.names}
    assert {types[name] for name in ("open", "high", "low", "close")} == {pa.float64()}
    assert {types[name] for name in ("volume", "ticks", "windowStartMillis", "sourceOffset")} == {pa.int64()}
    assert {types[name] for name in ("windowStart", "windowEnd")} == {pa.timestamp("ms", tz="UTC")}


def test_parquet_of_no_candles_has_the_same_columns(variables: Mapping[str, str], tmp_path: Path) -> None:
    full, empty = str(tmp_path / "full.parquet"), str(tmp_path / "empty.parquet")
    run_well(variables, *CANDLES, "--format", "parquet", "--output", full)
    run_well(variables, *CANDLES, "--to", "2026-01-01T00:00:00Z", "--output", empty)
    assert pq.read_table(empty).num_rows == 0
    assert pq.read_schema(empty) == pq.read_schema(full)


def test_parquet_of_fractions_is_exact(tmp_path: Path) -> None:
    variables = environment("t", tmp_path, None) | {"STREAMINGCANDLE_QUANTITY_DECIMALS": "2"}
    tick = {"Exch": "N", "ExchType": "C", "Token": 7, "LastRate": 1.5, "TickDt": "2026-01-02 09:15:01"}
    ticks = "".join(json.dumps(tick | {"LastQty": quantity}) + "\n" for quantity in (0.1, 0.2))
    assert run(variables, "ingest", "-", stdin=ticks.encode()).returncode == 0
    run_well(variables, "run", "--until-end", "--flush")
    run_well(variables, "candles", "N:C:7", "--format", "parquet", "--output", str(tmp_path / "candles.parquet"))
    assert pq.read_table(tmp_path / "candles.parquet")["volume"].to_pylist() == [Decimal("0.3")]


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_a_file_holds_what_stdout_shows(variables: Mapping[str, str], tmp_path: Path, form: str) -> None:
    target = tmp_path / "candles"
    target.write_text("what was there before")
    assert run_well(variables, *CANDLES, "--format", form, "--output", str(target)) == b""
    assert target.read_bytes() == run_well(variables, *CANDLES, "--format", form, "--output", "-")
    assert [path.name for path in tmp_path.iterdir()] == ["candles"]


def test_parquet_has_the_columns_of_the_csv(variables: Mapping[str, str], tmp_path: Path) -> None:
    names = next(csv.reader(run_well(variables, *CANDLES, "--format", "csv").decode().splitlines()))
    run_well(variables, *CANDLES, "--format", "parquet", "--output", str(tmp_path / "candles.parquet"))
    assert pq.read_schema(tmp_path / "candles.parquet").names == [*names, "windowStart", "windowEnd"]


def test_parquet_goes_to_a_file_only(variables: Mapping[str, str]) -> None:
    for output in ([], ["--output", "-"]):
        done = run(variables, *CANDLES, "--format", "parquet", *output)
        assert (done.returncode, done.stdout) == (2, b"")
        (line,) = done.stderr.decode().splitlines()
        assert "--output FILE" in line


def test_without_the_extra_parquet_is_refused_by_its_name(variables: Mapping[str, str], tmp_path: Path) -> None:
    (tmp_path / "pyarrow.py").write_text("raise ModuleNotFoundError(name='pyarrow')")
    without = dict(variables) | {"PYTHONPATH": str(tmp_path)}
    done = run(without, *CANDLES, "--format", "parquet", "--output", str(tmp_path / "candles.parquet"))
    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert "streamingcandle[parquet]" in line
    assert run_well(without, *CANDLES, "--format", "csv").startswith(b"open,")


def test_a_file_that_cannot_be_written_is_one_line(variables: Mapping[str, str], tmp_path: Path) -> None:
    done = run(variables, *CANDLES, "--format", "csv", "--output", str(tmp_path / "missing" / "candles.csv"))
    assert done.returncode == 3
    (line,) = done.stderr.decode().splitlines()
    assert "missing/candles.csv: No such file or directory" in line


def test_a_pipe_is_written_to(variables: Mapping[str, str]) -> None:
    said = run_well(variables, *CANDLES, "--output", "/dev/stdout", "--format", "csv")
    assert said == run_well(variables, *CANDLES, "--format", "csv")


@pytest.mark.parametrize("unbuffered", [{}, {"PYTHONUNBUFFERED": "1"}])
def test_a_reader_that_goes_away_is_no_failure(variables: Mapping[str, str], unbuffered: dict[str, str]) -> None:
    command = f'"{PROGRAM}" candles N:C:1000 --format json | true; echo ${{PIPESTATUS[0]}}'
    buffered = {name: text for name, text in variables.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(["bash", "-c", command], env=buffered | unbuffered, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"0\n", b"")


def _ingest(variables: Mapping[str, str], *ticks: tuple[str, int, str | None]) -> None:
    tick = {"ExchType": "C", "LastRate": 1.5, "TickDt": "2026-01-02 09:15:01", "ScripCode": "same"}
    lines = [json.dumps(tick | {"Exch": exch, "Token": token, "companyName": name}) for exch, token, name in ticks]
    assert run(variables, "ingest", "-", stdin="\n".join(lines).encode()).returncode == 0
    run_well(variables, "run", "--until-end", "--flush")


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Give a deployment with a name that two instruments have, one that a terminal would obey, and none."""
    made = environment("t", tmp_path_factory.mktemp("named"), None)
    names = [("N", 1, "Reliance Power"), ("N", 2, "RELIANCE"), ("N", 3, "TCS"), ("B", 3, "TCS"), ("N", 4, None)]
    _ingest(made, *names, ("N", 5, "[red]\x1b[2J"))
    return made


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("a.parquet", "parquet"), ("a.CSV", "csv"), ("a.jsonl", "json")],
)
def test_the_name_of_the_file_says_what_it_is(
    variables: Mapping[str, str], tmp_path: Path, name: str, wanted: str
) -> None:
    run_well(variables, *CANDLES, "--output", str(tmp_path / name))
    if wanted == "parquet":
        assert pq.read_table(tmp_path / name).num_rows == 3
    else:
        assert (tmp_path / name).read_bytes() == run_well(variables, *CANDLES, "--format", wanted)


def test_a_format_that_the_name_of_the_file_denies_is_refused(variables: Mapping[str, str], tmp_path: Path) -> None:
    done = run(variables, *CANDLES, "--output", str(tmp_path / "a.parquet"), "--format", "csv")
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])
    (line,) = done.stderr.decode().splitlines()
    assert "a.parquet: is parquet by its name, and --format says csv" in line


def test_a_name_is_an_instrument_in_any_case(named: Mapping[str, str]) -> None:
    (row,) = csv.DictReader(run_well(named, "candles", "reliance", "--format", "csv").decode().splitlines())
    assert (row["instrument"], row["companyName"]) == ("N:C:2", "RELIANCE")
    assert "N:C:1" in run_well(named, "candles", "reliance  POWER").decode()


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_several_instruments_can_be_told_apart(named: Mapping[str, str], tmp_path: Path, form: str) -> None:
    path = tmp_path / f"a.{form}"
    run_well(named, "candles", "N:C:4", "RELIANCE", "B:C:3", "N:C:2", "--timeframe", "5m", "--output", str(path))
    is_text = form == "csv"
    rows = list(csv.DictReader(path.read_text().splitlines())) if is_text else pq.read_table(path).to_pylist()
    assert [row["instrument"] for row in rows] == ["N:C:4", "N:C:2", "B:C:3"]
    assert {row["timeframe"] for row in rows} == {"5m"}


RELIANCE = [("N:C:1", "Reliance Power"), ("N:C:2", "RELIANCE"), ("N:C:3", "TCS"), ("B:C:3", "TCS"), ("N:C:4", None)]


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("RELIANC", CheckError, "no instrument with 1m candles has this name; nearest: N:C:1 (Reliance Power), N:C:2"),
        ("TCSS", CheckError, "nearest: N:C:3 (TCS)"),
        ("N:C:22", CheckError, "nearest: N:C:2 (RELIANCE)"),
        ("5", CheckError, "nearest: N:C:5"),
        ("tcs", SettingsError, "several instruments with 1m candles have this name; give one of B:C:3 (TCS), N:C:3"),
    ],
)
def test_a_name_that_is_none_or_not_the_only_one(text: str, kind: type[Exception], said: str) -> None:
    values = {key.encode(): _candle_of(name) for key, name in [*RELIANCE, ("N:C:5", "\x1b[2J")]}
    with pytest.raises(kind, match=re.escape(said)) as caught:
        chosen(text, holdings(values.items()), "1m candles")
    assert "\x1b" not in str(caught.value)


def _candle_of(name: str | None) -> bytes:
    times = dict.fromkeys(("humanReadableStartTime", "humanReadableEndTime"), "2026-01-02 09:15:00.000")
    return json.dumps({"companyName": name, "windowStartMillis": 1_767_325_500_000} | times).encode()


def test_an_instrument_without_candles_is_exit_1(named: Mapping[str, str]) -> None:
    done = run(named, "candles", "N:C:2", "N:C:99", "--format", "csv")
    assert (done.returncode, done.stdout) == (1, b"")
    (line,) = done.stderr.decode().splitlines()
    assert "N:C:99: no instrument with 1m candles has this name; nearest: " in line


def test_the_instruments_that_have_candles_are_listed(named: Mapping[str, str]) -> None:
    rows = list(csv.reader(run_well(named, "candles", "--list", "--format", "csv").decode().splitlines()))
    times = ["2026-01-02 09:15:00.000", "2026-01-02 09:16:00.000"]
    assert rows[0] == ["instrument", "companyName", "firstStart", "lastEnd"]
    assert rows[1:3] == [["B:C:3", "TCS", *times], ["N:C:1", "Reliance Power", *times]]
    assert [row[0] for row in rows[3:]] == ["N:C:2", "N:C:3", "N:C:4", "N:C:5"]
    table = run_well(named, "candles", "--list").decode()
    assert r"[red]\x1b[2J" in table
    found = [json.loads(line) for line in run_well(named, "candles", "--list", "rel", "--format", "json").splitlines()]
    assert [row["instrument"] for row in found] == ["N:C:1", "N:C:2"]


def test_no_candle_in_the_time_asked_for_is_said_and_no_failure(variables: Mapping[str, str]) -> None:
    done = run(variables, *CANDLES, "--to", "2026-01-01T00:00:00Z", "--format", "json")
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"N:C:1000: has 1m candles, none of them in the time asked for" in done.stderr


def test_without_any_candles_nothing_is_made(tmp_path: Path) -> None:
    done = run(environment("t", tmp_path, None), "candles", "TCS")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"`streamingcandle run` makes them" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["2026-01-02", "2026-01-02 09:15", "2026-01-02T09:15:00.250"])
def test_a_time_without_a_zone_is_told_what_is_missing(text: str) -> None:
    with pytest.raises(click.BadParameter, match="has no zone") as caught:
        time_ms("--from", text)
    (examples,) = re.findall(r"write (\S+) for India's time, (\S+) for UTC", caught.value.message)
    india_ms, utc_ms = (time_ms("--from", example) for example in examples)
    assert utc_ms == (india_ms or 0) + 19_800_000


def test_the_newest_candles_of_a_long_log_are_read(tmp_path: Path) -> None:
    variables = environment("t", tmp_path, None)
    _ingest(variables, ("N", 1, "TCS"))
    store = EmbeddedStore(tmp_path / "data" / "log.sqlite3")
    (candle,) = store.read_to_end("t-1-min-candle", 0)
    # Records that are no candles, for they fill a log sooner.
    store.append("t-1-min-candle", [(b"N:C:1", bytes(READ_BYTES_MAX // 3), 0, ())] * 4)
    newest = msgspec.json.decode(candle.value or b"") | {"windowStartMillis": 1_767_329_100_000}
    store.append("t-1-min-candle", [(b"N:C:1", msgspec.json.encode(newest), 0, ())])
    store.close()
    done = run(variables, "candles", "TCS", "--format", "csv")
    assert [row["windowStartMillis"] for row in csv.DictReader(done.stdout.decode().splitlines())] == [
        "1767325500000",
        "1767329100000",
    ]
    assert b"4 records that are no candles" in done.stderr
