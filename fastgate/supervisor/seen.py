"""Which notices were taken already, by this host or by another one that shares a Redis with it."""

from typing import Final

from fastgate.clock import SystemClock
from fastgate.supervisor.fleet import Fleet
from fastgate.tokens.seen import SeenHere

WITHIN: Final = 1.0
"""Seconds that a worker may take to ask Redis: it has deadlines of its own."""


class FleetSeen:
    """`tokens.seen.Seen` for the supervisor: it has seen them all itself, and a worker knows of other hosts."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._here = SeenHere(SystemClock.monotonic)

    async def first(self, name: str, seconds: float) -> bool:
        """Whether `name` is new; from now on it is not, for so many seconds."""
        if not await self._here.first(name, seconds):
            return False
        if self._fleet.force.settings.redis is None:
            return True
        # One only: it may have said so to Redis and hang before it says so here.
        member = next((each for each in self._fleet.serving if each.serves), None)
        return member is None or await member.first(name, seconds, WITHIN)
