"""What a commit says of a partition beside its offset: the metadata of semantics §6.

Kafka keeps it with the offset (at most 4,096 bytes), so a process that takes the partition over knows
how far the feed clock and the frontiers had come, without any store of ours.
"""

import zlib
from collections.abc import Sequence
from typing import Self

import msgspec

from streamingcandle.candles.rules import Rules
from streamingcandle.errors import SettingsError

VERSION = 1


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


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """Metadata of one committed offset; names as in semantics §6. Times in epoch ms."""

    version: int = msgspec.field(name="v", default=VERSION)
    f_ms: int = msgspec.field(name="F", default=0)
    e_ms: int | None = msgspec.field(name="E", default=None)
    claim_ms: int | None = msgspec.field(name="e", default=None)
    """The time of a tick that waited for its witness (0010): before there is an E, all that is known of the time."""
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
                return msgspec.json.decode(metadata, type=cls)
        except msgspec.DecodeError:
            return None
        message = (
            f"the group's last commit is of format {version}, this program reads up to {VERSION}: "
            "a newer streamingcandle ran in this group; start that one"
        )
        raise SettingsError(message)

    def lowered(self, end: int) -> Self:
        """The same with no offset above `end`: the log lost its tail, and what comes now at those offsets is new."""
        return msgspec.structs.replace(
            self,
            offsets={label: min(offset, end) for label, offset in self.offsets.items()},
            flushed={label: min(offset, end) for label, offset in self.flushed.items()},
        )

    def frontiers_of(self, rules: Rules) -> list[int]:
        """C per timeframe; one that never ran begins at the committed F (§6, changed rules)."""
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
