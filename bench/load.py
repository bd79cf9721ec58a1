"""Realistic users, by locust, and everything they need: an identity provider, an API, and fastgate in front of it.

One fastgate, or two behind an HAProxy as deploy/haproxy.cfg describes it, with a Redis that they share.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

from bench.machine import ROOT, NotPossibleError
from tests.support.balancer import haproxy
from tests.support.cache import Missing
from tests.support.process import Process, answers, free_port, scratch
from tests.support.programs import program
from tests.support.redis import Redis

LOCUSTFILE = "bench/locustfile.py"
HEADLESS = ("--headless", "--only-summary", "--users=50", "--spawn-rate=25", "--run-time=30s")
"""What a run is unless it is told otherwise; the last word counts."""
PROTECTED = {"scopes_required": ["bench.read"]}
INACTIVE_RATE = 10_000
"""Invented tokens a second: the strangers among many users must not be held off with 503."""
SECRET = "a-secret-that-seals-what-the-bench-leaves-in-redis"
MAXCONN = 4000
"""Connections that the HAProxy takes."""
READY = 30.0
"""Seconds for a gateway to hear from its identity provider."""


class Ports(NamedTuple):
    """Where the parts listen, on loopback."""

    gateway: int
    """What users ask: the gateway, or the HAProxy before two."""
    admin: int
    """Of the gateway, or of one of the two."""
    idp: int
    api: int


USUAL = Ports(gateway=8000, admin=8001, idp=8002, api=8003)
"""What the locustfile assumes when it is told nothing."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what can be chosen."""
    parser.add_argument("--serve", action="store_true", help="start the parts, on ports 8000 to 8003, but not locust")
    parser.add_argument("--hosts", type=int, choices=(1, 2), default=1, help="2: behind an HAProxy, sharing a Redis")
    parser.add_argument("--workers", type=int, default=1, help="of each gateway")
    parser.add_argument("locust", nargs="*", metavar="ARGUMENT", help="for locust, after `--`: -- --users 200")


def run(arguments: argparse.Namespace) -> None:
    """Serve until Ctrl-C, or let locust run; its exit status becomes ours."""
    if find_spec("locust") is None:
        raise NotPossibleError(f"locust is needed: run `{sys.executable} -m pip install '.[bench]'`")
    # No measurement: nothing is pinned.
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    ports = USUAL if arguments.serve else Ports(*(free_port() for _ in Ports._fields))
    with serving(ports, hosts=arguments.hosts, workers=arguments.workers):
        if arguments.serve:
            _introduce(arguments.hosts)
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
def serving(ports: Ports, auth: object = PROTECTED, *, hosts: int = 1, workers: int = 1) -> Iterator[None]:
    """Run the parts, stop the parts; `auth` is what the gateway's one route asks for, `workers` are those of each."""
    for port in ports:
        if answers(port):
            raise NotPossibleError(f"something listens on port {port} already")
    with ExitStack() as stack:
        stack.enter_context(_part("bench.stubs.idp", [str(ports.idp)], ports.idp))
        stack.enter_context(_part("bench.stubs.api", [str(ports.api)], ports.api))
        if hosts == 1:
            stack.enter_context(_gateway(ports, auth, {"workers": workers}))
        else:
            stack.enter_context(_gateways(ports, auth, hosts, workers))
        yield


@contextmanager
def _gateways(ports: Ports, auth: object, hosts: int, workers: int) -> Iterator[None]:
    """Run a Redis, gateways that share it, and an HAProxy before them."""
    try:
        balancer, redis = program("haproxy"), Redis()
    except Missing as missing:
        raise NotPossibleError(str(missing)) from missing
    shared = {"workers": workers, "cache": {"redis": {"url": redis.url, "secrets": [SECRET]}}}
    admins = (ports.admin, *(free_port() for _ in range(hosts - 1)))
    each = [ports._replace(gateway=free_port(), admin=admin) for admin in admins]
    with redis, ExitStack() as stack:
        for at in each:
            stack.enter_context(_gateway(at, auth, shared))
        servers = [(at.gateway, at.admin) for at in each]
        folder = scratch("bench-haproxy")
        _, process = haproxy(balancer, ROOT / "deploy", folder, servers, port=ports.gateway, maxconn=MAXCONN)
        stack.callback(process.kill)
        process.wait_until(lambda: answers(ports.gateway))
        yield


@contextmanager
def _gateway(ports: Ports, auth: object, more: Mapping[str, Any]) -> Iterator[None]:
    file = scratch("bench-load") / "fastgate.yaml"
    file.write_text(json.dumps({**_gateway_config(ports, auth), **more}))  # JSON is YAML
    with _part("fastgate", ["run", "-c", str(file)], ports.gateway):
        deadline = time.monotonic() + READY
        while not _ready(ports.admin):
            if time.monotonic() > deadline:
                raise TimeoutError(f"a gateway was not ready after {READY:g} s")
            time.sleep(0.05)
        yield


def _ready(admin: int) -> bool:
    """Whether a balancer may send requests there; the public listener is open a moment before this one."""
    try:
        with urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=10):
            return True
    except OSError:  # refused, or HTTPError: not ready
        return False


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


def _introduce(hosts: int) -> None:
    locust = shlex.join([sys.executable, "-m", "locust", "-f", LOCUSTFILE])
    gateway, its = ("fastgate", "its admin listener") if hosts == 1 else ("HAProxy before two", "one's admin listener")
    print(
        f"""\
Running: {gateway} on port {USUAL.gateway}, {its} on {USUAL.admin}, an identity provider on {USUAL.idp}, \
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
