"""Many requests at once with one token that nobody knows yet, and an identity provider that takes its time."""

import argparse
import asyncio
import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import count

from bench import parts
from bench.machine import description, need
from bench.parts import Part
from bench.report import progress, save, spread, table

CLIENTS = 50
IDP_SECONDS = 0.4
LEAVES_AFTER = 0.1
"""Seconds after which the first client goes away, in the bursts where it does."""
_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_tokens = (f"bench-burst-{number}" for number in count())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what can be chosen."""
    parser.add_argument("--rounds", type=int, default=5, help="bursts of each kind (default 5)")


def run(arguments: argparse.Namespace) -> None:
    """Measure and report."""
    need("nginx")
    machine = description()
    rows, found = [], {}
    with ExitStack() as stack:
        origin = stack.enter_context(parts.hello_origin())
        idp = stack.enter_context(parts.stub("idp", str(IDP_SECONDS)))
        gateway = stack.enter_context(parts.fastgate(origin, idp))
        asyncio.run(_burst(gateway, leaves=False))  # warms up: connections to the origin and the identity provider
        for name, leaves in (("all stay", False), ("the first leaves", True)):
            asked, slowest = [], []
            for _ in range(arguments.rounds):
                before = parts.questions(idp)
                slowest.append(max(asyncio.run(_burst(gateway, leaves=leaves))))
                asked.append(parts.questions(idp) - before)
                progress(f"{name}: {asked[-1]} introspection(s), slowest answer {slowest[-1]:.0f} ms")
            figures = spread(slowest, 1)
            found[name] = {"introspections": asked, "slowest_ms": figures}
            rows.append([name, max(asked), figures["median"], figures["max"]])
    heads = ["burst", "introspections, most", "slowest answer ms, median", "worst"]
    title = (
        f"{CLIENTS} requests at once, one unknown token, an identity provider that takes {IDP_SECONDS * 1000:.0f} ms"
    )
    save("burst", title, table(heads, rows), {"machine": machine, "clients": CLIENTS, "bursts": found})


async def _burst(gateway: Part, *, leaves: bool) -> list[float]:
    """Send one request on each of CLIENTS open connections; returns milliseconds to each answer."""
    request = f"GET / HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {next(_tokens)}\r\n\r\n".encode()
    clients = [await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(CLIENTS)]
    try:
        began = time.perf_counter()
        for _, writer in clients:
            writer.write(request)
        if leaves:
            await asyncio.sleep(LEAVES_AFTER)
            clients.pop(0)[1].transport.abort()
        return await _answers(clients, began)
    finally:
        for _, writer in clients:
            writer.close()


async def _answers(clients: Sequence[_Connection], began: float) -> list[float]:
    async def answered(reader: asyncio.StreamReader) -> float:
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"not answered with 200: {head!r}")
        return (time.perf_counter() - began) * 1000

    return await asyncio.gather(*(answered(reader) for reader, _ in clients))
