"""How many questions are under way at once, and how many may wait for their turn."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from fastgate.errors import Cannot, IntrospectionError

WAITING_PER_SLOT: Final = 16
"""Questions that may wait for each one that may be under way."""
RESERVED_SHARE: Final = 8
"""One slot in so many is kept for tokens known to be active."""


class Lanes:
    """Slots for questions, with two bounded queues: tokens known to be active, and all others.

    Unknown tokens never hold all slots (of eight or more), nor the queue of the known ones: a flood of them
    at a slow authorization server does not keep the refresh of a good one waiting.
    """

    __slots__ = ("_any", "_max_waiting", "_unknown", "_waiting", "under_way")

    def __init__(self, slots: int) -> None:
        self._any = asyncio.Semaphore(slots)
        self._unknown = asyncio.Semaphore(slots - slots // RESERVED_SHARE)
        self._max_waiting = slots * WAITING_PER_SLOT
        self._waiting = {True: 0, False: 0}
        self.under_way = 0

    @property
    def waiting(self) -> int:
        """Questions that wait for a slot."""
        return sum(self._waiting.values())

    @asynccontextmanager
    async def slot(self, *, known: bool) -> AsyncIterator[None]:
        """Hold a slot. Raises IntrospectionError (OVERLOADED) at once when too many wait already.

        The caller owns the deadline.
        """
        await self._take(known=known)
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1
            self._any.release()
            if not known:
                self._unknown.release()

    async def _take(self, *, known: bool) -> None:
        if self._waiting[known] >= self._max_waiting:
            raise IntrospectionError(Cannot.OVERLOADED, "too many introspections are waiting", 1.0)
        self._waiting[known] += 1
        try:
            if known:
                await self._any.acquire()
                return
            await self._unknown.acquire()
            try:
                await self._any.acquire()
            except BaseException:
                self._unknown.release()
                raise
        finally:
            self._waiting[known] -= 1
