"""The setting `instance`, as systemd's template gives it: a number, or a timeframe that is a deployment of its own."""

from pathlib import Path

import pytest

from program import environment, run
from streamingcandle.errors import SettingsError
from streamingcandle.settings import Settings, load_settings

DEFAULT_ID = "candle-processor-ticktooneminprocessor"
SHARED = """\
application_id = "candles"
timeframes = ["1m", "5m"]
grace = "1s,5m=3s"
[profile.other]
timeframes = ["2m"]
"""


def settings(folder: Path | None = None, **variables: str) -> Settings:
    flags = {} if folder is None else {"config": str(folder / "shared.toml")}
    return load_settings(flags, {f"STREAMINGCANDLE_{name}": text for name, text in variables.items()})


def labels(found: Settings) -> list[str]:
    return [timeframe.label for timeframe in found.timeframes]


def test_a_timeframe_is_run_alone_under_an_id_with_its_name() -> None:
    found = settings(INSTANCE="1m")
    assert found.text("application_id") == f"{DEFAULT_ID}-1m"
    assert (labels(found), found.instance_number) == (["1m"], None)
    assert found.topics().candles == ("1-min-candle",)
    assert found.topics().late == f"{DEFAULT_ID}-1m-late"
    assert found.values["timeframes"].origin == "instance 1m"
    assert labels(settings(INSTANCE="10m")) == ["10m"]  # none that is run otherwise


def test_deployments_of_one_timeframe_each_share_a_file(tmp_path: Path) -> None:
    (tmp_path / "shared.toml").write_text(SHARED)
    found = {label: settings(tmp_path, INSTANCE=label) for label in ("1m", "5m")}
    assert [one.text("application_id") for one in found.values()] == ["candles-1m", "candles-5m"]
    assert [labels(one) for one in found.values()] == [["1m"], ["5m"]]
    assert [one.rules().grace_ms for one in found.values()] == [(1_000,), (3_000,)]
    assert labels(settings(tmp_path, INSTANCE="1m", PROFILE="other")) == ["1m"]


def test_what_a_variable_says_is_not_said_twice_and_not_against_it() -> None:
    assert settings(INSTANCE="1m", APPLICATION_ID="candles-1m").text("application_id") == "candles-1m"
    assert labels(settings(INSTANCE="1m", TIMEFRAMES="1m")) == ["1m"]
    with pytest.raises(SettingsError, match=r"TIMEFRAMES='1m,5m'.*instance 1m runs 1m alone; unset one"):
        settings(INSTANCE="1m", TIMEFRAMES="1m,5m")
    with pytest.raises(SettingsError, match="at most 236"):
        settings(INSTANCE="1m", APPLICATION_ID="c" * 248)


@pytest.mark.parametrize(("text", "number"), [("", None), ("0", 0), ("07", 7), ("63", 63)])
def test_a_number_changes_who_we_are_and_nothing_else(text: str, number: int | None) -> None:
    found = settings(INSTANCE=text)
    assert found.instance_number == number
    assert (found.text("application_id"), len(labels(found))) == (DEFAULT_ID, 6)


def test_run_is_that_instance_of_the_host(tmp_path: Path) -> None:
    variables = environment("t", tmp_path, None) | {"STREAMINGCANDLE_INSTANCE": "7"}
    assert run(variables, "topics", "ensure").returncode == 0
    assert run(variables, "run", "--until-end").returncode == 0
    assert (tmp_path / "state" / "t-app" / "instance-7").is_dir()
    done = run(variables, "run", "--workers", "2")
    assert (done.returncode, b"each worker is an instance of its own" in done.stderr) == (2, True)
