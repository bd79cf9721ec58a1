"""The zygote as the supervisor sees it: started early, asked for workers, replaced when it is gone."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson

from fastgate.errors import FastgateError
from fastgate.worker.orders import MAX_DESCRIPTORS, MAX_PACKET, NOT_FOR_WORKERS, PROTOCOL

STARTING: Final = 30.0
"""Seconds that a fresh interpreter may take to import everything, on a busy machine."""
FORKING: Final = 5.0
_OURS: Final = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
"""What systemd says to this process alone."""


class ZygoteError(FastgateError):
    """No worker can be made; the message says why."""


class Zygote:
    """A fresh interpreter that forks workers, with the code as it is on disk when it is started."""

    def __init__(self) -> None:
        """Start it: it imports while this process goes on. Raises ZygoteError."""
        try:
            self._sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise ZygoteError(f"a process for workers cannot be started: {error.strerror}") from error
        with theirs:
            # -P: nothing is imported from the directory that the gateway happens to be started in.
            command = [sys.executable, "-P", "-m", "fastgate.worker.zygote", str(theirs.fileno())]
            environment = {name: value for name, value in os.environ.items() if name not in _OURS}
            environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path) or "."
            # What a terminal or systemd sends to everybody is not for it, from its first instruction on.
            signal.pthread_sigmask(signal.SIG_BLOCK, NOT_FOR_WORKERS)
            try:
                self._process = subprocess.Popen(  # noqa: S603 - ourselves
                    command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], env=environment
                )
            except OSError as error:
                self._sock.close()
                raise ZygoteError(f"a process for workers cannot be started: {error.strerror}") from error
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, NOT_FOR_WORKERS)
        self._orders: dict[int, asyncio.Future[int]] = {}
        self._ready: asyncio.Future[None] | None = None
        self._ended: Callable[[int, int], None] = lambda *_: None
        self._number = 0
        self.gone = asyncio.Event()
        """Set when it can be asked for nothing any more."""

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it can be asked for workers."""
        return self._sock.fileno() >= 0

    async def ready(self, ended: Callable[[int, int], None]) -> None:
        """Wait until it can fork; `ended` is told the pid and the exit status of every worker. Raises ZygoteError."""
        loop = asyncio.get_running_loop()
        self._ended = ended
        self._ready = loop.create_future()
        self._sock.setblocking(False)  # noqa: FBT003 - the socket module's own signature
        loop.add_reader(self._sock.fileno(), self._read)
        try:
            async with asyncio.timeout(STARTING):
                await self._ready
        except TimeoutError:
            self.kill()
            raise ZygoteError(f"the process for workers did not start within {STARTING:g} s") from None

    async def fork(
        self, channel: socket.socket, sockets: Sequence[socket.socket], *, patience: float, redis: bool
    ) -> int:
        """Make a worker that has these descriptors; returns its pid. Raises ZygoteError.

        `patience`: seconds that it may take to end when this process is gone; `redis`: whether it will use it.
        """
        if not self.alive:
            raise ZygoteError("the process for workers has ended")
        self._number += 1
        number = self._number
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._orders[number] = answer
        descriptors = [channel.fileno(), *(each.fileno() for each in sockets)]
        try:
            for start in range(0, len(descriptors), MAX_DESCRIPTORS):
                more = start + MAX_DESCRIPTORS < len(descriptors)
                packet = orjson.dumps({"number": number, "more": more, "patience": patience, "redis": redis})
                socket.send_fds(self._sock, [packet], descriptors[start : start + MAX_DESCRIPTORS])
            async with asyncio.timeout(FORKING):
                return await answer
        except (OSError, TimeoutError) as error:
            # It has half an order, or hangs.
            self.kill()
            raise ZygoteError("the process for workers does not answer") from error
        finally:
            self._orders.pop(number, None)

    def retire(self) -> None:
        """Let it end when its workers have ended."""
        if self.alive:
            self._sock.shutdown(socket.SHUT_WR)

    def kill(self) -> None:
        """End it at once; its workers stay."""
        self._process.kill()
        self._close("the process for workers was ended")

    async def wait(self) -> None:
        """Wait until the process has ended."""
        await asyncio.to_thread(self._process.wait)

    def abandon(self) -> None:
        """End it, whether it was ever used or not."""
        self._process.kill()
        self._process.wait()
        self._sock.close()

    def _read(self) -> None:
        while self.alive:
            try:
                packet = self._sock.recv(MAX_PACKET)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:
                self._close("the process for workers has ended")
                return
            self._take(orjson.loads(packet))

    def _take(self, said: dict[str, Any]) -> None:
        if "ended" in said:
            self._ended(said["ended"], said["status"])
        elif "ready" in said:
            if self._ready is None or self._ready.done():
                return
            if said["ready"] == PROTOCOL:
                self._ready.set_result(None)
            else:
                self._ready.set_exception(ZygoteError(f"fastgate {said['version']} needs a restart, not new workers"))
        elif (answer := self._orders.get(said["number"])) is not None and not answer.done():
            if said["pid"] is not None:
                answer.set_result(said["pid"])
            else:
                answer.set_exception(ZygoteError(f"a worker cannot be made: {said['why']}"))

    def _close(self, why: str) -> None:
        if not self.alive:
            return
        asyncio.get_running_loop().remove_reader(self._sock.fileno())
        self._sock.close()
        self.gone.set()
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(ZygoteError(f"{why}; what it wrote to standard error says why"))
        for answer in self._orders.values():
            if not answer.done():
                answer.set_exception(ZygoteError(why))
