"""The gateway's own Python for one remembered request, without kernel and network: `python -m bench.replay`.

The real data plane between two transports that only hand octets over. Hundreds of slices are timed and the least one
counts, so that the figure holds on a machine that others use; it prints JSON for `python -m bench profile`.
"""

import argparse
import asyncio
import json
import logging
import os
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any, cast

import structlog
import uvloop

from bench import traffic
from bench.settings import PROVIDER, gateway_config
from fastgate.clock import SystemClock
from fastgate.config.compile import compile_snapshot
from fastgate.config.load import load
from fastgate.dataplane.answer import parse_answer_head
from fastgate.dataplane.head import parse_request_head
from fastgate.dataplane.plane import Dataplane, Upstreams
from fastgate.dataplane.server import GatewayServer
from fastgate.gate import Gate
from fastgate.model import (
    INACTIVE,
    Access,
    AccessToken,
    ActiveToken,
    Forward,
    IdentityProvider,
    Remembered,
    Snapshot,
    TokenState,
)
from fastgate.policy import forwarding
from fastgate.policy.digest import token_key
from fastgate.stats import Stats
from fastgate.tokens import resolver
from fastgate.tokens.memory import MemoryTier
from fastgate.tokens.revocation import Revocations

REQUEST = traffic.get()
BODY = b"x" * 85
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sun, 22 Nov 2026 09:00:00 GMT\r\n"
    b"Content-Type: application/json\r\nContent-Length: 85\r\nConnection: keep-alive\r\n\r\n"
)
SLICES = 600
PER_SLICE = 128
ENDS = (BODY, b"}")
"""Of an answer from the upstream, and of one of ours."""
INACTIVE_RATE = 0.01
"""Inactive answers a second that the identity provider is asked for: once spent, no replay sees more of them."""
CLIENTS = 64
"""Connections that take turns, as many as `hit` has: what one of them needs does not stay in the processor's cache."""


class Wire(asyncio.Transport):
    """A transport that hands what is written to a function."""

    def __init__(self, written: Callable[[bytes], object]) -> None:
        super().__init__({"peername": ("127.0.0.1", 40000), "sockname": ("127.0.0.1", 8000)})
        self._written = written

    def write(self, data: Any) -> None:
        """Hand it over."""
        self._written(data)

    def is_closing(self) -> bool:
        """Never."""
        return False

    def close(self) -> None:
        """Nothing to close."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is buffered."""


class Loop:
    """The running loop, but for connections: they lead to an upstream that has the answer ready."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def create_connection(
        self, factory: Callable[[], asyncio.Protocol], *_: object, **__: object
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        """Connect to ANSWER."""
        protocol = factory()
        answer = partial(self._loop.call_soon, protocol.data_received, ANSWER + BODY)
        wire = Wire(lambda _: answer())
        protocol.connection_made(wire)
        return wire, protocol


class Tokens(resolver.Tokens):
    """Token states; instead of an identity provider somebody answers at once that a token is not active."""

    async def resolve(self, access: Access, token: AccessToken) -> TokenState:
        """Say so at once."""
        del access, token
        return INACTIVE

    def overdraw(self, provider: IdentityProvider) -> None:
        """Spend the budget of inactive answers."""
        budget = self._introspectors._current[provider]._budget  # noqa: SLF001 - no request can, without a server
        for _ in range(10):
            budget.asked()
            budget.answered(inactive=True)


class World:
    """A gateway with one protected route and every token of the bench's requests remembered."""

    def __init__(self) -> None:
        self.clock, self.stats = SystemClock(), Stats()
        self.snapshot = _snapshot()
        self.provider = self.snapshot.providers[PROVIDER]
        self._memory = MemoryTier(100_000, traffic.INVENTED)
        for token in (traffic.TOKEN, *map(traffic.known, range(traffic.TOKENS))):
            claims = {"active": True, "sub": f"user of {token}", "scope": "bench.read bench.write"}
            self._remember(token, ActiveToken(claims, exp=int(time.time()) + 3600))
        revocations = Revocations(self.clock, 3600)
        self.tokens = Tokens(self._memory, self.snapshot.providers, self.clock, self.stats, revocations)
        self.gate = Gate(self.snapshot, self.tokens, self.clock)

    def remember_strangers(self) -> None:
        """Let every invented token be known as inactive."""
        for request in traffic.invented():
            self._remember(request.partition(b"Bearer ")[2].partition(b"\r\n")[0].decode(), INACTIVE)

    def _remember(self, token: str, state: TokenState) -> None:
        self._memory.put(token_key(self.provider, token), Remembered(state, self.clock.monotonic()))

    async def slices(self, requests: Sequence[bytes], count: int) -> list[float]:
        """Replay these in turn, and return the microseconds per request of every slice."""
        loop = asyncio.get_running_loop()
        upstreams = Upstreams(cast("asyncio.AbstractEventLoop", Loop(loop)), self.stats)
        await upstreams.swap(self.snapshot.services.values())
        limits = self.snapshot.settings.limits
        plane = Dataplane(
            gate=self.gate, upstreams=upstreams, stats=self.stats, clock=self.clock, limits=limits, record=None
        )
        server = GatewayServer(plane)
        done: asyncio.Future[None] = loop.create_future()
        ends: list[float] = []
        answered = 0
        following = cycle(requests)

        def written(client: asyncio.Protocol, data: bytes) -> None:
            nonlocal answered
            if not data.endswith(ENDS):
                return
            answered += 1
            if answered % PER_SLICE == 0:
                ends.append(time.perf_counter())
            if len(ends) <= count:
                loop.call_soon(client.data_received, next(following))
            elif not done.done():
                done.set_result(None)

        clients = [server() for _ in range(CLIENTS)]
        for client in clients:
            client.connection_made(Wire(partial(written, client)))
        await asyncio.sleep(0.01)
        for client in clients:
            client.data_received(next(following))
        await asyncio.wait_for(done, 120)
        return [(after - before) / PER_SLICE * 1e6 for before, after in pairwise(ends)]


def _snapshot() -> Snapshot:
    config = gateway_config(port=8000, origin=2, idp=1, access_log=False)
    config["identity_providers"][PROVIDER]["introspection_inactive_rate"] = INACTIVE_RATE
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "fastgate.yaml"
        file.write_text(json.dumps(config))
        return compile_snapshot(load(str(file), os.environ))


def _pieces(world: World) -> dict[str, float]:
    """Least microseconds of the pure steps, each alone."""
    limits = world.snapshot.settings.limits
    head = parse_request_head(REQUEST, limits=limits, scheme="http", peer="127.0.0.1", port=8000)
    forward = world.gate.admit(head)
    if not isinstance(forward, Forward):
        raise TypeError("the remembered token was not admitted")
    answer = parse_answer_head(ANSWER, "GET")
    terms, date = forward.forwarding, b"Sun, 22 Nov 2026 09:00:00 GMT"
    steps: dict[str, Callable[[], object]] = {
        "read the request's head": lambda: parse_request_head(
            REQUEST, limits=limits, scheme="http", peer="127.0.0.1", port=8000
        ),
        "decide (gate.admit)": lambda: world.gate.admit(head),
        "write the head upstream": lambda: forwarding.upstream_request(head, forward, terms, head.framing),
        "read the answer's head": lambda: parse_answer_head(ANSWER, "GET"),
        "write the head of the answer": lambda: forwarding.answer_head(
            answer, head, answer.framing, keep_alive=True, date=date, private=False
        ),
    }
    return {name: min(timeit.repeat(step, number=500, repeat=60)) / 500 * 1e6 for name, step in steps.items()}


async def _main(seconds: float | None) -> None:
    world = World()
    if seconds is not None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await world.slices(traffic.same(), SLICES)
        return
    slices = sorted(await world.slices(traffic.same(), SLICES))
    others = {
        name: min(await world.slices(requests, slices_of_it))
        for name, requests, slices_of_it in (
            ("ten fields, three of them new", traffic.varied(), SLICES),
            ("POST", traffic.post(), SLICES),
            ("10,000 tokens", traffic.zipf(), 4 * traffic.DRAWN // PER_SLICE),
            ("a stranger's token, that is asked about", traffic.invented(), SLICES),
        )
    }
    world.tokens.overdraw(world.provider)
    others["a stranger's token, refused unasked"] = min(await world.slices(traffic.invented(), SLICES))
    world.remember_strangers()
    others["a stranger's token, known as inactive"] = min(await world.slices(traffic.invented(), SLICES))
    found = {
        "least_us": slices[0],
        "tenth_us": slices[len(slices) // 10],
        "others_us": others,
        "pieces_us": _pieces(world),
    }
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.replay")
    # Standard output is for the figures.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    parser.add_argument("--seconds", type=float, help="replay for so long, for a profiler to watch, and print nothing")
    uvloop.run(_main(parser.parse_args().seconds))
