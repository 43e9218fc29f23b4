"""Timeframes: one label for one length, wherever it is typed; and what each refusal suggests is accepted."""

import re
from collections.abc import Mapping

import pytest

from streamingcandle.candles.timeframe import parse_timeframe, parse_timeframes
from streamingcandle.errors import SettingsError
from streamingcandle.settings import Settings, load_settings
from streamingcandle.settings_table import duration_ms


def settings(variables: Mapping[str, str], **flags: str) -> Settings:
    return load_settings(flags, {f"STREAMINGCANDLE_{name}": text for name, text in variables.items()})


@pytest.mark.parametrize(
    ("typed", "label"),
    [
        ("60m", "1h"),
        ("60s", "1m"),
        ("3600s", "1h"),
        ("120m", "2h"),
        ("5400s", "90m"),
        ("90m", "90m"),
        ("90s", "90s"),
        (" 1h ", "1h"),
        ("1380m", "23h"),
        ("1d", "1d"),
    ],
)
def test_a_length_has_one_label(typed: str, label: str) -> None:
    timeframe = parse_timeframe(typed)
    assert timeframe.label == label
    assert parse_timeframe(label) == timeframe


@pytest.mark.parametrize("text", ["24h", "1440m", "86400s", "25h"])
def test_a_day_by_the_clock_is_no_trading_day(text: str) -> None:
    with pytest.raises(SettingsError, match=r"below a day .* nearest: 1d$"):
        parse_timeframe(text)


@pytest.mark.parametrize("text", ["", "5", "m", "5q", "0m", "1D", "2d", "-5m", "1.5m", "99999999h"])
def test_what_a_refusal_suggests_is_accepted(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_timeframe(text)
    parse_timeframe(str(caught.value).rpartition("nearest: ")[2])


@pytest.mark.parametrize(("text", "named"), [("60m,5m,1h", "60m and 1h"), ("1m,60s", "1m and 60s"), ("5m,5m", "5m")])
def test_a_length_twice_is_named_as_typed(text: str, named: str) -> None:
    with pytest.raises(SettingsError, match=rf"timeframes '{text}': {named}.* the same length; name it once"):
        parse_timeframes(text)


# ---- in the settings


def test_one_topic_whichever_was_typed_and_the_other_is_said() -> None:
    typed, plain = settings({"TIMEFRAMES": "5m,60m"}), settings({"TIMEFRAMES": "5m,1h"})
    assert typed.text("timeframes") == "5m,1h"
    assert typed.topics() == plain.topics()
    assert typed.topics().candles == ("5-min-candle", "1-hour-candle")
    assert typed.rules() == plain.rules()
    (said,) = typed.warnings
    assert said.startswith("STREAMINGCANDLE_TIMEFRAMES: 60m is 1h")
    assert "1-hour-candle" in said
    assert plain.warnings == ()


def test_an_instance_that_names_the_other() -> None:
    typed = settings({"INSTANCE": "60m"})
    assert typed.text("application_id") == settings({"INSTANCE": "1h"}).text("application_id")
    assert typed.topics().candles == ("1-hour-candle",)
    (said,) = typed.warnings
    assert said.startswith("STREAMINGCANDLE_INSTANCE: 60m is 1h")
    assert typed.text("application_id").endswith("-1h")
    assert typed.text("application_id") in said


def test_an_instance_and_a_variable_that_agree_in_other_words() -> None:
    assert settings({"INSTANCE": "60m", "TIMEFRAMES": "1h"}).text("timeframes") == "1h"


def test_only_what_holds_is_said() -> None:
    assert load_settings({"timeframes": "1h"}, {"STREAMINGCANDLE_TIMEFRAMES": "60m"}).warnings == ()


@pytest.mark.parametrize("grace", ["1s,60m=5s", "1s, 3600s =5s", "1s,1h=5s"])
def test_a_grace_for_the_other_name(grace: str) -> None:
    found = settings({"TIMEFRAMES": "5m,1h", "GRACE": grace})
    assert found.rules().grace_ms == (1_000, 5_000)
    said = [line for line in found.warnings if line.startswith("STREAMINGCANDLE_GRACE: ")]
    assert len(said) == ("1h" not in grace)


@pytest.mark.parametrize(
    ("grace", "said"),
    [
        ("1s,60m=5s,1h=2s", "60m and 1h are the same timeframe; name it once"),
        ("1s,5m=5s,5m=2s", "5m and 5m are the same timeframe; name it once"),
        ("1s,2s", "1s and 2s are both for all timeframes; give one"),
        ("1s,5mm=2s", "nearest: 5m"),
        ("1s,30m=2s", "30m is not among the timeframes"),
        ("1s,120m=2s", "120m is not among the timeframes"),
    ],
)
def test_a_grace_twice_or_for_nothing_is_refused(grace: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings({"TIMEFRAMES": "5m,1h", "GRACE": grace})
    assert str(caught.value).startswith(f"grace {grace!r}: ")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("grace", "horizon", "bound"),
    [
        ("20m", "10m", "20m"),
        ("1200s", "10m", "1200s"),
        ("1200000ms", "10m", "1200000ms"),
        ("1200", "600", "1200"),
        ("1s,5m=1.5h", "10m", "1.5h"),
        ("1s", "500ms", "1s"),
        ("1s", "1s", "1s"),
    ],
)
def test_what_the_horizon_should_be_is_accepted_and_in_the_words_typed(grace: str, horizon: str, bound: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings({"GRACE": grace, "ALLOWED_LATENESS": horizon})
    found = re.search(
        r"allowed_lateness (\S+) is not above .*set it above (\S+), for example (\S+)$", str(caught.value)
    )
    assert found is not None
    assert found.group(1, 2) == (horizon, bound)
    assert found[3].lstrip("0123456789.") == bound.lstrip("0123456789.")
    assert duration_ms(found[3]) > duration_ms(bound)
    settings({"GRACE": grace, "ALLOWED_LATENESS": found[3]})


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        (
            {"CANDLE_TOPIC_SECONDS": "{n}-x", "CANDLE_TOPIC_HOURS": "{n}-x"},
            "candle_topic_seconds and candle_topic_hours",
        ),
        ({"TICK_TOPIC": "1-hour-candle"}, "tick_topic and candle_topic_hours"),
        ({"TICK_TOPIC": "x-late", "APPLICATION_ID": "x"}, "tick_topic and application_id"),
    ],
)
def test_a_topic_for_two_purposes_names_the_settings_that_clash(variables: Mapping[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=rf"would serve two purposes, those of {named}; change one of the two$"):
        settings({"TIMEFRAMES": "1s,1h", **variables})
