"""Log lines that others can cause, not more often than people can read them."""

from collections.abc import Hashable
from typing import Final

from fastgate.clock import Clock

QUIET_SECONDS: Final = 10.0
"""Between two log lines of one kind."""


class Quiet:
    """Decides which lines of a kind are written: at most one every QUIET_SECONDS, which counts the others."""

    __slots__ = ("_clock", "_suppressed", "_until")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: dict[Hashable, float] = {}
        self._suppressed: dict[Hashable, int] = {}

    def suppressed(self, kind: Hashable) -> int | None:
        """Return how many lines of this kind were left out since the last one; None: leave this one out as well.

        Kinds are of a closed set: each is remembered for ever.
        """
        now = self._clock.monotonic()
        if now < self._until.get(kind, now):
            self._suppressed[kind] = self._suppressed.get(kind, 0) + 1
            return None
        self._until[kind] = now + QUIET_SECONDS
        return self._suppressed.pop(kind, 0)

    def over(self, said: Hashable) -> None:
        """A line of the kind `said` told that it is over: the next line of any other kind is written."""
        self._until = {kind: until for kind, until in self._until.items() if kind == said}
