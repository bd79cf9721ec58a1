"""Small writes that leave together, once per turn of the loop.

Every `transport.write` is a system call at once and wakes its reader. When what one turn of the loop has to say is
written in one run, kernel and interpreter do not push each other's code out of the caches with every request
(bench/PROFILE.md has the figures). Only whole small messages belong here; whoever writes anything else to a transport,
half-closes or closes it flushes first, so that the order of octets is that of the calls.
"""

import asyncio
from typing import Final

_LIMIT: Final = 64 * 1024
"""Octets that may wait."""


class Outbox:
    """The writes of one worker."""

    __slots__ = ("_loop", "_size", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[tuple[asyncio.WriteTransport, bytes]] = []
        self._size = 0

    def send(self, transport: asyncio.WriteTransport, data: bytes) -> None:
        """Write soon: in this turn of the loop, after the callbacks that are due."""
        if not self._waiting:
            self._loop.call_soon(self.flush)
        self._waiting.append((transport, data))
        self._size += len(data)
        if self._size > _LIMIT:
            self.flush()

    def flush(self) -> None:
        """Write what waits, in order; a transport that is closing by now has nobody to read it."""
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            self._size = 0
            for transport, data in waiting:
                if not transport.is_closing():
                    transport.write(data)
