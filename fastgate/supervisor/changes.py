"""Another configuration, or other code: read once, put in force in every worker or in none."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import structlog

from fastgate.app import fixed_settings
from fastgate.config.certificates import certificates
from fastgate.config.compile import compile_snapshot
from fastgate.config.handing import handed
from fastgate.config.load import Config
from fastgate.control import logging as event_log
from fastgate.control.tally import Totals
from fastgate.errors import ConfigError, FastgateError, Problem
from fastgate.model import Settings, Snapshot
from fastgate.supervisor.cores import available
from fastgate.supervisor.fleet import Fleet, Force
from fastgate.supervisor.ledger import WITHIN, confirmed
from fastgate.supervisor.sockets import Place
from fastgate.supervisor.systemd import Notifier
from fastgate.worker.channel import RefusedError

log = structlog.get_logger("fastgate.supervisor")

FOR_GOOD: Final = ("admin.listen", "events.listen")
"""Settings that only a restart changes: their sockets are open already, with the token that belongs to them."""


class Reading(NamedTuple):
    """A configuration that is in order, and everything that follows from it."""

    config: Config
    snapshot: Snapshot
    certificates: str

    @property
    def settings(self) -> Settings:
        """What concerns the whole process."""
        return self.snapshot.settings

    @property
    def force(self) -> Force:
        """What workers begin with."""
        wanted = self.settings.workers
        return Force(handed(self.config), self.settings, available() if wanted is None else wanted)


def read_once(read: Callable[[], Config]) -> Reading:
    """Read and compile everything, so that no worker meets a mistake. Raises ConfigError."""
    config = read()
    return Reading(config, compile_snapshot(config), certificates(config))


class Changes:
    """Takes changes one at a time."""

    def __init__(
        self,
        read: Callable[[], Config],
        reading: Reading,
        fleet: Fleet,
        totals: Totals,
        notifier: Notifier,
        taken: "Taken",
    ) -> None:
        """`taken` puts in force what is not the workers' part."""
        self._read = read
        self._reading = reading
        self._started = reading.settings
        """With the listeners of this process as they are open."""
        self._fleet = fleet
        self._totals = totals
        self._notifier = notifier
        self._taken = taken
        self._one = asyncio.Lock()

    async def reload(self, *, fresh: bool = False) -> dict[str, Any]:
        """Put the configuration as it is now in force, whole or not at all; `fresh`: with new workers in any case.

        Raises ConfigError and other FastgateErrors: nothing was changed.
        """
        async with self._one:
            self._notifier.reloading()
            try:
                return await self._take(await asyncio.to_thread(read_once, self._read), fresh=fresh)
            except Exception:
                self._totals.own.config_reloads.add("refused")
                raise
            finally:
                self._notifier.ready()

    async def _take(self, reading: Reading, *, fresh: bool) -> dict[str, Any]:
        fleet, before = self._fleet, self._reading
        force = reading.force
        differing = fixed_settings(before.settings, reading.settings)
        renewed = [name for name in differing if name not in FOR_GOOD]
        renewed += ["workers"] if force.workers != fleet.force.workers else []
        renewed += ["certificates"] if reading.certificates != before.certificates else []
        fixed = [name for name in fixed_settings(self._started, reading.settings) if name in FOR_GOOD]
        places = fleet.sockets.moved(reading.settings.listen, force.workers)
        try:
            await self._prepare(force, reading)
        except BaseException:
            fleet.sockets.discard(places)
            raise
        # From here on nothing is refused.
        gone = fleet.sockets.settle(places)
        fleet.force, self._reading = force, reading
        version = reading.config.version
        await asyncio.gather(*(confirmed(member.commit(version, WITHIN), member) for member in fleet.told()))
        await self._taken(reading, fixed)
        event_log.configure(reading.settings.log_format)
        if renewed or fresh:
            fixed += await self._renew(renewed, gone, fresh=fresh)
        self._totals.own.config_reloads.add("taken")
        log.info("configuration reloaded", config_version=version, needs_restart=fixed, renewed=renewed)
        return {"config_version": version, "needs_restart": fixed, "renewed": renewed}

    async def _prepare(self, force: Force, reading: Reading) -> None:
        try:
            await asyncio.gather(
                *(confirmed(member.prepare(force.config, WITHIN), member) for member in self._fleet.told())
            )
        except RefusedError as error:
            # What we could read a moment ago, a worker cannot: a certificate that is being replaced, for instance.
            problems = [Problem(path, message, line) for path, message, line in error.detail or ()]
            raise ConfigError(reading.config.file, problems or [Problem("", str(error))]) from error

    async def _renew(self, renewed: list[str], gone: list[Place], *, fresh: bool) -> list[str]:
        """Have new workers; returns what is not in force because they cannot be had."""
        try:
            await self._fleet.renew(fresh=fresh, gone=gone)
        except FastgateError as error:
            log.error("workers not renewed: the old ones go on", problem=str(error))  # noqa: TRY400
            return renewed
        return []


Taken = Callable[[Reading, list[str]], Awaitable[None]]
"""Is told of a configuration in force, and of the settings in it that are not: they need a restart."""
