"""Long runs: identities under a storm of clients that go away, and everything at once for as long as wanted."""

import argparse
import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import count, cycle
from typing import Any, NamedTuple, Self

from bench import tokens
from bench.cluster_report import Report, counted
from bench.hosts import HOSTS, WORKERS, Hosts
from bench.judging import Crowd, Fate, Kind, percentile, taking_turns
from bench.machine import progress
from bench.outages import HOT, grown, kinds, sum_fates, warm
from bench.probing import Probing
from bench.usage import rss_kib

TOKENS = 1000
REMEMBERED = 600
"""Tokens that a worker remembers while there are TOKENS: the others are in Redis, or on their way from there."""


async def crosstalk(arguments: argparse.Namespace) -> Report:
    """Figure 2."""
    wanted = arguments.requests or 1_000_000
    report = Report(
        "Identities under a storm of clients that go away",
        f"{TOKENS} tokens, of which each worker remembers {REMEMBERED}: the others come from Redis all the time. A "
        "third of the clients goes away at a moment of chance after half of their requests. The upstream tells "
        "every other one who it is for it, what it asked for, and the SHA-256 of the body that came.",
    )
    every = [tokens.good(number, "talker") for number in range(TOKENS)]
    talking = Kind("talking", 48, taking_turns(every), body_max=2000)
    leaving = Kind("leaving", 24, taking_turns(every, 4), body_max=2000, leaving=0.5)
    async with Hosts(cache={"memory": {"max_entries": REMEMBERED}}) as hosts:
        before = hosts.census()
        began = time.monotonic()
        async with Probing(hosts.ports) as probing, Crowd(hosts.ports, talking, leaving, limit=wanted) as crowd:
            finished = asyncio.ensure_future(crowd.finished())
            while not finished.done():
                await asyncio.wait([finished], timeout=10)
                progress(f"  {crowd.asked:,} requests after {time.monotonic() - began:.0f} s: {_said(crowd)}")
        hits = await hosts.metric("fastgate_cache_hits_total", tier="shared")
        # Idle connections to the upstream are closed after 5 s.
        await asyncio.sleep(10 if wanted > TOKENS else 0)
        gone = sum(tally.gone for tally in crowd.tallies.values())
        row = {
            "fault": f"{gone:,} clients went away",
            **counted(crowd.tallies),
            **grown(hosts, before),
            **probing.lag,
            "asked": (await hosts.asked()).total,
        }
        report.rows.append(row)
        of = row["requests"]
        report.must("2", "answers with another identity, body or path", int(row["wrong"]), of=of)
        report.must("2", "requests lost, refused or unserved", sum_fates(crowd.tallies) - int(row["wrong"]), of=of)
        told = await hosts.upstream.ask("GET", "/-/counted")
        report.must("2", "requests without an identity at the upstream", sum(told["let_in"].values()))
        # Who Redis does not answer within its deadline asks the identity provider, and again where it could not write.
        alone = await hosts.metric("fastgate_leases_total", outcome="alone")
        text = f"introspections ({hits:,} answers came from Redis, {alone:,} times none came in time)"
        report.felt("13", text, row["asked"], TOKENS, "")
        report.descriptors(row)
        for tally in crowd.tallies.values():
            report.note(tally)
    return report


class Sample(NamedTuple):
    """What was there at a moment of the soak."""

    at: float
    requests: int
    rss_kib: dict[int, int]
    """By process: the supervisor and the workers that nobody kills."""


async def soak(arguments: argparse.Namespace) -> Report:
    """Figures 19, 24, 25 and 2."""
    seconds = arguments.seconds or 1200.0
    report = Report(
        "A soak with faults",
        f"{seconds:g} s of known, new, short-lived and bad tokens, every path once, clients that keep their connection "
        "or make a new one each time, or go away; by turns Redis is killed, stopped and emptied, the identity provider "
        "hangs, and worker 2 of the second gateway is killed. *lost* counts what no kill of a worker took along.",
    )
    made = {"cache_ttl_max": "30s", "cache_ttl_neg": "5s"}
    async with Hosts(provider=made, cache={"memory": {"max_entries": 2000}}) as hosts:
        await warm(hosts)
        await asyncio.sleep(min(10.0, seconds))
        before = hosts.census()
        samples: list[Sample] = []
        faults = _Faults(hosts)
        async with Probing(hosts.ports) as probing, Crowd(hosts.ports, *_everybody()) as crowd:
            async with faults, _sampling(hosts, crowd, samples):
                await asyncio.sleep(seconds)
            await hosts.idp.ask("POST", "/be/well")
            await hosts.shared()
        await asyncio.sleep(min(10.0, seconds))
        row = {
            "fault": f"{len(faults.kills)} kills and others",
            **counted(crowd.tallies),
            **grown(hosts, before),
            **probing.lag,
        }
        others = [
            trouble
            for tally in crowd.tallies.values()
            for trouble in tally.troubles
            if trouble.fate is Fate.LOST and not any(-3 < trouble.began - killed < 1 for killed in faults.kills)
        ]
        row["lost"] = len(others)
        report.rows.append(row)
        of = row["requests"]
        report.must("2", "answers with another identity, body or path; bad tokens let in", int(row["wrong"]), of=of)
        report.must("11", "connections refused", int(row["refused"]), of=of)
        report.must("17", "lost without a kill", len(others), of=of)
        told = await hosts.upstream.ask("GET", "/-/counted")
        report.must("1", "bad tokens at the upstream", sum(told["let_in"].values()))
        _memory(report, samples, seconds)
        report.descriptors(row)
        await _left(report, hosts)
        report.felt("25", "loop lag, most (see *machine most* for the machine's share)", row["lag_most_ms"], 50, "ms")
        report.felt("25", "loop lag, p99", row["lag_p99_ms"], 50, "ms")
        report.examples += [each.detail for each in others[:10]]
        for tally in crowd.tallies.values():
            report.note(tally, but=(Fate.UNSERVED, Fate.LOST))
    return report


def _everybody() -> tuple[Kind, ...]:
    known = [tokens.good(number, "hot") for number in range(HOT)]
    return (
        *kinds(fresh=0.2, hot=32),
        Kind("short-lived", 4, _short_lived(), pause=0.1),
        Kind("leaving", 8, taking_turns(known, 5), pause=0.03, body_max=20_000, leaving=0.4),
        Kind("posting", 8, taking_turns(known, 6), pause=0.05, body_max=50_000),
    )


def _short_lived() -> Iterator[str]:
    """Every token for a few requests, past its end."""
    for number in count():
        yield tokens.until(int(time.time() / 3) * 3 + 2, number % 20)


class _Faults:
    """For the time of a block, break something every few seconds, and mend it."""

    def __init__(self, hosts: Hosts, period: float = 12.0) -> None:
        self.kills: list[float] = []
        """When a worker was killed."""
        self._hosts = hosts
        self._period = period
        self._ending = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._task = asyncio.ensure_future(self._one_after_the_other())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ending.set()
        await self._task

    async def _one_after_the_other(self) -> None:
        every = (self._kill_redis, self._kill_worker, self._hang_idp, self._stop_redis, self._empty_redis)
        for fault in cycle(every):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), self._period)
                return
            await fault()

    async def _kill_redis(self) -> None:
        await asyncio.to_thread(self._hosts.redis.kill)
        await asyncio.sleep(2)
        await asyncio.to_thread(self._hosts.redis.start)

    async def _stop_redis(self) -> None:
        self._hosts.redis.suspend()
        await asyncio.sleep(2)
        self._hosts.redis.resume()

    async def _empty_redis(self) -> None:
        await asyncio.to_thread(self._hosts.redis.call, "FLUSHALL")

    async def _hang_idp(self) -> None:
        await self._hosts.idp.ask("POST", "/be/hanging")
        await asyncio.sleep(3)
        await self._hosts.idp.ask("POST", "/be/well")

    async def _kill_worker(self) -> None:
        pid = (await self._hosts.pids(self._hosts.gateways[-1])).get(WORKERS)
        if pid is not None:
            self.kills.append(time.monotonic())
            os.kill(pid, signal.SIGKILL)


@asynccontextmanager
async def _sampling(hosts: Hosts, crowd: Crowd, samples: list[Sample]) -> AsyncIterator[None]:
    """Look at the memory of those that live all the time."""
    spared = {gateway.process.pid for gateway in hosts.gateways if gateway.process is not None}
    for gateway in hosts.gateways:
        spared |= {pid for number, pid in (await hosts.pids(gateway)).items() if number != WORKERS}
    spared.add((await hosts.pids(hosts.gateways[0]))[WORKERS])
    began = time.monotonic()

    async def look() -> None:
        while True:
            at = time.monotonic() - began
            samples.append(Sample(at, crowd.asked, {pid: rss_kib(pid) for pid in spared}))
            if len(samples) % 12 == 0:
                total = sum(samples[-1].rss_kib.values()) / 1024
                progress(f"  {at:.0f} s: {crowd.asked:,} requests, {total:.0f} MB, {_said(crowd)}")
            await asyncio.sleep(5)

    task = asyncio.ensure_future(look())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        task.cancelled() or task.result()


def _memory(report: Report, samples: list[Sample], seconds: float) -> None:
    """Figure 19: how RSS grows after a third of the time, by process, for each 100,000 requests over all workers."""
    late = [each for each in samples if each.at >= seconds / 3]
    if len(late) < 3:
        return
    requests = [each.requests / 100_000 for each in late]
    slopes = [slope(requests, [each.rss_kib[pid] / 1024 for each in late]) for pid in late[0].rss_kib]
    for each in samples[:: max(1, len(samples) // 12)]:
        report.rows.append(
            {
                "fault": f"after {each.at:.0f} s",
                "requests": each.requests,
                "rss_after_mb": sum(each.rss_kib.values()) / 1024,
            }
        )
    text = f"RSS slope per 100,000 requests over all, worst of {len(slopes)} processes"
    report.felt("19", text, max(slopes), 1, "MB")
    # A worker takes its share of all requests.
    report.felt("19", "the same per 100,000 requests of its own", max(slopes) * HOSTS * WORKERS, 1, "MB")


def slope(across: list[float], up: list[float]) -> float:
    """The least-squares slope of points; 0.0 where they stand above each other."""
    middle, height = sum(across) / len(across), sum(up) / len(up)
    spread = sum((x - middle) ** 2 for x in across)
    return sum((x - middle) * (y - height) for x, y in zip(across, up, strict=True)) / spread if spread else 0.0


async def _left(report: Report, hosts: Hosts) -> None:
    """Figure 24: ten seconds after."""
    for gateway in hosts.gateways:
        status = await gateway.status()
        open_now = sum(each.get("connections", 0) for each in status["workers"])
        shared: dict[str, Any] = status["cache"]["shared"]
        left = {"connections": open_now, "flights": status["flights"], "leases": shared["leases"]}
        progress(f"  left: {json.dumps(left)}")
        report.must("24", f"left of port {gateway.port} 10 s after: {', '.join(left)}", sum(left.values()))


def _said(crowd: Crowd) -> str:
    fates = {fate: sum(tally.fates()[fate] for tally in crowd.tallies.values()) for fate in Fate}
    slowest = max(percentile(sorted(tally.took), 1.0) for tally in crowd.tallies.values() if len(tally.took))
    return f"slowest {slowest:.2f} s, " + (", ".join(f"{n} {fate}" for fate, n in fates.items() if n) or "all right")
