"""Large bodies and events: are the octets the same, what do they cost, does anybody wait."""

import hashlib
import http.client
import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import quantiles

from bench.figures import Figures
from bench.loads import using
from bench.parts import Part
from bench.stubs.streams import BLOCK, blocks, digest
from bench.traffic import TOKEN
from bench.usage import rss_kib

BEARER = {"Authorization": f"Bearer {TOKEN}"}
_TICK = 0.1
"""Seconds between two readings of a slow reader."""


@dataclass(frozen=True)
class Transfer:
    """One body after another, each as fast as it goes; the digest is compared at the other end."""

    move: Callable[[http.client.HTTPConnection, int], str]
    """(connection, megabytes) -> SHA-256 at the other end."""
    megabytes: int = 100

    def prepare(self, proxy: Part, stack: ExitStack) -> None:
        """Move a small one."""
        del stack
        self._moved(proxy, 10)

    def measure(self, proxy: Part, seconds: float) -> Figures:
        """Move one, whatever the seconds."""
        del seconds
        used: Figures = {}
        with using(proxy, used):
            self._moved(proxy, self.megabytes)
        return {
            "cpu_s_per_gb": used["cpu_s"] / self.megabytes * 1000,
            "mb_per_s": self.megabytes / used["elapsed_s"],
            "core": used["cpu_s"] / used["elapsed_s"],
            "others": used["others"],
        }

    def _moved(self, proxy: Part, megabytes: int) -> None:
        connection = _connection(proxy)
        try:
            if self.move(connection, megabytes) != digest(megabytes):
                raise RuntimeError("the octets are not the same at the other end")
        finally:
            connection.close()


def down(connection: http.client.HTTPConnection, megabytes: int) -> str:
    """Get a body with Content-Length."""
    return _got(connection, f"/down/{megabytes}")


def down_chunked(connection: http.client.HTTPConnection, megabytes: int) -> str:
    """Get a body in chunks."""
    return _got(connection, f"/down/{megabytes}?chunked")


def up(connection: http.client.HTTPConnection, megabytes: int) -> str:
    """Send a body with Content-Length."""
    return _sent(connection, megabytes, {"Content-Length": str(megabytes * len(BLOCK))})


def up_chunked(connection: http.client.HTTPConnection, megabytes: int) -> str:
    """Send a body in chunks."""
    return _sent(connection, megabytes, {"Transfer-Encoding": "chunked"})


@dataclass(frozen=True)
class Events:
    """Server-sent events: how old is each when it arrives."""

    count: int = 100

    def prepare(self, proxy: Part, stack: ExitStack) -> None:
        """Nothing to warm up."""

    def measure(self, proxy: Part, seconds: float) -> Figures:
        """Listen to one stream."""
        del seconds
        connection = _connection(proxy)
        try:
            connection.request("GET", f"/events/{self.count}", headers=BEARER)
            answer, ages = connection.getresponse(), []
            while line := answer.readline():
                if line.startswith(b"data: "):
                    # Both ends read the same clock of the machine.
                    ages.append((time.monotonic_ns() - int(line.removeprefix(b"data: "))) / 1e6)
        finally:
            connection.close()
        if len(ages) != self.count:
            raise RuntimeError(f"{len(ages)} of {self.count} events arrived")
        cuts = quantiles(ages, n=100)
        return {"p50_ms": cuts[49], "p90_ms": cuts[89], "p99_ms": cuts[98]}


@dataclass(frozen=True)
class SlowReader:
    """A large answer to a client that reads so many octets a second; after the given time it reads all the rest."""

    megabytes: int = 1000
    rate: int = 1_000_000

    def prepare(self, proxy: Part, stack: ExitStack) -> None:
        """Let the same reader read 20 MB."""
        del stack
        self._read(proxy, 20, 1)

    def measure(self, proxy: Part, seconds: float) -> Figures:
        """Sample the proxy's memory at every reading."""
        before = rss_kib(proxy.worker)
        samples = self._read(proxy, self.megabytes, seconds)
        return {"rss_mb": before * 1024 / 1e6, "rss_growth_mb": (max(samples) - before) * 1024 / 1e6}

    def _read(self, proxy: Part, megabytes: int, seconds: float) -> list[int]:
        connection, whole, samples = _connection(proxy), hashlib.sha256(), []
        try:
            connection.request("GET", f"/down/{megabytes}", headers=BEARER)
            answer = connection.getresponse()
            turn = time.monotonic()
            ends = turn + seconds
            while piece := answer.read(round(self.rate * _TICK) if turn < ends else len(BLOCK)):
                whole.update(piece)
                samples.append(rss_kib(proxy.worker))
                if turn < ends:
                    turn += _TICK
                    time.sleep(max(0.0, turn - time.monotonic()))
        finally:
            connection.close()
        if whole.hexdigest() != digest(megabytes):
            raise RuntimeError("the octets are not the same at the other end")
        return samples


def _connection(proxy: Part) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=60, blocksize=len(BLOCK))


def _got(connection: http.client.HTTPConnection, path: str) -> str:
    whole, room = hashlib.sha256(), memoryview(bytearray(len(BLOCK)))
    connection.request("GET", path, headers=BEARER)
    answer = connection.getresponse()
    while size := answer.readinto(room):
        whole.update(room[:size])
    return whole.hexdigest()


def _sent(connection: http.client.HTTPConnection, megabytes: int, headers: dict[str, str]) -> str:
    connection.request("PUT", "/up", blocks(megabytes), BEARER | headers, encode_chunked="Transfer-Encoding" in headers)
    answer = connection.getresponse()
    return str(json.loads(answer.read())["sha256"])
