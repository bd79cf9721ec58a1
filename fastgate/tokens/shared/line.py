"""The line to Redis: open, or bypassed at once. Every operation on it has a deadline, and one fault closes it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from redis.exceptions import NoScriptError

from fastgate.stats import Stats
from fastgate.tokens.shared.clients import SLOTS_FIRST, SLOTS_MAX, SLOTS_URGENT, Client
from fastgate.tokens.shared.deadline import Deadline
from fastgate.tokens.shared.faults import BREAKING, UNWRITABLE, Fault, RedisError, fault_of, fault_of_text
from fastgate.tokens.shared.scripts import Script

T = TypeVar("T")

GROW_SECONDS: Final = 0.005
"""Between two new slots, so that connections are made one after the other and not in a crowd."""


class Line:
    """Where operations go. While it is closed they fail without being tried; `broken` says that it closed itself."""

    __slots__ = (
        *("_client", "_grow_at", "_loop", "_size", "_slots", "_stats", "_timeout", "_urgent"),
        *("broken", "fault", "writable"),
    )

    def __init__(self, timeout: float, stats: Stats) -> None:
        """`timeout` in seconds, for one operation, waiting for a connection included. Made inside the loop."""
        self._loop = asyncio.get_running_loop()
        self._timeout = timeout
        self._stats = stats
        self._client: Client | None = None
        self.broken = asyncio.Event()
        self.fault = Fault.BYPASSED
        """What closed it last."""
        self.writable = False
        """Whether writing is worth a try. Where it was and is refused now, the master has moved."""

    def __repr__(self) -> str:
        return f"<Line {'closed' if self._client is None else 'open'}>"

    def open(self, client: Client) -> None:
        """Let operations go to this client."""
        self._client = client
        self._size = SLOTS_FIRST
        self._slots = asyncio.Semaphore(SLOTS_FIRST)
        self._urgent = asyncio.Semaphore(SLOTS_URGENT)
        self._grow_at = 0.0
        self.broken.clear()

    def close(self, fault: Fault) -> None:
        """Let nothing more go anywhere. What is under way ends by its deadline."""
        if self._client is not None:
            self._client = None
            self.fault = fault
            self.broken.set()

    async def run(self, operation: Callable[[Client], Awaitable[T]], *, urgent: bool = False) -> T:
        """Do one thing. Raises RedisError, within the deadline."""
        client = self._client
        if client is None:
            raise RedisError(Fault.BYPASSED)
        waiting = True
        try:
            async with Deadline(self._timeout), self._urgent if urgent else self._slot():
                waiting = False
                return await operation(client)
        except Exception as error:  # noqa: BLE001 - also what a library raises by mistake
            fault = Fault.BYPASSED if waiting and isinstance(error, TimeoutError) else fault_of(error)
        raise self.failed(fault, client)

    async def script(
        self, script: Script, keys: list[str], arguments: list[bytes | str | int], *, urgent: bool = False
    ) -> Any:
        """Run a script of ours. Raises RedisError, also for an error that the script passes on."""

        async def operation(client: Client) -> Any:
            try:
                return await client.evalsha(script.digest, len(keys), *keys, *arguments)
            except NoScriptError:
                return await client.eval(script.text, len(keys), *keys, *arguments)

        return await self.run(operation, urgent=urgent)

    def refused(self, error: bytes) -> RedisError:
        """Take note of an error that Redis gave to a script."""
        return self.failed(fault_of_text(error.decode("ascii", "replace")), self._client)

    def failed(self, fault: Fault, client: Client | None) -> RedisError:
        """Count a fault, and close the line when it is one of those."""
        self._stats.redis_errors.add(str(fault))
        if client is self._client:
            moved = fault is Fault.READ_ONLY and self.writable
            self.writable = self.writable and fault not in UNWRITABLE
            if fault in BREAKING or moved:
                self.close(fault)
        return RedisError(fault)

    def _slot(self) -> asyncio.Semaphore:
        now = self._loop.time()
        if self._slots.locked() and self._size < SLOTS_MAX and now >= self._grow_at:
            self._size += 1
            self._grow_at = now + GROW_SECONDS
            self._slots.release()
        return self._slots
