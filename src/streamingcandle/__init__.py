"""OHLCV candles from a Kafka tick topic: right, on time, each exactly once."""

__version__: str


def __getattr__(name: str) -> str:
    """The version, asked for when somebody wants it: the question takes as long as a fifth of `--help`."""
    if name != "__version__":
        raise AttributeError(name)
    from importlib.metadata import version  # noqa: PLC0415

    return version("streamingcandle")
