"""Clients that judge every answer: whether it is theirs, says who they are, and let no bad token in."""

import asyncio
import hashlib
import random
import time
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from enum import StrEnum
from itertools import count
from types import TracebackType
from typing import NamedTuple, Self

from bench.tokens import BAD, subject
from tests.support.ledger import Line

PATIENCE = 15.0
"""Seconds before a request that nobody answers is called lost."""
_numbers = count(1)


class Fate(StrEnum):
    """What became of a request."""

    RIGHT = "right"
    """A good token was served, as its subject; a bad one was refused (401, 403)."""
    UNSERVED = "unserved"
    """503: the gateway cannot know the token now."""
    WRONG = "wrong"
    """A bad token was let in, a good one refused, or the answer is somebody else's."""
    LOST = "lost"
    """Reset, cut, not answered, or another failure of the gateway's (5xx)."""
    REFUSED = "refused"
    """Nobody listened."""
    GONE = "gone"
    """The client itself went away."""


class Trouble(NamedTuple):
    """A request that was not right."""

    began: float
    fate: Fate
    detail: str


class Window(NamedTuple):
    """A time, in monotonic seconds."""

    start: float
    end: float

    def __contains__(self, at: object) -> bool:
        return isinstance(at, float) and self.start <= at < self.end


class Tally:
    """Every request of one kind: when it began, how long it took, and what was not right."""

    def __init__(self) -> None:
        self.began = array("d")
        self.took = array("d")
        self.troubles: list[Trouble] = []
        self.gone = 0

    def note(self, began: float, fate: Fate, detail: str = "") -> None:
        """Write one down, now that it is over."""
        if fate is Fate.GONE:
            self.gone += 1
            return
        self.began.append(began)
        self.took.append(time.monotonic() - began)
        if fate is not Fate.RIGHT:
            self.troubles.append(Trouble(began, fate, detail))

    def count(self, window: Window | None = None) -> int:
        """Count those that were judged."""
        return len(self.began) if window is None else sum(began in window for began in self.began)

    def milliseconds(self, window: Window) -> list[float]:
        """List their latencies, in order."""
        return sorted(1000 * took for began, took in zip(self.began, self.took, strict=True) if began in window)

    def under_way(self, at: float, until: float) -> list[float]:
        """List the latencies in milliseconds of those that were under way at a moment, or began soon after."""
        both = zip(self.began, self.took, strict=True)
        return [1000 * took for began, took in both if began < until and began + took > at]

    def fates(self, window: Window | None = None) -> Counter[Fate]:
        """Count the troubles."""
        return Counter(trouble.fate for trouble in self.troubles if window is None or trouble.began in window)


def percentile(ordered: list[float], share: float) -> float:
    """Pick one of a list in order; NaN of none."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


def judged(answer: bytes, target: str, token: str | None, body: bytes) -> tuple[Fate, str]:
    """Judge the answer of `bench.stubs.who` that came through a gateway."""
    status = answer[9:12]
    if status in {b"500", b"502", b"504"}:
        return Fate.LOST, repr(answer[:200])
    if status == b"503":
        return Fate.UNSERVED, ""
    if token is None or token.startswith(BAD):
        wanted = b"403" if token is not None and token.startswith("narrow.") else b"401"
        return (Fate.RIGHT, "") if status == wanted else (Fate.WRONG, f"{token} got {answer[:300]!r}")
    if status == b"401" and token.startswith("until.") and time.time() >= int(token.split(".")[2]):
        return Fate.RIGHT, ""
    mine = f"{target}\n{subject(token)}\n{hashlib.sha256(body).hexdigest()}".encode()
    if status == b"200" and answer.endswith(b"\r\n\r\n" + mine):
        return Fate.RIGHT, ""
    return Fate.WRONG, f"{target} as {subject(token)} got {answer[:400]!r}"


def request(target: str, token: str | None, *, body: bytes = b"", keep: bool = True) -> bytes:
    """Compose one; with a body it is a POST."""
    fields = [f"{'POST' if body else 'GET'} {target} HTTP/1.1", "Host: bench"]
    fields += [f"Authorization: Bearer {token}"] if token is not None else []
    fields += [f"Content-Length: {len(body)}"] if body else []
    fields += [] if keep else ["Connection: close"]
    return "\r\n".join([*fields, "", ""]).encode() + body


class Kind(NamedTuple):
    """Clients of one kind."""

    name: str
    clients: int
    tokens: Iterator[str | None]
    pause: float = 0.0
    """Seconds between an answer and the next request, on average."""
    keep: bool = True
    """Whether they keep their connections."""
    body_max: int = 0
    """Octets; every other request is a POST with as many at most."""
    leaving: float = 0.0
    """The share of requests after which they go away at a moment of chance, without waiting for the answer."""


class Crowd:
    """Clients of several kinds at several gateways, by turns; leaving the block lets everybody finish."""

    def __init__(self, ports: list[int], *kinds: Kind, limit: float = float("inf")) -> None:
        """Nobody asks more than `limit` times in all."""
        self.tallies = {kind.name: Tally() for kind in kinds}
        self._ports = ports
        self._kinds = kinds
        self._limit = limit
        self._asked = 0
        self._ending = False
        self._tasks: list[asyncio.Task[None]] = []
        self._chance = random.Random(11)

    @property
    def asked(self) -> int:
        """Requests until now."""
        return self._asked

    async def finished(self) -> None:
        """Wait until the limit was reached."""
        await asyncio.gather(*self._tasks)

    async def __aenter__(self) -> Self:
        turn = count()
        self._tasks = [
            asyncio.ensure_future(self._client(kind, self._ports[next(turn) % len(self._ports)]))
            for kind in self._kinds
            for _ in range(kind.clients)
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

    async def _client(self, kind: Kind, port: int) -> None:
        line: Line | None = None
        while not self._ending and self._asked < self._limit:
            self._asked += 1
            line = await self._once(kind, port, line)
            if kind.pause:
                await asyncio.sleep(kind.pause * self._chance.uniform(0.5, 1.5))
        if line is not None:
            line.close()

    async def _once(self, kind: Kind, port: int, line: Line | None) -> Line | None:
        tally, token, target = self.tallies[kind.name], next(kind.tokens), f"/r/{next(_numbers)}"
        body = b""
        if kind.body_max and self._chance.random() < 0.5:
            body = self._chance.randbytes(self._chance.randrange(1, kind.body_max))
        octets = request(target, token, body=body, keep=kind.keep)
        leaves = self._chance.random() < kind.leaving
        began = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE):
                if line is None or line.ended:
                    line = await Line.connect(port)
                if leaves:
                    await _leave(line, octets, self._chance)
                    tally.note(began, Fate.GONE)
                    return None
                answer = await line.ask(octets)
        except TimeoutError:
            tally.note(began, Fate.LOST, f"{target}: nothing within {PATIENCE} s")
        except ConnectionRefusedError:
            tally.note(began, Fate.REFUSED)
            await asyncio.sleep(0.01)
        except (OSError, EOFError) as error:
            tally.note(began, Fate.LOST, f"{target}: {error!r}")
        else:
            tally.note(began, *judged(answer, target, token, body))
            if kind.keep and not line.last:
                return line
        if line is not None:
            line.close()
        return None


async def _leave(line: Line, octets: bytes, chance: random.Random) -> None:
    """Send all or a part, wait a moment of chance, and be gone with a reset."""
    line.send(octets if chance.random() < 0.8 else octets[: chance.randrange(len(octets))])
    await asyncio.sleep(chance.choice((0.0, 0.0005, 0.001, 0.003)))
    with suppress(OSError):
        line.abort()


def taking_turns(tokens: list[str] | list[str | None], seed: int = 3) -> Iterator[str | None]:
    """Draw from these tokens without end."""
    chance = random.Random(seed)
    while True:
        yield chance.choice(tokens)
