"""Where the admin application is served."""

import socket
from collections.abc import Sequence
from ssl import SSLContext

from aiohttp import web

from fastgate.control.admin import Operations, admin_application


class AdminListener:
    """The operators' listener, on sockets that listen already."""

    def __init__(self, operations: Operations) -> None:
        self._runner = web.AppRunner(
            admin_application(operations), access_log=None, handle_signals=False, shutdown_timeout=1.0
        )
        self.address: tuple[str, int] | None = None
        """Where it is bound, once it has started."""

    async def start(self, sockets: Sequence[socket.socket], tls: SSLContext | None) -> None:
        """Serve; the sockets remain whose they are."""
        await self._runner.setup()
        await self.serve(sockets, tls)
        self.address = sockets[0].getsockname()[:2]

    async def serve(self, sockets: Sequence[socket.socket], tls: SSLContext | None) -> None:
        """Serve with this certificate from now on."""
        former = list(self._runner.sites)
        for sock in sockets:
            await web.SockSite(self._runner, sock.dup(), ssl_context=tls).start()
        for site in former:
            await site.stop()

    async def close(self) -> None:
        """Answer what is under way for a second at most, then close."""
        await self._runner.cleanup()
