"""Flights: at most one load per key is under way, and it belongs to nobody's request."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from contextvars import Context
from typing import Generic, TypeVar

from fastgate.errors import Cannot, FastgateError, IntrospectionError
from fastgate.stats import Counter

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Flights(Generic[K, T]):
    """Loads under way, by key. A waiter that leaves takes nothing with it; a failure is remembered by nobody.

    Each load runs in a task of its own that this object holds, in an empty context: nothing of the request
    that happened to come first (context variables, its cancellation) reaches it.
    """

    __slots__ = ("_closed", "_counter", "_tasks", "_under_way")

    def __init__(self, counter: Counter | None = None) -> None:
        """`counter` has one label, the role of a request in a flight: started or joined."""
        self._under_way: dict[K, asyncio.Future[T]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._counter = counter
        self._closed = False

    def __len__(self) -> int:
        return len(self._under_way)

    def __contains__(self, key: K) -> bool:
        return key in self._under_way

    async def join(self, key: K, load: Callable[[], Awaitable[T]]) -> T:
        """Wait for the load of `key` that is under way, or start `load`; raises what the load raises."""
        flight = self._under_way.get(key)
        if self._counter is not None:
            self._counter.add("started" if flight is None else "joined")
        if flight is None:
            flight = self.start(key, load)
        try:
            return await asyncio.shield(flight)
        finally:
            # What is raised here leads by its traceback to this frame: holding the flight, it would hold itself.
            del flight

    def start(self, key: K, load: Callable[[], Awaitable[T]]) -> asyncio.Future[T]:
        """Start `load` without waiting for it, unless one is under way for `key`."""
        flight = self._under_way.get(key)
        if flight is not None:
            return flight
        if self._closed:
            raise _stopping()
        loop = asyncio.get_running_loop()
        flight = self._under_way[key] = loop.create_future()
        task = loop.create_task(self._fly(key, flight, load), context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # A load that is cancelled before its first step never runs the code that ends the flight.
        task.add_done_callback(lambda _: self._end(key, flight, _stopping()))
        return flight

    async def _fly(self, key: K, flight: asyncio.Future[T], load: Callable[[], Awaitable[T]]) -> None:
        try:
            result = await load()
        except FastgateError as error:
            # Nothing is to be learned from the way it came, which leads back to this flight: a flood of failures, each
            # a cycle, would let the garbage collector stop everything.
            self._end(key, flight, error.with_traceback(None))
        except Exception as error:  # noqa: BLE001 - it is the waiters' to raise, whatever it is
            self._end(key, flight, error)
        else:
            self._under_way.pop(key, None)
            flight.set_result(result)

    def _end(self, key: K, flight: asyncio.Future[T], error: Exception) -> None:
        """Land with an error, once. The key is free before any waiter runs: the next one starts anew."""
        if flight.done():
            return
        self._under_way.pop(key, None)
        flight.set_exception(error)
        flight.exception()  # Marks it as seen: with every waiter gone there is nobody to warn.

    async def close(self) -> None:
        """Cancel every load; its waiters get an IntrospectionError, not a cancellation that is not theirs."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _stopping() -> IntrospectionError:
    return IntrospectionError(Cannot.UNAVAILABLE, "the gateway is stopping")
