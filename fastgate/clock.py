"""The only reader of time. Everything else takes time as an argument or is given a `Clock`."""

import time
from asyncio import AbstractEventLoop
from typing import Protocol


class Clock(Protocol):
    """Two clocks: wall time for what the authorization server states, monotonic time for ages and deadlines."""

    def now(self) -> float:
        """Wall time in seconds since the epoch, comparable with `exp`, `nbf` and `iat` (RFC 7519 section 2)."""
        ...

    def monotonic(self) -> float:
        """Seconds that never jump; only differences mean anything."""
        ...


class SystemClock:
    """The machine's clocks."""

    __slots__ = ()

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


class TurnClock:
    """Another clock, read once per turn of the event loop: a turn that serves many requests has one time for all.

    A turn takes milliseconds; by that much a reading may be late, never early.
    """

    __slots__ = ("_clock", "_known", "_loop", "_monotonic", "_now")

    def __init__(self, clock: Clock, loop: AbstractEventLoop) -> None:
        self._clock = clock
        self._loop = loop
        self._known = False
        self._now = self._monotonic = 0.0

    def now(self) -> float:
        """Wall time in seconds since the epoch."""
        if not self._known:
            self._read()
        return self._now

    def monotonic(self) -> float:
        """Seconds that never jump."""
        if not self._known:
            self._read()
        return self._monotonic

    def _read(self) -> None:
        self._now, self._monotonic = self._clock.now(), self._clock.monotonic()
        self._known = True
        self._loop.call_soon(self._forget)

    def _forget(self) -> None:
        self._known = False
