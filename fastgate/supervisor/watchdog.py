"""Ends workers that hang: their loop is blocked, or they were stopped."""

import asyncio
from collections.abc import Collection
from typing import Final

import structlog

from fastgate.stats import Stats
from fastgate.supervisor.member import Member

log = structlog.get_logger("fastgate.supervisor")

TICK: Final = 0.5
"""Seconds between two looks."""
_LATE: Final = 4 * TICK


class Watchdog:
    """Looks at the workers twice a second."""

    def __init__(self, members: Collection[Member], stats: Stats) -> None:
        self._members = members
        self._stats = stats

    async def look(self, patience: float) -> None:
        """Wait for a tick, then end every worker that gave no sign of life for `patience` seconds."""
        loop = asyncio.get_running_loop()
        before = loop.time()
        await asyncio.sleep(TICK)
        if loop.time() - before > _LATE:
            # We did not run ourselves (suspended, or starved): nobody can be blamed for that time.
            for member in self._members:
                member.heard = loop.time()
            return
        for member in list(self._members):
            if member.silent_for > patience:
                silent = round(member.silent_for, 1)
                log.error("worker hangs: ended", worker=member.number, pid=member.pid, seconds=silent)
                self._stats.worker_restarts.add("silent")
                member.kill()
