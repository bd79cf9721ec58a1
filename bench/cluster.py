"""One gateway on many workers and hosts: what is asked, what is felt and what goes wrong while everything breaks."""

import argparse
import json
import os
from collections.abc import Awaitable, Callable
from typing import Any, Final

import uvloop

from bench import changing, flooding, knowing, outages, poisoning, soaking
from bench.cluster_report import Report, page
from bench.machine import NotPossibleError, description, progress
from bench.report import keep

STEPS: Final[dict[str, Callable[[argparse.Namespace], Awaitable[Report]]]] = {
    "cold": knowing.cold,
    "revoke": knowing.revoke,
    "poison": poisoning.poison,
    "redis": outages.redis,
    "idp": outages.idp,
    "flood": flooding.flood,
    "slow": flooding.slow,
    "posts": changing.posts,
    "secrets": changing.secrets,
    "crosstalk": soaking.crosstalk,
    "soak": soaking.soak,
}
QUICK: Final = ("cold", "revoke", "poison", "redis", "secrets", "posts")
"""What `make bench` takes: the others are long, or disturb everybody else."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what can be chosen."""
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"of {', '.join(STEPS)} (default: all); or `quick`")
    parser.add_argument("--seconds", type=float, help="of each fault, flood or soak (default: what FAULTS.md asks for)")
    parser.add_argument("--fault", default="", help="for redis and idp: those only whose names begin so")
    parser.add_argument("--requests", type=int, help="for crosstalk (1,000,000), posts (10,000), poison (10,000)")
    parser.add_argument("--tries", type=int, help="for cold (20), revoke (100 revocations, ten times as many races)")
    parser.add_argument(
        "--redis-timeout",
        metavar="TIME",
        help="for cold: the gateways' `cache.redis.timeout`, 1s at most (default: theirs). Whoever Redis does not "
        "answer in time asks alone, so that the machine is judged, too; with 1s only the gateways are",
    )


def run(arguments: argparse.Namespace) -> None:
    """Run the steps, each with its page; whatever must be and was not ends the command with a failure."""
    # Everything shares all cores: this counts what goes wrong, and shows what is felt on a machine that is busy.
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    wanted = [name for each in arguments.steps for name in (QUICK if each == "quick" else (each,))]
    unknown = [name for name in wanted if name not in STEPS]
    if unknown:
        raise NotPossibleError(f"no such step: {', '.join(unknown)}; there are {', '.join(STEPS)}, quick")
    failures: list[str] = []
    for name in [each for each in STEPS if not wanted or each in wanted]:
        progress(name)
        machine = description()
        report = uvloop.run(STEPS[name](arguments))
        keep(f"cluster-{name}", page(report, machine), _data(report, machine))
        failures += [f"{name}: {each}" for each in report.failures]
    if failures:
        raise NotPossibleError("what must be is not so:\n  " + "\n  ".join(failures))


def _data(report: Report, machine: dict[str, Any]) -> str:
    figures = [each._asdict() for each in report.figures]
    whole = {"machine": machine, "figures": figures, "rows": report.rows, "examples": report.examples}
    return json.dumps(whole, indent=1) + "\n"
