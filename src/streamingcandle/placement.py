"""One instrument, one partition: what a candle rests on, checked (specification §6.5).

Two books that each see a part of an instrument's ticks would both publish its windows, and both wrongly.
"""

import logging
from collections.abc import Mapping

from streamingcandle.candles.book import judge
from streamingcandle.candles.commit import Commit
from streamingcandle.candles.instrument import parse_instrument
from streamingcandle.candles.rules import Rules
from streamingcandle.errors import SettingsError
from streamingcandle.interfaces import Committed, Records
from streamingcandle.partition import InputPartition, PathSettings
from streamingcandle.unlisted import Unlisted

logger = logging.getLogger(__name__)

CHOICE = "or set STREAMINGCANDLE_PARTITION_CHECK=warn to go on with candles that may be split"


class Placement:
    """Knows which of our partitions each instrument is in; refuses, or by setting warns."""

    def __init__(self, rules: Rules, settings: PathSettings) -> None:
        """Nothing is known yet."""
        self._rules = rules
        self._settings = settings
        self._homes: dict[str, int] = {}
        self._told: set[str] = set()
        self._unlisted = Unlisted(rules, settings.topics.ticks)

    def check_keys(self, records: Records) -> None:
        """A tick without a key went to any partition: SettingsError names the first such record."""
        found = [records.origin(index) for index in records.keyless]
        verdicts = judge(self._rules, [r.value for r in found], [r.timestamp_ms for r in found]) if found else []
        for record, (reason, instrument, _) in zip(found, verdicts, strict=True):
            if reason is None and instrument is not None:
                where = f"{self._settings.topics.ticks}[{records.partition}]@{record.offset}"
                self._refuse(
                    "keyless",
                    f"{where}: a tick of {instrument} without a key, so its ticks may be in any partition; "
                    f"key the records by token, {CHOICE}",
                )
                return

    def check_new(self, partitions: Mapping[int, InputPartition], records: Records) -> None:
        """Look at instruments that these records, now folded, brought for the first time.

        SettingsError names one that trades in two of our partitions on one day.
        """
        number = records.partition
        new = partitions[number].book.take_new()
        self._unlisted.check(records, [name for name, _ in new])
        for name, seen_ms in new:
            home = self._homes.get(name, number)
            if home != number and home in partitions and self._is_same_day(name, partitions[home], seen_ms):
                self._refuse(
                    name,
                    f"{self._settings.topics.ticks}: {name} is in partitions {home} and {number}: its producers "
                    "do not agree on the partitioner or its key changed; let all use murmur2 (Java's default; "
                    f"librdkafka: partitioner=murmur2_random) and one key, {CHOICE}",
                )
            self._homes[name] = number
        if len(self._homes) > 2 * self._rules.instruments_max * len(partitions):
            # A feed may make up as many names as it likes: those that are held no longer go.
            held = (name for name, home in self._homes.items() if self._is_held(name, partitions.get(home)))
            self._homes = {name: self._homes[name] for name in held}

    def check_count(self, number: int, count: int, committed: Mapping[int, Committed | None]) -> None:
        """SettingsError where partition `number` was added while another had windows open: its instruments moved."""
        commits = [Commit.decode(found.metadata) for found in committed.values() if found is not None]
        known = [commit for commit in commits if commit is not None and commit.partitions]
        before = max((commit.partitions for commit in known), default=count)
        if number >= before and any(commit.open_windows for commit in known):
            self._refuse(
                f"added {number}",
                f"{self._settings.topics.ticks}: partitions were added ({before}, now {count}) while windows are open, "
                f"and keys went elsewhere in the middle of them; stop the feed until they are out, {CHOICE}",
            )

    def _is_held(self, name: str, partition: InputPartition | None) -> bool:
        instrument = parse_instrument(name)
        named = (instrument.exchange, instrument.segment, instrument.token)
        return partition is not None and partition.book.seen_ms(*named) is not None

    def _is_same_day(self, name: str, other: InputPartition, seen_ms: int) -> bool:
        instrument = parse_instrument(name)
        other_ms = other.book.seen_ms(instrument.exchange, instrument.segment, instrument.token)
        schedule = self._rules.calendar.schedule(instrument.exchange, instrument.segment)
        return other_ms is not None and schedule.trading_day(other_ms) == schedule.trading_day(seen_ms)

    def _refuse(self, about: str, message: str) -> None:
        if not self._settings.is_split_accepted:
            raise SettingsError(message)
        if about not in self._told:
            self._told.add(about)
            logger.warning("%s", message)
