"""The gateway's data plane in this process, on real sockets, with a configuration made of model values.

Everything between the sockets is real; what the identity provider would say is remembered beforehand
(`Plane.knows`) or asked at a fake (`tests.support.idp`).
"""

import asyncio
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from fastgate.clock import SystemClock
from fastgate.dataplane.plane import Dataplane, Upstreams
from fastgate.dataplane.server import GatewayServer
from fastgate.errors import ForwardError
from fastgate.gate import Gate
from fastgate.model import (
    INACTIVE,
    Access,
    AccessPolicy,
    ActiveToken,
    Address,
    ClaimHeader,
    Completion,
    DenialReason,
    Extraction,
    Forwarding,
    Freshness,
    IdentityProvider,
    Limits,
    Match,
    Remembered,
    Requirement,
    Route,
    Service,
    Settings,
    Snapshot,
    Target,
    TokenSource,
)
from fastgate.policy import replies, routing
from fastgate.policy.digest import token_key
from fastgate.stats import Stats
from fastgate.tokens.memory import MemoryTier
from fastgate.tokens.resolver import Tokens
from fastgate.tokens.revocation import Revocations
from tests.support.client import RawClient

GOOD = "good-token"
"""Remembered as active, with scope "read" and subject "alex"."""
BAD = "bad-token"
"""Remembered as inactive."""
BEARER = ("Authorization", f"Bearer {GOOD}")


def service(*ports: int, name: str = "upstream", **changes: Any) -> Service:
    """An upstream on loopback ports."""
    targets = tuple(Target("127.0.0.1", port) for port in ports)
    return replace(Service(name, "http", "upstream.test", "", targets), **changes)


def provider(endpoint: str = "http://127.0.0.1:9/introspect", **changes: Any) -> IdentityProvider:
    """An identity provider; unless told otherwise nobody listens there."""
    base = IdentityProvider(
        "idp", None, endpoint, "fastgate", "secret", digest_key=b"k" * 64, freshness=Freshness(ttl_max=300.0)
    )
    return replace(base, **changes)


def access(idp: IdentityProvider, **changes: Any) -> Access:
    """What the protected route of these tests requires: scope "read"."""
    required = Requirement(DenialReason.SCOPE, ("scope",), (frozenset({"read"}),))
    base = Access(
        idp,
        AccessPolicy(requirements=(required,)),
        Extraction(frozenset({TokenSource.HEADER})),
        idp.freshness,
        headers=(ClaimHeader(b"X-Auth-Subject", ("sub",)),),
    )
    return replace(base, **changes)


def route(path: str, to: Service, needs: Access | None, **changes: Any) -> Route:
    """A route by prefix."""
    denials = replies.denials("test", required_scope="read", route=path)
    return replace(Route(path, Match(paths=(path,)), to, needs, denials), **changes)


def pattern(path: str, to: Service, needs: Access | None, **changes: Any) -> Route:
    """A route by regular expression."""
    return replace(route(path, to, needs, **changes), match=Match(patterns=(re.compile(path),)))


def snapshot(
    routes: tuple[Route, ...], *, limits: Limits | None = None, forwarding: Forwarding | None = None
) -> Snapshot:
    """Compile routes as the configuration would."""
    providers = {each.access.provider.name: each.access.provider for each in routes if each.access}
    services = {each.service.name: each.service for each in routes}
    return Snapshot(
        "test",
        routes,
        routing.build(routes),
        providers,
        services,
        Settings(
            (Address("127.0.0.1", 0),),
            None,
            limits=limits or Limits(),
            forwarding=forwarding or Forwarding(via=b"fastgate-test", protected=frozenset({b"x-auth-subject"})),
        ),
    )


class Plane:
    """The data plane under test: `async with` starts and stops it."""

    express_lane = True
    warm = True

    def __init__(
        self, *routes: Route, limits: Limits | None = None, forwarding: Forwarding | None = None, tls: Any = None
    ) -> None:
        self.snapshot = snapshot(routes, limits=limits, forwarding=forwarding)
        self.tls = tls
        self.stats = Stats()
        self.memory = MemoryTier(1000, 1000)
        self.lines: list[Completion] = []
        self.clock = SystemClock()
        self._line = asyncio.Event()

    @classmethod
    def before(cls, *ports: int, **changes: Any) -> Self:
        """Before one service: /public is public, /api needs GOOD, everything else is 404."""
        limits, forwarding, tls = (changes.pop(name, None) for name in ("limits", "forwarding", "tls"))
        needs = changes.pop("needs", None) or access(provider())
        to = service(*ports, **changes)
        return cls(route("/public", to, None), route("/api", to, needs), limits=limits, forwarding=forwarding, tls=tls)

    def knows(self, token: str, claims: Mapping[str, Any] | None, **times: Any) -> None:
        """Remember a token as active with these claims, or as inactive (None), for every provider."""
        state = INACTIVE if claims is None else ActiveToken(claims, **times)
        for each in self.snapshot.providers.values():
            self.memory.put(token_key(each, token), Remembered(state, self.clock.monotonic()))

    async def start(self) -> Self:
        self.tokens = Tokens(self.memory, self.snapshot.providers, self.clock, self.stats, Revocations(self.clock))
        self.gate = Gate(self.snapshot, self.tokens, self.clock)
        self.upstreams = Upstreams(asyncio.get_running_loop(), self.stats)
        await self.upstreams.swap(self.snapshot.services.values())
        self.plane = Dataplane(
            gate=self.gate,
            upstreams=self.upstreams,
            stats=self.stats,
            clock=self.clock,
            limits=self.snapshot.settings.limits,
            record=self._record,
            express_lane=self.express_lane,
        )
        self.server = GatewayServer(self.plane)
        self._listener = await self.plane.loop.create_server(self.server, "127.0.0.1", 0, ssl=self.tls)
        self.port = self._listener.sockets[0].getsockname()[1]
        self.knows(GOOD, {"scope": "read", "sub": "alex"}, exp=int(time.time()) + 3600)
        self.knows(BAD, None)
        if self.express_lane and self.warm:
            await self._warm()
        return self

    async def _warm(self) -> None:
        """Let a connection to each upstream rest, without which a first request is the general lane's."""
        for upstream in self.upstreams.current:
            with suppress(ForwardError):
                (await upstream.acquire(fresh=True)).give_back()

    def _record(self, line: Completion) -> None:
        self.lines.append(line)
        self._line.set()
        self._line = asyncio.Event()

    async def until(self, condition: Any, what: str = "the gateway's state") -> None:
        """Wait until a condition about this gateway holds; fails after a generous time."""
        try:
            async with asyncio.timeout(20):
                while not condition():  # noqa: ASYNC110 - it asks about anything, so nothing can wake it
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"waited for {what}: {self.upstreams.current!r} {self.lines[-3:]}") from None

    async def line(self, index: int = 0) -> Completion:
        """The access line at this index, once it was written."""
        await self.until(lambda: len(self.lines) > index, f"access line {index}")
        return self.lines[index]

    async def client(self, **options: Any) -> RawClient:
        """A new connection to the gateway."""
        return await RawClient.connect(self.port, **options)

    async def stop(self) -> None:
        self._listener.close()
        await self.server.shutdown(0.1)
        await self.upstreams.close()
        await self.tokens.close()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
