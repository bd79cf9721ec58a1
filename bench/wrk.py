"""wrk, the load generator (Debian): runs it and reads what it says."""

import re
import subprocess
from typing import NamedTuple

from bench.machine import LOAD_CORE

_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}
_PERCENTILE = re.compile(r"^\s+(50|75|90|99)%\s+([0-9.]+)(us|ms|s|m)$", re.MULTILINE)
_REQUESTS = re.compile(r"^\s+([0-9]+) requests in ", re.MULTILINE)


class Load(NamedTuple):
    """What one run of wrk did."""

    requests: int
    milliseconds: dict[str, float]
    """Latency by percentile: "50", "75", "90", "99"."""


def run(port: int, *, seconds: float, connections: int, token: str, path: str = "/") -> Load:
    """Send GETs over kept-alive connections, one at a time on each. Raises RuntimeError unless all got a 2xx."""
    url = f"http://127.0.0.1:{port}{path}"
    duration = f"{max(1, round(seconds))}s"
    shape = ["-t1", f"-c{connections}", f"-d{duration}", "--latency", "-H", f"Authorization: Bearer {token}"]
    command = ["taskset", "-c", str(LOAD_CORE), "wrk", *shape, url]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60).stdout
    requests = _REQUESTS.search(text)
    if requests is None or "Non-2xx" in text or "Socket errors" in text:
        raise RuntimeError(f"not every request was answered:\n{text}")
    return Load(
        int(requests[1]), {name: float(value) * _UNITS[unit] for name, value, unit in _PERCENTILE.findall(text)}
    )
