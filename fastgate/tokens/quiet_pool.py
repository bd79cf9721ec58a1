"""A pool that never reuses a connection on which something came unasked."""

import select
import weakref
from asyncio import Transport
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler

if TYPE_CHECKING:
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

REUSED: Final = ContextVar("REUSED", default=False)
"""Whether the connection that was taken last, here, was a kept-alive one. aiohttp's traces would say so, for more."""


class QuietConnector(aiohttp.TCPConnector):
    """aiohttp's pool; a kept-alive connection with unread octets is closed instead of reused.

    Octets that a server sends on a resting connection would be read as the answer to the next question: one
    token's answer would become another token's (RFC 9112 section 9.2 leaves no other way to tell them apart).
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._used: weakref.WeakSet[ResponseHandler] = weakref.WeakSet()

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: "list[Trace]",
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the signature of the library
    ) -> "Connection":
        """Take a connection from the pool, or make one. The caller owns the deadline."""
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = cast("ResponseHandler", connection.protocol)  # None only after it was released
            if protocol not in self._used:
                self._used.add(protocol)
                REUSED.set(False)
                return connection
            transport = protocol.transport
            if protocol.should_close or transport is None or _has_unread(transport):
                connection.close()
                continue
            REUSED.set(True)
            return connection


def _has_unread(transport: Transport) -> bool:
    """Whether octets, or an end, lie in the socket that the event loop did not read yet."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))
