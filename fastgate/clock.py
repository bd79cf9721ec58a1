"""The only reader of time. Everything else takes time as an argument or is given a `Clock`."""

import time
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
