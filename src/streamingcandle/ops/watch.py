"""The path as one who only looks walks it: the same fold and the same closes, on a log that publishes nothing.

What is closed here is what the group's next commits publish; what is open is read from the books. A commit
stands for the group's own: it lets the books forget, so that looking for a day holds no more than running.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from streamingcandle.candles.candle import Candle, decode_candle
from streamingcandle.candles.instrument import Instrument
from streamingcandle.candles.rules import Rules
from streamingcandle.interfaces import BrokerAwayError, Clock, Snapshots, Tail
from streamingcandle.partition import PathSettings
from streamingcandle.pipeline import BACKLOG_RECORDS, RETRY_MS, Path

Seen = tuple[str, Candle]
"""The instrument's key, and a candle of it."""


class Standing(msgspec.Struct, frozen=True):
    """How far the fold is. `feed_ms` is the feed clock of the partition that is farthest behind, 0 for none yet."""

    feed_ms: int
    ledger: Mapping[str, int]
    position: int
    goal: int
    """Sums of the offsets read, and of the ends when we began."""
    is_caught_up: bool
    is_away: bool


class Watch:
    """Folds the tick topic beside the group: from its last commit on, with its snapshots."""

    def __init__(
        self,
        log: Tail,
        clock: Clock,
        rules: Rules,
        settings: PathSettings,
        snapshots: Sequence[Snapshots],
        instruments: Sequence[Instrument] | None = None,
    ) -> None:
        """`log` stays the caller's to close. `instruments`: those to look at, None for all."""
        self.is_caught_up = False
        """Whether all was read that was there when we began."""
        self.is_news = False
        """Whether what the last turn returned was read after that."""
        self._named = None if instruments is None else [(i.exchange, i.segment, i.token) for i in instruments]
        self._keys = None if instruments is None else {str(i).encode() for i in instruments}
        self._clock = clock
        self._log = log
        self._goal = dict(log.ends(log.partitions()))
        # Another program's offsets, split instruments, gone ticks are the service's to refuse: looking does no harm.
        looking = msgspec.structs.replace(settings, is_adopting=True, is_split_accepted=True, is_stopped_by_gone=False)
        self._path = Path(log, clock, rules, looking, snapshots)
        self._is_away = False

    def turn(self, timeout_s: float) -> list[Seen]:
        """Read on, for at most so long without a record; what closed or was revised, in order of publication.

        A broker lost at the first turn is an OutsideError; later it is waited for.
        """
        path = self._path
        try:
            batches = list(self._log.poll(min(timeout_s, path.wait_s()), self))
            self.is_news = self.is_caught_up
            path.fold(batches)
            path.tell_time()
            if path.is_commit_due(is_caught_up=sum(len(b.values) for b in batches) < BACKLOG_RECORDS):
                path.commit()
        except BrokerAwayError:
            if not path.partitions:
                raise
            self._is_away = True
            path.retry_at_ms = self._clock.monotonic_ms() + RETRY_MS
        else:
            self._is_away = False
            self.is_caught_up = self.is_caught_up or path.has_reached(self._goal)
        published = [record for shown in self._log.shown for _, records in shown.candles for record in records]
        self._log.shown.clear()
        return [
            (key.decode(), decode_candle(value)) for key, value in published if self._keys is None or key in self._keys
        ]

    # ---- as the log's listener ----

    def assigned(self, partitions: Sequence[int]) -> Mapping[int, int]:
        """See `interfaces.Listener`. With nothing to catch up with, what this same poll reads is news."""
        offsets = self._path.assigned(partitions)
        self.is_caught_up = self.is_caught_up or self._path.has_reached(self._goal)
        return offsets

    def revoked(self, partitions: Sequence[int]) -> None:
        """See `interfaces.Listener`."""
        self._path.revoked(partitions)

    def gone(self, partition: int, offset: int) -> None:
        """See `interfaces.Listener`."""
        self._path.gone(partition, offset)

    # ---- what there is to see ----

    def forming(self, timeframe: int) -> list[Seen]:
        """The windows not closed yet of a timeframe, by its place in the rules; older end first within a partition."""
        return [
            (key.decode(), decode_candle(value))
            for partition in self._path.partitions.values()
            for key, value in partition.book.open_windows(timeframe=timeframe, instruments=self._named)
        ]

    def is_known(self, instrument: Instrument) -> bool:
        """Whether a tick of it was folded."""
        books = [partition.book for partition in self._path.partitions.values()]
        return any(
            book.seen_ms(instrument.exchange, instrument.segment, instrument.token) is not None for book in books
        )

    def standing(self) -> Standing:
        """How far the fold is now."""
        partitions = self._path.partitions.values()
        ledger: Counter[str] = Counter()
        for partition in partitions:
            ledger.update(partition.book.ledger())
        return Standing(
            feed_ms=min((p.clock.f_ms for p in partitions if p.clock.f_ms), default=0),
            ledger=ledger,
            position=sum(partition.position for partition in partitions),
            goal=sum(self._goal.values()),
            is_caught_up=self.is_caught_up,
            is_away=self._is_away,
        )
