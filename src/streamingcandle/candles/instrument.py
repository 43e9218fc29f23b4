"""Which thing is traded: exchange, segment and token together, never one of them alone (specification §1.3)."""

import re

import msgspec

from streamingcandle.errors import SettingsError

TOKEN_MAX = 2**63 - 1


class Instrument(msgspec.Struct, frozen=True):
    """One instrument; `str()` gives `M:D:458305`."""

    exchange: str
    segment: str
    token: int

    def __str__(self) -> str:
        """Return the key of its candles."""
        return f"{self.exchange}:{self.segment}:{self.token}"


def parse_instrument(text: str) -> Instrument:
    """Read `M:D:458305`; anything else is a SettingsError."""
    match = re.fullmatch(r"([^:]+):([^:]+):(0|[1-9][0-9]{0,18})", text, re.ASCII)
    if match is None or int(match[3]) > TOKEN_MAX:
        message = (
            f"instrument {text!r}: not exchange:segment:token; give the key of its candles, "
            f"such as M:D:458305 (the token is a whole number up to {TOKEN_MAX})"
        )
        raise SettingsError(message)
    return Instrument(exchange=match[1], segment=match[2], token=int(match[3]))
