"""Resident memory per idle connection: clients that connected and said nothing, and clients between two requests."""

import argparse
import socket
from contextlib import ExitStack

from bench import parts
from bench.machine import description, need
from bench.parts import Part
from bench.report import progress, save, table
from bench.settings import TOKEN
from bench.usage import rss_kib

WARM_UP = 200
REQUEST = f"GET / HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what can be chosen."""
    parser.add_argument("--connections", type=int, default=5000, help="idle at once (default 5000)")


def run(arguments: argparse.Namespace) -> None:
    """Measure and report."""
    need("nginx")
    machine = description()
    number = arguments.connections
    rows, found = [], {}
    for name, speaks in (("connected, silent", False), ("between two requests", True)):
        progress(f"{number} connections: {name}")
        before, after = _measure(number, speaks=speaks)
        each = (after - before) / number
        found[name] = {"rss_before_kib": before, "rss_after_kib": after, "kib_per_connection": round(each, 2)}
        rows.append([name, round(before / 1024, 1), round(after / 1024, 1), each])
    heads = ["connections", "RSS before MiB", "RSS after MiB", "KiB each"]
    result = {"machine": machine, "connections": number, "idle": found}
    save("idle", f"Memory of {number} idle connections", table(heads, rows), result)


def _measure(number: int, *, speaks: bool) -> tuple[int, int]:
    """RSS of a fresh gateway in KiB, warmed up and with so many connections more."""
    with ExitStack() as stack:
        origin = stack.enter_context(parts.hello_origin())
        idp = stack.enter_context(parts.stub("idp"))
        limits = {"connections": number + WARM_UP, "keepalive_timeout": "10m"}
        gateway = stack.enter_context(parts.fastgate(origin, idp, limits=limits))
        for _ in range(WARM_UP):
            _connect(gateway, speaks=True).close()
        before = rss_kib(gateway.pid)
        for _ in range(number):
            stack.enter_context(_connect(gateway, speaks=speaks))
        # Whoever is served now was accepted after all of them.
        _connect(gateway, speaks=True).close()
        return before, rss_kib(gateway.pid)


def _connect(gateway: Part, *, speaks: bool) -> socket.socket:
    """Open a connection; with `speaks`, get one answer on it."""
    client = socket.create_connection(("127.0.0.1", gateway.port), timeout=30)
    if speaks:
        client.sendall(REQUEST)
        received = b""
        while not received.endswith(parts.HELLO.encode()):
            piece = client.recv(65536)
            if not piece:
                raise RuntimeError(f"the gateway closed an idle connection: {received!r}")
            received += piece
    return client
