"""How a subject is put under load, and what is measured meanwhile."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol

from bench import wrk
from bench.figures import Figures
from bench.machine import PROXY_CORE
from bench.parts import Part
from bench.usage import core_seconds, cpu_times


class Load(Protocol):
    """What a subject of a measurement does."""

    def prepare(self, proxy: Part, stack: ExitStack) -> None:
        """Warm up; what must stay open during the rounds goes onto the stack."""

    def measure(self, proxy: Part, seconds: float) -> Figures:
        """Do it once. Raises RuntimeError when a request was not answered as it should be."""


@dataclass(frozen=True)
class Requests:
    """Requests over kept-alive connections, one at a time on each, as fast as they are answered or with pauses."""

    compose: Callable[[], tuple[bytes, ...]]
    refused: bool = False
    """Whether every answer must be a refusal (400 or more), instead of none."""
    each_once: bool = False
    """Whether every distinct request is sent once beforehand."""
    connections: int = 64
    pause_ms: int = 0

    def prepare(self, proxy: Part, stack: ExitStack) -> None:
        """Warm up for a second."""
        del stack
        requests = self.compose()
        if self.each_once:
            asyncio.run(send_all(proxy.port, sorted(set(requests))))
        self._send(proxy, requests, 1)

    def measure(self, proxy: Part, seconds: float) -> Figures:
        """Measure the cost of a request and the latency."""
        requests = self.compose()
        used: Figures = {}
        with using(proxy, used):
            load = self._send(proxy, requests, seconds)
        return {
            "cpu_us": used["cpu_s"] / load.requests * 1e6,
            "kernel_us": used["kernel_s"] / load.requests * 1e6,
            **{f"{name}_ms": value for name, value in load.milliseconds.items() if name != "most"},
            "requests_per_s": load.requests / load.seconds,
            # wrk needs a moment to begin and end, in which nothing is asked of the proxy.
            "core": used["cpu_s"] / load.seconds,
            "others": used["others"],
        }

    def _send(self, proxy: Part, requests: Sequence[bytes], seconds: float) -> wrk.Load:
        load = wrk.run(proxy.port, requests, seconds=seconds, connections=self.connections, pause_ms=self.pause_ms)
        if load.lost or load.refused != (load.requests if self.refused else 0):
            raise RuntimeError(f"not every request was answered as it should be: {load}")
        return load


@contextmanager
def using(proxy: Part, used: Figures) -> Iterator[None]:
    """Find out what is used meanwhile: "cpu_s", "kernel_s", "elapsed_s", and "others": their share of the core."""
    started, busy, before = time.monotonic(), core_seconds(PROXY_CORE), cpu_times(proxy.pid)
    yield
    cpu, busy, elapsed = cpu_times(proxy.pid) - before, core_seconds(PROXY_CORE) - busy, time.monotonic() - started
    used.update(cpu_s=cpu.total, kernel_s=cpu.system, elapsed_s=elapsed, others=max(0.0, busy - cpu.total) / elapsed)


async def send_all(port: int, requests: Sequence[bytes], connections: int = 64) -> None:
    """Send each of these requests once. Raises RuntimeError when one is not answered with 200."""
    left = iter(requests)

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for request in left:
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                if not head.startswith(b"HTTP/1.1 200 "):
                    raise RuntimeError(f"not answered with 200: {head!r}")
                await reader.readexactly(_length(head))
        finally:
            writer.close()

    await asyncio.gather(*(client() for _ in range(connections)))


def _length(head: bytes) -> int:
    return int(head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
