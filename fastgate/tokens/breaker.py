"""Holding off from an authorization server that fails every time, and noticing soon that it has recovered."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from fastgate.errors import Cannot, IntrospectionError
from fastgate.stats import Stats
from fastgate.tokens.health import Health
from fastgate.tokens.turns import Turns

PROBE_SECONDS: Final = 1.0
"""Between two questions of our own to a server that is held off from, whichever process of this host asks them."""
FAILURES: Final = frozenset({Cannot.TIMEOUT, Cannot.UNAVAILABLE, Cannot.REJECTED})
"""What says that the server, or the way to it, is not well. A malformed answer may be about one token only."""


class HeldOffError(IntrospectionError):
    """Nothing was sent: the server has failed too often in a row."""


class Breaker:
    """Opens after so many failures in a row; while it is open only probes of ours ask, one a second and host.

    Nobody's token but ours decides when it closes: one that makes the server fail cannot keep the others out.
    """

    __slots__ = (
        "_failures",
        "_health",
        "_in_a_row",
        "_kind",
        "_name",
        "_pause",
        "_probe",
        "_recovering",
        "_stats",
        "_turns",
        "open",
    )

    def __init__(
        self,
        name: str,
        failures: int,
        probe: Callable[[], Awaitable[None]],
        pause: Callable[[], float],
        turns: Turns,
        health: Health,
        stats: Stats,
    ) -> None:
        """`failures` in a row, at least 1. `probe` asks about a token that nobody issued; raises IntrospectionError.

        `pause`: seconds for which the server wants not to be asked, 0.0 or less: none. `turns`: see there.
        """
        self._name = name
        self._failures = failures
        self._probe = probe
        self._pause = pause
        self._turns = turns
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
            if self._recovering is not None:
                # Also the probes that still hang: that they fail one day says nothing of a server that is well again.
                self._recovering.cancel()

    def heard(self, *, well: bool) -> None:
        """Take note that another process of this host was answered, or has begun to hold off.

        That is one's own affair: it may be to blame itself. But then one failure here is enough.
        """
        if not well:
            self._in_a_row = max(self._in_a_row, self._failures - 1)
            return
        if self.open:
            self._health.succeeded()
        self.answered()

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
            self._turns.tell(self._name, well=False)
            self._recovering = asyncio.get_running_loop().create_task(self._recover())

    async def close(self) -> None:
        """Ask no more."""
        if self._recovering is not None:
            self._recovering.cancel()
            await asyncio.wait([self._recovering])

    async def _recover(self) -> None:
        """Ask at once, then when it is our turn. No probe waits for the one before: a server that hung may answer it.

        The first waits for nobody's turn: one token that makes the server fail must not keep the others out for longer.
        """
        wait = 0.0
        async with asyncio.TaskGroup() as asking:
            while True:
                if wait <= 0.0:
                    asking.create_task(self._ask())
                    wait = PROBE_SECONDS
                await asyncio.sleep(min(wait, PROBE_SECONDS))
                wait = self._pause()
                if wait <= 0.0:  # who would not ask leaves the turn to others
                    wait = await self._turns.wait(self._name)

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
            self._turns.tell(self._name, well=True)
