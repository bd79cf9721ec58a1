"""The listener for identity providers alone. Strangers may reach it: so many connections at once, and none for long."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from ssl import SSLContext
from typing import Final, cast

from aiohttp import web

from fastgate.control.events import Receiver, events_application

MAX_CONNECTIONS: Final = 256
MAX_SECONDS: Final = 30.0
"""From the connection to its end, whatever happens on it: what is served there takes one short request."""
HANDSHAKE_SECONDS: Final = 10.0


class EventsListener:
    """Serves `events_application` and nothing else."""

    def __init__(self, receiver: Receiver) -> None:
        self._runner = web.AppRunner(events_application(receiver), access_log=None, handle_signals=False)
        self._servers: list[asyncio.Server] = []
        self.address: tuple[str, int] | None = None
        """Where it is bound."""

    async def start(self, sockets: Sequence[socket.socket], tls: SSLContext | None) -> None:
        """Serve; the sockets remain whose they are."""
        await self._runner.setup()
        self._brief = Brief(cast("web.Server", self._runner.server))
        await self.serve(sockets, tls)
        self.address = sockets[0].getsockname()[:2]

    async def serve(self, sockets: Sequence[socket.socket], tls: SSLContext | None) -> None:
        """Serve with this certificate from now on."""
        loop = asyncio.get_running_loop()
        former, self._servers = self._servers, []
        for sock in sockets:
            server = await loop.create_server(
                self._brief,
                sock=sock.dup(),
                ssl=tls,
                ssl_handshake_timeout=None if tls is None else HANDSHAKE_SECONDS,
            )
            self._servers.append(server)
        for server in former:
            server.close()

    async def close(self) -> None:
        """Stop listening, then end what is open."""
        for server in self._servers:
            server.close()
        await self._runner.cleanup()


class Brief:
    """Makes the protocols of such a listener, around those that `make` makes."""

    def __init__(
        self,
        make: Callable[[], asyncio.Protocol],
        max_connections: int = MAX_CONNECTIONS,
        max_seconds: float = MAX_SECONDS,
    ) -> None:
        self.make: Final = make
        self.max_connections: Final = max_connections
        self.max_seconds: Final = max_seconds
        self.open: Final[set[asyncio.Protocol]] = set()

    def __call__(self) -> asyncio.Protocol:
        """Make the protocol of one connection."""
        return _Connection(self)


class _Connection(asyncio.Protocol):
    """Hands everything to the protocol inside, and ends the connection when its time is up."""

    def __init__(self, listener: Brief) -> None:
        self._listener = listener
        self._inner = asyncio.Protocol()
        """Does nothing; the real one comes when there is room for it."""
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Serve it, or end it at once."""
        abort = cast("asyncio.Transport", transport).abort
        if len(self._listener.open) >= self._listener.max_connections:
            abort()
            return
        self._listener.open.add(self)
        self._end = asyncio.get_running_loop().call_later(self._listener.max_seconds, abort)
        self._inner = self._listener.make()
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Make room."""
        self._listener.open.discard(self)
        if self._end is not None:
            self._end.cancel()
        self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Hand on."""
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Hand on."""
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        """Hand on."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Hand on."""
        self._inner.resume_writing()
