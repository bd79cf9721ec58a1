"""Holding off from an authorization server that fails every time, and noticing soon that it has recovered."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from fastgate.errors import Cannot, IntrospectionError
from fastgate.stats import Stats
from fastgate.tokens.health import Health

PROBE_SECONDS: Final = 1.0
"""Between two questions of our own to a server that is held off from."""
FAILURES: Final = frozenset({Cannot.TIMEOUT, Cannot.UNAVAILABLE, Cannot.REJECTED})
"""What says that the server, or the way to it, is not well. A malformed answer may be about one token only."""


class HeldOffError(IntrospectionError):
    """Nothing was sent: the server has failed too often in a row."""


class Breaker:
    """Opens after so many failures in a row; while it is open only a probe of ours asks, once a second.

    Nobody's token but ours decides when it closes: one that makes the server fail cannot keep the others out.
    """

    __slots__ = ("_failures", "_health", "_in_a_row", "_kind", "_name", "_probe", "_recovering", "_stats", "open")

    def __init__(
        self, name: str, failures: int, probe: Callable[[], Awaitable[None]], health: Health, stats: Stats
    ) -> None:
        """`failures` in a row, at least 1. `probe` asks about a token that nobody issued; raises IntrospectionError."""
        self._name = name
        self._failures = failures
        self._probe = probe
        self._health = health
        self._stats = stats
        self._in_a_row = 0
        self._kind = Cannot.UNAVAILABLE
        self._recovering: asyncio.Task[None] | None = None
        self.open = False

    def check(self) -> None:
        """Raise HeldOffError while it is open: as the latest question failed."""
        if self.open:
            detail = f"it failed {self._failures} times in a row, and is asked once a second until it answers"
            raise HeldOffError(self._kind, detail, PROBE_SECONDS)

    def answered(self) -> None:
        """Take note of an answer, whatever it said."""
        self._in_a_row = 0
        if self.open:
            self.open = False
            self._stats.held_off.cell(self._name)[0] = 0

    def failed(self, error: IntrospectionError) -> None:
        """Take note of a question that was sent and failed."""
        if error.kind not in FAILURES:
            self.answered()
            return
        self._kind = error.kind
        self._in_a_row += 1
        if self._in_a_row >= self._failures and not self.open:
            self.open = True
            self._stats.held_off.cell(self._name)[0] = 1
            self._health.held_off(error, self._failures)
            self._recovering = asyncio.get_running_loop().create_task(self._recover())

    async def close(self) -> None:
        """Ask no more."""
        if self._recovering is not None:
            self._recovering.cancel()
            await asyncio.wait([self._recovering])

    async def _recover(self) -> None:
        """Ask at once and then once a second. No probe waits for the one before: a server that hung may answer it."""
        async with asyncio.TaskGroup() as asking:
            while self.open:
                asking.create_task(self._ask())
                await asyncio.sleep(PROBE_SECONDS)

    async def _ask(self) -> None:
        try:
            await self._probe()
        except HeldOffError:
            return  # it asked for a pause
        except IntrospectionError as error:
            self._stats.introspections.add(self._name, str(error.kind))
            self.failed(error)
        except Exception:  # noqa: BLE001 - whatever broke, the next probe is asked all the same
            return
        else:
            self._stats.introspections.add(self._name, "probe")
            self.answered()
            self._health.succeeded()
