"""Where the microseconds of a remembered request go: kernel and user, and the Python alone (replay, py-spy)."""

import argparse
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench import parts, traffic, wrk
from bench.debian import need
from bench.figures import shown, table
from bench.machine import PROXY_CORE, ROOT, NotPossibleError, description, progress
from bench.parts import Part, World
from bench.proxies import Gateway
from bench.report import keep, told
from bench.usage import CpuTimes, cpu_times
from tests.support.process import scratch

CONNECTIONS = 64
RATE = 500
"""Samples per second."""
LINES = 30
STAGES = (
    (r"/dataplane/(express|layout|known|memo)\.py", "express lane: what is known of the head"),
    (r"/dataplane/express_exchange\.py", "express lane: the request under way"),
    (r"/dataplane/outbox\.py", "collecting what is written"),
    (r"/dataplane/head\.py", "read the request's head"),
    (r"/fastgate/gate\.py|/policy/(routing|bearer|verification|refusing)\.py|/tokens/", "decide (gate.admit)"),
    (r"/policy/forwarding\.py", "write the head upstream"),
    (r"/dataplane/answer\.py", "read the answer's head"),
    (r"/policy/answering\.py", "write the head of the answer"),
    (r"/control/", "access log"),
    (r"/dataplane/(upstream|pool|health|deadline)\.py", "upstream connections, their pool and deadlines"),
    (r"/fastgate/dataplane/", "client connections, exchange: bookkeeping"),
    (r"/bench/", "the replay itself"),
)
"""A sample belongs to the stage of its innermost frame that has one."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what can be chosen."""
    parser.add_argument("--seconds", type=float, default=20.0, help="of sampling (default 20)")
    parser.add_argument("--checkout", type=Path, default=ROOT, help="which fastgate is sampled (default: this one)")
    parser.add_argument("--other", type=Path, metavar="CHECKOUT", action="append", default=[], help="replay it as well")


def run(arguments: argparse.Namespace) -> None:
    """Measure and report."""
    need("nginx", "wrk")
    spy = Path(sys.executable).with_name("py-spy")
    if not spy.exists():
        raise NotPossibleError(f"py-spy is needed: run `{sys.executable} -m pip install py-spy`")
    machine = description()
    with ExitStack() as stack:
        origin = stack.enter_context(parts.hello_origin())
        idp = stack.enter_context(parts.stub("idp"))
        gateway = stack.enter_context(Gateway(tree=arguments.checkout.resolve()).open(World(origin, idp)))
        progress("cost of a request, unobserved")
        cost = _cost(gateway)
    replayed = {}
    for tree in [arguments.checkout, *arguments.other]:
        progress(f"replaying {tree}")
        replayed[str(tree)] = _replay(tree.resolve())
    tree = arguments.checkout.resolve()
    progress(f"sampling {tree} for {arguments.seconds:g} s")
    python = replayed[str(arguments.checkout)]["least_us"]
    stages, lines = _shares(_sample(spy, tree, arguments.seconds), python)
    result = {
        "machine": machine,
        "live_us": {
            "kernel: reading, writing, polling, the network stack": cost.system,
            "Python, replayed alone": python,
            "uvloop, and what the interpreter loses between system calls": cost.total - cost.system - python,
        },
        "stages_us": stages,
        "lines_us": lines,
        "replay": replayed,
    }
    keep("profile", _page(result), json.dumps(result, indent=1) + "\n")


def _cost(gateway: Part) -> CpuTimes:
    """Microseconds of CPU per request."""
    wrk.run(gateway.port, traffic.same(), seconds=1, connections=CONNECTIONS)
    before = cpu_times(gateway.pid)
    load = wrk.run(gateway.port, traffic.same(), seconds=5, connections=CONNECTIONS)
    used = cpu_times(gateway.pid) - before
    return CpuTimes(used.total / load.requests * 1e6, used.system / load.requests * 1e6)


def _sample(spy: Path, tree: Path, seconds: float) -> list[tuple[list[str], int]]:
    """Stacks of a replay, outermost frame first, and how often each was seen."""
    file = scratch("bench-profile") / "stacks"
    what = ["--format", "raw", "--rate", str(RATE), "--duration", str(round(seconds)), "--output", str(file)]
    subprocess.run(
        [spy, "record", *what, "--", *_replaying(tree, f"--seconds={seconds + 5}")],
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
        timeout=seconds + 60,
    )
    stacks = []
    for line in file.read_text().splitlines():
        frames, _, count = line.rpartition(" ")
        if "/dataplane/" in frames:
            stacks.append((frames.split(";"), int(count)))
    return stacks


def _shares(stacks: list[tuple[list[str], int]], cost: float) -> tuple[dict[str, float], dict[str, float]]:
    """Microseconds per request by stage, and by the innermost line of ours or aiohttp's."""
    total = sum(count for _, count in stacks)
    stages: Counter[str] = Counter()
    lines: Counter[str] = Counter()
    for frames, count in stacks:
        stages[_stage(frames)] += count
        lines[next((frame for frame in reversed(frames) if "/" in frame), "elsewhere")] += count
    return (
        {name: count / total * cost for name, count in stages.most_common()},
        {name: count / total * cost for name, count in lines.most_common(LINES)},
    )


def _stage(frames: list[str]) -> str:
    for frame in reversed(frames):
        # Frames are "function (path:line)"; paths of the package begin without a slash.
        text = re.sub(r"\((fastgate|bench)/", r"(/\1/", frame)
        for pattern, stage in STAGES:
            if re.search(pattern, text):
                return stage
    return "elsewhere"


def _replay(tree: Path) -> dict[str, Any]:
    """Run this bench's replay on a checkout's fastgate: the package that is imported first stays."""
    done = subprocess.run(_replaying(tree), cwd="/", stdout=subprocess.PIPE, check=True, timeout=300)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _replaying(tree: Path, *arguments: str) -> list[str]:
    code = (
        f"import runpy, sys; sys.path.insert(0, {str(tree)!r}); import fastgate; "
        f"sys.path.insert(0, {str(ROOT)!r}); runpy.run_module('bench.replay', run_name='__main__')"
    )
    return ["taskset", "-c", str(PROXY_CORE), sys.executable, "-c", code, *arguments]


def _page(result: dict[str, Any]) -> str:
    replayed = result["replay"]
    trees = [(name, shown(each["least_us"]), shown(each["tenth_us"])) for name, each in replayed.items()]
    pieces = next(iter(replayed.values()))["pieces_us"]
    return "\n".join(
        [
            "# Where the microseconds of a remembered request go\n",
            "A request under load, unobserved, in us of CPU:\n",
            _shares_table("part", result["live_us"]),
            "The Python alone, replayed without kernel and network, in us per request:\n",
            table(["checkout", "least", "tenth"], trees),
            "The same with other requests, least of this checkout:\n",
            _shares_table("requests", next(iter(replayed.values()))["others_us"]),
            "Where the replay spends them (py-spy's samples of the least):\n",
            _shares_table("stage", result["stages_us"]),
            "The pure steps alone, in us (least of many):\n",
            _shares_table("step", pieces),
            "Innermost lines:\n",
            _shares_table("line", result["lines_us"]),
            told(result["machine"]),
        ]
    )


def _shares_table(what: str, microseconds: Mapping[str, float]) -> str:
    return table([what, "us"], [(name, shown(value)) for name, value in microseconds.items()])
