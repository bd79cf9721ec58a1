"""redis-py's connections, all of one way together: when it is closed none stays open, and none is opened any more."""

import asyncio
from asyncio import StreamWriter
from collections.abc import Mapping
from ssl import SSLContext
from typing import Any, Final
from weakref import WeakSet

from redis.asyncio import Connection, UnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as LostError

CLOSE_SECONDS: Final = 0.25
"""For TLS to say goodbye; who does not answer it is left without."""


class Opened:
    """The connections of one way, wherever redis-py keeps them or has dropped them.

    Its clients look nodes up again and connect anew for whoever still asks, also after they were closed.
    """

    __slots__ = ("_every", "closed")

    def __init__(self) -> None:
        self._every: WeakSet[_Counted] = WeakSet()
        self.closed = False

    def add(self, connection: "_Counted") -> None:
        """Have it closed with the others."""
        self._every.add(connection)

    async def close(self) -> None:
        """Close every connection, also those in use. Who is cancelled meanwhile has closed them as well."""
        self.closed = True
        every = list(self._every)
        for each in every:
            await each.disconnect(nowait=True)  # and it does not wait: nobody is cancelled here
        writers = [each.writer for each in every if each.writer is not None]
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)
        except TimeoutError:
            pass
        finally:
            for writer in writers:
                writer.transport.abort()


class _Counted(AbstractConnection):
    """A connection that closes with its way."""

    def __init__(self, *, opened: Opened, **options: Any) -> None:
        super().__init__(**options)
        self.writer: StreamWriter | None = None
        """The latest, also when redis-py has let go of it before it was closed."""
        self._opened = opened
        opened.add(self)

    async def _connect(self) -> None:
        if not self._opened.closed:
            await super()._connect()  # type: ignore[no-untyped-call, safe-super]
            self.writer = self._writer
        if self._opened.closed:
            await self._opened.close()
            raise LostError("its way is closed")


class PlainConnection(_Counted, Connection):
    """Over TCP."""


class UnixConnection(_Counted, UnixDomainSocketConnection):
    """Over a unix socket."""


class TlsConnection(PlainConnection):
    """Over TLS, with a context that was made once."""

    def __init__(self, *, tls: SSLContext, **options: Any) -> None:
        super().__init__(**options)
        self._tls = tls

    def _connection_arguments(self) -> Mapping[str, Any]:
        return {**super()._connection_arguments(), "ssl": self._tls}
