"""Clients that judge every answer: what comes back is what was sent, for who sent it, or the refusal that was due."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from types import TracebackType
from typing import Final, NamedTuple, Self
from zlib import crc32

from tests.support.ledger import Line

PATIENCE: Final = 20.0
"""Seconds before a request that nobody answers is lost."""
LARGEST: Final = 2048
"""Octets of a body."""
_numbers: Final = count(1)
"""Every request of a run has a target of its own."""


class Person(NamedTuple):
    """Who asks: with which token, who that is to the upstream, and what is due."""

    token: str | None
    subject: str = ""
    status: int = 200
    known: bool = True
    """Whether it was remembered already; only then its latency is one of a remembered token."""


class Took(NamedTuple):
    """One answer."""

    at: float
    """Monotonic seconds."""
    seconds: float
    status: int
    known: bool


class Clients:
    """Connections that ask and ask, each of them kept until it ends."""

    def __init__(
        self,
        ports: Sequence[int],
        draw: Callable[[], Person],
        *,
        connections: int = 32,
        pause: float = 0.0,
        leaving: float = 0.0,
        posts: float = 0.2,
        closing: float = 0.0,
        excused: frozenset[int] = frozenset(),
    ) -> None:
        """`pause`: seconds between two requests of a client, on average.

        `leaving`, `posts`, `closing`: the share of requests that a client leaves alone before the answer, that have
        a body, and after which it makes another connection. `excused`: statuses for tokens that are not known.
        """
        self.took: list[Took] = []
        self.statuses: Counter[int] = Counter()
        self.wrong: list[str] = []
        self.lost: list[str] = []
        self.refused = 0
        self.left = 0
        self._ports, self._draw = ports, draw
        self._connections, self._pause = connections, pause
        self._leaving, self._posts, self._closing, self._excused = leaving, posts, closing, excused
        self._chance = random.Random(7)
        self._bodies = [self._chance.randbytes(self._chance.randrange(LARGEST)) for _ in range(64)]
        self._ending = False
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def requests(self) -> int:
        """Requests that have come to an end."""
        return self.statuses.total() + len(self.lost) + self.refused + self.left

    def since(self, begin: float, end: float = float("inf"), *, known: bool = True) -> list[float]:
        """Milliseconds that answers took which came in this time, sorted."""
        return sorted(each.seconds * 1000 for each in self.took if begin <= each.at < end and each.known is known)

    async def asked(self, more: int) -> None:
        """Wait until so many more requests have come to an end."""
        goal = self.requests + more
        while self.requests < goal:  # noqa: ASYNC110 - as exact as needed
            await asyncio.sleep(0.02)

    async def __aenter__(self) -> Self:
        self._tasks = [
            asyncio.ensure_future(self._client(self._ports[number % len(self._ports)]))
            for number in range(self._connections)
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending = True
        if error is not None:
            for task in self._tasks:
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=error is not None)

    async def _client(self, port: int) -> None:
        line: Line | None = None
        while not self._ending:
            line = await self._once(line, port)
            if self._pause:
                await asyncio.sleep(self._pause * 2 * self._chance.random())
        if line is not None:
            line.close()

    async def _once(self, line: Line | None, port: int) -> Line | None:
        """One request; returns the connection for the next one."""
        person, chance = self._draw(), self._chance.random
        body = self._chance.choice(self._bodies) if chance() < self._posts else None
        method = "GET" if body is None else "POST"
        target = f"{'/bad' if person.status != 200 else ''}/{next(_numbers)}"
        began = time.monotonic()
        try:
            if line is None or line.ended:
                line = await Line.connect(port)
            asking = asyncio.ensure_future(line.ask(_request(method, target, person.token, body)))
            if chance() < self._leaving:
                await self._leave(line, asking)
                return None
            async with asyncio.timeout(PATIENCE):
                answer = await asking
        except ConnectionRefusedError:
            self.refused += 1
            await asyncio.sleep(0.01)
        except (ConnectionResetError, EOFError, TimeoutError) as error:
            self.lost.append(f"{method} {target}: {error!r}")
        else:
            self._judge(person, answer, f"{person.subject} {method} {target} {crc32(body or b'')}", began)
            if not line.last and chance() >= self._closing:
                return line
        if line is not None:
            line.close()
        return None

    async def _leave(self, line: Line, asking: "asyncio.Future[bytes]") -> None:
        await asyncio.sleep(self._chance.random() * 0.01)
        self.left += 1
        line.close()
        await asyncio.gather(asking, return_exceptions=True)

    def _judge(self, person: Person, answer: bytes, due: str, began: float) -> None:
        status, body = int(answer[9:12]), answer.partition(b"\r\n\r\n")[2]
        now = time.monotonic()
        self.statuses[status] += 1
        self.took.append(Took(now, now - began, status, person.known))
        if status in self._excused and not person.known:
            return
        if status != person.status or (status == 200 and body != due.encode()):
            self.wrong.append(f"{person} wanted {due!r}, got {answer[:300]!r}")


def _request(method: str, target: str, token: str | None, body: bytes | None) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: bench"]
    lines += [f"Authorization: Bearer {token}"] if token is not None else []
    lines += [f"Content-Length: {len(body)}"] if body is not None else []
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def share(values: Sequence[float], part: float) -> float:
    """Return the value below which this part of the sorted values is; 0 without any."""
    return values[min(len(values) - 1, int(part * len(values)))] if values else 0.0
