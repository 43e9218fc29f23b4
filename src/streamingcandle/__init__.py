"""OHLCV candles from a Kafka tick topic: right, on time, each exactly once."""

from importlib.metadata import version

__version__ = version("streamingcandle")
