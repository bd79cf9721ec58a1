"""Good traffic beside a flood of invented tokens, and beside thousands of clients that send an octet at a time."""

import argparse
import asyncio
import json
import os
import secrets
import sys
import time
from pathlib import Path
from typing import Any

from bench import tokens, wrk
from bench.cluster_report import Report, counted, felt
from bench.debian import need
from bench.hosts import HOSTS, WORKERS, Hosts
from bench.judging import Crowd, Kind, Window, taking_turns
from bench.machine import ROOT, progress
from bench.outages import HOT, grown, keys, warm
from bench.probing import Probing
from tests.support.process import Process

RATE = 200
"""The gateway's default for inactive answers a second."""
AIMED = (500, 1500, 5000)
"""Invented tokens a second, one flood after the other: the last is the requirement's, and more than two cores carry."""
INVENTED = 60_000
"""Different ones for each gateway: a flood of less than half a minute repeats none, and few are remembered as long."""
ATTACKERS = 2000
HEADER_TIMEOUT, BODY_TIMEOUT = 10.0, 10.0
"""Seconds: the gateway's default for heads; for bodies a tenth of it, so that the case ends."""


def _good(clients: int = 24) -> Kind:
    return Kind("hot", clients, taking_turns([tokens.good(number, "hot") for number in range(HOT)]), pause=0.05)


async def flood(arguments: argparse.Namespace) -> Report:
    """Figure 14."""
    need("wrk")
    seconds = round(arguments.seconds or 15)
    report = Report(
        "A flood of invented tokens beside good traffic",
        f"wrk sends invented tokens to both gateways, {', '.join(f'{each:,}' for each in AIMED)} a second in all, if "
        f"they are answered as fast, for {seconds} s each; the limit is the default, {RATE} inactive answers a second "
        f"for each of the {HOSTS} gateways (and as many once, in a burst). *hot*: {HOT} good tokens that every worker "
        "knows.",
    )
    provider = {"introspection_inactive_rate": RATE, "cache_ttl_neg": "5s"}
    async with Hosts(provider=provider) as hosts:
        await warm(hosts)
        for rate in AIMED:
            await asyncio.sleep(6)  # inactive tokens are forgotten, and what was overdrawn is paid back
            await _flooded(hosts, rate, seconds, report)
        let_in = (await hosts.upstream.ask("GET", "/-/counted"))["let_in"]
        report.must("14", "invented tokens let in", sum(let_in.values()))
    return report


async def _flooded(hosts: Hosts, rate: int, seconds: int, report: Report) -> None:
    limit = RATE * HOSTS
    before = hosts.census()
    async with Probing(hosts.ports) as probing, Crowd(hosts.ports, _good()) as crowd:
        quiet = time.monotonic()
        await asyncio.sleep(min(8, seconds))
        asked, spent = (await hosts.asked()).total, hosts.spent()
        struck = time.monotonic()
        loads = await _flooding(hosts, rate, seconds)
        end, used = time.monotonic(), hosts.spent().since(spent)
        asked = (await hosts.asked()).total - asked
        grown_now = grown(hosts, before)
        stored = await keys(hosts)
    row = {
        "fault": f"{rate:,} invented tokens/s wanted, {sum(each.requests / each.seconds for each in loads):,.0f} sent",
        **counted(crowd.tallies),
        **felt(crowd.tallies["hot"], Window(quiet, struck), Window(struck, end)),
        "asked": asked,
        "keys": stored,
        **grown_now,
        **used,
        **probing.lag,
    }
    report.rows.append(row)
    at = f"{rate:,}/s: "
    troubles = len(crowd.tallies["hot"].troubles)
    report.must("14", f"{at}good requests not answered right", troubles, of=row["requests"])
    answered = sum(each.refused for each in loads)
    report.must("14", f"{at}invented tokens answered with less than 400", sum(x.requests for x in loads) - answered)
    report.felt("14", f"{at}invented tokens without an answer", sum(each.lost for each in loads), 0, "")
    report.felt("14", f"{at}questions a second, without the burst", (asked - limit) / (end - struck), 1.1 * limit, "/s")
    report.felt("14", f"{at}p99 of good tokens", row["fault_p99_ms"] / row["quiet_p99_ms"], 2, "x quiet")
    growth = (row["rss_after_mb"] - row["rss_before_mb"]) / HOSTS
    report.felt("14", f"{at}RSS growth of a gateway", growth, 50, "MB")
    # 1,000 inactive tokens of each worker, and what is known of good ones.
    report.felt("14", f"{at}Redis keys", stored, 1000 * HOSTS * WORKERS + 2 * HOT, "")
    report.note(crowd.tallies["hot"])


async def _flooding(hosts: Hosts, rate: int, seconds: int) -> list[wrk.Load]:
    """Send invented tokens to both; returns what became of them."""
    connections = 256
    pause = round(1000 * connections * HOSTS / rate)
    running = []
    for port in hosts.ports:
        invented = [_invented() for _ in range(min(INVENTED, rate * seconds))]
        running.append(wrk.start(port, invented, seconds=seconds, connections=connections, pause_ms=pause))
    loads = []
    for process in running:
        os.sched_setaffinity(process.pid, range(os.cpu_count() or 1))
        text, _ = await asyncio.to_thread(process.communicate, timeout=seconds + 60)
        loads.append(wrk.read(text))
        progress(f"  {loads[-1]}")
    return loads


def _invented() -> bytes:
    token = secrets.token_urlsafe(32)
    return f"GET /r/1 HTTP/1.1\r\nHost: flood\r\nAuthorization: Bearer {token}\r\n\r\n".encode()


async def slow(arguments: argparse.Namespace) -> Report:
    """Figure 23."""
    seconds = arguments.seconds or 60.0
    number = ATTACKERS if seconds >= 30 else ATTACKERS // 10
    report = Report(
        "Clients that send an octet at a time, beside good traffic",
        f"{number} connections for {seconds:g} s, half of them in the head of a request, half in the body of one with "
        f"a good token; an octet a second on each. `header_timeout` is {HEADER_TIMEOUT:g} s for the whole head, "
        f"`body_timeout` {BODY_TIMEOUT:g} s between two reads.",
    )
    limits = {"header_timeout": f"{HEADER_TIMEOUT:g}s", "body_timeout": f"{BODY_TIMEOUT:g}s"}
    async with Hosts(limits=limits) as hosts:
        await warm(hosts)
        before = hosts.census()
        async with Probing(hosts.ports) as probing, Crowd(hosts.ports, _good(), _newcomers()) as crowd:
            quiet = time.monotonic()
            await asyncio.sleep(min(8.0, seconds))
            struck = time.monotonic()
            told = await _trickling(hosts, number, seconds)
            end = time.monotonic()
        await asyncio.sleep(min(10.0, seconds))
        row = {
            "fault": f"{told['connected']} slow clients",
            **counted(crowd.tallies),
            **felt(crowd.tallies["hot"], Window(quiet, struck), Window(struck, end)),
            **grown(hosts, before),
            **probing.lag,
        }
        report.rows.append(row)
        bad = sum(len(tally.troubles) for tally in crowd.tallies.values())
        report.must("23", "good requests not answered right", bad, of=row["requests"])
        head, body = told["head"], told["body"]
        if seconds > HEADER_TIMEOUT + 2:
            report.must("23", "slow heads that were not closed", head["open"], of=head["open"] + head["closed"])
            report.felt("23", "slow heads: kept at most", head["most"], HEADER_TIMEOUT + 2, "s")
            report.felt("23", "slow bodies: kept at most", body["most"], BODY_TIMEOUT + 2, "s")
            report.felt("23", "slow bodies that were not closed", body["open"], 0, "")
        report.descriptors(row)
        for tally in crowd.tallies.values():
            report.note(tally)
    return report


def _newcomers() -> Kind:
    """Make a connection for every request: those who find the queues full."""
    return Kind("closing", 4, taking_turns([tokens.good(number, "hot") for number in range(HOT)], 4), 0.05, keep=False)


async def _trickling(hosts: Hosts, number: int, seconds: float) -> dict[str, Any]:
    told = ["both", str(number), str(seconds), tokens.good(0, "hot"), *map(str, hosts.ports)]
    environment = {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    process = Process("trickle", [sys.executable, "-m", "bench.stubs.trickle", *told], cwd=Path("/"), env=environment)
    try:
        while process.exit_code is None:  # noqa: ASYNC110 - seen from outside
            await asyncio.sleep(0.1)
        said: dict[str, Any] = json.loads(process.out.read_text().splitlines()[-1])
    finally:
        process.kill()
    progress(f"  {said}")
    return said
