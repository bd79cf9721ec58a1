"""A TCP proxy that makes a good server look bad: slow, narrow, silent, broken; words as in toxiproxy.

async with Chaos(redis.port) as way:
    way.latency = 0.2          # seconds, for every segment in both directions
    way.bandwidth = 10_000     # octets a second
    way.hung = True            # accepts, and passes nothing on until it is False again
    way.reset()                # every connection ends with a reset
    way.close(); await way.start()
"""

import asyncio
from types import TracebackType
from typing import Self

from tests.support.client import reset

BLOCK = 16 * 1024


class Chaos:
    """One listener in front of one server on loopback."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.latency = 0.0
        self.bandwidth: float | None = None
        self.accepted = 0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def hung(self) -> bool:
        return not self._flowing.is_set()

    @hung.setter
    def hung(self, hung: bool) -> None:
        if hung:
            self._flowing.clear()
        else:
            self._flowing.set()

    async def start(self) -> Self:
        """Listen, on the same port as before."""
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def close(self) -> None:
        """Listen no more, and reset what is open: as if the server had died."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.reset()

    def reset(self) -> None:
        """End every connection with a reset."""
        for writer in list(self._open):
            reset(writer)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._open.add(writer)
        self._own(asyncio.current_task())
        try:
            there, out = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            reset(writer)
            return
        self._open.add(out)
        for source, sink in ((reader, out), (there, writer)):
            self._own(asyncio.ensure_future(self._pass(source, sink)))

    def _own(self, task: asyncio.Task[None] | None) -> None:
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while octets := await source.read(BLOCK):
                if self.latency:
                    await asyncio.sleep(self.latency)
                if self.bandwidth is not None:
                    await asyncio.sleep(len(octets) / self.bandwidth)
                await self._flowing.wait()
                sink.write(octets)
                await sink.drain()
        except ConnectionError:
            reset(sink)
        finally:
            self._open.discard(sink)
            sink.close()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hung = False
        self.close()
        await asyncio.sleep(0.01)  # what was accepted just now begins
        self.reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
