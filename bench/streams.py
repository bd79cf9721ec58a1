"""Large bodies both ways, a slow reader, server-sent events: are the octets the same, what do they cost, who waits."""

import argparse
import asyncio
import hashlib
import socket
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from statistics import median
from typing import Any

from aiohttp import ClientSession, ClientTimeout

from bench import parts
from bench.machine import description, need
from bench.parts import Part
from bench.report import progress, save, spread, table
from bench.settings import TOKEN
from bench.stubs.streams import BLOCK, blocks, digest
from bench.usage import cpu_times, rss_kib

PEER = "nginx"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
EVENTS = 200
SLOW = 10_000_000
"""Octets per second of the slow reader."""
_Transfer = Callable[[ClientSession, int, int], Coroutine[Any, Any, str]]
"""(session, port, megabytes) -> SHA-256 at the other end."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what can be chosen."""
    parser.add_argument("--rounds", type=int, default=5, help="interleaved transfers of each kind (default 5)")
    parser.add_argument("--megabytes", type=int, default=100, help="of a transfer (default 100)")
    parser.add_argument("--slow-megabytes", type=int, default=1000, help="to the slow reader (default 1000: 100 s)")


def run(arguments: argparse.Namespace) -> None:
    """Measure and report."""
    need("nginx")
    machine = description()
    with ExitStack() as stack:
        origin = stack.enter_context(parts.stub("streams"))
        idp = stack.enter_context(parts.stub("idp"))
        nginx = stack.enter_context(parts.nginx_proxy(origin))
        gateway = stack.enter_context(parts.fastgate(origin, idp))
        bodies = asyncio.run(_bodies({PEER: nginx, "fastgate": gateway}, arguments.rounds, arguments.megabytes))
        events = asyncio.run(_events({"direct": origin, PEER: nginx, "fastgate": gateway}))
        slow = _slow_reader(gateway, arguments.slow_megabytes)
    result = {"machine": machine, "bodies": bodies, "events_ms": events, "slow_reader": slow}
    save("streams", "Streams through the gateway", _tables(result), result)


async def _bodies(proxies: dict[str, Part], rounds: int, megabytes: int) -> dict[str, Any]:
    """CPU seconds per gigabyte, by kind of transfer and proxy. Raises RuntimeError when a digest differs."""
    expected = digest(megabytes)
    found: dict[str, Any] = {}
    async with ClientSession(headers=BEARER, timeout=ClientTimeout(total=120)) as session:
        for kind, transfer in TRANSFERS.items():
            cost = dict.fromkeys(proxies, 0.0)
            for _ in range(rounds):
                for name, proxy in proxies.items():
                    before = cpu_times(proxy.pid)
                    if await transfer(session, proxy.port, megabytes) != expected:
                        raise RuntimeError(f"{kind} through {name}: the octets are not the same")
                    cost[name] += (cpu_times(proxy.pid) - before).total
            gigabytes = rounds * megabytes / 1000
            each = {name: round(seconds / gigabytes, 2) for name, seconds in cost.items()}
            found[kind] = each | {"ratio": round(cost["fastgate"] / cost[PEER], 2)}
            progress(f"{kind}: same octets {rounds} times, {found[kind]['ratio']:.2f} times nginx's CPU")
    return found


async def _down(session: ClientSession, url: str) -> str:
    whole = hashlib.sha256()
    async with session.get(url) as answer:
        async for piece in answer.content.iter_any():
            whole.update(piece)
    return whole.hexdigest()


async def _up(session: ClientSession, port: int, megabytes: int, headers: dict[str, str]) -> str:
    async with session.put(f"http://127.0.0.1:{port}/up", data=blocks(megabytes), headers=headers) as answer:
        return str((await answer.json())["sha256"])


TRANSFERS: dict[str, _Transfer] = {
    "down, Content-Length": lambda session, port, size: _down(session, f"http://127.0.0.1:{port}/down/{size}"),
    "down, chunked": lambda session, port, size: _down(session, f"http://127.0.0.1:{port}/down/{size}?chunked"),
    "up, Content-Length": lambda session, port, size: _up(
        session, port, size, {"Content-Length": str(size * len(BLOCK))}
    ),
    "up, chunked": lambda session, port, size: _up(session, port, size, {}),
}


async def _events(ways: dict[str, Part]) -> dict[str, dict[str, float]]:
    """Milliseconds from an event's making to its arrival, on every way at once."""

    async def listen(session: ClientSession, port: int) -> list[float]:
        async with session.get(f"http://127.0.0.1:{port}/events/{EVENTS}") as answer:
            return [_age(line) async for line in answer.content if line.startswith(b"data: ")]

    progress(f"{EVENTS} events, {' / '.join(ways)}")
    async with ClientSession(headers=BEARER) as session:
        ages = await asyncio.gather(*(listen(session, way.port) for way in ways.values()))
    return {name: spread(values, 3) for name, values in zip(ways, ages, strict=True)}


def _age(line: bytes) -> float:
    """Milliseconds since the event in this line was made: both ends read the same clock of the machine."""
    return (time.monotonic_ns() - int(line.removeprefix(b"data: "))) / 1e6


def _slow_reader(gateway: Part, megabytes: int) -> dict[str, float]:
    """Resident memory of the gateway while it serves a client that reads SLOW octets a second."""
    progress(f"{megabytes} MB to a reader of {SLOW / 1e6:.0f} MB/s")
    _read_slowly(gateway, 20)
    before = rss_kib(gateway.pid)
    samples = _read_slowly(gateway, megabytes)
    growth = (max(samples) - before) / 1024
    return {
        "megabytes": megabytes,
        "rss_before_mib": round(before / 1024, 2),
        "rss_growth_most_mib": round(growth, 2),
        "rss_growth_median_mib": round((median(samples) - before) / 1024, 2),
        "samples": len(samples),
    }


def _read_slowly(gateway: Part, megabytes: int) -> list[int]:
    """Read ten times a second; returns the gateway's RSS in KiB at each turn."""
    samples = []
    request = f"GET /down/{megabytes} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as client:
        client.sendall(request.encode())
        left = megabytes * len(BLOCK)
        turn = time.monotonic()
        while left > 0:
            due = min(left, SLOW // 10)
            while due > 0:
                piece = client.recv(due)
                if not piece:
                    raise RuntimeError(f"the answer ended {left} octets early")
                due -= len(piece)
                left -= len(piece)
            samples.append(rss_kib(gateway.pid))
            turn += 0.1
            time.sleep(max(0.0, turn - time.monotonic()))
    return samples


def _tables(result: dict[str, Any]) -> str:
    heads = ["transfer", "nginx CPU s/GB", "fastgate CPU s/GB", "times nginx"]
    bodies = [[kind, each[PEER], each["fastgate"], each["ratio"]] for kind, each in result["bodies"].items()]
    events = [[name, each["median"], each["max"]] for name, each in result["events_ms"].items()]
    slow = result["slow_reader"]
    return "\n".join(
        [
            "Every transfer arrived with the digest it left with. CPU of all transfers of a kind, taken in turns.\n",
            table(heads, bodies),
            "Age of a server-sent event at its arrival:\n",
            table(["way", "median ms", "most ms"], events),
            f"{slow['megabytes']} MB to a reader of {SLOW / 1e6:.0f} MB/s:\n",
            table(["gateway", "MiB"], [(name, value) for name, value in slow.items() if name.startswith("rss")]),
        ]
    )
