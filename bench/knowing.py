"""What a cluster knows together: one question for a cold token, revocations that reach everybody."""

import argparse
import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from itertools import count

from bench import tokens
from bench.cluster_report import Report
from bench.hosts import HOSTS, WORKERS, Hosts
from bench.judging import Fate, judged, percentile, request
from bench.machine import progress
from tests.support.connections import Ends, holders
from tests.support.gateway import Gateway
from tests.support.ledger import Line

EVERY = HOSTS * WORKERS
AT_ONCE = 500
_numbers = count(1)


# --- one question for a cold token ----------------------------------------------------------------------------


async def cold(arguments: argparse.Namespace) -> Report:
    """Figure 13."""
    tries = arguments.tries or 20
    report = Report(
        "One question for a cold token",
        f"{AT_ONCE} requests at once with a token that nobody knows yet, over both gateways and all four workers, held "
        "at the identity provider until all of them wait; the worker that asks is killed; Redis is emptied and every "
        "worker replaced, then T tokens are used at once everywhere.",
    )
    async with Hosts(provider={"timeout": "10s"}, redis_timeout=arguments.redis_timeout) as hosts:
        lines = [await Line.connect(port) for port in hosts.ports for _ in range(AT_ONCE // HOSTS)]
        fates, asked = await _crowd_of_one(hosts, lines, tries)
        report.must("13", f"introspections of one cold token, most of {tries} tries", max(asked), 1)
        report.must_be("13", "introspections of one cold token, least", min(asked), 1)
        report.must("13", "requests not answered right", bad(fates), of=fates.total())
        fates, asked, died = await _owner_killed(hosts, max(1, tries // 4), clients=min(200, 40 * tries))
        report.must("13", "introspections when the owner is killed, most", max(asked), 2)
        report.must(
            "13",
            f"requests at other workers not answered right ({died} died with theirs)",
            bad(fates),
            of=fates.total(),
        )
        await _flushed(hosts, report, min(200, 10 * tries))
        for line in lines:
            line.close()
    return report


async def _crowd_of_one(hosts: Hosts, lines: Sequence[Line], tries: int) -> tuple[Counter[Fate], list[int]]:
    fates: Counter[Fate] = Counter()
    asked = []
    for number in range(tries):
        before, flights = (await hosts.asked()).total, await hosts.metric("fastgate_flights_total")
        await hosts.idp.ask("POST", "/be/hanging")
        asking = [asyncio.ensure_future(ask(line, tokens.good(number, "cold"))) for line in lines]
        while await hosts.metric("fastgate_flights_total") < flights + len(lines):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await hosts.idp.ask("POST", "/be/well")
        fates += Counter(await asyncio.gather(*asking))
        asked.append((await hosts.asked()).total - before)
        progress(f"  {number + 1}: {asked[-1]} introspections, {dict(fates)}")
    return fates, asked


async def _owner_killed(hosts: Hosts, tries: int, *, clients: int) -> tuple[Counter[Fate], list[int], int]:
    """Also returns how many went down with the worker that asked; the fates are those of all others."""
    fates: Counter[Fate] = Counter()
    asked, died = [], 0
    for number in range(tries):
        lines = [await Line.connect(port) for port in hosts.ports for _ in range(clients // HOSTS)]
        fates_now, questions, lost = await _one_owner_killed(hosts, lines, tokens.good(number, "killed"))
        fates += fates_now
        asked.append(questions)
        died += lost
        progress(f"  owner killed: {questions} introspections, {dict(fates_now)}, {lost} went down with it")
        for line in lines:
            line.close()
        await hosts.shared()
    return fates, asked, died


async def _one_owner_killed(hosts: Hosts, lines: Sequence[Line], token: str) -> tuple[Counter[Fate], int, int]:
    began, before = time.monotonic(), (await hosts.asked()).total
    flights = await hosts.metric("fastgate_flights_total")
    await hosts.idp.ask("POST", "/be/hanging")
    asking = {Ends(line.peer, line.port): asyncio.ensure_future(ask(line, token)) for line in lines}
    while await hosts.metric("fastgate_flights_total") < flights + len(lines):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    # Who is to ask may still be on its way there.
    while not (when := (await hosts.asked(began)).when):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    pids = await hosts.every_pid()
    (asker,) = holders({Ends(when[0][1], hosts.idp.port)}, pids).values()
    served_by = holders(set(asking), pids)
    os.kill(asker, signal.SIGKILL)
    await hosts.idp.ask("POST", "/be/well")
    answers = dict(zip(asking, await asyncio.gather(*asking.values()), strict=True))
    others = Counter(fate for ends, fate in answers.items() if served_by.get(ends) != asker)
    return others, (await hosts.asked()).total - before, len(answers) - others.total()


async def _flushed(hosts: Hosts, report: Report, live: int) -> None:
    every = [tokens.good(number, "live") for number in range(live)]
    await _everywhere(hosts, every)
    before = (await hosts.asked()).total
    hosts.redis.call("FLUSHALL")
    fates = await _everywhere(hosts, every)
    report.must("13", f"introspections after FLUSHALL, {live} tokens in memory", (await hosts.asked()).total - before)
    for gateway in hosts.gateways:
        await _replaced(hosts, gateway)
    await hosts.shared()
    hosts.redis.call("FLUSHALL")
    before = (await hosts.asked()).total
    fates += await _everywhere(hosts, every)
    asked = (await hosts.asked()).total - before
    report.must("13", f"introspections after FLUSHALL and new workers, {live} live tokens", asked, live + EVERY)
    report.must("13", "requests meanwhile not answered right", bad(fates), of=fates.total())


async def _everywhere(hosts: Hosts, every: Sequence[str]) -> Counter[Fate]:
    """Ask with every token at every worker, all workers at once."""
    lines = await hosts.lines()

    async def one(line: Line) -> list[Fate]:
        return [await ask(line, token) for token in every]

    found = await asyncio.gather(*(one(line) for line in lines.values()))
    for line in lines.values():
        line.close()
    return Counter(fate for each in found for fate in each)


async def _replaced(hosts: Hosts, gateway: Gateway) -> None:
    before = set((await hosts.pids(gateway)).values())
    assert gateway.process is not None
    gateway.process.signal(signal.SIGUSR2)
    while len(now := set((await hosts.pids(gateway)).values())) < WORKERS or now & before:  # noqa: ASYNC110 - seen from outside
        await asyncio.sleep(0.02)


# --- revocation -----------------------------------------------------------------------------------------------


async def revoke(arguments: argparse.Namespace) -> Report:
    """Figure 3."""
    times = arguments.tries or 100
    report = Report(
        "Revoked on one host, refused on all",
        "A token that all four workers know is revoked on one host, by token and by subject in turns, while all four "
        "are asked again and again; the introspection of others is under way when they are revoked; others expire. "
        "Every one of them is tried again at the end.",
    )
    async with Hosts() as hosts:
        lines = await hosts.lines()
        took, revoked = [], []
        for number in range(times):
            token = tokens.good(number, "revoked")
            revoked.append(token)
            took.append(await _revoked(hosts, list(lines.values()), token, number))
        took.sort()
        progress(f"  refused everywhere after {took[-1]:.1f} ms at most")
        report.felt("3", f"refused by every worker, worst of {times} revocations", took[-1], 1000, "ms")
        report.felt("3", "the same, p50", percentile(took, 0.5), 1000, "ms")
        resurrected, late = await _races(hosts, times * 10)
        report.must("3", "in-flight race: refused no more", resurrected, of=times * 10)
        report.must("3", "in-flight race: let in though confirmed as revoked before its answer", late, of=times * 10)
        stale, before = await _expiring(list(lines.values()), min(100, times))
        report.must("3", "served after exp", stale, of=before)
        again = [await ask_status(line, token) for line in lines.values() for token in revoked]
        report.must("3", "revoked tokens served at the end", len(again) - again.count(401), of=len(again))
    return report


async def _revoked(hosts: Hosts, lines: Sequence[Line], token: str, number: int) -> float:
    """Revoke one token that everybody knows; returns the milliseconds until everybody refuses it."""
    for line in lines:
        if await ask(line, token) is not Fate.RIGHT:
            raise RuntimeError(f"a good token was refused: {token}")
    began = time.monotonic()
    what = {"token": token} if number % 2 else {"sub": tokens.subject(token)}

    async def refused(line: Line) -> float:
        while await ask_status(line, token) != 401:
            if time.monotonic() > began + 30:
                raise RuntimeError("not refused 30 s after it was revoked")
        return 1000 * (time.monotonic() - began)

    waiting = [asyncio.ensure_future(refused(line)) for line in lines]
    await hosts.gateways[number // 2 % HOSTS].revoke(**what)
    return max(await asyncio.gather(*waiting))


async def _races(hosts: Hosts, times: int, at_once: int = 50) -> tuple[int, int]:
    """Revoke tokens about which the identity provider is thinking; returns what came back, and what came too late."""
    chance = random.Random(5)
    resurrected = late = 0
    lines = [await Line.connect(hosts.ports[number % HOSTS]) for number in range(at_once)]
    workers = list((await hosts.lines()).values())

    async def race(number: int, line: Line, gateway: Gateway) -> tuple[str, bool]:
        token = tokens.slow(60, number, "raced")
        began = time.monotonic()
        asking = asyncio.ensure_future(ask_status(line, token))
        await asyncio.sleep(chance.uniform(0.0, 0.06))
        await gateway.revoke(**({"token": token} if number % 2 else {"sub": tokens.subject(token)}))
        confirmed = time.monotonic()
        status = await asking
        # The identity provider had not answered before `began + 60 ms`: a decision after that knew of the revocation.
        return token, status == 200 and confirmed < began + 0.05 and gateway.port == line.peer

    for start in range(0, times, at_once):
        numbers = range(start, min(start + at_once, times))
        raced = await asyncio.gather(
            *(
                race(number, line, hosts.gateways[number // 2 % HOSTS])
                for number, line in zip(numbers, lines, strict=False)
            )
        )
        late += sum(too_late for _, too_late in raced)
        await asyncio.sleep(0.2)
        for line in workers:
            resurrected += sum([await ask_status(line, token) != 401 for token, _ in raced])
        if start % 200 == 0:
            progress(f"  {numbers.stop} races: {resurrected} came back, {late} too late")
    for line in [*lines, *workers]:
        line.close()
    return resurrected, late


async def _expiring(lines: Sequence[Line], number: int) -> tuple[int, int]:
    """Use tokens until after their end; returns how often one was served after it, and requests in all."""
    now = int(time.time())
    every = [tokens.until(now + 2 + turn % 3, turn) for turn in range(number)]

    async def use(line: Line) -> tuple[int, int]:
        stale = asked = 0
        while time.time() < now + 6:
            for token in every:
                began = time.time()
                status = await ask_status(line, token)
                asked += 1
                stale += status == 200 and began >= int(token.split(".")[2])
            await asyncio.sleep(0.02)
        return stale, asked

    found = await asyncio.gather(*(use(line) for line in lines))
    return sum(stale for stale, _ in found), sum(asked for _, asked in found)


# --- what they have in common ---------------------------------------------------------------------------------


async def ask(line: Line, token: str) -> Fate:
    """Ask with a token on a path of its own, and judge the answer."""
    target = f"/r/{next(_numbers)}"
    with suppress(OSError, EOFError):
        fate, detail = judged(await line.ask(request(target, token)), target, token, b"")
        if detail:
            progress(f"  {detail}")
        return fate
    return Fate.LOST


async def ask_status(line: Line, token: str) -> int:
    """Ask with a token; returns the status."""
    return int((await line.ask(request(f"/r/{next(_numbers)}", token)))[9:12])


def bad(fates: Counter[Fate]) -> int:
    """Count what was not right."""
    return fates.total() - fates[Fate.RIGHT]
