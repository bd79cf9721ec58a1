"""Churn of tokens, connections and paths, and a fault every half minute, for a long time."""

import asyncio
import os
import random
import signal
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

from bench.clients import Clients, Person, share
from bench.hosts import BAD, Hosts, somebody
from bench.machine import progress
from bench.verdicts import Line, at_most, must, say
from tests.support.client import fetch
from tests.support.redis import SECRET, Redis

EVERY: Final = 30.0
"""Seconds between two faults."""
SETTLING: Final = 10.0
"""Seconds after which everything is to be back."""
WARM: Final = 0.25
"""The part of the time after which memory is looked at: until then caches fill."""
CONNECTIONS: Final = 32
REMEMBERED: Final = {"cache_ttl_max": "20s", "cache_ttl_resurrect": "1m"}
SMALL: Final = {"memory": {"max_entries": 4000}}
"""Token states: full long before the end, so that it can be seen whether that is all."""
_numbers: Final = count()


@dataclass
class Held:
    """What the workers hold."""

    rss: float
    """MB, all of them."""
    descriptors: int
    connections: int
    flights: int
    leases: int


async def soak(seconds: float) -> list[Line]:
    """Run it; says what was wrong and what stayed."""
    people = [somebody("lasting", number) for number in range(500)]

    def draw() -> Person:
        chance = random.random()
        if chance < 0.05:
            return somebody("passing", next(_numbers), known=False)
        return random.choice(BAD) if chance < 0.1 else random.choice(people)

    with Redis() as redis:
        async with Hosts(redis, redis.url, more=REMEMBERED, cache=SMALL) as hosts:
            async with Clients(hosts.ports, draw, connections=CONNECTIONS):
                await asyncio.sleep(5)
            await asyncio.sleep(SETTLING)
            before = await _held(hosts)
            plain = {
                "connections": CONNECTIONS,
                "leaving": 0.02,
                "closing": 0.05,
                "pause": 0.01,
                "excused": frozenset({503}),
            }
            marks: list[tuple[int, float]] = []
            lags: list[float] = []
            in_flight = 0
            prober = asyncio.ensure_future(_probe(hosts, lags))
            async with Clients(hosts.ports, draw, **plain) as clients:  # type: ignore[arg-type]
                end, number = time.monotonic() + seconds, 0
                while time.monotonic() < end:
                    await asyncio.sleep(min(EVERY, seconds / 8))
                    if time.monotonic() > end - (1 - WARM) * seconds:
                        marks.append((clients.requests, (await _held(hosts)).rss))
                    in_flight += await _fault(hosts, redis, number)
                    number += 1
                    clients.took.clear()
                    progress(
                        f"  {clients.requests:,} requests, {len(clients.wrong)} wrong, {len(clients.lost)} lost, "
                        f"{(await _held(hosts))}"
                    )
            prober.cancel()
            must(not clients.wrong, f"answered wrongly: {clients.wrong[:3]}")
            await hosts.sharing()
            await asyncio.sleep(SETTLING)
            after = await _held(hosts)
            told = await _told(hosts, redis)
            bad = await hosts.witnessed("bad")
            doubled = await hosts.witnessed("doubled")
    lags.sort()
    secrets = [SECRET, "bench-as-lasting1-", "bench-as-passing1-", "stale-token-"]
    return [
        say("requests", clients.requests),
        say("faults", number),
        at_most("answers that were another's, or wrong", len(clients.wrong), 0),
        at_most("lost: in flight in a worker that was killed", len(clients.lost), in_flight),
        at_most("connections refused", clients.refused, 0),
        at_most("requests with bad tokens that reached the upstream", bad, 0),
        at_most("POSTs done twice", doubled, 0),
        at_most("MB of RSS more per 100,000 requests, once warm", _slope(marks), 1.0),
        say("MB of RSS of all workers, before and after", before.rss, after.rss),
        at_most("descriptors more than before", after.descriptors - before.descriptors, 2),
        at_most("connections, flights and leases that stayed", after.connections + after.flights + after.leases, 2),
        at_most("p99 of a small request every 10 ms on a connection of its own, ms", share(lags, 0.99), 50.0),
        say("the slowest of them, ms", lags[-1] if lags else 0.0),
        at_most("tokens and secrets in logs, metrics, status and Redis", sum(told.count(each) for each in secrets), 0),
    ]


async def _fault(hosts: Hosts, redis: Redis, number: int) -> int:
    """Do some harm, and heal it; returns how many connections that cost."""
    match number % 4:
        case 0:
            redis.kill()
            await asyncio.sleep(2)
            await asyncio.to_thread(redis.start)
        case 1:
            status = await random.choice(hosts.gateways).status()
            worker = random.choice(status["workers"])
            os.kill(worker["pid"], signal.SIGKILL)
            await hosts.serving(without=[worker["pid"]])
            # Clients with another connection may have come after we had asked.
            return int(worker["connections"]) + 4
        case 2:
            await hosts.mood("hang")
            await asyncio.sleep(3)
            await hosts.mood("well")
        case _:
            redis.suspend()
            await asyncio.sleep(2)
            redis.resume()
    return 0


async def _probe(hosts: Hosts, lags: list[float]) -> None:
    """Ask one host for something small, every 10 ms; who is killed meanwhile is not counted."""
    while True:
        await asyncio.sleep(0.01)
        began = time.monotonic()
        try:
            await fetch(hosts.ports[0], "GET", "/no-token")
        except (OSError, EOFError):
            continue
        lags.append((time.monotonic() - began) * 1000)


async def _held(hosts: Hosts) -> Held:
    pids = await hosts.pids()
    said: list[dict[str, Any]] = [await gateway.status() for gateway in hosts.gateways]
    return Held(
        rss=await hosts.rss(),
        descriptors=sum(map(_descriptors, pids)),
        connections=sum(worker.get("connections", 0) for status in said for worker in status["workers"]),
        flights=sum(status["flights"] for status in said),
        leases=sum(status["cache"]["shared"]["leases"] for status in said),
    )


def _descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _slope(marks: list[tuple[int, float]]) -> float:
    """MB more per 100,000 requests, by least squares."""
    if len(marks) < 2:
        return 0.0
    mean_x = sum(x for x, _ in marks) / len(marks)
    mean_y = sum(y for _, y in marks) / len(marks)
    spread = sum((x - mean_x) ** 2 for x, _ in marks)
    return sum((x - mean_x) * (y - mean_y) for x, y in marks) / spread * 100_000 if spread else 0.0


async def _told(hosts: Hosts, redis: Redis) -> str:
    """Everything that anybody could read."""
    texts = [gateway.log() for gateway in hosts.gateways]
    for gateway in hosts.gateways:
        texts += [(await gateway.admin("GET", path)).body.decode() for path in ("/metrics", "/status")]
    for key in redis.keys("*"):
        kind = redis.call("TYPE", key)
        value = redis.call("GET", key) if kind == b"string" else redis.call("HGETALL", key) if kind == b"hash" else ""
        texts.append(f"{key} {value!r}")
    return "\n".join(texts)
