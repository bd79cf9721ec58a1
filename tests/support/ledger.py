"""A load that accounts for every request: clients that ask and ask, and an upstream that says what it was asked.

    async with Repeater() as upstream, Ledger(gateway.port, kept=8, closing=4) as ledger:
        await ledger.answered(5000)
        ...                                  # whatever is to be survived
    assert ledger.lost == []

Each request has a number of its own in its path and is answered with that path; whatever happens to it is written down
with its number: see `Fate`. Nothing is ever sent twice by the client.
"""

import asyncio
import re
import socket
import time
from collections import Counter
from contextlib import suppress
from enum import StrEnum
from types import TracebackType
from typing import NamedTuple, Self, cast

PATIENCE = 30.0
"""Seconds before a request that nobody answers is called silent."""


class Fate(StrEnum):
    """What became of a request."""

    ANSWERED = "answered"
    """With the status that was expected and its own body."""
    WRONG = "wrong"
    """With another status or another body."""
    REFUSED = "refused"
    """Nobody listened."""
    RESET = "reset"
    """The connection was reset after it was made, before the whole answer had come."""
    UNANSWERED = "unanswered"
    """The connection was ended without a single octet of an answer."""
    TRUNCATED = "truncated"
    """It was ended within the answer."""
    SILENT = "silent"


class Loss(NamedTuple):
    """A request that was not answered as it should be."""

    number: int
    fate: Fate
    kept: bool
    """Whether its connection had served others before."""
    at: float
    """Monotonic seconds."""
    detail: str = ""


class Ledger:
    """Clients on connections that are kept, and others that make a new one for each request."""

    def __init__(
        self,
        port: int,
        *,
        kept: int = 8,
        closing: int = 4,
        path: str = "/api/",
        token: str | None = "good",
        pause: float = 0.0,
        status: int = 200,
    ) -> None:
        """`pause`: seconds between an answer and the next request of the same client."""
        self.port = port
        self.fates: Counter[Fate] = Counter()
        self.lost: list[Loss] = []
        """Every request that was not answered as it should be, in the order of their ends."""
        self.slowest = 0.0
        """Seconds."""
        self.connections = 0
        """Made in all."""
        self._clients = [True] * kept + [False] * closing
        self._path = path
        self._authorization = f"Authorization: Bearer {token}\r\n" if token is not None else ""
        self._pause = pause
        self._status = b"HTTP/1.1 %d " % status
        self._number = 0
        self._ending = False
        self._tasks: list[asyncio.Task[None]] = []
        self._bell = asyncio.Event()

    @property
    def count(self) -> int:
        """Requests that have found their fate."""
        return self.fates.total()

    def lost_as(self, *fates: Fate) -> list[Loss]:
        """Losses of these kinds."""
        return [loss for loss in self.lost if loss.fate in fates]

    async def answered(self, more: int) -> None:
        """Wait until so many more requests have been answered."""
        goal = self.fates[Fate.ANSWERED] + more
        async with asyncio.timeout(4 * PATIENCE):
            while self.fates[Fate.ANSWERED] < goal:
                await self._bell.wait()

    async def stop(self) -> None:
        """Let every client finish its request, and no more."""
        self._ending = True
        await asyncio.gather(*self._tasks)

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.ensure_future(self._client(keep=keep)) for keep in self._clients]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            for task in self._tasks:
                task.cancel()
            error.add_note(f"the ledger: {dict(self.fates)}, first losses {self.lost[:5]}")
        await self.stop() if error is None else await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- one client --------------------------------------------------------------------------------------------

    async def _client(self, *, keep: bool) -> None:
        line: Line | None = None
        while not self._ending:
            line = await self._once(line, keep=keep)
            if self._pause:
                await asyncio.sleep(self._pause)
        if line is not None:
            line.close()

    async def _once(self, line: "Line | None", *, keep: bool) -> "Line | None":
        """One request; returns the connection for the next one."""
        self._number += 1
        number = self._number
        began = time.monotonic()
        kept = line is not None and not line.ended
        try:
            async with asyncio.timeout(PATIENCE):
                if line is None or line.ended:
                    line = await Line.connect(self.port)
                    self.connections += 1
                answer = await line.ask(self._request(number, keep=keep))
        except TimeoutError:
            self._write(Loss(number, Fate.SILENT, kept, time.monotonic()))
        except ConnectionRefusedError:
            self._write(Loss(number, Fate.REFUSED, kept, time.monotonic()))
            await asyncio.sleep(0.01)
        except ConnectionResetError as error:
            self._write(Loss(number, Fate.RESET, kept, time.monotonic(), str(error)))
        except EOFError as error:
            fate = Fate.TRUNCATED if error.args[0] else Fate.UNANSWERED
            self._write(Loss(number, fate, kept, time.monotonic(), repr(error.args[0][:200])))
        else:
            self.slowest = max(self.slowest, time.monotonic() - began)
            if answer.startswith(self._status) and answer.endswith(b"\r\n\r\n" + self._target(number).encode()):
                self.fates[Fate.ANSWERED] += 1
                self._ring()
            else:
                self._write(Loss(number, Fate.WRONG, kept, time.monotonic(), repr(answer[:300])))
            if keep and not line.last:
                return line
        if line is not None:
            line.close()
        return None

    def _target(self, number: int) -> str:
        return f"{self._path}{number}"

    def _request(self, number: int, *, keep: bool) -> bytes:
        close = "" if keep else "Connection: close\r\n"
        return f"GET {self._target(number)} HTTP/1.1\r\nHost: ledger\r\n{self._authorization}{close}\r\n".encode()

    def _write(self, loss: Loss) -> None:
        self.fates[loss.fate] += 1
        self.lost.append(loss)
        self._ring()

    def _ring(self) -> None:
        self._bell.set()
        self._bell = asyncio.Event()


_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close\r\n", re.IGNORECASE)


class Line(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self.ended = False
        self.last = False
        """The answer said that no other will come."""
        self._received = b""
        self._answer: asyncio.Future[bytes] | None = None

    @classmethod
    async def connect(cls, port: int) -> Self:
        sock = socket.socket()
        sock.setblocking(False)  # noqa: FBT003 - the socket module's own signature
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_connect(sock, ("127.0.0.1", port))
            _, line = await loop.create_connection(cls, sock=sock)
        except BaseException:
            sock.close()
            raise
        return line

    async def ask(self, request: bytes) -> bytes:
        """Send a request; returns the whole answer. Raises EOFError with what had come, and ConnectionResetError."""
        self._answer = asyncio.get_running_loop().create_future()
        self._received = b""
        self._transport.write(request)
        return await self._answer

    @property
    def peer(self) -> int:
        """The port that it leads to."""
        port: int = self._transport.get_extra_info("peername")[1]
        return port

    @property
    def port(self) -> int:
        """Its own."""
        port: int = self._transport.get_extra_info("sockname")[1]
        return port

    def send(self, octets: bytes) -> None:
        """Send without waiting for an answer."""
        self._transport.write(octets)

    def abort(self) -> None:
        """Go away at once, with a reset where the system knows of unread octets."""
        self.ended = True
        self._transport.abort()

    def close(self) -> None:
        self.ended = True
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        length = _LENGTH.search(head + b"\r\n")
        if length is not None and len(body) >= int(length[1]):
            self.last = _CLOSE.search(head + b"\r\n") is not None
            if self._answer is not None and not self._answer.done():
                self._answer.set_result(self._received)

    def eof_received(self) -> bool | None:
        self.ended = True
        return None

    def connection_lost(self, exc: BaseException | None) -> None:
        self.ended = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(
                ConnectionResetError(repr(self._received[:100])) if exc is not None else EOFError(self._received)
            )


class Repeater:
    """An upstream that answers every request with its target, and counts how often each was asked for."""

    def __init__(self, *, pause: float = 0.0) -> None:
        """`pause`: seconds before an answer."""
        self.port = 0
        self.asked: Counter[bytes] = Counter()
        self.pause = pause
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Transport] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def repeated(self) -> list[bytes]:
        """Targets that were asked for more than once."""
        return [target for target, count in self.asked.items() if count > 1]

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Repeating(self, self._open), "127.0.0.1", 0, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for transport in list(self._open):
            transport.abort()


class _Repeating(asyncio.Protocol):
    def __init__(self, repeater: Repeater, everybody: set[asyncio.Transport]) -> None:
        self._repeater = repeater
        self._everybody = everybody
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._everybody.add(self._transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head, self._received = self._received[:end], self._received[end + 4 :]
            target = head.split(b" ", 2)[1]
            self._repeater.asked[target] += 1
            answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(target), target)
            if self._repeater.pause:
                asyncio.get_running_loop().call_later(self._repeater.pause, self._write, answer)
            else:
                self._write(answer)

    def _write(self, answer: bytes) -> None:
        with suppress(RuntimeError):
            self._transport.write(answer)

    def connection_lost(self, exc: BaseException | None) -> None:
        del exc
        self._everybody.discard(self._transport)
