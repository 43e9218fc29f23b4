"""Whether an application that has no offsets ever had some: they expire at the brokers, and groups are deleted.

To begin anew then would publish every candle again. A snapshot of this log is our own; candles made of ticks of this
log are ours or of another application that writes to the same topics (semantics §6, docs/decisions/0016).
"""

import logging
from collections.abc import Iterator, Sequence

import msgspec

from streamingcandle.candles.book import judge
from streamingcandle.candles.candle import Candle, decode_candle
from streamingcandle.candles.rules import Rules
from streamingcandle.errors import SettingsError
from streamingcandle.interfaces import Committed, Log
from streamingcandle.partition import PathSettings
from streamingcandle.state.snapshot import Snapshot

logger = logging.getLogger(__name__)

CANDLES_MAX = 50
"""So many of the newest of each partition of a candle topic are looked at."""
RECORDS_MAX = 5
"""Of so many of these the tick is looked up: a candle's last change may have come from outside its window."""


class Earlier:
    """The proofs of an earlier life, and what the user makes of them."""

    def __init__(self, log: Log, rules: Rules, settings: PathSettings) -> None:
        """Nothing is asked yet."""
        self._log = log
        self._rules = rules
        self._settings = settings
        self._candles: list[tuple[str, Candle]] | None = None
        """The newest with their topics, the last tick first."""

    def commit(self, number: int, snapshots: Sequence[tuple[Snapshot, str]]) -> Committed | None:
        """What to go on from where the group has no offset; None to begin at the setting `start`.

        `snapshots`: those of this partition and log, each with its place. SettingsError with the choices where there
        is a proof, and none was chosen.
        """
        if self._settings.is_publishing_again:
            return None
        if snapshots:
            snapshot, where = max(snapshots, key=lambda pair: pair[0].offset)
            found = Committed(snapshot.offset, snapshot.commit)
            proof = f"a snapshot at offset {found.offset} ({where}) says that it had one"
            other = "or bring the offsets back with `state restore`"
        elif (named := self._published(number)) is not None:
            topic, candle = named
            found = Committed(candle.source_offset + 1, "")
            proof = f"{topic} has candles of these ticks up to offset {candle.source_offset}"
            other = "or, where they are another application's, set another STREAMINGCANDLE_CANDLE_TOPIC"
        else:
            return None
        name = f"{self._settings.topics.ticks}[{number}]"
        if self._settings.is_adopting:
            logger.warning("%s: the group has no offset, and %s: going on from there", name, proof)
            return found
        message = (
            f"{name}: the group has no offset (expired, or deleted), and {proof}; run once with --adopt to go on from "
            f"there, with --publish-again to publish all from STREAMINGCANDLE_START={self._settings.start} on, {other}"
        )
        raise SettingsError(message)

    def _published(self, number: int) -> tuple[str, Candle] | None:
        """The candle with the last tick of this partition, where one of the newest is proved to be of this log."""
        if self._candles is None:
            self._candles = sorted(self._read(), key=lambda pair: pair[1].source_offset, reverse=True)
        newest = [(topic, candle) for topic, candle in self._candles if candle.source_partition == number]
        if not newest:
            return None
        end = self._log.ends([number])[number]
        within = [(topic, candle) for topic, candle in newest if 0 <= candle.source_offset < end][:RECORDS_MAX]
        return within[0] if any(self._is_of_log(candle) for _, candle in within) else None

    def _read(self) -> Iterator[tuple[str, Candle]]:
        for topic, values in self._log.newest(self._settings.topics.candles, CANDLES_MAX).items():
            for value in values:
                try:
                    yield topic, decode_candle(value)
                except (msgspec.DecodeError, ValueError, RecursionError):
                    continue  # somebody else's

    def _is_of_log(self, candle: Candle) -> bool:
        """Whether its last tick lies where it says: of its instrument, and of a time in its window."""
        record = self._log.record_at(candle.source_partition, candle.source_offset)
        if record is None:
            return False
        _, instrument, event_ms = judge(self._rules, [record.value], [record.timestamp_ms])[0]
        if event_ms is None or instrument is None:
            return False
        is_within = candle.window_start_millis <= event_ms <= candle.window_end_millis + self._rules.after_close_ms
        return is_within and str(instrument).startswith(f"{candle.exchange}:{candle.exchange_type}:")
