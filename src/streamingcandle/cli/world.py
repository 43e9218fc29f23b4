"""What every command needs: settings, logging, and the log they point at."""

import json
import logging
import signal
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Protocol

from streamingcandle.candles.timeframe import parse_timeframe
from streamingcandle.clock import SystemClock
from streamingcandle.embedded.letters import EmbeddedLetters
from streamingcandle.embedded.log import EmbeddedLog
from streamingcandle.embedded.store import EmbeddedStore
from streamingcandle.embedded.tail import EmbeddedTail
from streamingcandle.errors import MissingTopicError, SettingsError, StreamingCandleError
from streamingcandle.interfaces import Log, Snapshots, Tail
from streamingcandle.kafka.client import KafkaSettings
from streamingcandle.kafka.feed import TickProducer
from streamingcandle.kafka.letters import KafkaLetters
from streamingcandle.kafka.log import KafkaLog
from streamingcandle.kafka.snapshots import KafkaSnapshots
from streamingcandle.kafka.tail import KafkaTail
from streamingcandle.kafka.topics import partition_counts
from streamingcandle.letters import Letters
from streamingcandle.masking import clean, forbid_core, is_secret
from streamingcandle.settings import Settings, load_settings
from streamingcandle.state.directory import Instance, claim, instances
from streamingcandle.state.files import FileSnapshots


class TickSink(Protocol):
    """Where `ingest` and `simulate` put ticks."""

    def append(self, records: Iterable[tuple[bytes | None, bytes | None, int]]) -> None:
        """Take `(key, value, timestamp_ms)`."""

    def flush(self) -> None:
        """Return when all of it is in the log."""


class _EmbeddedSink:
    def __init__(self, store: EmbeddedStore, topic: str) -> None:
        self._store = store
        self._topic = topic

    def append(self, records: Iterable[tuple[bytes | None, bytes | None, int]]) -> None:
        self._store.append(self._topic, [(key, value, at_ms, ()) for key, value, at_ms in records])

    def flush(self) -> None:
        """Every append is a transaction of its own."""


class World:
    """Built once a command; settings are read when first asked for."""

    def __init__(self, flags: dict[str, str | None], *, is_debug: bool) -> None:
        """`flags` are those before the command."""
        self._flags = flags
        self.is_debug = is_debug
        self.worker: int | None = None
        """Which of `run --workers` we are: told on each line of the log."""
        self.clock = SystemClock()

    @cached_property
    def settings(self) -> Settings:
        """SettingsError is one line."""
        settings = load_settings(self._flags)
        _start_logging(settings.text("log_format"), is_debug=self.is_debug, worker=self.worker)
        if any(map(is_secret, settings.kafka)):
            forbid_core()
        for warning in settings.warnings:
            logging.getLogger("streamingcandle.settings").warning(warning)
        return settings

    def settings_of(self, profile: str) -> Settings:
        """What the settings would be under this profile."""
        return load_settings({**self._flags, "profile": profile})

    @property
    def arguments(self) -> list[str]:
        """The flags before the command, for another process of this program."""
        named = [f"--{name}={text}" for name, text in self._flags.items() if text is not None]
        return [*named, "--debug"] if self.is_debug else named

    @property
    def store_path(self) -> Path:
        """The embedded log's file."""
        return Path(self.settings.text("data_dir")) / "log.sqlite3"

    def embedded_store(self) -> EmbeddedStore:
        """The embedded log, its tick topic made where it is missing."""
        store = EmbeddedStore(self.store_path)
        store.ensure_topic(self.settings.text("tick_topic"), 1)
        return store

    @property
    def snapshots_topic(self) -> str:
        """Where Kafka keeps the states of this application."""
        return f"{self.settings.text('application_id')}-snapshots"

    @property
    def doctor_identity(self) -> str:
        """Begins as an instance's does (`Instance.identity`), and is no instance's."""
        return f"{self.settings.text('application_id')}-doctor"

    def kafka(self) -> KafkaSettings:
        """For clients outside of the group."""
        return self.settings.kafka_settings(f"{self.settings.text('application_id')}-cli")

    def open_snapshots(self, instance: Instance, log: Log) -> list[Snapshots]:
        """Where the states of `log` are kept, the nearest first."""
        stores: list[Snapshots] = [] if instance.path is None else [FileSnapshots(instance.path)]
        if self.settings.bootstrap_servers is not None:
            stores.append(self.kafka_snapshots(len(log.partitions())))
        return stores

    def kafka_snapshots(self, partitions: int) -> KafkaSnapshots:
        """Those of the topic; `partitions`: of the tick topic."""
        return KafkaSnapshots(self.kafka(), self.clock, topic=self.snapshots_topic, partitions=partitions)

    def open_tail(self, is_stopping: Callable[[], bool]) -> Tail:
        """The log to look at from beside the group. MissingTopicError where there is none."""
        if self.settings.bootstrap_servers is not None:
            return KafkaTail(self.kafka(), self.clock, is_stopping)
        topic = self.settings.text("tick_topic")
        if not self.store_path.exists():
            raise MissingTopicError(
                f"topic {topic}: no embedded log at {self.store_path}; fill it with `streamingcandle simulate`, "
                "or set STREAMINGCANDLE_KAFKA_BOOTSTRAP_SERVERS"
            )
        store = EmbeddedStore(self.store_path)
        return EmbeddedTail(store, group=self.settings.text("application_id"), topic=topic, clock=self.clock)

    def found_snapshots(self) -> list[Snapshots]:
        """Every place where instances of this application left states, whoever runs them: to be read only."""
        application_id = self.settings.text("application_id")
        folders = instances(Path(self.settings.text("state_dir")))
        stores: list[Snapshots] = [FileSnapshots(path) for path in folders if path.parent.name == application_id]
        topic = self.snapshots_topic
        # The store would make a topic that is missing.
        if self.settings.bootstrap_servers is not None and (count := partition_counts(self.kafka()).get(topic)):
            stores.append(self.kafka_snapshots(count))
        return stores

    def timeframe(self, text: str) -> int:
        """The place of this timeframe among those that are run. SettingsError names them."""
        wanted = parse_timeframe(text).label
        labels = [timeframe.label for timeframe in self.settings.timeframes]
        if wanted not in labels:
            raise SettingsError(
                f"timeframe {wanted}: not among those run, {', '.join(labels)}; set STREAMINGCANDLE_TIMEFRAMES"
            )
        return labels.index(wanted)

    def open_log(self, instance: int | None, is_stopping: Callable[[], bool]) -> tuple[Log, Instance]:
        """The log to run on, and the instance claimed for it: keep both as long as it runs."""
        application_id = self.settings.text("application_id")
        if self.settings.bootstrap_servers is None:
            # Its own lock first: a second process is refused rather than made instance 1.
            topic = self.settings.text("tick_topic")
            store = EmbeddedStore(self.store_path)
            if not store.topics():
                store.ensure_topic(topic, 1)  # a fresh log; in one that has topics another name is a mistyped one
            try:
                log = EmbeddedLog(store, group=application_id, topic=topic, clock=self.clock)
            except StreamingCandleError:
                store.close()
                raise
            return log, self._claim(application_id, instance)
        claimed = self._claim(application_id, instance)
        settings = self.settings.kafka_settings(claimed.identity(application_id))
        return KafkaLog(settings, self.clock, is_stopping), claimed

    def _claim(self, application_id: str, number: int | None) -> Instance:
        base = Path(self.settings.text("state_dir"))
        return claim(base, application_id, now_ms=self.clock.wall_ms(), number=number)

    def open_letters(self, topic: str) -> Letters:
        """A topic of letters."""
        tick_topic = self.settings.text("tick_topic")
        if self.settings.bootstrap_servers is None:
            return EmbeddedLetters(self.embedded_store(), self.clock, topic=topic, tick_topic=tick_topic)
        settings = self.settings.kafka_settings(f"{self.settings.text('application_id')}-retry")
        return KafkaLetters(settings, self.clock, topic=topic)

    def open_sink(self) -> TickSink:
        """Where ticks go."""
        if self.settings.bootstrap_servers is None:
            return _EmbeddedSink(self.embedded_store(), self.settings.text("tick_topic"))
        return TickProducer(self.kafka())


def stop_on_signals(*, is_second_final: bool = True) -> Callable[[], bool]:
    """True once SIGTERM or SIGINT came; a second one ends the process at once, or is no news."""
    stopping = []

    def stop(number: int, _frame: object) -> None:
        stopping.append(number)
        if is_second_final:
            signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    return lambda: bool(stopping)


class _Stderr(logging.Handler):
    """Asks for stderr at each line: a bar stands in for it while it is drawn, and click would write past that."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(f"{clean(self.format(record))}\n")
            sys.stderr.flush()
        except Exception:  # noqa: BLE001 - a log line never ends the work, as in the standard handlers
            self.handleError(record)


class _JsonLines(logging.Formatter):
    def __init__(self, worker: int | None) -> None:
        super().__init__()
        self._worker = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._worker,
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def _start_logging(log_format: str, *, is_debug: bool, worker: int | None) -> None:
    is_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    handler = _Stderr()
    who = "" if worker is None else f"worker {worker}: "
    text = logging.Formatter(f"%(asctime)s %(levelname)s {who}%(message)s")
    handler.setFormatter(_JsonLines(worker) if is_json else text)
    logging.basicConfig(level=logging.DEBUG if is_debug else logging.INFO, handlers=[handler], force=True)
