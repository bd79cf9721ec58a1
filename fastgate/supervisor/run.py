"""The life of the gateway: from the first socket to the last signal."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import structlog
import uvloop

from fastgate import __version__
from fastgate.config.load import Config
from fastgate.control import logging as event_log
from fastgate.control.admin_listener import AdminListener
from fastgate.control.events_listener import EventsListener
from fastgate.control.tally import Totals
from fastgate.errors import ConfigError, FastgateError
from fastgate.stats import Stats
from fastgate.supervisor.changes import Changes, Reading, read_once
from fastgate.supervisor.fleet import Fleet
from fastgate.supervisor.operations import FleetOperations
from fastgate.supervisor.sockets import OwnSockets, Sockets
from fastgate.supervisor.systemd import Notifier, activated
from fastgate.supervisor.zygote import Zygote

log = structlog.get_logger("fastgate.supervisor")

HANDSHAKES: Final = 0.1
"""Seconds for connections that are being made when the end begins."""
INTERRUPTED: Final = 130
"""The exit status of programs that are ended by Ctrl-C."""


def serve(read: Callable[[], Config], zygote: Zygote) -> int:
    """Run the gateway until it is told to stop; returns the exit status.

    Raises ConfigError and StartError before anything is served.
    """
    reading = read_once(read)
    event_log.configure(reading.settings.log_format)
    try:
        sockets = Sockets(reading.settings, reading.force.workers, activated(os.environ))
        return uvloop.run(_supervise(read, reading, sockets, zygote))
    finally:
        event_log.close()


async def _supervise(read: Callable[[], Config], reading: Reading, sockets: Sockets, zygote: Zygote) -> int:
    return await Supervisor(read, reading, sockets, zygote).run()


class Supervisor:
    """Signals, and what follows from them."""

    def __init__(self, read: Callable[[], Config], reading: Reading, sockets: Sockets, zygote: Zygote) -> None:
        """Made inside the running loop."""
        self._sockets = sockets
        self._totals = Totals(Stats())
        self._notifier = Notifier(os.environ)
        self._fleet = Fleet(reading.force, sockets, zygote, self._totals)
        self._changes = Changes(read, reading, self._fleet, self._totals, self._notifier, self._taken)
        admin = reading.settings.admin
        self._operations = FleetOperations(
            self._fleet,
            self._totals,
            self._changes.reload,
            None if admin is None else admin.token,
            reading.snapshot.providers,
        )
        self._admin = AdminListener(self._operations)
        self._events = EventsListener(self._operations)
        self._certificates = reading.certificates
        self._stop = asyncio.Event()
        self._cut = asyncio.Event()
        self._interrupts = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        """Start everything, serve, and end; returns the exit status. Raises StartError."""
        loop = asyncio.get_running_loop()
        # Before any worker starts: a signal that comes in between must not leave half of them.
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        loop.add_signal_handler(signal.SIGHUP, self._change)
        loop.add_signal_handler(signal.SIGUSR2, self._change, True)  # noqa: FBT003 - add_signal_handler's way
        try:
            await self._unless_stopped(self._fleet.start())
            for _, listener, own in self._own():
                await listener.start(own.sockets, own.tls)
            if not self._stop.is_set():
                self._say_serving()
                self._watchdog()
                self._go(self._operations.notifications.meet())
                await self._stop.wait()
            self._notifier.stopping()
            return await self._unless_cut(self._drain())
        finally:
            for task in self._tasks:
                task.cancel()
            await self._fleet.stop()
            await self._events.close()
            await self._admin.close()
            await self._operations.notifications.close()
            self._sockets.close()

    def _own(self) -> list[tuple[str, AdminListener | EventsListener, OwnSockets]]:
        """What this process serves itself, by the setting that says where."""
        wanted: tuple[tuple[str, AdminListener | EventsListener, OwnSockets | None], ...] = (
            ("admin.listen", self._admin, self._sockets.admin),
            ("events.listen", self._events, self._sockets.events),
        )
        return [(name, listener, own) for name, listener, own in wanted if own is not None]

    # --- signals -----------------------------------------------------------------------------------------------

    def _interrupt(self) -> None:
        """Ctrl-C drains; who presses it again does not want to wait."""
        self._interrupts += 1
        self._stop.set()
        if self._interrupts > 1:
            self._cut.set()

    def _change(self, fresh: bool = False) -> None:  # noqa: FBT001, FBT002 - see add_signal_handler
        self._go(self._changed(fresh=fresh))

    def _go(self, doing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(doing)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _changed(self, *, fresh: bool) -> None:
        try:
            await self._changes.reload(fresh=fresh)
        # Without tracebacks: a mistake in a file is no fault of the program.
        except ConfigError as error:
            for problem in error.problems:
                log.error(  # noqa: TRY400
                    "configuration not reloaded",
                    file=error.file,
                    line=problem.line,
                    path=problem.path,
                    problem=problem.message,
                )
        except FastgateError as error:
            log.error("configuration not reloaded", problem=str(error))  # noqa: TRY400

    async def _taken(self, reading: Reading, needs_restart: list[str]) -> None:
        """Put in force what is not the workers' part."""
        settings = reading.settings
        self._operations.notifications.swap(reading.snapshot.providers)
        if settings.admin is not None and "admin.listen" not in needs_restart:
            # The token of another listener, or of none, is not for the one that is open.
            self._operations.admin_token = settings.admin.token
        if reading.certificates != self._certificates:
            self._certificates = reading.certificates
            addresses = {
                "admin.listen": None if settings.admin is None else settings.admin.address,
                "events.listen": settings.events,
            }
            for name, listener, own in self._own():
                address = addresses[name]
                if address is not None and name not in needs_restart:
                    await listener.serve(own.sockets, address.tls)

    # --- the end -----------------------------------------------------------------------------------------------

    async def _drain(self) -> int:
        """Accept no more, finish what is open, end."""
        seconds = self._fleet.force.settings.limits.drain_timeout
        log.info("draining", seconds=seconds)
        self._operations.draining = True
        self._sockets.refuse_new()
        await asyncio.sleep(HANDSHAKES)
        cut = await self._fleet.drain(seconds)
        log.info("stopped", cut=cut)
        return 0

    async def _unless_stopped(self, starting: Coroutine[Any, Any, None]) -> None:
        """Wait for the start, but not longer than until somebody wants the end."""
        task, stop = asyncio.ensure_future(starting), asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if task.done():
            task.result()
            return
        task.cancel()
        await asyncio.wait({task})

    async def _unless_cut(self, draining: Coroutine[Any, Any, int]) -> int:
        task, cut = asyncio.ensure_future(draining), asyncio.ensure_future(self._cut.wait())
        await asyncio.wait({task, cut}, return_when=asyncio.FIRST_COMPLETED)
        cut.cancel()
        if task.done():
            return task.result()
        task.cancel()
        await asyncio.wait({task})
        log.warning("interrupted: what is open is cut")
        return INTERRUPTED

    # --- what it says ------------------------------------------------------------------------------------------

    def _say_serving(self) -> None:
        log.info(
            "serving",
            listen=_text(self._sockets.addresses),
            admin=_text([self._admin.address]),
            events=_text([self._events.address]),
            workers=self._fleet.force.workers,
            version=__version__,
        )
        self._fleet.on_change = self._say_status
        self._say_status()
        self._notifier.ready()

    def _say_status(self) -> None:
        serving = sum(member.serves for member in self._fleet.serving)
        self._notifier.status(f"{serving} of {self._fleet.force.workers} workers serving")

    def _watchdog(self) -> None:
        """As long as this loop turns, systemd need not do anything."""
        if self._notifier.interval is not None:
            self._notifier.alive()
            asyncio.get_running_loop().call_later(self._notifier.interval, self._watchdog)


def _text(addresses: Sequence[tuple[str, int] | None]) -> str:
    return " ".join(f"{each[0]}:{each[1]}" for each in addresses if each is not None)
