"""Ticks as a broker sends them: 350 bytes of JSON, five a minute of each instrument, from an NSE open on."""

from collections.abc import Iterator

from confluent_kafka import Producer

OPEN_MS = 1_767_325_500_000
"""2026-01-02 09:15 in Kolkata."""
TICKS_A_MINUTE = 5
FIRST_TOKEN = 1_000
FLUSH_RECORDS = 100_000
FLUSH_TIMEOUT_S = 60.0
TICK = (
    '{"Exch":"N","ExchType":"C","Token":%d,"LastRate":%.2f,"LastQty":2,"TotalQty":%d,"High":246500.0,"Low":239499.0,'
    '"OpenRate":239499.0,"PClose":238010.0,"AvgRate":244055.48,"BidQty":1,"BidRate":246309.0,"OffQty":1,'
    '"OffRate":246346.0,"TBidQ":4460,"TOffQ":1644,"TickDt":"/Date(%d)/","ChgPcnt":3.5023737,'
    '"companyName":"SILVERMIC 27 FEB 2026"}'
)


def at_ms(index: int, instruments: int) -> int:
    """Event time of the tick of that number."""
    return OPEN_MS + index * 60_000 // (instruments * TICKS_A_MINUTE)


def tick(index: int, instruments: int, *, event_ms: int, is_quote: bool = False) -> tuple[bytes, bytes]:
    """Key and value; instruments take turns. A quote has no trade: it is decoded and not folded."""
    token = FIRST_TOKEN + index % instruments
    price = 0 if is_quote else 100 + index * 7 % 100 / 10
    return str(token).encode(), (TICK % (token, price, 1_000 + index * 2, event_ms)).encode()


def past_ticks(count: int, instruments: int) -> Iterator[tuple[bytes, bytes, int]]:
    """`(key, value, timestamp_ms)` of a past day."""
    for index in range(count):
        event_ms = at_ms(index, instruments)
        yield *tick(index, instruments, event_ms=event_ms), event_ms


def new_producer(bootstrap: str) -> Producer:
    """A producer that fills its batches, and partitions as Java does."""
    return Producer(
        {
            "bootstrap.servers": bootstrap,
            "partitioner": "murmur2_random",
            "linger.ms": 20,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 2 * FLUSH_RECORDS,
            "log_level": 0,
        }
    )


def fill(bootstrap: str, topic: str, count: int, instruments: int) -> None:
    """Append ticks of a past day to the topic."""
    producer = new_producer(bootstrap)
    for index, (key, value, timestamp_ms) in enumerate(past_ticks(count, instruments)):
        producer.produce(topic, value, key, timestamp=timestamp_ms)
        if index % FLUSH_RECORDS == 0:
            producer.flush(FLUSH_TIMEOUT_S)
    if producer.flush(FLUSH_TIMEOUT_S):
        raise RuntimeError(f"{topic}: not all ticks were taken within {FLUSH_TIMEOUT_S:.0f} s")
