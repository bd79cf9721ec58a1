"""POSTs that nobody may send twice, and secrets that nobody may find, while workers, upstream and Redis break."""

import argparse
import asyncio
import os
import signal
from collections.abc import Iterator
from typing import Any

from bench import tokens
from bench.cluster_report import Report, counted
from bench.hosts import CLIENT_SECRET, SECRET, WORKERS, Hosts
from bench.judging import Crowd, Fate, Kind, taking_turns
from bench.machine import progress
from bench.outages import HOT, kinds, warm
from tests.support.cache import tool
from tests.support.process import Process
from tests.support.redis import HINT, Redis

PASSWORD = "a-password-of-the-bench-at-its-redis"


async def posts(arguments: argparse.Namespace) -> Report:
    """Figure 8."""
    wanted = arguments.requests or 10_000
    report = Report(
        "POSTs under worker kills and upstream resets",
        "Every POST has a path of its own, which the upstream counts. It ends one connection in fifty with a reset "
        "after it has counted a POST, before it answers; a worker is killed every 2 s. Clients send nothing twice.",
    )
    async with Hosts() as hosts:
        await warm(hosts)
        await hosts.upstream.ask("POST", "/-/reset/0.02")
        hot = taking_turns([tokens.good(number, "hot") for number in range(HOT)])
        # Half of all requests are POSTs.
        posting = Kind("posting", 32, hot, pause=0.02, body_max=4000)
        closing = Kind("closing", 8, hot, pause=0.02, keep=False, body_max=4000)
        kills = 0
        async with Crowd(hosts.ports, posting, closing, limit=2 * wanted) as crowd:
            finished = asyncio.ensure_future(crowd.finished())
            while not finished.done():
                await asyncio.wait([finished], timeout=2)
                if not finished.done():
                    pids = await hosts.pids(hosts.gateways[kills % 2])
                    os.kill(pids[kills // 2 % WORKERS + 1], signal.SIGKILL)
                    kills += 1
        told = await hosts.upstream.ask("POST", "/-/reset/0")
    row = {"fault": f"{kills} kills, resets", **counted(crowd.tallies)}
    report.rows.append(row)
    report.must("8", "POSTs that came twice", told["repeated"], of=told["posts"])
    report.must("8", "answers that were wrong", int(row["wrong"]), of=row["requests"])
    report.must("11", "connections refused", int(row["refused"]))
    # A reset costs one answer, a kill one for each client of that worker, at most.
    most = 0.04 * told["posts"] + kills * (posting.clients + closing.clients)
    report.must("11", f"lost with {kills} kills and about {0.02 * told['posts']:.0f} resets", int(row["lost"]), most)
    for tally in crowd.tallies.values():
        report.note(tally, but=(Fate.LOST,))
    return report


async def secrets(arguments: argparse.Namespace) -> Report:
    """Figure 6."""
    seconds = arguments.seconds or 5.0
    report = Report(
        "Secrets, looked for everywhere",
        "After traffic with access logs on, through failures of the identity provider and of Redis: every token that "
        "was sent, our secrets and the password of Redis are looked for in the logs, /metrics and /status of both "
        "gateways, in what Redis was sent (MONITOR) and in what lies there; subjects in Redis, too.",
    )
    used = [tokens.good(number, "revoked") for number in (1, 2)]
    redis = await asyncio.to_thread(Redis)
    with redis:
        redis.call("ACL", "SETUSER", "bench", "on", ">" + PASSWORD, "~*", "&*", "+@all")
        url = redis.url.replace("://", f"://bench:{PASSWORD}@")
        log = {"format": "json", "access": True}
        async with Hosts(redis=url, provider={"cache_ttl_max": "5s", "cache_ttl_neg": "1s"}, log=log) as hosts:
            monitor = Process("monitor", [tool("redis-cli", HINT), "-s", str(redis.folder / "redis.sock"), "MONITOR"])
            chosen = [each._replace(tokens=_kept(each.tokens, used)) for each in kinds()]
            async with Crowd(hosts.ports, *chosen) as crowd:
                for mode in ("well", "failing", "well", "malformed", "well"):
                    await hosts.idp.ask("POST", f"/be/{mode}")
                    await asyncio.sleep(seconds / 5)
                await asyncio.to_thread(redis.suspend)
                await asyncio.sleep(1)
                await asyncio.to_thread(redis.resume)
                await hosts.gateways[0].revoke(token=tokens.good(1, "revoked"))
                await hosts.gateways[1].revoke(sub=tokens.subject(tokens.good(2, "revoked")))
                await hosts.shared()
                await asyncio.sleep(1)
            places = {"/metrics": b"", "/status": b""}
            for gateway in hosts.gateways:
                for path in places:
                    places[path] += (await gateway.admin("GET", path)).body
            places["Redis, what it holds"] = await asyncio.to_thread(_dump, redis)
            monitor.kill()
            places["Redis, what it was sent"] = monitor.out.read_bytes()
        places["logs"] = "".join(each.log() for each in hosts.gateways).encode()
    known = {*used, SECRET, CLIENT_SECRET, PASSWORD}
    for place, octets in places.items():
        _look(report, place, octets, known)
    subjects = {tokens.subject(token) for token in used if token.startswith("good.")}
    for place in ("Redis, what it holds", "Redis, what it was sent"):
        _look(report, place, places[place], subjects, "subjects")
    wrong = counted(crowd.tallies)["wrong"]
    report.must("1", "answers that were wrong", wrong)
    return report


def _kept(drawn: Iterator[str | None], used: list[str]) -> Iterator[str | None]:
    for token in drawn:
        if token is not None:
            used.append(token)
        yield token


def _look(report: Report, place: str, octets: bytes, known: set[str], what: str = "tokens and secrets") -> None:
    hits = [each for each in known if each.encode() in octets]
    if len(octets) < 1000:
        raise RuntimeError(f"there is nothing to be found in: {place}")
    progress(f"  {place}: {len(octets):,} octets, {len(hits)} hits")
    report.must("6", f"{place} ({len(octets):,} octets): {what} found", len(hits), of=len(known))
    report.examples += hits[:3]


def _dump(redis: Redis) -> bytes:
    """Everything that lies in it, keys and values."""
    reading: dict[bytes, tuple[Any, ...]] = {
        b"string": ("GET",),
        b"hash": ("HGETALL",),
        b"list": ("LRANGE", 0, -1),
        b"set": ("SMEMBERS",),
    }
    found = []
    for key in sorted(redis.keys()):
        kind = redis.call("TYPE", key)
        if kind == b"none":  # it ended meanwhile
            continue
        command, *more = reading[kind]
        value = redis.call(command, key, *more)
        found += [key.encode(), *(value if isinstance(value, list) else [value or b""])]
    return b"\n".join(found)
