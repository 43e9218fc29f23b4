"""`interfaces.Tail` on the embedded store: beside the group, nothing written."""

import msgspec

from streamingcandle.clock import SystemClock
from streamingcandle.embedded.reader import EmbeddedReader
from streamingcandle.embedded.store import EmbeddedStore
from streamingcandle.interfaces import Transaction


class EmbeddedTail(EmbeddedReader):
    """Claims nothing, so any number may look while one process runs. The store is closed with it."""

    def __init__(self, store: EmbeddedStore, *, group: str, topic: str, clock: SystemClock) -> None:
        """`group`: whose offsets to go on from. MissingTopicError for a missing topic."""
        super().__init__(store, group=group, topic=topic, clock=clock)
        self.shown: list[Transaction] = []

    def commit(self, transaction: Transaction) -> None:
        """Publishes nothing."""
        self.shown.append(msgspec.structs.replace(transaction, candles=list(transaction.candles)))

    def settle(self) -> None:
        """Nothing is ever in doubt."""

    def close(self) -> None:
        """See `interfaces.Publisher`."""
        self._store.close()
