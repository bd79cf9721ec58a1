"""asyncio's own event loop, without a leak of it that fails tests which have passed."""

import asyncio
import socket
from typing import Any


class Loop(asyncio.SelectorEventLoop):
    """What a server has accepted in the turn in which it is closed is closed, too.

    asyncio (3.11 to 3.13) gives such a connection to the server that is closed by now, fails silently, and leaves
    its socket to the garbage collector, which warns about it in whatever test is running then. uvloop, which the
    gateway runs on, accepts a connection and makes its transport in one step.
    """

    async def _accept_connection2(
        self,
        protocol_factory: Any,
        conn: socket.socket,
        extra: Any,
        sslcontext: Any = None,
        server: asyncio.Server | None = None,
        *timeouts: float,
    ) -> None:
        if server is not None and not server.sockets:
            conn.close()
            return
        await super()._accept_connection2(protocol_factory, conn, extra, sslcontext, server, *timeouts)
