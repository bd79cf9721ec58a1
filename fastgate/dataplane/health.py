"""Whether a target is fit for requests: told by failing connections, and by questions of our own when asked to."""

import asyncio
from contextlib import suppress
from typing import Final

import structlog

from fastgate.model import Service, Target

log = structlog.get_logger("fastgate.dataplane")
_OK: Final = range(200, 400)
_STATUS_LINE: Final = 4096


class Health:
    """The health of one target."""

    __slots__ = (
        "_failures",
        "_loop",
        "_rest_until",
        "_service",
        "_successes",
        "_target",
        "_task",
        "healthy_now",
    )

    def __init__(self, service: Service, target: Target, loop: asyncio.AbstractEventLoop) -> None:
        self._service = service
        self._target = target
        self._loop = loop
        self._failures = 0
        self._successes = 0
        self._rest_until = 0.0
        self._task: asyncio.Task[None] | None = None
        self.healthy_now = True

    def __repr__(self) -> str:
        return f"<Health {'healthy' if self.healthy else 'unhealthy'}>"

    @property
    def watched(self) -> bool:
        """It is asked regularly, so that its word counts even when every target is unwell."""
        return self._service.health.path is not None

    @property
    def healthy(self) -> bool:
        """Fit for requests. An unwatched target is given another chance after `interval` of rest."""
        if self.healthy_now or self.watched:
            return self.healthy_now
        return self._loop.time() >= self._rest_until

    @property
    def fit(self) -> bool:
        """Not known to be unfit: without somebody who asks regularly, an only target is always worth a try."""
        return self.healthy_now or not self.watched

    def failed(self) -> None:
        """A connection could not be made, or a check failed."""
        self._failures += 1
        self._successes = 0
        self._rest_until = self._loop.time() + self._service.health.interval
        if self.healthy_now and self._failures >= self._service.health.unhealthy_after:
            self.healthy_now = False
            log.warning("target unhealthy", service=self._service.name, target=self._name, failures=self._failures)

    def succeeded(self) -> None:
        """A connection was made, or a check passed."""
        self._failures = 0
        self._successes += 1
        if not self.healthy_now and self._successes >= self._service.health.healthy_after:
            self.healthy_now = True
            log.info("target healthy again", service=self._service.name, target=self._name)

    def start(self) -> None:
        """Ask every `interval`, if the service wants that."""
        if self.watched and self._task is None:
            self._task = self._loop.create_task(self._ask_forever())

    async def stop(self) -> None:
        """Ask no more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    @property
    def _name(self) -> str:
        return f"{self._target.host}:{self._target.port}"

    async def _ask_forever(self) -> None:
        check = self._service.health
        while True:
            try:
                async with asyncio.timeout(check.timeout):
                    well = await self._ask()
            except (
                OSError,
                TimeoutError,
                ValueError,
                asyncio.IncompleteReadError,
                asyncio.LimitOverrunError,
            ):
                well = False
            if well:
                self.succeeded()
            else:
                self.failed()
            await asyncio.sleep(check.interval)

    async def _ask(self) -> bool:
        """One GET on a connection of its own: a pooled one would prove only that it was alive before."""
        service = self._service
        reader, writer = await asyncio.open_connection(
            self._target.host,
            self._target.port,
            ssl=service.tls,
            server_hostname=(service.server_name or self._target.host) if service.tls else None,
            limit=_STATUS_LINE,
        )
        try:
            writer.write(
                f"GET {service.health.path} HTTP/1.1\r\nHost: {service.authority}\r\n"
                "User-Agent: fastgate-health\r\nConnection: close\r\n\r\n".encode("latin-1")
            )
            line = await reader.readuntil(b"\r\n")
            return line.startswith(b"HTTP/1.") and int(line[9:12]) in _OK
        finally:
            writer.close()
