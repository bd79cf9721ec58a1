"""What the cluster's cases run in: two gateways of two workers, a real Redis, an identity provider, an upstream.

The parts are processes of their own and share all cores: these cases count what goes wrong, and show what is felt.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from bench.machine import ROOT
from bench.settings import PROVIDER, SCOPE
from bench.usage import children, core_seconds, cpu_times, open_files, rss_kib
from tests.support.client import fetch
from tests.support.connections import Ends, holders
from tests.support.gateway import Gateway
from tests.support.ledger import Line
from tests.support.process import Process, answers, free_port
from tests.support.redis import Redis

HOSTS, WORKERS = 2, 2
SECRET = "a-secret-that-seals-what-the-bench-leaves-in-redis"
CLIENT_SECRET = "a-secret-of-the-bench-at-its-identity-provider"


class Spent(NamedTuple):
    """Seconds, at a moment of the monotonic clock."""

    at: float
    busy: float
    """All cores, with anything."""
    gateways: float

    def since(self, before: "Spent") -> dict[str, float]:
        """How many cores were busy on average."""
        seconds = self.at - before.at
        return {
            "cores_busy": (self.busy - before.busy) / seconds,
            "cores_gateways": (self.gateways - before.gateways) / seconds,
        }


class Census(NamedTuple):
    """What the gateways take, all their processes together."""

    rss_mb: float
    files: int
    kept: int
    """Of the files: connections to Redis and to the identity provider, of which every worker keeps what it needed."""


class Stub:
    """A stub as a process that can be killed and started again on its port."""

    def __init__(self, name: str) -> None:
        self.port = free_port()
        self._name = name
        self._process: Process | None = None

    def start(self) -> None:
        """Start it and wait until it listens."""
        command = [sys.executable, "-m", f"bench.stubs.{self._name}", str(self.port)]
        environment = {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        process = self._process = Process(self._name, command, cwd=Path("/"), env=environment)
        process.wait_until(lambda: answers(self.port))

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    async def ask(self, method: str, path: str) -> Any:
        """Steer it or ask it; its JSON, if it says any."""
        answer = await fetch(self.port, method, path)
        return json.loads(answer.body) if answer.body else None


class Asked(NamedTuple):
    """What the identity provider was asked."""

    total: int
    when: list[tuple[float, int]]
    """The latest: monotonic seconds, and the port that the question came from."""


class Hosts:
    """Two gateways behind which everything can be broken; `async with` starts and stops it all."""

    def __init__(
        self,
        *,
        redis: str | None = None,
        redis_timeout: str | None = None,
        provider: Mapping[str, Any] | None = None,
        cache: Mapping[str, Any] | None = None,
        **top: Any,
    ) -> None:
        """`redis` is a URL instead of the server of its own; the others change the configuration."""
        self._url = redis
        self._patience = {} if redis_timeout is None else {"timeout": redis_timeout}
        self._changes = (dict(provider or {}), dict(cache or {}), top)
        self.idp, self.upstream = Stub("sick"), Stub("who")
        self.gateways: list[Gateway] = []
        self._stack = AsyncExitStack()

    @property
    def ports(self) -> list[int]:
        """Where clients ask."""
        return [each.port for each in self.gateways]

    def config(self) -> dict[str, Any]:
        """Write down what both gateways are configured with."""
        provider, cache, top = self._changes
        usual = {
            "introspection_endpoint": f"http://127.0.0.1:{self.idp.port}/introspect",
            "client_id": "bench",
            "client_secret": CLIENT_SECRET,
            "cache_ttl_max": "1h",
            "cache_ttl_neg": "1h",
            # Bad tokens are a part of every load; the flood has a case of its own.
            "introspection_inactive_rate": 10_000,
        }
        auth = {"scopes_required": [SCOPE], "upstream_headers": [{"header": "X-Subject", "path": ["sub"]}]}
        service = {
            "name": "who",
            "url": f"http://127.0.0.1:{self.upstream.port}",
            "auth": auth,
            "idle_timeout": "5s",
            "routes": [
                {"name": "open", "paths": ["/open/"], "auth": "none"},
                {"name": "all", "paths": ["/r/"]},
            ],
        }
        url = self._url or self.redis.url
        return {
            "workers": WORKERS,
            "identity_providers": {PROVIDER: usual | provider},
            "services": [service],
            "cache": {"redis": {"url": url, "secrets": [SECRET], **self._patience}} | cache,
            "log": {"format": "json", "access": False},
            **top,
        }

    async def __aenter__(self) -> Self:
        if self._url is None:
            self.redis = self._stack.enter_context(await asyncio.to_thread(Redis))
        for stub in (self.idp, self.upstream):
            await asyncio.to_thread(stub.start)
            self._stack.callback(stub.kill)
        made = [Gateway(self.config()) for _ in range(HOSTS)]
        self.gateways = await asyncio.gather(*(self._stack.enter_async_context(each) for each in made))
        await asyncio.gather(*(each.ready() for each in made))
        await self.shared()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    # --- what they say ----------------------------------------------------------------------------------------

    async def shared(self, *, writable: bool = True, patience: float = 60.0) -> float:
        """Wait until every worker uses Redis, and may write; returns the monotonic time."""
        deadline = time.monotonic() + patience
        while not all([await _shares(each, writable=writable) for each in self.gateways]):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not every worker uses Redis again after {patience:g} s")
            await asyncio.sleep(0.01)
        return time.monotonic()

    async def metric(self, name: str, **labels: str) -> int:
        """Add one up over both gateways."""
        return int(sum([await each.metric(name, **labels) for each in self.gateways]))

    async def asked(self, since: float | None = None) -> Asked:
        """What the identity provider was asked; `when` since a moment."""
        told = await self.idp.ask("GET", "/asked" if since is None else f"/asked?since={since}")
        return Asked(told["total"], [(at, port) for at, port in told["when"]])

    async def pids(self, gateway: Gateway) -> dict[int, int]:
        """Its serving workers."""
        workers = (await gateway.status())["workers"]
        return {each["worker"]: each["pid"] for each in workers if each["state"] == "serving"}

    def census(self) -> Census:
        """Memory and descriptors of every process of both gateways."""
        pids = [pid for each in self.gateways if each.process is not None for pid in children(each.process.pid)]
        kept = {self.idp.port} | ({self.redis.port} if hasattr(self, "redis") else set())
        return Census(sum(map(rss_kib, pids)) / 1024, sum(map(open_files, pids)), _connected(kept))

    def spent(self) -> Spent:
        """What this machine and both gateways have used of its cores until now."""
        ours = [cpu_times(each.process.pid).total for each in self.gateways if each.process is not None]
        return Spent(time.monotonic(), sum(map(core_seconds, range(os.cpu_count() or 1))), sum(ours))

    async def every_pid(self) -> set[int]:
        """All serving workers."""
        return {pid for each in self.gateways for pid in (await self.pids(each)).values()}

    async def lines(self) -> dict[int, Line]:
        """One connection to every worker, by its process id."""
        found: dict[int, Line] = {}
        for gateway in self.gateways:
            wanted = set((await self.pids(gateway)).values())
            while not wanted <= found.keys():
                line = await Line.connect(gateway.port)
                await line.ask(b"GET /-/nowhere HTTP/1.1\r\nHost: bench\r\n\r\n")
                ends = Ends(line.peer, line.port)
                pid = holders({ends}, wanted).get(ends)
                if pid is None or pid in found:
                    line.close()
                else:
                    found[pid] = line
        return found


async def _shares(gateway: Gateway, *, writable: bool) -> bool:
    status = await gateway.status()
    serving = [each for each in status["workers"] if each["state"] == "serving"]
    said = status["cache"].get("shared", {})
    return len(serving) == WORKERS and said.get("reachable") is True and (said["writable"] or not writable)


def _connected(ports: set[int]) -> int:
    """Count the established connections to these loopback ports."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    fields = [line.split() for line in lines]
    return sum(each[3] == "01" and int(each[2].rpartition(":")[2], 16) in ports for each in fields)
