"""Live traffic beside a crowd: thousands of idle connections, clients whose tokens nobody knows yet."""

import selectors
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count

from bench import traffic, wrk
from bench.figures import Figures
from bench.loads import Load
from bench.parts import HELLO, Part
from bench.usage import rss_kib

_numbers = count()


@dataclass(frozen=True)
class Crowded:
    """Live traffic beside connections that have had one answer each and say nothing more."""

    live: Load
    connections: int
    _memory: dict[int, Figures] = field(default_factory=dict)

    def prepare(self, proxy: Part, stack: ExitStack) -> None:
        """Open them, and find out how much memory they take."""
        self.live.prepare(proxy, stack)
        before = rss_kib(proxy.worker)
        for _ in range(self.connections):
            stack.enter_context(_answered(proxy))
        after = rss_kib(proxy.worker)
        each = {"kib_each": (after - before) / self.connections} if self.connections else {}
        self._memory[proxy.pid] = {"rss_mb": before * 1024 / 1e6, **each}

    def measure(self, proxy: Part, seconds: float) -> Figures:
        """Measure the live traffic."""
        return {**self._memory[proxy.pid], **self.live.measure(proxy, seconds)}


@dataclass(frozen=True)
class Beside:
    """Live traffic beside clients with tokens that nobody knows yet."""

    live: Load
    requests: Callable[[], tuple[bytes, ...]]
    """What the others send."""
    clients: int
    pause_ms: int
    """Between an answer and the next request of each of them, on average."""

    def prepare(self, proxy: Part, stack: ExitStack) -> None:
        """Warm up the live traffic."""
        self.live.prepare(proxy, stack)

    def measure(self, proxy: Part, seconds: float) -> Figures:
        """Measure the live traffic once the others have come; then let the gateway finish with them."""
        many, pause_ms = self.clients, self.pause_ms
        with wrk.start(
            proxy.port, self.requests(), seconds=seconds + 10, connections=many, pause_ms=pause_ms
        ) as others:
            try:
                time.sleep(3)
                return self.live.measure(proxy, seconds)
            finally:
                others.kill()
                time.sleep(3)


@dataclass(frozen=True)
class Burst:
    """Requests at once with one token that nobody knows yet; then nothing until the last is answered."""

    clients: int
    idp_ms: int
    one_leaves: bool = False
    """Whether the first client goes away while it waits."""

    def prepare(self, proxy: Part, stack: ExitStack) -> None:
        """Warm up: connections to the origin and the identity provider."""
        del stack
        self._slowest(proxy)

    def measure(self, proxy: Part, seconds: float) -> Figures:
        """Do it once."""
        del seconds
        before = proxy.asked
        slowest = self._slowest(proxy)
        return {"slowest_ms": slowest, "introspections": proxy.asked - before}

    def _slowest(self, proxy: Part) -> float:
        """Milliseconds from the first request to the last answer."""
        request = traffic.get(traffic.slow_token(self.idp_ms, next(_numbers)))
        with ExitStack() as stack, selectors.DefaultSelector() as selector:
            clients = [stack.enter_context(_connected(proxy)) for _ in range(self.clients)]
            for client in clients:
                selector.register(client, selectors.EVENT_READ)
            began = time.perf_counter()
            for client in clients:
                client.sendall(request)
            if self.one_leaves:
                time.sleep(self.idp_ms / 4000)
                selector.unregister(clients[0])
                clients[0].close()
            while selector.get_map():
                for key, _ in selector.select(30):
                    client = key.fileobj
                    assert isinstance(client, socket.socket)
                    if not (head := client.recv(4096)).startswith(b"HTTP/1.1 200 "):
                        raise RuntimeError(f"not answered with 200: {head!r}")
                    selector.unregister(client)
            return (time.perf_counter() - began) * 1000


def _connected(proxy: Part) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=30)


def _answered(proxy: Part) -> socket.socket:
    """Open a connection and get one answer on it."""
    client, received = _connected(proxy), b""
    client.sendall(traffic.get())
    while not received.endswith(HELLO.encode()):
        piece = client.recv(65536)
        if not piece:
            raise RuntimeError(f"the gateway closed the connection: {received!r}")
        received += piece
    return client
