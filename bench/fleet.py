"""What changes cost those who are served: workers replaced, reloaded, killed and stopped while every request counts."""

import argparse
import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import uvloop

from bench import parts, traffic
from bench.figures import shown
from bench.machine import description, progress
from bench.report import keep, table, told
from bench.settings import gateway_config
from tests.support.gateway import Gateway
from tests.support.ledger import Fate, Ledger, Repeater

KEPT, CLOSING = 48, 16
"""Clients on kept connections, and clients that make a new one for each request."""
WORKERS: Final = 2
NEW: Final = ("listen", "admin")


@dataclass
class Row:
    """One kind of change, done several times under one load."""

    name: str
    times: int = 0
    requests: int = 0
    lost: int = 0
    """Without those that were refused."""
    refused: int = 0
    slowest_ms: float = 0.0
    seconds: float = 0.0
    took_ms: list[float] = field(default_factory=list)
    """Each change: from the signal until everything is as it should be."""
    lost_each: list[int] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what can be chosen."""
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"of {', '.join(STEPS)} (default: all)")
    parser.add_argument("--times", type=int, default=20, help="rolling restarts, reloads (default 20)")
    parser.add_argument("--requests", type=int, default=100_000, help="at least, in each of them")
    parser.add_argument("--seconds", type=float, default=60.0, help="of killing a worker every 2 seconds")


def run(arguments: argparse.Namespace) -> None:
    """Run the steps, print the table and keep it."""
    # Workers, clients, upstream and identity provider share all cores: this counts requests, it does not measure cost.
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    machine = description()
    chosen = [name for name in STEPS if not arguments.steps or name in arguments.steps]
    rows: list[Row] = []
    with parts.stub("idp") as idp:
        os.sched_setaffinity(idp.pid, range(os.cpu_count() or 1))
        for name in chosen:
            progress(name)
            rows += uvloop.run(STEPS[name](idp.port, arguments))
    result = {"machine": machine, "rows": [asdict(row) for row in rows]}
    keep("fleet-" + "-".join(chosen) if arguments.steps else "fleet", _page(rows, machine), json.dumps(result) + "\n")


# --- the steps ------------------------------------------------------------------------------------------------


async def _roll(idp: int, arguments: argparse.Namespace) -> list[Row]:
    """SIGUSR2: every worker is replaced, one by one."""

    async def renew(gateway: Gateway) -> None:
        before = await _pids(gateway)
        _signal(gateway, signal.SIGUSR2)
        await _until(gateway, lambda now: len(now) == WORKERS and not set(now.values()) & set(before.values()))

    return [await _many("rolling restart (SIGUSR2)", idp, arguments, renew)]


async def _reload(idp: int, arguments: argparse.Namespace) -> list[Row]:
    """SIGHUP: good files and bad ones by turns."""
    turn = iter(range(1_000_000))

    async def reload(gateway: Gateway) -> None:
        number = next(turn)
        outcome = "refused" if number % 2 else "taken"
        counted = await gateway.metric("fastgate_config_reloads_total", outcome=outcome)
        gateway.write({"via": "not a token" if number % 2 else f"v{number}"})
        _signal(gateway, signal.SIGHUP)
        while await gateway.metric("fastgate_config_reloads_total", outcome=outcome) == counted:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    return [await _many("reload, good and bad (SIGHUP)", idp, arguments, reload)]


async def _end(idp: int, arguments: argparse.Namespace) -> list[Row]:
    """SIGTERM: clients that ask until nobody listens any more."""
    row = Row("end (SIGTERM)")
    for _ in range(max(1, arguments.times // 2)):
        async with Repeater() as upstream:
            gateway = await (await _gateway(idp, upstream).start()).ready()
            async with _ledger(gateway) as ledger:
                await ledger.answered(2000)
                began = time.monotonic()
                code = await gateway.stop()
                row.took_ms.append((time.monotonic() - began) * 1000)
            _must(code == 0, f"the gateway ended with {code}")
            _count(row, ledger, upstream, refused_is_fine=True)
        row.times += 1
        progress(f"  {row.times}: {row.requests} requests, {row.lost} lost")
    return [row]


async def _kill(idp: int, arguments: argparse.Namespace) -> list[Row]:
    """SIGKILL to one worker every 2 seconds."""
    row = Row("kill -9 of a worker")
    async with Repeater() as upstream:
        gateway = await (await _gateway(idp, upstream).start()).ready()
        async with _ledger(gateway, pause=await _pause(gateway, upstream)) as ledger:
            began = time.monotonic()
            while time.monotonic() < began + arguments.seconds:
                number, before, lost = row.times % WORKERS + 1, await _pids(gateway), len(ledger.lost)
                killed = time.monotonic()
                os.kill(before[number], signal.SIGKILL)
                await _until(
                    gateway,
                    lambda now, before=before, number=number: len(now) == WORKERS and now[number] != before[number],
                )
                row.took_ms.append((time.monotonic() - killed) * 1000)
                await asyncio.sleep(2 - (time.monotonic() - killed))
                row.lost_each.append(len(ledger.lost) - lost)
                row.times += 1
                progress(f"  {row.times}: {ledger.count} requests, {row.lost_each[-1]} lost")
        row.seconds = time.monotonic() - began
        _count(row, ledger, upstream, refused_is_fine=False)
        _must(await gateway.stop() == 0, "the gateway did not end with 0")
    return [row]


STEPS: Final[dict[str, Callable[[int, argparse.Namespace], Awaitable[list[Row]]]]] = {
    "roll": _roll,
    "reload": _reload,
    "end": _end,
    "kill": _kill,
}


# --- what they have in common ---------------------------------------------------------------------------------


async def _many(
    name: str, idp: int, arguments: argparse.Namespace, change: Callable[[Gateway], Awaitable[None]]
) -> Row:
    """Do something many times while requests come at half of what the gateway could take."""
    row = Row(name)
    async with Repeater() as upstream:
        gateway = await (await _gateway(idp, upstream).start()).ready()
        async with _ledger(gateway, pause=await _pause(gateway, upstream)) as ledger:
            began = time.monotonic()
            while row.times < arguments.times or ledger.count < arguments.requests:
                changing = time.monotonic()
                await change(gateway)
                row.took_ms.append((time.monotonic() - changing) * 1000)
                row.times += 1
                await ledger.answered(
                    max(0, (arguments.requests - ledger.count) // max(1, arguments.times - row.times))
                )
                progress(f"  {row.times}: {ledger.count} requests, {len(ledger.lost)} lost")
            row.seconds = time.monotonic() - began
        _count(row, ledger, upstream, refused_is_fine=False)
        _must(await gateway.stop() == 0, "the gateway did not end with 0")
    return row


def _gateway(idp: int, upstream: Repeater) -> Gateway:
    written = gateway_config(port=0, origin=upstream.port, idp=idp, access_log=False)
    return Gateway({key: value for key, value in written.items() if key not in NEW} | {"workers": WORKERS})


def _ledger(gateway: Gateway, *, pause: float = 0.0, kept: int = KEPT, closing: int = CLOSING) -> Ledger:
    return Ledger(gateway.port, kept=kept, closing=closing, path="/", token=traffic.TOKEN, pause=pause)


async def _pause(gateway: Gateway, upstream: Repeater) -> float:
    """Seconds between two requests of a client that make half of the load that is possible here."""
    async with _ledger(gateway) as ledger:
        await ledger.answered(1000)
        began, before = time.monotonic(), ledger.count
        await asyncio.sleep(2)
        rate = (ledger.count - before) / (time.monotonic() - began)
    progress(f"  {rate:.0f} requests/s are possible")
    upstream.asked.clear()
    return (KEPT + CLOSING) / rate


def _count(row: Row, ledger: Ledger, upstream: Repeater, *, refused_is_fine: bool) -> None:
    refused = ledger.fates[Fate.REFUSED]
    row.requests += ledger.count - (refused if refused_is_fine else 0)
    row.lost += len(ledger.lost) - refused
    row.refused += 0 if refused_is_fine else refused
    row.slowest_ms = max(row.slowest_ms, ledger.slowest * 1000)
    strange = ledger.lost_as(Fate.WRONG, Fate.SILENT)
    _must(not strange, f"answered wrongly or not at all: {strange[:5]}")
    _must(not upstream.repeated, f"asked for twice: {upstream.repeated[:5]}")


async def _pids(gateway: Gateway) -> dict[int, int]:
    workers = (await gateway.status())["workers"]
    return {each["worker"]: each["pid"] for each in workers if each["state"] == "serving"}


async def _until(gateway: Gateway, good: Callable[[dict[int, int]], bool]) -> None:
    while not good(await _pids(gateway)):  # noqa: ASYNC110 - seen from outside
        await asyncio.sleep(0.005)


def _signal(gateway: Gateway, number: signal.Signals) -> None:
    assert gateway.process is not None
    gateway.process.signal(number)


def _must(good: bool, what: str) -> None:  # noqa: FBT001 - an assertion that is not compiled away
    if not good:
        raise RuntimeError(what)


def _page(rows: list[Row], machine: dict[str, Any]) -> str:
    columns = ["change", "times", "requests", "lost", "refused", "lost each, most", "took ms, most", "slowest ms"]
    lines = [
        (
            row.name,
            str(row.times),
            f"{row.requests:,}",
            str(row.lost),
            str(row.refused),
            str(max(row.lost_each)) if row.lost_each else "",
            shown(max(row.took_ms)),
            shown(row.slowest_ms),
        )
        for row in rows
    ]
    about = (
        f"{WORKERS} workers, {KEPT} clients on kept connections and {CLOSING} that make a new one for each request, at "
        "half of what is possible (the end: at all of it). Every request has a number and is accounted for: *lost* is "
        "reset, cut or unanswered; a wrong answer ends the run. At the end *refused* is not counted.\n"
    )
    return "\n".join(["# Changes under load\n", about, table(columns, lines), told(machine)])
