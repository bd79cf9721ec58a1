"""Two hosts of two workers, a Redis, an identity provider and a witness behind them: what cluster steps look at."""

import asyncio
import json
import random
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from bench.clients import Person
from bench.machine import ROOT
from bench.settings import gateway_config
from bench.usage import rss_kib
from tests.support.client import fetch
from tests.support.gateway import Gateway
from tests.support.ledger import Line
from tests.support.process import Process, answers, free_port
from tests.support.redis import SECRET, Redis

WORKERS: Final = 2
TIMEOUT: Final = 2.0
"""Seconds for a question to the identity provider; the default of a gateway."""


class Hosts:
    """Everything, on loopback; nothing is pinned."""

    def __init__(
        self, redis: Redis, url: str, *, more: Mapping[str, Any] | None = None, cache: Mapping[str, Any] | None = None
    ) -> None:
        """`url` is how gateways know the Redis; `more` and `cache` are settings, of the identity provider too."""
        self.redis = redis
        self.idp_port, self.witness_port = free_port(), free_port()
        plain = gateway_config(
            port=0, origin=self.witness_port, idp=self.idp_port, access_log=False, asks="/introspect/hosts"
        )
        plain["identity_providers"]["bench"] |= {"timeout": f"{TIMEOUT:g}s"} | dict(more or {})
        plain["services"][0]["auth"]["upstream_headers"] = [{"header": "X-Subject", "path": ["sub"]}]
        # Connections that nobody needs are gone when it is looked at what has stayed.
        plain["services"][0]["idle_timeout"] = "5s"
        del plain["listen"], plain["admin"]
        plain |= {"workers": WORKERS, "cache": {**(cache or {}), "redis": {"url": url, "secrets": [SECRET]}}}
        self.gateways = [Gateway(plain) for _ in range(2)]
        self._idp: Process | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            witness = _stub("witness", self.witness_port)
            stack.callback(witness.kill)
            stack.callback(self.end_idp)
            await self.start_idp()
            await asyncio.to_thread(witness.wait_until, lambda: answers(self.witness_port))
            for gateway in self.gateways:
                await stack.enter_async_context(gateway)
                await gateway.ready()
            self._stack = stack.pop_all()
        await self.sharing()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    # --- who is there -------------------------------------------------------------------------------------------

    @property
    def ports(self) -> list[int]:
        """Where clients ask."""
        return [gateway.port for gateway in self.gateways]

    async def pids(self) -> list[int]:
        """Every worker that serves."""
        said = [await gateway.status() for gateway in self.gateways]
        return [each["pid"] for status in said for each in status["workers"] if each["state"] == "serving"]

    async def serving(self, *, without: Sequence[int] = ()) -> None:
        """Wait until every worker serves, none of them one of these processes."""
        while len(now := await self.pids()) != WORKERS * len(self.gateways) or set(now) & set(without):  # noqa: ASYNC110 - seen from outside
            await asyncio.sleep(0.01)

    async def sharing(self) -> None:
        """Wait until every worker shares what it learns."""
        while await self.count("fastgate_shared_up", backend="redis") < WORKERS * len(self.gateways):  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    async def count(self, name: str, **labels: str) -> int:
        """Add a metric of all hosts up."""
        return int(sum([await gateway.metric(name, **labels) for gateway in self.gateways]))

    async def rss(self) -> float:
        """MB of all workers together."""
        return sum(rss_kib(pid) for pid in await self.pids()) * 1024 / 1e6

    def holder(self, port: int, pids: Sequence[int]) -> int:
        """Return which of these processes has this end of a connection; 0: none."""
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        sockets = {f"socket:[{row[9]}]" for row in rows if int(row[1].rpartition(":")[2], 16) == port}
        for pid in pids:
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                try:
                    if str(entry.readlink()) in sockets:
                        return pid
                except OSError:
                    continue
        return 0

    # --- the identity provider ----------------------------------------------------------------------------------

    async def start_idp(self) -> None:
        """Start it, well."""
        self._idp = _stub("idp", self.idp_port)
        await asyncio.to_thread(self._idp.wait_until, lambda: answers(self.idp_port))

    def end_idp(self) -> None:
        """Kill it."""
        if self._idp is not None:
            self._idp.kill()

    async def mood(self, mood: str) -> None:
        """Make it well, hang, fail or babble."""
        kind = ("Content-Type", "application/x-www-form-urlencoded")
        await fetch(self.idp_port, "POST", "/mood", kind, body=f"mood={mood}".encode())

    async def questions(self) -> int:
        """How often it was asked since it was started."""
        return int((await fetch(self.idp_port, "GET", "/questions/hosts")).body)

    async def asking(self) -> list[int]:
        """The ports of those who wait for its answer."""
        ports: list[int] = json.loads((await fetch(self.idp_port, "GET", "/asking")).body)
        return ports

    # --- the upstream -------------------------------------------------------------------------------------------

    async def witnessed(self, what: str) -> int:
        """How many requests were `bad` or `doubled`."""
        return int((await fetch(self.witness_port, "GET", f"/--/{what}")).body)

    # --- clients and operators ----------------------------------------------------------------------------------

    async def ask(self, person: Person, host: int | None = None) -> int:
        """Ask one host, or any, on a new connection; returns the status."""
        line = await Line.connect(random.choice(self.ports) if host is None else self.ports[host])
        request = f"GET / HTTP/1.1\r\nHost: b\r\nAuthorization: Bearer {person.token}\r\n\r\n"
        answer = await line.ask(request.encode())
        line.close()
        return int(answer[9:12])

    async def revoke(self, host: int, **what: Any) -> None:
        """Revoke at one host."""
        await self.gateways[host].revoke(**what)


def somebody(name: str, number: int, *, known: bool = True) -> Person:
    """Invent somebody with a good token."""
    return Person(f"bench-as-{name}{number}-{number:08}", f"{name}{number}", known=known)


BAD: Final = (
    Person("stale-token-0123456789abcdef", "", 401),
    Person("bench-narrow-0123456789abcdef", "", 403),
    Person(None, "", 401),
)
"""Inactive, without the scope, without a token: none of them may ever reach the upstream."""


def _stub(name: str, port: int) -> Process:
    return Process(name, [sys.executable, "-m", f"bench.stubs.{name}", str(port)], cwd=ROOT)
