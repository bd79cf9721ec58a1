"""What the figures belong to: the machine, the versions, the commit; and the cores the parts are put on."""

import os
import platform
import resource
import shutil
import subprocess
import sys
import timeit
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOAD_CORE = 0
"""Load generator, upstream, identity provider and the bench itself."""
PROXY_CORE = 1
"""The proxy under test, alone as far as the bench is concerned."""
_PEERS = (
    "nginx",
    "haproxy",
    "apache2-bin",
    "libapache2-mod-auth-openidc",
    "libapache2-mod-oauth2",
    "libnginx-mod-http-lua",
    "wrk",
)
"""Debian packages."""


class NotPossibleError(Exception):
    """What is asked cannot be done on this machine; the text says what would help."""


def progress(text: str) -> None:
    """Say what is being done."""
    print(text, file=sys.stderr, flush=True)


def settle() -> None:
    """Move the bench to its core (its children inherit that) and allow it many open files."""
    if not {LOAD_CORE, PROXY_CORE} <= os.sched_getaffinity(0):
        raise NotPossibleError("two cores are needed: one for the load, one for the proxy under test")
    os.sched_setaffinity(0, {LOAD_CORE})
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def description() -> dict[str, object]:
    """Everything that somebody who compares two results has to know."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "interpreter": sys.executable,
        "interpreter_pace_ns": _pace(),
        "aiohttp": version("aiohttp"),
        "uvloop": version("uvloop"),
        **{name: number for name in _PEERS if (number := _package(name))},
        "commit": _commit(),
        "load_1m_before": round(os.getloadavg()[0], 2),
    }


def _pace() -> float:
    """Nanoseconds that this interpreter takes for a fixed piece of Python: builds of one version differ by a third."""
    statement = "for i in range(1000): pair = (i, text); b'%b: %b' % (text, text); text.find(b'y')"
    runs = timeit.repeat(statement, "text = b'x' * 40", number=20, repeat=20)
    return round(min(runs) / 20 / 1000 * 1e9, 1)


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    """The commit, and whether anything but results differs from it."""
    git = ("git", "-C", str(ROOT))
    changed = _said(*git, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/results")
    return _said(*git, "rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")


def _package(name: str) -> str:
    said = _said("dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", name)
    return said.removeprefix("installed ") if said.startswith("installed ") else ""


def _said(*command: str) -> str:
    """First line of what a program says, wherever it says it; "" when it is not here."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).partition("\n")[0].partition(" Copyright")[0].strip()
