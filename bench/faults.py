"""Faults of Redis and of the identity provider, under load: what clients see of them."""

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable
from itertools import count
from math import inf
from typing import Any, Final

from bench import traffic, wrk
from bench.clients import Clients, Person, share
from bench.debian import need
from bench.hosts import BAD, TIMEOUT, WORKERS, Hosts, somebody
from bench.machine import progress
from bench.verdicts import Line, at_most, must, say
from tests.support.ledger import Line as Connection
from tests.support.redis import Redis, Replicated

FIRST: Final = 0.5
"""Seconds after the beginning of a fault in which the first operations meet it."""
_numbers: Final = count()


# --- a sick Redis -------------------------------------------------------------------------------------------------


async def sick_redis(seconds: float) -> list[Line]:
    """Redis hung, slow, dead, flushed, read-only, full: nobody notices but the identity provider."""
    lines: list[Line] = []
    with Redis() as redis:
        faults: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
            "hung (SIGSTOP)": (redis.suspend, redis.resume),
            "slow (CLIENT PAUSE)": (
                lambda: redis.call("CLIENT", "PAUSE", int(seconds * 1000), "ALL"),
                lambda: None,
            ),
            "killed": (redis.kill, redis.start),
            "flushed": (lambda: redis.call("FLUSHALL"), lambda: None),
            "read-only": (
                lambda: redis.call("REPLICAOF", "127.0.0.1", "9"),
                lambda: redis.call("REPLICAOF", "NO", "ONE"),
            ),
            "full": (
                lambda: redis.call("CONFIG", "SET", "maxmemory", "1"),
                lambda: redis.call("CONFIG", "SET", "maxmemory", "0"),
            ),
        }
        async with Hosts(redis, redis.url) as hosts:
            for name, (harm, heal) in faults.items():
                progress(f"  {name}")
                lines += await _harmed(hosts, name, harm, heal, seconds)
            lines.append(at_most("requests with bad tokens that reached the upstream", await hosts.witnessed("bad"), 0))
    with Replicated() as replicated:
        url = "redis+sentinel://" + ",".join(f"127.0.0.1:{port}" for port in replicated.ports) + "/mymaster/0"
        progress("  failed over")
        async with Hosts(replicated.servers[0], url) as hosts:
            lines += await _harmed(hosts, "failed over", replicated.master.kill, lambda: None, 4.0)
    return lines


async def _harmed(
    hosts: Hosts, name: str, harm: Callable[[], Any], heal: Callable[[], Any], seconds: float
) -> list[Line]:
    """Do harm under load and heal it; says what clients saw."""
    people = [somebody("hot", number) for number in range(50)]
    for person in people:
        for _ in range(4 * WORKERS):
            await hosts.ask(person)

    def draw() -> Person:
        chance = random.random()
        if chance < 0.1:
            return somebody("new", next(_numbers), known=False)
        return random.choice(BAD) if chance < 0.2 else random.choice(people)

    async with Clients(hosts.ports, draw, connections=24, pause=0.02) as clients:
        await asyncio.sleep(seconds)
        began = time.monotonic()
        await asyncio.to_thread(harm)
        await asyncio.sleep(seconds)
        healed = time.monotonic()
        await asyncio.to_thread(heal)
        await hosts.sharing()
        again = time.monotonic() - healed
        await asyncio.sleep(1)
    must(not clients.wrong, f"{name}: answered wrongly: {clients.wrong[:3]}")
    quiet, during = clients.since(0, began), clients.since(began, healed)
    new_before, first = clients.since(0, began, known=False), clients.since(began, began + FIRST, known=False)
    return [
        at_most(f"{name}: lost of {clients.requests:,}", len(clients.lost) + clients.refused, 0),
        at_most(f"{name}: p99 of remembered tokens, times the one before", _ratio(during, quiet), 2),
        say(f"{name}: p99 of remembered tokens before, during, ms", share(quiet, 0.99), share(during, 0.99)),
        at_most(
            f"{name}: slowest of the first new tokens, ms more than half of those before", _added(first, new_before), 50
        ),
        at_most(f"{name}: shared again after s", again, 2),
    ]


async def flood(seconds: float) -> list[Line]:
    """Invented tokens, as many as come, beside good ones; the others send all they can at both hosts."""
    need("wrk")
    people = [somebody("good", number) for number in range(200)]
    with Redis() as redis:
        async with Hosts(redis, redis.url) as hosts:
            for person in people:
                await hosts.ask(person)
            async with Clients(hosts.ports, lambda: random.choice(people), connections=16, pause=0.02) as clients:
                await asyncio.sleep(seconds)
                before, asked, rss = time.monotonic(), await _asked(hosts), await hosts.rss()
                others = [
                    wrk.start(port, traffic.invented(), seconds=seconds, connections=64, pause_ms=25)
                    for port in hosts.ports
                ]
                said = [await asyncio.to_thread(other.communicate) for other in others]
                after, grown = time.monotonic(), await hosts.rss() - rss
                rate = (await _asked(hosts) - asked) / (after - before)
            keys = len(redis.keys())
    must(not clients.wrong, f"answered wrongly: {clients.wrong[:3]}")
    quiet, during = clients.since(0, before), clients.since(before, after)
    return [
        say("invented tokens a second", sum(wrk.read(text).requests for text, _ in said) / (after - before)),
        at_most(f"good ones lost or refused, of {clients.requests:,}", len(clients.lost) + clients.refused, 0),
        at_most("p99 of good ones, times the one before", _ratio(during, quiet), 2),
        say("p99 of good ones before, during, ms", share(quiet, 0.99), share(during, 0.99)),
        # Each worker has a limit of its own, of 200 a second, and a burst of as many.
        at_most("questions a second", rate, (200 + 200 / seconds) * len(hosts.ports) * WORKERS),
        at_most("MB of RSS more, all workers", grown, 50 * len(hosts.ports) * WORKERS),
        at_most("keys in Redis", keys, len(people) + 1000 * len(hosts.ports) * WORKERS + 10),
    ]


def _ratio(during: list[float], quiet: list[float]) -> float:
    return share(during, 0.99) / max(0.001, share(quiet, 0.99))


def _added(during: list[float], before: list[float]) -> float:
    return (during[-1] if during else 0.0) - share(before, 0.5)


async def poison(number: int) -> list[Line]:
    """Values that somebody else wrote into Redis: none is believed, each is counted."""
    with Redis() as redis:
        async with Hosts(redis, redis.url) as hosts:
            people = [somebody("poisoned", each) for each in range(number)]
            await _all_ask(hosts, people)
            chance = random.Random(3)
            keys = redis.keys("*:state:*")
            values = [redis.call("GET", key) for key in keys]
            for at, key in enumerate(keys):
                redis.call("SET", key, _poisoned(values[at], values[at - 1], chance), "KEEPTTL")
            before = await hosts.pids()
            for gateway in hosts.gateways:
                assert gateway.process is not None
                gateway.process.signal(signal.SIGUSR2)
            await hosts.serving(without=before)
            await hosts.sharing()
            absent = await hosts.count("fastgate_cache_misses_total", tier="shared", reason="absent")
            misses = await hosts.count("fastgate_cache_misses_total", tier="shared")
            hits = await hosts.count("fastgate_cache_hits_total", tier="shared", state="active")
            await _all_ask(hosts, people)
            counted = (await hosts.count("fastgate_cache_misses_total", tier="shared") - misses) - (
                await hosts.count("fastgate_cache_misses_total", tier="shared", reason="absent") - absent
            )
            believed = await hosts.count("fastgate_cache_hits_total", tier="shared", state="active") - hits
            restarts = await hosts.count("fastgate_worker_restarts_total")
    return [
        say("poisoned values", len(keys)),
        at_most("believed", max(0, believed), 0),
        at_most("not counted", max(0, len(keys) - counted), 0),
        at_most("workers that ended", restarts, 0),
    ]


def _poisoned(value: bytes, other: bytes, chance: random.Random) -> bytes:
    """Alter a value as somebody could who may write to Redis."""
    octets = bytearray(value)
    octets[chance.randrange(len(octets))] ^= 1 << chance.randrange(8)
    return chance.choice(
        (bytes(octets), other, value[: chance.randrange(len(value))], chance.randbytes(len(value)), value + b"x", b"{}")
    )


async def _all_ask(hosts: Hosts, people: list[Person]) -> None:
    """Have each of them ask once, at any worker, and judge every answer."""
    rest = iter(people)
    lines = [await Connection.connect(hosts.ports[number % 2]) for number in range(32)]

    async def ask(line: Connection) -> None:
        for person in rest:
            request = f"GET / HTTP/1.1\r\nHost: b\r\nAuthorization: Bearer {person.token}\r\n\r\n".encode()
            answer = await line.ask(request)
            must(answer.endswith(f"\r\n\r\n{person.subject} GET / 0".encode()), f"{person} got {answer!r}")

    await asyncio.gather(*map(ask, lines))
    for line in lines:
        line.close()


# --- a sick identity provider -------------------------------------------------------------------------------------


async def sick_idp(seconds: float) -> list[Line]:
    """The identity provider is down, hangs, fails, babbles: remembered tokens are served, new ones get 503 in time."""
    lines: list[Line] = []
    with Redis() as redis:
        async with Hosts(redis, redis.url) as hosts:

            async def kill() -> None:
                hosts.end_idp()

            async def well() -> None:
                await hosts.mood("well")

            faults: dict[str, tuple[Callable[[], Awaitable[None]], Callable[[], Awaitable[None]]]] = {
                "down": (kill, hosts.start_idp),
                **{mood: (lambda mood=mood: hosts.mood(mood), well) for mood in ("hang", "fail", "babble")},  # type: ignore[misc]
            }
            for name, (harm, heal) in faults.items():
                progress(f"  {name}")
                lines += await _sick(hosts, name, harm, heal, seconds)
            lines.append(at_most("requests with bad tokens that reached the upstream", await hosts.witnessed("bad"), 0))
    return lines


async def _sick(
    hosts: Hosts,
    name: str,
    harm: Callable[[], Awaitable[None]],
    heal: Callable[[], Awaitable[None]],
    seconds: float,
) -> list[Line]:
    people = [somebody("warm", number) for number in range(50)]
    for person in (*people, *BAD):
        for _ in range(4 * WORKERS):
            await hosts.ask(person)

    def draw() -> Person:
        if random.random() < 0.1:
            return somebody("new", next(_numbers), known=False)
        return random.choice((*people, *BAD))

    excused = frozenset({503})
    async with Clients(hosts.ports, draw, connections=24, pause=0.02, excused=excused) as clients:
        await asyncio.sleep(2)
        began = time.monotonic()
        await harm()
        await asyncio.sleep(seconds)
        asked = await _asked(hosts)
        await asyncio.sleep(5)
        a_second = (await _asked(hosts) - asked) / 5 / len(hosts.ports) / WORKERS
        await heal()
        healed = time.monotonic()
        before = await _asked(hosts)
        while not [each for each in clients.took if each.at > healed and each.status == 200 and not each.known]:
            must(time.monotonic() - healed < 10, f"{name}: no new token is served 10 s after its return")
            await asyncio.sleep(0.01)
        first = time.monotonic() - healed
        await asyncio.sleep(max(0.0, 1 - first))
        burst = await _asked(hosts) - before
        await asyncio.sleep(1)
    must(not clients.wrong, f"{name}: answered wrongly: {clients.wrong[:3]}")
    slow = clients.since(began, healed, known=False)
    quiet, during = clients.since(0, began), clients.since(began, healed)
    return [
        at_most(f"{name}: lost of {clients.requests:,}", len(clients.lost) + clients.refused, 0),
        at_most(f"{name}: p99 of new tokens, ms", share(slow, 0.99), TIMEOUT * 1000 + 50),
        at_most(f"{name}: p99 of remembered tokens, times the one before", _ratio(during, quiet), 2),
        # One that babbles may do so about some tokens only: it is asked on.
        at_most(f"{name}: questions a second and worker after a while", a_second, 1.2 if name != "babble" else inf),
        at_most(f"{name}: first new token served after its return, s", first, 1.2),
        say(f"{name}: questions in the first second after its return", burst),
    ]


async def _asked(hosts: Hosts) -> int:
    """Questions that were sent, as gateways count them."""
    everything = await hosts.count("fastgate_introspections_total")
    kept_back = [
        await hosts.count("fastgate_introspections_total", outcome=each) for each in ("held_off", "overloaded")
    ]
    return everything - sum(kept_back)
