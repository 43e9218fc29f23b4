"""The variable that was meant, by its words.

A name that misses `KAFKA_` is nearer to the one with it than to any that merely has as many letters in common.
"""

from collections.abc import Iterable
from difflib import SequenceMatcher

SAME = {
    "broker": "bootstrap_servers",
    "brokers": "bootstrap_servers",
    "bootstrap": "bootstrap_servers",
    "servers": "bootstrap_servers",
    "group": "application_id",
    "app": "application",
    "name": "id",
    "topics": "topic",
    "input": "tick",
    "source": "tick",
    "ticks": "tick",
    "output": "candle",
    "sink": "candle",
    "candles": "candle",
    "interval": "timeframe",
    "intervals": "timeframe",
    "timeframe": "timeframes",
    "lateness": "allowed_lateness",
    "directory": "dir",
    "folder": "dir",
    "path": "dir",
    "user": "username",
    "calendar": "sessions",
    "session": "sessions",
    "timeout": "wait",
}
"""Words of other programs (Kafka's own, Spring's, Flink's) for what is called so here."""


def nearest_name(name: str, known: Iterable[str]) -> str:
    """Of the names in small letters the nearest: by words in common, from the end first; then by letters."""
    own = _words(name)
    return max(known, key=lambda other: _nearness(name, own, other))


def _words(name: str) -> list[str]:
    words = name.removeprefix("kafka_").split("_")
    return "_".join(SAME.get(word, word) for word in words).split("_")


def _nearness(name: str, own: list[str], other: str) -> tuple[bool, float, float]:
    words = _words(other)
    shorter = min(len(own), len(words))
    is_end = own[-shorter:] == words[-shorter:]
    common = len(set(own) & set(words)) / len(set(own) | set(words))
    return is_end, common, SequenceMatcher(None, name, other).ratio()
