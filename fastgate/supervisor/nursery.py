"""Where workers come from: there is always a zygote to fork them, or soon will be again."""

import asyncio
from collections.abc import Callable, Sequence
from socket import socket
from typing import Final

import structlog

from fastgate.supervisor.zygote import Zygote, ZygoteError

log = structlog.get_logger("fastgate.supervisor")

AGAIN: Final = 5.0
"""Seconds between two tries to start a zygote."""


class Nursery:
    """The zygote in use, and former ones that still have workers."""

    def __init__(self, first: Zygote) -> None:
        self._current = first
        self._all = {first}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended: Callable[[int, int], None] = lambda *_: None
        self._ending = False

    @property
    def pid(self) -> int:
        """Of the zygote in use."""
        return self._current.pid

    async def start(self, ended: Callable[[int, int], None]) -> None:
        """Wait for the first zygote; `ended` is told pid and exit status of every worker. Raises ZygoteError."""
        self._ended = ended
        await self._current.ready(ended)
        self._keep(self._current)

    async def fork(self, channel: socket, sockets: Sequence[socket], *, patience: float, redis: bool) -> int:
        """Make a worker; see `Zygote.fork`. Raises ZygoteError."""
        if not self._current.alive:
            await self._replace()
        return await self._current.fork(channel, sockets, patience=patience, redis=redis)

    async def refresh(self) -> Zygote:
        """Fork from now on with the code as it is on disk; returns the former zygote. Raises ZygoteError."""
        former = self._current
        await self._replace()
        return former

    async def stop(self) -> None:
        """End every zygote."""
        self._ending = True
        for task in self._tasks:
            task.cancel()
        for zygote in list(self._all):
            zygote.kill()
            await zygote.wait()

    async def _replace(self) -> None:
        zygote = Zygote()
        self._all.add(zygote)
        try:
            await zygote.ready(self._ended)
        except ZygoteError:
            zygote.kill()
            await zygote.wait()
            self._all.discard(zygote)
            raise
        self._current = zygote
        self._keep(zygote)

    def _keep(self, zygote: Zygote) -> None:
        task = asyncio.get_running_loop().create_task(self._outlive(zygote))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _outlive(self, zygote: Zygote) -> None:
        """Start another zygote as soon as the one in use is gone: a worker that ends must not wait for it."""
        await zygote.gone.wait()
        await zygote.wait()
        self._all.discard(zygote)
        while zygote is self._current and not self._ending:
            log.error("the process that makes workers is gone; starting another", pid=zygote.pid)
            try:
                await self._replace()
            except ZygoteError as error:
                log.error("no process that makes workers", problem=str(error), next_try_in=AGAIN)  # noqa: TRY400
                await asyncio.sleep(AGAIN)
