"""A market from a seed: instruments that trade over a day, as a broker's feed tells of them."""

import json
import random
from collections.abc import Iterator

import msgspec

from streamingcandle.candles.session import DAY_MS, Calendar

_NAMES = ("RELIANCE", "TCS", "HDFCBANK", "INFY", "ICICIBANK", "SBIN", "ITC", "LT", "AXISBANK", "MARUTI")
_METALS = ("SILVERMIC", "GOLDM", "CRUDEOIL", "NATURALGAS", "COPPER")


class Listing(msgspec.Struct, frozen=True):
    """One instrument of the market."""

    exchange: str
    segment: str
    token: int
    name: str
    price: float


class MarketTick(msgspec.Struct, frozen=True):
    """One record for the tick topic."""

    at_ms: int
    key: bytes
    value: bytes


def listings(count: int, seed: int) -> list[Listing]:
    """`count` instruments: half NSE cash, a quarter NSE derivatives, a quarter MCX."""
    rng = random.Random(f"listings-{seed}")
    found = []
    for index in range(count):
        exchange, segment = (("N", "C"), ("N", "D"), ("N", "C"), ("M", "D"))[index % 4]
        names = _METALS if exchange == "M" else _NAMES
        number = index // len(names)
        name = names[index % len(names)] + (f" {number + 1}" if number else "")
        token = 1_000 + index
        found.append(Listing(exchange, segment, token, name, round(rng.uniform(50, 5_000), 2)))
    return found


class Market:
    """Prices walk, totals rise; a few ticks come late, a few twice."""

    def __init__(self, instruments: int, *, seed: int, disorder: float = 0.01) -> None:
        """The same seed is the same market."""
        self._rng = random.Random(f"market-{seed}")
        self._listings = listings(instruments, seed)
        self._prices = [listing.price for listing in self._listings]
        self._totals = [self._rng.randint(0, 50_000) for _ in self._listings]
        self._disorder = disorder

    def tick(self, at_ms: int) -> MarketTick:
        """A trade of some instrument at this time."""
        rng = self._rng
        index = rng.randrange(len(self._listings))
        listing = self._listings[index]
        step = max(0.05, listing.price * 0.0004)
        self._prices[index] = max(0.05, self._prices[index] + rng.choice((-2, -1, 0, 1, 2)) * step)
        quantity = rng.randint(1, 200)
        self._totals[index] += quantity
        event_ms = at_ms - (rng.randint(1, 5_000) if rng.random() < self._disorder else 0)
        record = {
            "Exch": listing.exchange,
            "ExchType": listing.segment,
            "Token": listing.token,
            "LastRate": round(self._prices[index], 2),
            "LastQty": quantity,
            "TotalQty": self._totals[index],
            "High": round(listing.price * 1.02, 2),
            "Low": round(listing.price * 0.98, 2),
            "OpenRate": listing.price,
            "PClose": listing.price,
            "AvgRate": listing.price,
            "BidQty": rng.randint(1, 500),
            "BidRate": round(self._prices[index] - 0.05, 2),
            "OffQty": rng.randint(1, 500),
            "OffRate": round(self._prices[index] + 0.05, 2),
            "TBidQ": rng.randint(1_000, 90_000),
            "TOffQ": rng.randint(1_000, 90_000),
            "TickDt": f"/Date({event_ms})/",
            "ChgPcnt": 0.0,
            "companyName": listing.name,
        }
        return MarketTick(at_ms, str(listing.token).encode(), json.dumps(record, separators=(",", ":")).encode())


def ticks(market: Market, *, start_ms: int, rate_per_s: float, count: int | None = None) -> Iterator[MarketTick]:
    """Ticks at an even rate of market time from `start_ms` on, `count` of them or without end."""
    index = 0
    while count is None or index < count:
        yield market.tick(start_ms + int(index * 1_000 / rate_per_s))
        index += 1


def session_open_ms(calendar: Calendar, day: int) -> int:
    """The open of NSE's first session on the first day from `day` on that has one."""
    schedule = calendar.schedule("N", "C")
    while not (sessions := schedule.sessions(day)):
        day += 1
    return sessions[0][0]


def day_number(at_ms: int) -> int:
    """Days since 1970-01-01."""
    return at_ms // DAY_MS
