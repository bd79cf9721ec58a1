"""wrk, the load generator (Debian): it sends requests composed beforehand, and says what came back."""

import json
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from bench.machine import LOAD_CORE
from tests.support.process import scratch

_MARK = "measured: "
# A request costs wrk one look into a table. Requests have no zero octet: it separates them in the file.
_SCRIPT = """\
local requests, at = {}, 0
for request in io.open("%s", "rb"):read("*a"):gmatch("[^%%z]+") do requests[#requests + 1] = request end
local count = #requests
function request()
    at = at %% count + 1
    return requests[at]
end
%s
function done(summary, latency)
    local errors = summary.errors
    local lost = errors.connect + errors.read + errors.write + errors.timeout
    local line = '%s{"requests": %%d, "seconds": %%.6f, "lost": %%d, "refused": %%d, "us": [%%d, %%d, %%d, %%d]}\\n'
    io.write(line:format(summary.requests, summary.duration / 1e6, lost, errors.status,
        latency:percentile(50), latency:percentile(90), latency:percentile(99), latency.max))
end
"""
_PAUSE = "function delay() return math.random(0, %d) end"


class Load(NamedTuple):
    """What one run of wrk did."""

    requests: int
    """Answered."""
    seconds: float
    refused: int
    """Answered with 400 or more."""
    lost: int
    """Not answered: connections refused or broken, answers that came too late."""
    milliseconds: dict[str, float]
    """Latency: "p50", "p90", "p99", "most"."""


def run(port: int, requests: Sequence[bytes], *, seconds: float, connections: int, pause_ms: int = 0) -> Load:
    """Send these requests one after the other, over kept-alive connections, one at a time on each.

    A connection waits `pause_ms` on average between an answer and its next request. wrk knows whole seconds only.
    """
    with start(port, requests, seconds=seconds, connections=connections, pause_ms=pause_ms) as process:
        text, _ = process.communicate(timeout=seconds + 60)
    if process.returncode:
        raise RuntimeError(f"wrk ended with {process.returncode}: {text}")
    return read(text)


def start(
    port: int, requests: Sequence[bytes], *, seconds: float, connections: int, pause_ms: int = 0
) -> "subprocess.Popen[str]":
    """Do the same in the background."""
    duration = f"{max(1, round(seconds))}s"
    shape = ["-t1", f"-c{connections}", f"-d{duration}", "-s", str(_script(tuple(requests), pause_ms))]
    command = ["taskset", "-c", str(LOAD_CORE), "wrk", *shape, f"http://127.0.0.1:{port}/"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def read(text: str) -> Load:
    """Read what our script wrote at the end. Raises RuntimeError when it wrote nothing."""
    for line in text.splitlines():
        if line.startswith(_MARK):
            found = json.loads(line.removeprefix(_MARK))
            names = ("p50", "p90", "p99", "most")
            latency = {name: value / 1000 for name, value in zip(names, found["us"], strict=True)}
            return Load(found["requests"], found["seconds"], found["refused"], found["lost"], latency)
    raise RuntimeError(f"wrk did not finish:\n{text}")


@cache
def _script(requests: tuple[bytes, ...], pause_ms: int) -> Path:
    folder = scratch("bench-wrk")
    data, script = folder / "requests", folder / "script.lua"
    data.write_bytes(b"\0".join(requests))
    script.write_text(_SCRIPT % (data, _PAUSE % (2 * pause_ms) if pause_ms else "", _MARK))
    return script
