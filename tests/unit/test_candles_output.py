"""`candles` into a file: every format says the same, and the file is whole or not there."""

import csv
import json
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from program import PROGRAM, environment, run, run_well

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
    run_well(variables, "candles", "N:C:1", "--format", "parquet", "--output", empty)
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
