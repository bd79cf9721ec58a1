"""Realistic users, by locust, and everything they need: an identity provider, an API, and fastgate in front of it."""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from bench.machine import ROOT, NotPossibleError
from tests.support.process import Process, answers, free_port, scratch

LOCUSTFILE = "bench/locustfile.py"
HEADLESS = ("--headless", "--only-summary", "--users=50", "--spawn-rate=25", "--run-time=30s")
"""What a run is unless it is told otherwise; the last word counts."""
PROTECTED = {"scopes_required": ["bench.read"]}
INACTIVE_RATE = 10_000
"""Invented tokens a second: the strangers among many users must not be held off with 503."""


class Ports(NamedTuple):
    """Where the parts listen, on loopback."""

    gateway: int
    admin: int
    idp: int
    api: int


USUAL = Ports(gateway=8000, admin=8001, idp=8002, api=8003)
"""What the locustfile assumes when it is told nothing."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what can be chosen."""
    parser.add_argument("--serve", action="store_true", help="start the parts, on ports 8000 to 8003, but not locust")
    parser.add_argument("locust", nargs="*", metavar="ARGUMENT", help="for locust, after `--`: -- --users 200")


def run(arguments: argparse.Namespace) -> None:
    """Serve until Ctrl-C, or let locust run; its exit status becomes ours."""
    if find_spec("locust") is None:
        raise NotPossibleError(f"locust is needed: run `{sys.executable} -m pip install '.[bench]'`")
    # No measurement: nothing is pinned.
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    ports = USUAL if arguments.serve else Ports(*(free_port() for _ in Ports._fields))
    with serving(ports):
        if arguments.serve:
            _introduce()
            signal.pause()
        raise SystemExit(_finished(locust_command(ports, *HEADLESS, *arguments.locust)))


def locust_command(ports: Ports, *arguments: str) -> list[str]:
    """Write the command line, for the root of the checkout."""
    return [
        *(sys.executable, "-m", "locust", "-f", LOCUSTFILE),
        *("--host", f"http://127.0.0.1:{ports.gateway}"),
        *("--admin-url", f"http://127.0.0.1:{ports.admin}"),
        *("--token-url", f"http://127.0.0.1:{ports.idp}/token"),
        *arguments,
    ]


@contextmanager
def serving(ports: Ports, auth: object = PROTECTED) -> Iterator[None]:
    """Run the parts, stop the parts; `auth` is what the gateway's one route asks for."""
    file = scratch("bench-load") / "fastgate.yaml"
    file.write_text(json.dumps(_gateway_config(ports, auth)))  # JSON is YAML
    parts = {
        ports.idp: ("bench.stubs.idp", str(ports.idp)),
        ports.api: ("bench.stubs.api", str(ports.api)),
        ports.gateway: ("fastgate", "run", "-c", str(file)),
    }
    with ExitStack() as stack:
        for port, (module, *arguments) in parts.items():
            if answers(port):
                raise NotPossibleError(f"something listens on port {port} already")
            stack.enter_context(_part(module, arguments, port))
        yield


@contextmanager
def _part(module: str, arguments: Sequence[str], port: int) -> Iterator[None]:
    environment = {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    process = Process(module, [sys.executable, "-m", module, *arguments], cwd=Path("/"), env=environment)
    try:
        process.wait_until(lambda: answers(port))
        yield
        process.stop(10)
    finally:
        process.kill()


def _gateway_config(ports: Ports, auth: object) -> dict[str, Any]:
    provider = {
        "introspection_endpoint": f"http://127.0.0.1:{ports.idp}/introspect",
        "client_id": "bench",
        "client_secret": "bench",
        "introspection_inactive_rate": INACTIVE_RATE,
    }
    return {
        "listen": f"127.0.0.1:{ports.gateway}",
        "admin": {"listen": f"127.0.0.1:{ports.admin}"},
        "identity_providers": {"bench": provider},
        "services": [
            {
                "name": "api",
                "url": f"http://127.0.0.1:{ports.api}",
                "routes": [{"name": "all", "paths": ["/"], "auth": auth}],
            }
        ],
        "log": {"format": "json", "access": False},
    }


def _finished(command: Sequence[str]) -> int:
    """Let it run in the foreground, to its end; returns its exit status."""
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait(15)
        raise


def _introduce() -> None:
    locust = shlex.join([sys.executable, "-m", "locust", "-f", LOCUSTFILE])
    print(
        f"""\
Running: fastgate on port {USUAL.gateway}, its admin listener on {USUAL.admin}, an identity provider on {USUAL.idp}, \
an API on {USUAL.api}.

with a web UI, http://127.0.0.1:8089
    {locust}
without, on two cores
    {locust} --headless --users 200 --run-time 1m --processes 2
distributed: one master, and as many workers as you like, on any machine
    {locust} --master
    {locust} --worker --master-host 127.0.0.1

Ctrl-C stops everything.""",
        flush=True,
    )
