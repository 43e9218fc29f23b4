"""A market from a seed: instruments that trade over a day, as a broker's feed tells of them."""

import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush

import msgspec

from streamingcandle.candles.session import DAY_MS, Calendar

_CASH = (
    ("RELIANCE", 1_575), ("TCS", 3_240), ("HDFCBANK", 998), ("INFY", 1_620), ("ICICIBANK", 1_345), ("SBIN", 985),
    ("ITC", 402), ("LT", 4_080), ("AXISBANK", 1_265), ("MARUTI", 16_650), ("BHARTIARTL", 2_105), ("KOTAKBANK", 2_185),
    ("HINDUNILVR", 2_310), ("BAJFINANCE", 988), ("SUNPHARMA", 1_725), ("TITAN", 4_050), ("M&M", 3_740),
    ("NTPC", 336), ("ASIANPAINT", 2_770), ("TATASTEEL", 181),
)  # fmt: skip
_FUTURES = (
    ("NIFTY JAN FUT", 26_190), ("BANKNIFTY JAN FUT", 59_900), ("FINNIFTY JAN FUT", 27_700),
    ("MIDCPNIFTY JAN FUT", 13_900), ("RELIANCE JAN FUT", 1_583), ("TCS JAN FUT", 3_256), ("INFY JAN FUT", 1_628),
    ("SBIN JAN FUT", 990), ("HDFCBANK JAN FUT", 1_003), ("ICICIBANK JAN FUT", 1_352),
)  # fmt: skip
_METALS = (
    ("GOLDM FEB FUT", 135_800), ("SILVERMIC FEB FUT", 238_700), ("CRUDEOIL JAN FUT", 5_180),
    ("NATURALGAS JAN FUT", 328), ("COPPER JAN FUT", 1_290), ("ZINC JAN FUT", 308), ("ALUMINIUM JAN FUT", 301),
    ("LEAD JAN FUT", 181), ("GOLDPETAL JAN FUT", 13_650), ("SILVERM FEB FUT", 238_500),
)  # fmt: skip
"""Names and prices near which they begin."""
_KINDS = (("N", "C", _CASH), ("N", "D", _FUTURES), ("N", "C", _CASH), ("M", "D", _METALS))

HELD_ODDS = 0.005
"""One in eight of them changes a closed candle: totals are cumulative, and most prices are between others."""
HELD_MS = (20_000, 90_000)
LOST_SIGHT_ODDS = 0.0003
LOST_SIGHT_MS = 41 * 60_000
"""Later than any timeframe takes a tick."""
BROKEN_ODDS = 0.0002
QUOTE_ODDS = 0.01


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
    met: Counter[str] = Counter()
    for index in range(count):
        exchange, segment, names = _KINDS[index % len(_KINDS)]
        number, place = divmod(met[exchange + segment], len(names))
        met[exchange + segment] += 1
        name, price = names[place]
        suffix = f" {number + 1}" if number else ""
        found.append(
            Listing(exchange, segment, 1_000 + index, name + suffix, round(price * rng.uniform(0.97, 1.03), 2))
        )
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


def mishaps(feed: Iterable[MarketTick], *, seed: int) -> Iterator[MarketTick]:
    """The feed as a bad day brings it: some ticks held back, a few for most of an hour, records broken, quotes between.

    In order of `at_ms`; what is held back when the feed ends does not come.
    """
    rng = random.Random(f"mishaps-{seed}")
    held: list[tuple[int, int, MarketTick]] = []
    for number, tick in enumerate(feed):
        while held and held[0][0] <= tick.at_ms:
            at_ms, _, late = heappop(held)
            yield MarketTick(at_ms, late.key, late.value)
        odds = rng.random()
        if odds < HELD_ODDS + LOST_SIGHT_ODDS:
            delay_ms = rng.randint(*HELD_MS) if odds < HELD_ODDS else LOST_SIGHT_MS
            heappush(held, (tick.at_ms + delay_ms, number, tick))
            continue
        if odds > 1 - BROKEN_ODDS:
            yield MarketTick(tick.at_ms, tick.key, tick.value[: len(tick.value) // 2])
        elif odds > 1 - BROKEN_ODDS - QUOTE_ODDS:
            yield MarketTick(tick.at_ms, tick.key, re.sub(rb'"LastRate":[0-9.]+', b'"LastRate":0', tick.value))
        else:
            yield tick


def first_session(calendar: Calendar, day: int) -> tuple[int, int]:
    """Open and close of NSE's first session on the first day from `day` on that has one."""
    schedule = calendar.schedule("N", "C")
    while not (sessions := schedule.sessions(day)):
        day += 1
    return sessions[0]


def day_number(at_ms: int) -> int:
    """Days since 1970-01-01."""
    return at_ms // DAY_MS
