"""What a cluster of gateways does when everything around it breaks: every answer is judged, nothing is pinned."""

import argparse
import asyncio
import json
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import count
from typing import Any, Final

import uvloop

from bench.clients import Clients, Person, share
from bench.faults import flood, poison, sick_idp, sick_redis
from bench.figures import table
from bench.hosts import WORKERS, Hosts, somebody
from bench.machine import description, progress
from bench.report import keep, told
from bench.soak import soak
from bench.verdicts import Line, at_most, must, say
from tests.support.ledger import Line as Connection
from tests.support.redis import Redis

CROWD: Final = 400
"""Connections that ask at once for a cold token."""
PEOPLE: Final = 1000
_numbers: Final = count()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what can be chosen."""
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"of {', '.join(STEPS)} (default: all but the long)")
    parser.add_argument("--times", type=int, default=20, help="cold tokens, and a hundredth of other repetitions")
    parser.add_argument("--requests", type=int, default=1_000_000, help="of crosstalk")
    parser.add_argument("--seconds", type=float, default=4.0, help="that a fault lasts")
    parser.add_argument("--minutes", type=float, default=20.0, help="of soak")


def run(arguments: argparse.Namespace) -> None:
    """Run the steps, print the table and keep it."""
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    machine = description()
    for name in arguments.steps or [name for name in STEPS if name not in LONG]:
        progress(name)
        lines = uvloop.run(STEPS[name](arguments))
        data = json.dumps({"machine": machine, "lines": [asdict(line) for line in lines]}, indent=1) + "\n"
        keep(f"cluster-{name}", _page(STEPS[name].__doc__ or name, lines, machine), data)


def _page(title: str, lines: list[Line], machine: dict[str, Any]) -> str:
    rows = [(line.what, line.figure, line.target, line.met) for line in lines]
    about = f"Two hosts of {WORKERS} workers, a Redis, clients and everything else share the cores of one machine.\n"
    return "\n".join([f"# {title}\n", about, table(["what", "figure", "target", "met"], rows), told(machine)])


# --- asking once --------------------------------------------------------------------------------------------------


async def _cold(arguments: argparse.Namespace) -> list[Line]:
    """One question per new token, over all workers and hosts."""
    with Redis() as redis:
        async with Hosts(redis, redis.url) as hosts:
            lines = [await Connection.connect(hosts.ports[number % 2]) for number in range(CROWD)]
            asked = [await _burst(hosts, lines, kill=False) for _ in range(arguments.times)]
            killed = [await _burst(hosts, lines, kill=True) for _ in range(max(1, arguments.times // 2))]
            people = [somebody("flush", number) for number in range(200)]
            for person in people:
                await hosts.ask(person)
            await asyncio.to_thread(redis.call, "FLUSHALL")
            before = await hosts.questions()
            for _ in range(8):
                for person in people:
                    await hosts.ask(person)
            flushed = await hosts.questions() - before
            for line in lines:
                line.close()
    return [
        at_most(f"questions for one of {len(asked)} cold tokens, {CROWD} requests each", max(asked), 1),
        at_most(f"the same, the worker that asks is killed ({len(killed)} times)", max(killed), 2),
        at_most("questions about 200 live tokens after FLUSHALL", flushed, 200 + 2 * WORKERS),
    ]


async def _burst(hosts: Hosts, lines: list[Connection], *, kill: bool) -> int:
    """Ask for one cold token on every connection; returns how many questions that made."""
    for number, line in enumerate(lines):
        if line.ended:
            lines[number] = await Connection.connect(hosts.ports[number % 2])
    before, token = await hosts.questions(), f"bench-wait-300-{next(_numbers):08}"
    request = f"GET /{token} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    asking = [asyncio.ensure_future(line.ask(request)) for line in lines]
    if kill:
        pids = await hosts.pids()
        while not (ports := await hosts.asking()):  # noqa: ASYNC110 - seen from outside
            await asyncio.sleep(0.002)
        await asyncio.sleep(0.1)
        owner = hosts.holder(ports[0], pids)
        must(owner, "nobody asks")
        os.kill(owner, signal.SIGKILL)
    answers = await asyncio.gather(*asking, return_exceptions=True)
    good = [answer for answer in answers if isinstance(answer, bytes) and answer.startswith(b"HTTP/1.1 200 ")]
    broken = [answer for answer in answers if isinstance(answer, BaseException)]
    other = [answer for answer in answers if isinstance(answer, bytes) and answer not in good]
    must(not other, f"{len(other)} requests were refused: {other[:1]}")
    must(kill or not broken, f"requests were lost: {broken[:3]}")
    if kill:
        await hosts.serving(without=[owner])
        await hosts.sharing()
    return await hosts.questions() - before


# --- forgetting ---------------------------------------------------------------------------------------------------


async def _revoke(arguments: argparse.Namespace) -> list[Line]:
    """What is revoked at one host is refused by every worker of both, and is never revived."""
    with Redis() as redis:
        async with Hosts(redis, redis.url) as hosts:
            lines = [await Connection.connect(hosts.ports[number % 2]) for number in range(16)]
            took = []
            for number in range(5 * arguments.times):
                person = somebody("gone", number)
                request = f"GET / HTTP/1.1\r\nHost: b\r\nAuthorization: Bearer {person.token}\r\n\r\n".encode()
                must(await _statuses(lines, request) == {200}, "a good token was refused")
                began = time.monotonic()
                what = {"token": person.token} if number % 2 else {"sub": person.subject}
                await hosts.revoke(number % 2, **what)
                while await _statuses(lines, request) != {401}:
                    must(time.monotonic() - began < 10, "a revoked token is still served after 10 s")
                took.append((time.monotonic() - began) * 1000)
            races = 50 * arguments.times
            tries = [_raced(hosts, number) for number in range(races)]
            revived = sum([sum(await asyncio.gather(*tries[at : at + 20])) for at in range(0, races, 20)])
            late = await _after_the_end(hosts)
            for line in lines:
                line.close()
    took.sort()
    return [
        at_most(f"slowest of {len(took)} revocations until 16 connections are refused, ms", took[-1], 1000),
        say("half of them, ms", share(took, 0.5)),
        at_most(f"revived by an introspection that was under way, of {races}", revived, 0),
        at_most("served 100 ms after `exp` and later, of 20 tokens", late, 0),
    ]


async def _statuses(lines: list[Connection], request: bytes) -> set[int]:
    return {int(answer[9:12]) for answer in await asyncio.gather(*(line.ask(request) for line in lines))}


async def _raced(hosts: Hosts, number: int) -> int:
    """Revoke a token while it is asked about; returns whether it is served afterwards."""
    person = Person(f"bench-wait-20-race{number:08}")
    asking = asyncio.ensure_future(hosts.ask(person))
    await asyncio.sleep(random.random() * 0.03)
    await hosts.revoke(number % 2, token=person.token)
    await asking
    return int(200 in [await hosts.ask(person, host) for host in (0, 1)])


async def _after_the_end(hosts: Hosts) -> int:
    """Use tokens until after their end; returns how many requests were served too late."""
    from bench.stubs.idp import mint  # noqa: PLC0415 - a server of its own

    late = 0
    end = int(time.time()) + 2
    tokens = [Person(mint("bench.read", end - int(time.time()))) for _ in range(20)]
    while time.time() < end + 1:
        for person in tokens:
            status = await hosts.ask(person)
            late += status == 200 and time.time() > end + 0.1
        await asyncio.sleep(0.05)
    return late


# --- many clients -------------------------------------------------------------------------------------------------


async def _crosstalk(arguments: argparse.Namespace) -> list[Line]:
    """A thousand tokens, clients that leave at any moment: nobody gets what is another's, no POST is done twice."""
    people = [somebody("person", number) for number in range(PEOPLE)]
    with Redis() as redis:
        async with Hosts(redis, redis.url) as hosts:
            crowd = Clients(hosts.ports, lambda: random.choice(people), connections=64, leaving=0.05, closing=0.01)
            async with crowd as clients:
                while clients.requests < arguments.requests:
                    await clients.asked(min(50_000, arguments.requests - clients.requests))
                    clients.took.clear()
                    progress(
                        f"  {clients.requests:,} requests, {clients.left:,} left alone, {len(clients.wrong)} wrong"
                    )
            doubled = await hosts.witnessed("doubled")
    return [
        say("requests", clients.requests),
        say("of them left alone by their clients", clients.left),
        at_most("answers that were another's, or wrong", len(clients.wrong), 0),
        at_most("lost", len(clients.lost) + clients.refused, 0),
        at_most("POSTs done twice", doubled, 0),
    ]


async def _redis(arguments: argparse.Namespace) -> list[Line]:
    """Redis hung, slow, dead, flushed, read-only, full, failed over: nobody notices but the identity provider."""
    return await sick_redis(arguments.seconds)


async def _poison(arguments: argparse.Namespace) -> list[Line]:
    """Values that somebody else wrote into Redis: none is believed, each is counted."""
    return await poison(500 * arguments.times)


async def _idp(arguments: argparse.Namespace) -> list[Line]:
    """The identity provider is down, hangs, fails, babbles: remembered tokens are served, new ones get 503 in time."""
    return await sick_idp(arguments.seconds)


async def _flood(arguments: argparse.Namespace) -> list[Line]:
    """Invented tokens beside good ones: the good ones are served, the identity provider and Redis are spared."""
    return await flood(arguments.seconds)


async def _soak(arguments: argparse.Namespace) -> list[Line]:
    """Churn and faults for a long time: everything comes back to where it was."""
    return await soak(arguments.minutes * 60)


STEPS: Final[dict[str, Callable[[argparse.Namespace], Any]]] = {
    "cold": _cold,
    "revoke": _revoke,
    "redis": _redis,
    "poison": _poison,
    "idp": _idp,
    "flood": _flood,
    "crosstalk": _crosstalk,
    "soak": _soak,
}
LONG: Final = frozenset({"crosstalk", "soak"})
