"""Clients that send an octet at a time: `python -m bench.stubs.trickle head|body|both COUNT SECONDS TOKEN PORT ...`.

`head`: the head of a request that never ends; `body`: a POST with the token whose body never ends. An octet each
second on every connection, all of them opened at once, by turns to each port. At the end one line of JSON: how many
could connect, and for each kind how many were still open ("open"), how many were closed by the other side ("closed")
and how many seconds the longest was kept ("most").
"""

import asyncio
import json
import sys
import time
from typing import cast

import uvloop

PERIOD = 1.0


class Trickle(asyncio.Protocol):
    """One of them."""

    def __init__(self, kind: str, token: str) -> None:
        self.kind = kind
        self.began = time.monotonic()
        self.ended: float | None = None
        self._token = token

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send what makes it look like a request."""
        self._transport = cast("asyncio.Transport", transport)
        bearer = f"Host: trickle\r\nAuthorization: Bearer {self._token}\r\n"
        head = "GET /r/1 HTTP/1.1\r\nX-A: b" if self.kind == "head" else f"POST /r/1 HTTP/1.1\r\n{bearer}"
        self._transport.write(head.encode())
        if self.kind == "body":
            self._transport.write(b"Content-Length: 1000000\r\n\r\n")

    def drip(self) -> None:
        """Send an octet."""
        if self.ended is None:
            self._transport.write(b"a")

    def data_received(self, data: bytes) -> None:
        """Whatever it says: only its end counts."""

    def connection_lost(self, exc: BaseException | None) -> None:
        """It was closed."""
        del exc
        self.ended = time.monotonic()


async def _run(kinds: list[str], number: int, seconds: float, token: str, ports: list[int]) -> None:
    loop = asyncio.get_running_loop()
    every: list[Trickle] = []

    async def one(at: int) -> None:
        try:
            _, made = await loop.create_connection(
                lambda: Trickle(kinds[at % len(kinds)], token), "127.0.0.1", ports[at // len(kinds) % len(ports)]
            )
        except OSError:
            return
        every.append(made)

    await asyncio.gather(*(one(at) for at in range(number)))
    print("connected", len(every), flush=True)
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(each.ended is None for each in every):
        await asyncio.sleep(PERIOD)
        for each in every:
            each.drip()
    now = time.monotonic()
    told: dict[str, object] = {"connected": len(every)}
    for kind in kinds:
        mine = [each for each in every if each.kind == kind]
        told[kind] = {
            "open": sum(each.ended is None for each in mine),
            "closed": sum(each.ended is not None for each in mine),
            "most": round(max(((each.ended or now) - each.began for each in mine), default=0.0), 2),
        }
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    which, how_many, how_long, bearer, *at = sys.argv[1:]
    chosen = ["head", "body"] if which == "both" else [which]
    uvloop.run(_run(chosen, int(how_many), float(how_long), bearer, [int(port) for port in at]))
