"""The tutorial people come from, step by step, against any real identity provider and httpbin.

Each step asserts the answer and how many questions the identity provider was asked, by the gateway's own counter and,
at the end, by the identity provider's.
"""

import asyncio
import base64
import json
from typing import Any, Protocol

from tests.support.client import Answer
from tests.support.gateway import Gateway
from tests.support.httpbin import Httpbin

TTL = 2
"""cache_ttl_max of the tutorial, seconds; the only thing that is waited for by the clock."""


class RealProvider(Protocol):
    """What `OidcProvider` and `Keycloak` have in common."""

    @property
    def issuer(self) -> str: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    async def token(self, *, scope: str) -> str: ...

    async def revoke(self, token: str) -> None: ...

    async def introspections(self) -> int: ...


def configuration(idp: RealProvider, httpbin: Httpbin, secret: str, scope: str, **provider: Any) -> dict[str, Any]:
    """Build the tutorial's file: /anything protected, /scoped protected with a required scope."""
    return {
        "identity_providers": {
            "idp": {
                "issuer": idp.issuer,
                "client_id": "fastgate",
                "client_secret": secret,
                "cache_ttl_max": f"{TTL}s",
                **provider,
            }
        },
        "services": [
            {
                "name": "httpbin",
                "url": httpbin.url,
                "routes": [
                    {"paths": ["/anything"]},
                    {"paths": ["/anything/scoped"], "auth": {"scopes_required": [scope]}},
                    {"paths": ["/status"], "auth": "none"},
                ],
            }
        ],
    }


async def until_served(gateway: Gateway, token: str) -> Answer:
    """Ask again as a client that heeds Retry-After would, ten times at most."""
    for _ in range(10):
        got = await gateway.get("/anything", token=token)
        if got.status != 503:
            break
        await asyncio.sleep(min(int(got.header("retry-after") or "1"), 5))
    return got


class Tutorial:
    """The steps; `scope` is one that tokens can have and that /anything/scoped requires."""

    def __init__(self, gateway: Gateway, idp: RealProvider, *, scope: str, other_scope: str) -> None:
        self.gateway = gateway
        self.idp = idp
        self.scope = scope
        self.other_scope = other_scope

    async def asked_by(self, answer: Any) -> tuple[Answer, int]:
        """Await an answer; return it with the number of questions it cost."""
        before = await self.gateway.introspections()
        got = await answer
        return got, await self.gateway.introspections() - before

    async def remembered_time_is_over(self) -> None:
        """Wait until whatever is remembered now is too old to be used."""
        await asyncio.sleep(TTL + 0.2)

    async def without_a_token(self) -> None:
        """No credentials: 401, a bare Bearer challenge, nothing asked."""
        got, asked = await self.asked_by(self.gateway.get("/anything"))
        assert (got.status, asked) == (401, 0)
        challenge = got.header("www-authenticate")
        assert challenge is not None
        assert challenge.startswith("Bearer")
        assert "error" not in challenge

    async def with_garbage(self) -> None:
        """A token the identity provider does not know: 401 invalid_token."""
        got, asked = await self.asked_by(self.gateway.get("/anything", token="garbage"))
        assert (got.status, asked) == (401, 1)
        assert 'error="invalid_token"' in (got.header("www-authenticate") or "")

    async def with_basic_credentials(self) -> None:
        """Another scheme: 401, nothing asked."""
        basic = base64.b64encode(b"alex:doe").decode()
        got, asked = await self.asked_by(self.gateway.get("/anything", ("Authorization", f"Basic {basic}")))
        assert (got.status, asked) == (401, 0)

    async def with_a_fresh_token(self) -> str:
        """A good token: 200 from httpbin with Authorization echoed, one question; again: 200, none."""
        token = await self.idp.token(scope=self.scope)
        got, asked = await self.asked_by(self.gateway.get("/anything?a=b", token=token))
        assert (got.status, asked) == (200, 1), got
        echoed = json.loads(got.body)
        assert echoed["headers"]["Authorization"] == f"Bearer {token}"
        assert echoed["args"] == {"a": "b"}
        got, asked = await self.asked_by(self.gateway.get("/anything", token=token))
        assert (got.status, asked) == (200, 0)
        return token

    async def after_the_remembered_time(self, token: str) -> None:
        """After cache_ttl_max: 200, one more question."""
        await self.remembered_time_is_over()
        got, asked = await self.asked_by(self.gateway.get("/anything", token=token))
        assert (got.status, asked) == (200, 1)

    async def revoked(self, token: str) -> None:
        """Revoked at the identity provider and the remembered time over: 401."""
        await self.idp.revoke(token)
        await self.remembered_time_is_over()
        got, asked = await self.asked_by(self.gateway.get("/anything", token=token))
        assert (got.status, asked) == (401, 1)
        assert 'error="invalid_token"' in (got.header("www-authenticate") or "")

    async def without_the_scope(self) -> None:
        """A good token without the required scope: 403 insufficient_scope that names it; with it: 200."""
        poor = await self.idp.token(scope=self.other_scope)
        got = await self.gateway.get("/anything/scoped", token=poor)
        assert got.status == 403
        challenge = got.header("www-authenticate") or ""
        assert 'error="insufficient_scope"' in challenge
        assert f'scope="{self.scope}"' in challenge
        rich = await self.idp.token(scope=self.scope)
        assert (await self.gateway.get("/anything/scoped", token=rich)).status == 200

    async def identity_provider_stopped(self) -> None:
        """Stopped: a remembered token 200, a new one 503 with Retry-After. Back: 200."""
        new = await self.idp.token(scope=self.scope)
        remembered = await self.idp.token(scope=self.scope)
        assert (await self.gateway.get("/anything", token=remembered)).status == 200
        await asyncio.to_thread(self.idp.stop)
        got, asked = await self.asked_by(self.gateway.get("/anything", token=remembered))
        assert (got.status, asked) == (200, 0)
        got = await self.gateway.get("/anything", token=new)
        assert got.status == 503
        assert int(got.header("retry-after") or "-1") >= 0
        await asyncio.to_thread(self.idp.start)
        assert (await until_served(self.gateway, new)).status == 200

    async def counts_agree(self, before: int) -> None:
        """The identity provider received exactly the questions the gateway says it asked (and heard an answer to)."""
        answered = int(await self.gateway.metric("fastgate_introspections_total", outcome="active"))
        answered += int(await self.gateway.metric("fastgate_introspections_total", outcome="inactive"))
        for _ in range(50):  # an access log may be written just after its answer
            if await self.idp.introspections() - before == answered:
                return
            await asyncio.sleep(0.1)
        assert await self.idp.introspections() - before == answered
