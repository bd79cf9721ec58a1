"""Redis and the identity provider broken in every way, beside live traffic of good and bad tokens."""

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from itertools import chain, count
from typing import Any, NamedTuple

from bench import tokens
from bench.cluster_report import Report, counted, felt
from bench.hosts import HOSTS, WORKERS, Census, Hosts
from bench.judging import Crowd, Fate, Kind, Tally, Window, percentile, taking_turns
from bench.machine import progress
from bench.probing import Probing
from tests.support.process import free_port
from tests.support.redis import Redis, Replicated

HOT = 200
"""Good tokens that everybody knows."""
SOON = 1.0
"""Seconds after a fault in which a request counts as the first that is affected."""
_run = count(1)


def kinds(*, fresh: float = 0.1, hot: int = 48) -> tuple[Kind, ...]:
    """Clients: with known tokens, with tokens that are new every time, and with bad ones, known and new."""
    name = f"run{next(_run)}"
    known = [tokens.good(number, "hot") for number in range(HOT)]
    bad: list[str | None] = [*known_bad(), None]
    return (
        Kind("hot", hot, taking_turns(known), pause=0.04),
        Kind("closing", 4, taking_turns(known, 4), pause=0.08, keep=False),
        Kind("fresh", 4, tokens.fresh(name), pause=fresh),
        Kind("bad", 6, taking_turns(bad), pause=0.05),
        Kind("bad, new", 2, _new_bad(name), pause=0.1),
    )


def known_bad() -> list[str]:
    """Bad tokens that are remembered: what has expired is not."""
    return [tokens.bad(kind, number) for kind in ("inactive", "narrow") for number in range(20)]


def _new_bad(name: str) -> Iterator[str]:
    every = ((kind, number) for number in count() for kind in ("inactive", "expired", "narrow"))
    return (f"{kind}.{name}-{number}.0123456789abcdef" for kind, number in every)


class Harm(NamedTuple):
    """A way to break something."""

    name: str
    do: Callable[[], Any]
    undo: Callable[[], Any] | None
    """Returns when what was broken is back; None: it was when `do` returned."""


async def redis(arguments: argparse.Namespace) -> Report:
    """Figures 17 and 1."""
    seconds = arguments.seconds or 8.0
    report = Report(
        "Redis broken under load",
        f"Each fault for {seconds:g} s, after as long without: {HOT} good tokens that every worker knows (*hot*: the "
        "latencies), new tokens all the time, and inactive, expired and absent ones and such without the scope. "
        "*First affected*: the slowest request with a new token under way when it broke or begun within a second, less "
        "the median of such requests before. *Shared again*: from the return until every worker uses it.",
    )
    async with Hosts() as hosts:
        broken = hosts.redis
        for harm in _chosen(arguments, _harms(broken, seconds)):
            await _broken(hosts, harm, seconds, report)
    if not "failover".startswith(arguments.fault):
        return report
    async with AsyncExitStack() as stack:
        servers = stack.enter_context(await asyncio.to_thread(Replicated))
        url = "redis+sentinel://" + ",".join(f"127.0.0.1:{port}" for port in servers.ports) + "/mymaster/0"
        hosts = await stack.enter_async_context(Hosts(redis=url))
        await _broken(hosts, _failover(servers), seconds, report)
    return report


def _chosen(arguments: argparse.Namespace, harms: list[Harm]) -> list[Harm]:
    return [harm for harm in harms if harm.name.startswith(arguments.fault)]


def _harms(broken: Redis, seconds: float) -> list[Harm]:
    elsewhere = free_port()
    return [
        Harm("hung (SIGSTOP)", broken.suspend, broken.resume),
        Harm(
            "CLIENT PAUSE",
            lambda: broken.call("CLIENT", "PAUSE", int(1000 * seconds), "ALL"),
            lambda: broken.call("PING"),
        ),
        Harm("killed, started again", broken.kill, broken.start),
        Harm("FLUSHALL", lambda: broken.call("FLUSHALL"), None),
        Harm(
            "read-only replica",
            lambda: broken.call("REPLICAOF", "127.0.0.1", elsewhere),
            lambda: broken.call("REPLICAOF", "NO", "ONE"),
        ),
        Harm(
            "full (maxmemory)",
            lambda: broken.call("CONFIG", "SET", "maxmemory", "1"),
            lambda: broken.call("CONFIG", "SET", "maxmemory", "0"),
        ),
    ]


def _failover(servers: Replicated) -> Harm:
    master = servers.master

    def promoted() -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                if servers.master is not master:
                    return
            except StopIteration:
                pass
            time.sleep(0.02)
        raise TimeoutError("no Sentinel made the replica the master within 30 s")

    def kill_and_wait() -> None:
        master.kill()
        promoted()

    return Harm("failover (Sentinel)", kill_and_wait, None)


async def _broken(hosts: Hosts, harm: Harm, seconds: float, report: Report) -> None:
    await warm(hosts)
    before = hosts.census()
    async with Probing(hosts.ports) as probing, Crowd(hosts.ports, *kinds()) as crowd:
        await asyncio.sleep(min(1.0, seconds))
        quiet = time.monotonic()
        await asyncio.sleep(seconds)
        asked = await hosts.metric("fastgate_introspections_total")
        struck = time.monotonic()
        await asyncio.to_thread(harm.do)
        if harm.undo is None:
            shared = await _shared_since(hosts, time.monotonic())
            await asyncio.sleep(seconds)
        else:
            await asyncio.sleep(seconds)
            await asyncio.to_thread(harm.undo)
            shared = await _shared_since(hosts, time.monotonic())
        asked = await hosts.metric("fastgate_introspections_total") - asked
        end = time.monotonic()
        await asyncio.sleep(1)
    windows = Window(quiet, struck), Window(struck, end)
    row = _row(harm.name, crowd.tallies, *windows) | {
        "added_ms": _added(crowd.tallies["fresh"], windows[0], struck),
        "shared_again_s": shared,
        "asked": asked,
        "keys": await keys(hosts),
        **grown(hosts, before),
        **probing.lag,
    }
    report.rows.append(row)
    _told(row)
    fates = sum_fates(crowd.tallies)
    report.must("17", f"{harm.name}: lost, unserved or refused", fates - _wrong(crowd.tallies), of=row["requests"])
    report.must("1", f"{harm.name}: bad tokens let in, or answers that were wrong", _wrong(crowd.tallies))
    upstream = await hosts.upstream.ask("GET", "/-/counted")
    report.must("1", f"{harm.name}: bad tokens at the upstream", sum(upstream["let_in"].values()))
    report.felt("17", f"{harm.name}: p99 of hot tokens", row["fault_p99_ms"] / row["quiet_p99_ms"], 2, "x quiet")
    report.felt("17", f"{harm.name}: first affected, added", row["added_ms"], 50, "ms")
    if harm.name != "FLUSHALL":
        report.felt("17", f"{harm.name}: shared again", shared, 2, "s")
    for tally in crowd.tallies.values():
        report.note(tally)


async def _shared_since(hosts: Hosts, back: float) -> float:
    """Seconds from the return until every worker uses Redis."""
    return max(0.0, await hosts.shared() - back)


# --- the identity provider ------------------------------------------------------------------------------------

DEADLINE = 2.0
"""The gateway's default for a whole introspection."""


async def idp(arguments: argparse.Namespace) -> Report:
    """Figures 15, 16 and 1."""
    seconds = arguments.seconds or 60.0
    report = Report(
        "The identity provider broken under load",
        f"Each fault for {seconds:g} s (60 s and more: as FAULTS.md has it) beside the traffic of the cases of Redis; "
        "*unserved* are new tokens that got 503, *shared again* is the first new token served after the recovery.",
    )
    async with Hosts() as hosts:
        harms = [
            Harm("down", hosts.idp.kill, hosts.idp.start),
            Harm("hanging", *_modes(hosts, "hanging")),
            Harm("5xx", *_modes(hosts, "failing")),
            Harm("malformed", *_modes(hosts, "malformed")),
        ]
        for harm in _chosen(arguments, harms):
            await _sick(hosts, harm, seconds, report)
    return report


def _modes(hosts: Hosts, mode: str) -> tuple[Callable[[], Awaitable[Any]], Callable[[], Awaitable[Any]]]:
    return (lambda: hosts.idp.ask("POST", f"/be/{mode}")), (lambda: hosts.idp.ask("POST", "/be/well"))


async def _sick(hosts: Hosts, harm: Harm, seconds: float, report: Report) -> None:
    await warm(hosts)
    before = hosts.census()
    calm = min(seconds, 8.0)
    async with Probing(hosts.ports) as probing, Crowd(hosts.ports, *kinds()) as crowd:
        await asyncio.sleep(1)
        quiet = time.monotonic()
        await asyncio.sleep(calm)
        struck = time.monotonic()
        await _either(harm.do)
        await asyncio.sleep(min(5.0, seconds / 2))
        settled, early = time.monotonic(), await _questions(hosts)
        await asyncio.sleep(max(0.0, struck + seconds - settled))
        healed, late = time.monotonic(), await _questions(hosts)
        back = healed
        assert harm.undo is not None
        await _either(harm.undo)
        back = time.monotonic()
        await asyncio.sleep(3)
        end = time.monotonic()
        questions = [at for at, _ in (await hosts.asked(settled)).when]
    fault = Window(struck, healed)
    row = _row(harm.name, crowd.tallies, Window(quiet, struck), fault)
    served = _first_right(crowd.tallies["fresh"], back) - back
    # Gateways count a question when it is over: of one that hangs, a deadline late. A dead provider counts none.
    asked = late - early if harm.name == "down" else sum(at < healed for at in questions)
    row |= {"shared_again_s": served, "asked": asked, "keys": await keys(hosts)}
    row |= grown(hosts, before) | probing.lag
    report.rows.append(row)
    _told(row)
    name = harm.name
    known = {kind: crowd.tallies[kind] for kind in ("hot", "closing", "bad")}
    report.must("15", f"{name}: cached tokens not answered right", sum_fates(known), of=counted(known)["requests"])
    report.must("1", f"{name}: bad tokens let in, or answers that were wrong", _wrong(crowd.tallies))
    upstream = await hosts.upstream.ask("GET", "/-/counted")
    report.must("1", f"{name}: bad tokens at the upstream", sum(upstream["let_in"].values()))
    new = crowd.tallies["fresh"]
    took = new.milliseconds(fault)
    report.must("15", f"{name}: new tokens without any answer", new.fates()[Fate.LOST], of=new.count(fault))
    report.felt("15", f"{name}: 503 for new tokens, p99", percentile(took, 0.99), 1000 * DEADLINE + 50, "ms")
    report.felt("15", f"{name}: 503 for new tokens, slowest", took[-1] if took else 0.0, 1000 * DEADLINE + 50, "ms")
    report.felt("15", f"{name}: first success after recovery", served, 1, "s")
    first = sum(back <= at < back + 1 for at in questions)
    report.felt("15", f"{name}: questions in the first second after recovery", first, 64 * HOSTS * WORKERS, "")
    # Between n questions of a gateway there are n - 1 pauses, wherever the window begins.
    rate = max(0, asked - HOSTS) / max(0.001, healed - settled) / HOSTS
    if name != "malformed":
        text = f"{name}: questions a second and gateway ({WORKERS} workers), once 5 s have passed"
        report.felt("16", text, rate, 1, "/s")
    report.felt("15", f"{name}: p99 of hot tokens", row["fault_p99_ms"] / row["quiet_p99_ms"], 2, "x quiet")
    for tally in crowd.tallies.values():
        report.note(tally, Window(quiet, end), but=(Fate.UNSERVED,))
    for tally in known.values():
        report.note(tally)


async def _either(what: Callable[[], Any]) -> None:
    """Call what blocks in a thread, and await what wants to be awaited."""
    done = await asyncio.to_thread(what)
    if asyncio.iscoroutine(done):
        await done


async def _questions(hosts: Hosts) -> int:
    """Questions that were sent, as the gateways count them: a dead provider counts none."""
    unsent = [await hosts.metric("fastgate_introspections_total", outcome=each) for each in ("held_off", "overloaded")]
    return await hosts.metric("fastgate_introspections_total") - sum(unsent)


def _first_right(tally: Tally, back: float) -> float:
    """When the first request was answered right that ended after a moment."""
    wrong = {trouble.began for trouble in tally.troubles}
    ends = [
        began + took
        for began, took in zip(tally.began, tally.took, strict=True)
        if began not in wrong and began + took >= back
    ]
    return min(ends, default=float("inf"))


# --- what they have in common ---------------------------------------------------------------------------------


async def warm(hosts: Hosts) -> None:
    """Let every worker know the hot tokens and the bad ones."""
    lines = await hosts.lines()
    known = [tokens.good(number, "hot") for number in range(HOT)]
    bad = known_bad()
    for line in lines.values():
        for token in chain(known, bad):
            await line.ask(f"GET /r/0 HTTP/1.1\r\nHost: b\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
        line.close()


def _row(name: str, tallies: dict[str, Tally], quiet: Window, fault: Window) -> dict[str, Any]:
    return {"fault": name, **counted(tallies), **felt(tallies["hot"], quiet, fault)}


def _added(tally: Tally, quiet: Window, struck: float) -> float:
    affected = tally.under_way(struck, struck + SOON)
    return max(affected, default=float("nan")) - percentile(tally.milliseconds(quiet), 0.5)


def grown(hosts: Hosts, before: Census) -> dict[str, float]:
    """What the gateways took before, and take now."""
    after = hosts.census()
    return {
        "rss_before_mb": before.rss_mb,
        "rss_after_mb": after.rss_mb,
        "files_before": before.files,
        "files_after": after.files,
        "kept_before": before.kept,
        "kept_after": after.kept,
    }


async def keys(hosts: Hosts) -> int:
    """Keys in the Redis of their own."""
    if not hasattr(hosts, "redis"):
        return 0
    keys: int = await asyncio.to_thread(hosts.redis.call, "DBSIZE")
    return keys


def sum_fates(tallies: dict[str, Tally]) -> int:
    """Count everything that was not right."""
    return sum(len(tally.troubles) for tally in tallies.values())


def _wrong(tallies: dict[str, Tally]) -> int:
    return sum(tally.fates()[Fate.WRONG] for tally in tallies.values())


def _told(row: dict[str, Any]) -> None:
    progress("  " + ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
