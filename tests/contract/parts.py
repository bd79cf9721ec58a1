"""What contract tests are made of: a configuration file, the gateway that serves it, the lane it serves it with.

A contract test looks at the gateway through its sockets and its admin listener only, so that it means the same
whatever lane is behind them.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from fastgate.app import App
from fastgate.clock import Clock
from fastgate.config.compile import compile_snapshot
from fastgate.config.load import load
from fastgate.model import Address, Snapshot
from tests.support.client import PATIENCE
from tests.support.gateway import Gateway
from tests.support.idp import Idp
from tests.support.upstream import Upstream

SECRET = "hunter2-of-the-gateway"
READER = {"sub": "alex", "scope": "read", "aud": "api", "client_id": "app", "sid": "s1"}
"""Claims of a token that most routes of these tests are content with."""


class Served(Gateway):
    """The gateway in this process, started from a configuration file as `fastgate run` does, on free ports."""

    def __init__(
        self, config: Mapping[str, Any], *, clock: Clock | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(config, env=env)
        self._clock = clock
        self.app: App | None = None

    def _load(self) -> Snapshot:
        snapshot = compile_snapshot(load(str(self.file), self.env))
        settings = snapshot.settings
        admin = settings.admin and replace(settings.admin, address=_anywhere(settings.admin.address))
        events = settings.events and _anywhere(settings.events)
        listen = tuple(map(_anywhere, settings.listen))
        return replace(snapshot, settings=replace(settings, listen=listen, admin=admin, events=events))

    async def start(self) -> Self:
        """Start; identity providers and upstreams may be down."""
        self.write()
        self.app = App(self._load, clock=self._clock)
        await self.app.start()
        self.port = self.app.addresses[0][1]
        if self.app.admin_address is not None:
            self.admin_port = self.app.admin_address[1]
        if self.app.events_address is not None:
            self.events_port = self.app.events_address[1]
        return self

    async def stop(self) -> int:
        """Drain, as SIGTERM does; returns how many connections were cut."""
        assert self.app is not None
        app, self.app = self.app, None
        return await app.drain()

    async def ready(self) -> Self:
        """Wait until GET /readyz says 200."""
        async with asyncio.timeout(PATIENCE):
            while (await self.readiness())[0] != 200:  # noqa: ASYNC110 - seen from outside, as a load balancer does
                await asyncio.sleep(0.02)
        return self

    async def reload(self, **changes: Any) -> None:
        """Change top-level keys of the file and have it read again; it must be good."""
        self.write(changes)
        answer = await self.admin("POST", "/config/reload")
        assert answer.status == 200, answer

    async def until_metric(self, value: float, name: str, **labels: str) -> None:
        """Wait until a metric has reached this value."""
        async with asyncio.timeout(PATIENCE):
            while await self.metric(name, **labels) < value:  # noqa: ASYNC110 - seen from outside
                await asyncio.sleep(0.01)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.app is None:
            return
        if error is not None:
            await self.app.stop()
            return
        assert await self.stop() == 0, "connections had to be cut"


class Lane:
    """One way of carrying requests through the gateway. The express lane leaves to the general one what is unusual."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(
        self, config: Mapping[str, Any], *, clock: Clock | None = None, env: Mapping[str, str] | None = None
    ) -> Served:
        """Make a gateway that serves this configuration with this lane; `async with` starts and stops it."""
        return Served({**config, "express_lane": self.name == "express"}, clock=clock, env=env)


class StillClock:
    """A clock for the gateway that stands still until told otherwise."""

    def __init__(self, wall: float) -> None:
        self.wall = wall
        self.steady = 1000.0

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.steady

    def pass_(self, seconds: float) -> None:
        """Let time pass, as real time does."""
        self.wall += seconds
        self.steady += seconds


def provider(idp: Idp, **changes: Any) -> dict[str, Any]:
    """Configure an identity provider by its endpoint, with patience for a busy machine; asked when it must be."""
    plain = {
        "introspection_endpoint": idp.endpoint,
        "client_id": "gateway",
        "client_secret": SECRET,
        "timeout": "20s",
        "cache_ask_ahead": 0,
    }
    return {key: value for key, value in {**plain, **changes}.items() if value is not None}


def route(path: str, auth: Any = None, **changes: Any) -> dict[str, Any]:
    """Configure a route; its name is its path without slashes."""
    plain: dict[str, Any] = {"name": path.strip("/").replace("/", "-") or "all", "paths": [path]}
    if auth is not None:
        plain["auth"] = auth
    return {**plain, **changes}


def service(upstream: Upstream, *routes: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """Configure a service before this upstream."""
    return {"name": "upstream", "url": upstream.url, "routes": list(routes), **changes}


def config(idp: Idp, upstream: Upstream, *routes: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """Configure one identity provider and one service; without routes: /public, /api (scope read), /any (a token)."""
    usual = (route("/public", "none"), route("/api", {"scopes_required": ["read"]}), route("/any"))
    plain = {
        "identity_providers": {"idp": provider(idp)},
        "services": [service(upstream, *(routes or usual))],
        "log": {"access": False},
    }
    return {**plain, **changes}


def bearer(token: str) -> tuple[str, str]:
    """Write the header that carries a token."""
    return "Authorization", f"Bearer {token}"


def _anywhere(address: Address) -> Address:
    return replace(address, port=0)
