"""CPU per request of a remembered token, against bare nginx that asks nobody: interleaved rounds, ratios per round."""

import argparse
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Any

from bench import parts, wrk
from bench.machine import PROXY_CORE, description, need
from bench.parts import Part
from bench.report import progress, save, spread, table
from bench.settings import TOKEN
from bench.usage import core_seconds, cpu_times

PEER = "nginx"
CONNECTIONS = 64
NOTE = """
Medians (least-most) of the rounds; "times nginx" is taken within each round, "least / least" from the least disturbed
round of each, which is what a quiet machine gives. "others": share of the proxy's core that other
programs of this machine took meanwhile; much of it makes every figure larger, an interpreter's more than nginx's.
"""
Round = dict[str, dict[str, float]]
"""By proxy: microseconds of CPU per request, and percentiles of latency in milliseconds."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what can be chosen."""
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds (default 15)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of load on each proxy per round (default 1)")
    parser.add_argument(
        "--other", type=Path, metavar="CHECKOUT", action="append", default=[], help="another fastgate as well"
    )


def run(arguments: argparse.Namespace) -> None:
    """Measure and report."""
    need("nginx", "wrk")
    machine = description()
    with ExitStack() as stack:
        origin = stack.enter_context(parts.hello_origin())
        idp = stack.enter_context(parts.stub("idp"))
        proxies = {
            PEER: stack.enter_context(parts.nginx_proxy(origin)),
            "fastgate": stack.enter_context(parts.fastgate(origin, idp)),
            "fastgate, access log": stack.enter_context(parts.fastgate(origin, idp, access_log=True)),
        }
        for tree in arguments.other:
            proxies[str(tree)] = stack.enter_context(parts.fastgate(origin, idp, name="other", tree=tree.resolve()))
        for name, proxy in proxies.items():
            progress(f"warming up {name}")
            _measure(proxy, 1.0)
        rounds = [_round(proxies, number, arguments.seconds) for number in range(arguments.rounds)]
        asked = parts.questions(idp)
    report = _report(rounds)
    result = {"machine": machine, "connections": CONNECTIONS, "introspections": asked, "rounds": rounds, **report}
    save("hit", "CPU per request of a remembered token", _table(report["proxies"]), result)


def _round(proxies: dict[str, Part], number: int, seconds: float) -> Round:
    """Measure every proxy once; who goes first changes from round to round."""
    names = list(proxies)
    turn = number % len(names)
    found = {name: _measure(proxies[name], seconds) for name in names[turn:] + names[:turn]}
    progress(f"round {number + 1}: " + ", ".join(f"{name} {found[name]['cpu_us']:.1f} us" for name in names))
    return found


def _measure(proxy: Part, seconds: float) -> dict[str, float]:
    started, busy, before = monotonic(), core_seconds(PROXY_CORE), cpu_times(proxy.pid)
    load = wrk.run(proxy.port, seconds=seconds, connections=CONNECTIONS, token=TOKEN)
    cpu, busy, elapsed = cpu_times(proxy.pid) - before, core_seconds(PROXY_CORE) - busy, monotonic() - started
    return {
        "cpu_us": cpu.total / load.requests * 1e6,
        "kernel_us": cpu.system / load.requests * 1e6,
        "requests_per_s": load.requests / seconds,
        "others": max(0.0, busy - cpu.total) / elapsed,
        **{f"p{name}_ms": value for name, value in load.milliseconds.items()},
    }


def _report(rounds: list[Round]) -> dict[str, Any]:
    proxies = {}
    for name in rounds[0]:
        figures = {key: spread([each[name][key] for each in rounds]) for key in rounds[0][name]}
        figures["ratio"] = spread([each[name]["cpu_us"] / each[PEER]["cpu_us"] for each in rounds])
        least = figures["cpu_us"]["min"] / min(each[PEER]["cpu_us"] for each in rounds)
        proxies[name] = figures | {"ratio_of_least": {"median": round(least, 2)}}
    return {"proxies": proxies}


def _table(proxies: dict[str, dict[str, dict[str, float]]]) -> str:
    rows = []
    for name, figures in proxies.items():
        cpu, ratio = figures["cpu_us"], figures["ratio"]
        rows.append(
            [
                name,
                f"{cpu['median']:.1f} ({cpu['min']:.1f}-{cpu['max']:.1f})",
                round(figures["kernel_us"]["median"], 1),
                f"{ratio['median']:.2f} ({ratio['min']:.2f}-{ratio['max']:.2f})",
                figures["ratio_of_least"]["median"],
                *(figures[f"p{percentile}_ms"]["median"] for percentile in (50, 90, 99)),
                round(figures["requests_per_s"]["median"]),
                f"{figures['others']['median']:.0%}",
            ]
        )
    heads = [
        "proxy",
        "CPU us/request",
        "of it kernel",
        "times nginx",
        "least / least",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "requests/s",
        "others",
    ]
    return table(heads, rows) + NOTE
