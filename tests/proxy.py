"""A TCP proxy before a broker, that knows where a Kafka request begins: slow, cut, held, or losing one answer.

The broker advertises the proxy's port, so every connection of a client goes through it. What a rule names is the
number of a request's kind (`api_key`): END_TXN and the like.
"""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import NamedTuple, Self

from broker import Broker

OFFSET_FETCH = 9
ADD_OFFSETS_TO_TXN = 25
END_TXN = 26
TXN_OFFSET_COMMIT = 28
LIMIT_S = 30.0
Pump = Callable[[socket.socket, socket.socket, set[int]], None]


class Proxy:
    """Listens on `port` as long as it lives; passes on to `target` once that is set."""

    def __init__(self) -> None:
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(64)
        self.port: int = self._listener.getsockname()[1]
        self.bootstrap = f"127.0.0.1:{self.port}"
        self.target: int | None = None
        self.delay_s = 0.0
        self._is_cut = threading.Event()
        self._is_passing = threading.Event()
        self._is_passing.set()
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._rules: dict[int, str] = {}
        self._met = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_cut.set()
        self._is_passing.set()
        self._listener.close()
        self._close_all()

    # ---- disturbances

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Inside, there is no connection and none comes about."""
        self._is_cut.set()
        self._close_all()
        try:
            yield
        finally:
            self._is_cut.clear()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside, connections stay and nothing passes: a broker that is frozen, for its clients."""
        self._is_passing.clear()
        try:
            yield
        finally:
            self._is_passing.set()

    def lose_answer(self, api_key: int) -> None:
        """The next such request is passed on; in place of its answer the connection ends."""
        self._rule(api_key, "lose")

    def cut_before(self, api_key: int) -> None:
        """In place of the next such request the connection ends."""
        self._rule(api_key, "cut")

    def hold_before(self, api_key: int) -> None:
        """From the next such request on nothing passes, until `release`."""
        self._rule(api_key, "hold")

    def release(self) -> None:
        """End what `hold_before` began."""
        self._is_passing.set()

    def await_met(self) -> None:
        """Return when the last rule has been met."""
        assert self._met.wait(LIMIT_S), "no such request came"

    def _rule(self, api_key: int, what: str) -> None:
        self._met.clear()
        self._rules[api_key] = what

    # ---- passing on

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    if self._is_cut.is_set() or self.target is None:
                        raise ConnectionError
                    server = socket.create_connection(("127.0.0.1", self.target), LIMIT_S)
                except OSError:
                    client.close()
                    continue
                server.settimeout(None)
                with self._lock:
                    self._pairs.append((client, server))
                lost: set[int] = set()
                for pump in (self._requests, self._answers):
                    threading.Thread(target=self._pump, args=(pump, client, server, lost), daemon=True).start()

    def _pump(self, pump: Pump, client: socket.socket, server: socket.socket, lost: set[int]) -> None:
        with suppress(OSError):
            pump(client, server, lost)
        _end(client)
        _end(server)

    def _requests(self, client: socket.socket, server: socket.socket, lost: set[int]) -> None:
        while True:
            frame = _frame(client)
            api_key, _, correlation = struct.unpack(">hhi", frame[4:12])
            rule = self._rules.pop(api_key, None)
            if rule == "hold":
                self._is_passing.clear()
            if rule == "lose":
                lost.add(correlation)
            elif rule is not None:
                self._met.set()
            if rule == "cut":
                return
            self._pass(server, frame)

    def _answers(self, client: socket.socket, server: socket.socket, lost: set[int]) -> None:
        while True:
            frame = _frame(server)
            if struct.unpack(">i", frame[4:8])[0] in lost:
                self._met.set()
                return
            self._pass(client, frame)

    def _pass(self, to: socket.socket, frame: bytes) -> None:
        if self.delay_s:
            threading.Event().wait(self.delay_s)
        self._is_passing.wait()
        to.sendall(frame)

    def _close_all(self) -> None:
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for one in pair:
                _end(one)


class Proxied(NamedTuple):
    """A broker all of whose clients come through the proxy, but those that ask at its inside port."""

    broker: Broker
    proxy: Proxy


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


def _frame(source: socket.socket) -> bytes:
    """One request or answer with its length before it. OSError at the end."""
    head = _exactly(source, 4)
    return head + _exactly(source, struct.unpack(">i", head)[0])


def _exactly(source: socket.socket, count: int) -> bytes:
    found = bytearray()
    while len(found) < count:
        piece = source.recv(min(count - len(found), 1 << 20))
        if not piece:
            raise ConnectionError
        found += piece
    return bytes(found)
