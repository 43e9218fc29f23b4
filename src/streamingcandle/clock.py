"""The host's clock: the only place that asks it."""

import time


class SystemClock:
    """Implements `interfaces.Clock`."""

    def monotonic_ms(self) -> int:
        """Milliseconds that never step back."""
        return time.monotonic_ns() // 1_000_000

    def wall_ms(self) -> int:
        """Epoch milliseconds of the host."""
        return time.time_ns() // 1_000_000

    def sleep_ms(self, duration_ms: int) -> None:
        """Wait."""
        time.sleep(max(0, duration_ms) / 1_000)
