"""What a commit says of a partition beside its offset: the metadata of specification §6.1.

Kafka keeps it with the offset (at most 4,096 bytes, more is refused), so a process that takes the partition over
knows how far the feed clock and the frontiers had come, without any store of ours.
"""

import zlib
from collections.abc import Sequence
from typing import Self

import msgspec

from streamingcandle.candles.rules import Rules
from streamingcandle.errors import SettingsError

VERSION = 1
METADATA_BYTES_MAX = 4_000
"""Below the brokers' `offset.metadata.max.bytes`, 4,096 unless somebody set another."""
NUMBER_MAX = 2**62
"""Above every time and offset, and so low that no sum of two overflows the kernel's 63 bits."""


MARK_LENGTH = 6


def topic_marks(names: Sequence[str]) -> str:
    """Names of topics in short, so that two deployments that write to the same one are noticed."""
    return "".join(f"{zlib.crc32(name.encode()) & 0xFFFFFF:0{MARK_LENGTH}x}" for name in names)


class _Version(msgspec.Struct, frozen=True):
    v: int


class Fingerprint(msgspec.Struct, frozen=True, array_like=True):
    """Which log this was: the last record read, and the topic's id."""

    offset: int
    timestamp_ms: int
    checksum: int
    topic_id: str

    def is_sound(self) -> bool:
        """Whether its numbers can be a record's; -1 is the timestamp of one that has none."""
        return 0 <= self.offset <= NUMBER_MAX and -1 <= self.timestamp_ms <= NUMBER_MAX and 0 <= self.checksum < 2**32


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """Metadata of one committed offset; names as in specification §6.1. Times in epoch ms."""

    version: int = msgspec.field(name="v", default=VERSION)
    f_ms: int = msgspec.field(name="F", default=0)
    e_ms: int | None = msgspec.field(name="E", default=None)
    claim_ms: int | None = msgspec.field(name="e", default=None)
    """The time of a tick that waited for its witness (§4.2): before there is an E, all that is known of the time."""
    w_ms: int = msgspec.field(name="W", default=0)
    frontiers_ms: dict[str, int] = msgspec.field(name="C", default_factory=dict)
    flushed: dict[str, int] = msgspec.field(name="fl", default_factory=dict)
    offsets: dict[str, int] = msgspec.field(name="O", default_factory=dict)
    rules: str = msgspec.field(name="r", default="")
    fingerprint: Fingerprint | None = msgspec.field(name="fp", default=None)
    partitions: int = msgspec.field(name="n", default=0)
    """How many the tick topic had."""
    open_windows: int = msgspec.field(name="w", default=0)
    """Windows held that are not out."""
    snapshot: int = msgspec.field(name="s", default=0)
    """Offset of the newest snapshot, as far as its writer knows: an older one is worth a look elsewhere."""

    topics: str = msgspec.field(name="t", default="")
    """`topic_marks` of the candle topics it went to."""

    @property
    def marks(self) -> list[str]:
        """The same, each alone."""
        return [self.topics[at : at + MARK_LENGTH] for at in range(0, len(self.topics), MARK_LENGTH)]

    def encode(self) -> str:
        """The metadata string."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def decode(cls, metadata: str) -> Self | None:
        """None when the text is no metadata of ours; SettingsError where a newer program wrote it."""
        if not metadata.startswith('{"v":'):
            return None
        try:
            version = msgspec.json.decode(metadata, type=_Version).v
            if version <= VERSION:
                commit = msgspec.json.decode(metadata, type=cls)
                return commit if commit.is_sound() else None
        except (msgspec.DecodeError, ValueError, RecursionError):
            return None
        message = (
            f"the group's last commit is of format {version}, this program reads up to {VERSION}: "
            "a newer streamingcandle ran in this group; start that one"
        )
        raise SettingsError(message)

    def is_sound(self) -> bool:
        """Whether every number is one that a fold may be given."""
        offsets = (*self.offsets.values(), *self.flushed.values(), self.partitions, self.open_windows, self.snapshot)
        times_ms = (self.f_ms, self.e_ms or 0, self.claim_ms or 0, self.w_ms, *self.frontiers_ms.values())
        is_sound = self.fingerprint is None or self.fingerprint.is_sound()
        return is_sound and all(0 <= n <= NUMBER_MAX for n in offsets) and all(abs(n) <= NUMBER_MAX for n in times_ms)

    def bounded(self, rules: Rules) -> Self:
        """The same, short enough for the brokers: of timeframes not run the one longest away goes first.

        One that was let go is a new timeframe when it comes back. SettingsError where those run are too many alone.
        """
        running = {timeframe.label for timeframe in rules.timeframes}
        away = sorted((self.frontiers_ms.keys() | self.offsets.keys() | self.flushed.keys()) - running)
        away.sort(key=lambda label: self.offsets.get(label, 0))
        kept = self
        while len(kept.encode().encode()) > METADATA_BYTES_MAX:
            if not away:
                message = f"{len(running)} timeframes are more than a commit has room for; run some of them in another"
                raise SettingsError(f"{message} process, with its own STREAMINGCANDLE_APPLICATION_ID")
            kept = kept._without(away.pop(0))
        return kept

    def _without(self, label: str) -> Self:
        frontiers_ms, offsets, flushed = (
            {other: value for other, value in values.items() if other != label}
            for values in (self.frontiers_ms, self.offsets, self.flushed)
        )
        return msgspec.structs.replace(self, frontiers_ms=frontiers_ms, offsets=offsets, flushed=flushed)

    def lowered(self, end: int) -> Self:
        """The same with no offset above `end`: the log lost its tail, and what comes now at those offsets is new."""
        return msgspec.structs.replace(
            self,
            offsets={label: min(offset, end) for label, offset in self.offsets.items()},
            flushed={label: min(offset, end) for label, offset in self.flushed.items()},
        )

    def frontiers_of(self, rules: Rules) -> list[int]:
        """C per timeframe; one that never ran begins at the committed F (§6.5)."""
        return [self.frontiers_ms.get(timeframe.label, self.f_ms) for timeframe in rules.timeframes]

    def offsets_of(self, rules: Rules, *, offset: int) -> list[int]:
        """O per timeframe; one that never ran has nothing published below the committed offset."""
        return [self.offsets.get(timeframe.label, offset) for timeframe in rules.timeframes]

    def flushed_of(self, rules: Rules) -> list[int]:
        """Offset of the last flush per timeframe, 0 for none."""
        return [self.flushed.get(timeframe.label, 0) for timeframe in rules.timeframes]

    def is_flushed(self, rules: Rules, offset: int) -> bool:
        """Whether the windows of the records before `offset` are out, open ones too."""
        return min(self.flushed_of(rules)) >= offset

    def updated(
        self, rules: Rules, *, frontiers_ms: Sequence[int], offset: int, is_flush: bool
    ) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
        """`(C, O, flushed)` after a commit at `offset`; timeframes not run keep theirs."""
        labels = [timeframe.label for timeframe in rules.timeframes]
        flushed = dict.fromkeys(labels, offset) if is_flush else {}
        return (
            self.frontiers_ms | dict(zip(labels, frontiers_ms, strict=True)),
            self.offsets | dict.fromkeys(labels, offset),
            self.flushed | flushed,
        )
