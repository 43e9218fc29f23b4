"""The kernel's typed face: the only place that touches `_kernel`."""

from collections.abc import Sequence

from streamingcandle.candles import _kernel
from streamingcandle.candles._kernel import FORMAT_VERSION, Book
from streamingcandle.candles.rules import Rules

__all__ = ["FORMAT_VERSION", "Book", "Judgement", "Stamp", "judge", "new_book", "stamps"]

Judgement = tuple[str | None, str | None, int | None]
Stamp = tuple[str | None, int | None, int | None]


def new_book(rules: Rules, *, partition: int) -> Book:
    """An empty book of one input partition under these rules."""
    fields = rules.fields
    return Book(
        partition=partition,
        digest=rules.digest,
        timeframes=[(timeframe.label, timeframe.length_ms) for timeframe in rules.timeframes],
        fields=[getattr(fields, name) for name in fields.__struct_fields__],
        schedules=[
            (schedule.exchange, schedule.segment, schedule.utc_offsets, schedule.days, schedule.exceptions)
            for schedule in rules.calendar.schedules()
        ],
        allowed_lateness_ms=rules.allowed_lateness_ms,
        future_ms=rules.future_ms,
        after_close_ms=rules.after_close_ms,
        quantity_decimals=rules.quantity_decimals,
        instruments_max=rules.instruments_max,
        keep_outside=rules.outside_session == "keep",
        since_zero=rules.since_zero,
    )


def judge(rules: Rules, values: Sequence[bytes | None], timestamps_ms: Sequence[int]) -> list[Judgement]:
    """What a run would say of these records: `(reason, instrument, event_ms)` each, nothing folded.

    `reason` is None for a tick and for a quote; a quote has no event time.
    """
    return _kernel.judge(new_book(rules, partition=0), values, timestamps_ms)


def stamps(rules: Rules, values: Sequence[bytes]) -> list[Stamp]:
    """Where records belong and when, for who sends them: `(reason, token, event_ms)` each, read by the run's rules.

    `reason` is `json` or `instrument`: such a record has no key. Quotes and records that a run rejects for their price
    have a time as well; None is one that is absent or cannot be read.
    """
    return _kernel.stamps(new_book(rules, partition=0), values)
