"""A deadline that is moved often and fires rarely."""

import asyncio
from collections.abc import Callable
from math import inf


class Deadline:
    """One timer per connection: moving it later costs an assignment, because it looks again when it fires."""

    __slots__ = ("_at", "_expired", "_handle", "_loop", "_now", "_scheduled")

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[], None]) -> None:
        self._loop = loop
        self._now = loop.time
        self._expired = expired
        self._at: float | None = None
        self._handle: asyncio.TimerHandle | None = None
        self._scheduled = inf
        """When the timer fires; `inf` without one."""

    def set(self, seconds: float) -> None:
        """Expire `seconds` from now unless moved or cleared before."""
        self._at = at = self._now() + seconds
        if at < self._scheduled:
            if self._handle is not None:
                self._handle.cancel()
            self._schedule(at)

    def clear(self) -> None:
        """Do not expire. The timer is left to find that out."""
        self._at = None

    def close(self) -> None:
        """Release the timer for good, and whoever was to be told: both would hold each other."""
        self._at = None
        self._expired = _nothing
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
            self._scheduled = inf

    def _schedule(self, at: float) -> None:
        self._scheduled = at
        self._handle = self._loop.call_at(at, self._fire)

    def _fire(self) -> None:
        self._handle = None
        self._scheduled = inf
        at = self._at
        if at is None:
            return
        # uvloop's clock has milliseconds: a timer may fire a hair early.
        if self._now() + 0.002 < at:
            self._schedule(at)
            return
        self._at = None
        self._expired()


def _nothing() -> None:
    """Nobody is told."""
