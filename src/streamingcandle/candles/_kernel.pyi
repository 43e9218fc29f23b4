"""The border to Rust. Only `candles/book.py` crosses it. Times are epoch ms UTC.

Every method that walks records or windows lets the GIL go while it does.
"""

from collections.abc import Sequence
from typing import Self

FORMAT_VERSION: int
"""Version of what `Book.dump` writes, and the only one that `Book.load` reads."""

class Book:
    """The fold of one input partition: state = f(rules, log prefix)."""

    def __new__(
        cls,
        *,
        partition: int,
        digest: str,
        timeframes: Sequence[tuple[str, int]],
        fields: Sequence[str],
        schedules: Sequence[
            tuple[
                str,
                str,
                Sequence[tuple[int, int]],
                Sequence[tuple[int, int, int, Sequence[tuple[int, int]]]],
                Sequence[tuple[int, Sequence[tuple[int, int]]]],
            ]
        ],
        allowed_lateness_ms: int,
        future_ms: int,
        after_close_ms: int,
        quantity_decimals: int,
        instruments_max: int,
        keep_outside: bool,
        since_zero: Sequence[str],
    ) -> Self:
        """An empty book. ValueError: rules that no Python `Rules` can produce."""

    def fold(
        self,
        values: Sequence[bytes | None],
        timestamps_ms: Sequence[int],
        offsets: Sequence[int],
    ) -> tuple[list[tuple[int, str]], list[tuple[int, str]], list[tuple[int, str]]]:
        """Fold records in log order; three sequences of one length.

        Returns `(rejects, late, notes)`: index in the batch with the reason; index with the labels of the
        timeframes the tick was too late for, comma-separated; index of the batch's first tick of each kind of
        `time_fallback`, `optional_unreadable`, `volume_stuck`, with the kind. ValueError, and nothing folded, when
        an offset is not above the last; the book refuses to count a record twice.
        """

    def committed(self, *, frontiers_ms: Sequence[int], offsets: Sequence[int], flushed: Sequence[int]) -> None:
        """Take over what the last commit says, one number a timeframe; forget what is out and too late."""

    def freeze(self, fold_start_ms: int) -> None:
        """From now on windows that began before `fold_start_ms` and end at or before the frontier take no ticks."""

    def lose(self) -> None:
        """Records before the next one are gone or were passed over: until E has risen windows are not complete."""

    def close(self, *, due_ms: Sequence[int], flush: bool, candles_max: int) -> list[int]:
        """The C per timeframe that a commit reaches, given C' per timeframe; changes nothing in the book.

        Without `flush` it is below `due_ms` where more than `candles_max` windows would be due.
        """

    def candles(self, *, timeframe: int, frontier_ms: int, flush: bool) -> list[tuple[bytes, bytes]]:
        """What a commit that reaches C = `frontier_ms` publishes of a timeframe, by its place in the rules.

        `(key, value)` records, a window's older first; with `flush` what is open too. ValueError: no such timeframe.
        """

    def open_windows(
        self, *, timeframe: int, instruments: Sequence[tuple[str, str, int]] | None
    ) -> list[tuple[bytes, bytes]]:
        """Windows that end above the frontier, as they stand: `(key, value)` as `candles` gives them, older end first.

        `timeframe` by its place in the rules (ValueError: no such place); of these instruments (exchange, segment,
        token), or None for all. Changes nothing in the book; revisions of windows that are out are `close`'s.
        """

    def count_due(self, due_ms: Sequence[int]) -> int:
        """How many windows `close` would find due at these C', revisions not counted."""

    def next_ends_ms(self) -> list[int | None]:
        """Per timeframe the least end above the frontier among windows held, or None."""

    def last_ends_ms(self) -> list[int | None]:
        """Per timeframe the greatest end above the frontier among windows held, or None."""

    def event_ms(self) -> int | None:
        """E of semantics §4, or None while it has no second witness (docs/decisions/0010)."""

    def claim_ms(self) -> int | None:
        """The time of a tick more than an hour after E that waits for its witness, or None."""

    def usual_ms(self) -> int | None:
        """The time that half of the instruments have reached by their own clocks; None where none has one."""

    def set_event_ms(self, event_ms: int | None) -> None:
        """E as the last commit has it, or as another witness of the claim says; the claim is dropped."""

    def position(self) -> int | None:
        """Offset after the last record folded, or None before the first."""

    def ledger(self) -> dict[str, int]:
        """Counts since the fold's start; `read` is the sum of folded, quotes, outside, late and rejected."""

    def instruments(self) -> int:
        """How many instruments are held."""

    def take_new(self) -> list[tuple[str, int]]:
        """Instruments met since the last call, and the greatest event time of each one's ticks."""

    def seen_ms(self, exchange: str, segment: str, token: int) -> int | None:
        """The greatest event time of this instrument's ticks; None where it is not held."""

    def dump(self, fingerprint: bytes) -> bytes:
        """The whole state, versioned, with the rules' digest, the fingerprint and a checksum."""

    def load(self, dumped: bytes) -> bytes:
        """Replace the state by a dumped one and return its fingerprint.

        ValueError, and nothing changed, for other rules, another partition, a newer version or damage.
        """

def judge(
    book: Book, values: Sequence[bytes | None], timestamps_ms: Sequence[int]
) -> list[tuple[str | None, str | None, int | None]]:
    """Per record `(reason, instrument, event_ms)` without folding it.

    `reason` is None for a tick or a quote; instrument and event time are None where not readable.
    """

def stamps(book: Book, values: Sequence[bytes]) -> list[tuple[str | None, int | None, int | None]]:
    """Per record `(reason, token, event_ms)`, whatever else is wrong with it.

    `reason` is `json` or `instrument`, and the others are None then; `event_ms` is None where it is not readable.
    """
