"""Entries of Redis that somebody broke, exchanged or put back: none is believed, each is counted."""

import argparse
import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from bench import tokens
from bench.cluster_report import Report
from bench.hosts import Hosts
from bench.judging import Fate
from bench.knowing import ask, ask_status, bad
from bench.machine import progress
from tests.support.ledger import Line
from tests.support.redis import Redis

MISSES = "fastgate_cache_misses_total"
REASONS = ("version", "key", "forged", "malformed", "other_type", "ahead")
"""Why an entry of Redis is not believed."""


async def poison(arguments: argparse.Namespace) -> Report:
    """Figure 18."""
    wanted = arguments.requests or 10_000
    report = Report(
        "Poison in Redis",
        "Entries that one host wrote are broken in every way before the other one reads them: cut, random, of another "
        "version, of another type, somebody else's (also an active token's under an inactive one's key), plain JSON "
        "that says active; and old ones are put back after a revocation.",
    )
    async with Hosts() as hosts:
        inactive = min(200, wanted // 4)
        every = [tokens.good(number, "prey") for number in range(wanted - inactive)]
        every += [tokens.bad("inactive", number) for number in range(inactive)]
        await _asked_with(hosts, 0, every)
        entries = await _entries(hosts, wanted)
        spoilt = await asyncio.to_thread(_spoil, hosts.redis, entries)
        progress(f"  {len(entries)} entries poisoned: {dict(spoilt)}")
        before, counted = (await hosts.asked()).total, await _counted(hosts)
        fates = await _asked_with(hosts, 1, every)
        report.must("18", "poisoned entries accepted: not asked about", wanted - (await hosts.asked()).total + before)
        report.must("18", "answers that were wrong", bad(fates), of=fates.total())
        reasons = await _counted(hosts) - counted
        # Where Redis did not answer in time nothing was seen.
        unseen = int(await hosts.gateways[1].metric(MISSES, tier="shared", reason="bypassed"))
        missing = max(0, len(entries) - unseen - reasons.total())
        report.must("18", f"not counted ({_told(reasons)}; {unseen} not read in time)", missing, of=len(entries))
        await _put_back(hosts, report)
        report.must_be("18", "workers that ended", await hosts.metric("fastgate_worker_restarts_total"), 0)
    return report


async def _asked_with(hosts: Hosts, host: int, every: Sequence[str], clients: int = 32) -> Counter[Fate]:
    """Ask one host with each of these tokens once."""
    fates: Counter[Fate] = Counter()
    left = iter(every)

    async def client() -> None:
        line = await Line.connect(hosts.ports[host])
        for token in left:
            fates[await ask(line, token)] += 1
        line.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return fates


async def _entries(hosts: Hosts, wanted: int) -> list[str]:
    """Wait for so many entries of tokens, or for as many as come: what Redis did not take in time is missing."""
    deadline = time.monotonic() + 5
    while len(found := await asyncio.to_thread(hosts.redis.keys, "fastgate:state:*")) < wanted:
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(0.1)
    return found


def _spoil(redis: Redis, keys: Sequence[str]) -> Counter[str]:
    """Break each entry in one of the ways, by turns; returns how many in which."""
    chance = random.Random(18)
    done: Counter[str] = Counter()
    values: list[bytes] = redis.call("MGET", *keys)
    ways: dict[str, Callable[[bytes, int], Any]] = {
        "cut": lambda value, _: value[: chance.randrange(len(value))],
        "random": lambda value, _: chance.randbytes(len(value)),
        "one bit": lambda value, _: _flipped(value, chance.randrange(len(value))),
        "version": lambda value, _: bytes([value[0] ^ 0x7F]) + value[1:],
        "another's": lambda _, at: values[at - 1],
        "plain": lambda _, __: b'{"active": true, "sub": "root", "scope": "bench.read bench.write"}',
        "empty": lambda _, __: b"",
    }
    names = [*ways, "list"]
    for at, (key, value) in enumerate(zip(keys, values, strict=True)):
        name = names[at % len(names)]
        done[name] += 1
        if name == "list":
            redis.call("DEL", key)
            redis.call("LPUSH", key, value)
        else:
            redis.call("SET", key, ways[name](value, at), "KEEPTTL")
    return done


def _flipped(value: bytes, at: int) -> bytes:
    return value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]


async def _counted(hosts: Hosts) -> Counter[str]:
    """Count by reason what was found in Redis and not believed."""
    found: Counter[str] = Counter()
    for gateway in hosts.gateways:
        for reason in REASONS:
            found[reason] += int(await gateway.metric(MISSES, tier="shared", reason=reason))
    return found


async def _put_back(hosts: Hosts, report: Report) -> None:
    """Keep entries of Redis, revoke their tokens, and put them back."""
    every = [tokens.good(number, "back") for number in range(100)]
    known = set(hosts.redis.keys("fastgate:state:*"))
    await _asked_with(hosts, 0, every)
    keys = set(await _entries(hosts, len(known) + len(every))) - known
    values = {key: hosts.redis.call("GET", key) for key in keys}
    for number, token in enumerate(every):
        await hosts.gateways[0].revoke(**({"token": token} if number % 2 else {"sub": tokens.subject(token)}))
    await asyncio.sleep(1)
    for key, value in values.items():
        hosts.redis.call("SET", key, value)
    lines = await hosts.lines()
    served = [await ask_status(line, token) != 401 for line in lines.values() for token in every]
    report.must("18", "revoked tokens served from entries that were put back", sum(served), of=len(served))
    for line in lines.values():
        line.close()


def _told(counted: Counter[str]) -> str:
    return ", ".join(f"{reason} {number:,}" for reason, number in counted.most_common() if number)
