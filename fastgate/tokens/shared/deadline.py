"""A deadline for one operation that does not blame the peer for our own standing still."""

import asyncio
from types import TracebackType
from typing import Final, Self

LATE: Final = 0.005
"""Seconds. A timer that fires later than this says that the event loop is behind, not that the peer is slow."""
GRACE: Final = 0.02
"""Seconds for the answer that may have arrived meanwhile to be read."""
GRACES_MAX: Final = 5
"""Times that this is granted while the loop stays behind."""


class Deadline:
    """As `asyncio.timeout`; when the loop is behind at the end, what has arrived is read first."""

    __slots__ = ("_graces", "_loop", "_scope", "_seconds", "_timer", "_when")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._graces = 0

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._scope = asyncio.timeout(None)
        await self._scope.__aenter__()
        self._arm(self._seconds)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        await self._scope.__aexit__(kind, error, trace)

    def _arm(self, seconds: float) -> None:
        self._when = self._loop.time() + seconds
        self._timer = self._loop.call_later(seconds, self._due)

    def _due(self) -> None:
        if self._loop.time() - self._when > LATE and self._graces < GRACES_MAX:
            self._graces += 1
            self._arm(GRACE)
        else:
            self._scope.reschedule(self._loop.time())
