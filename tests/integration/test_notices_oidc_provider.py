"""Logout tokens of the certified oidc-provider, about tokens whose introspection answers name no session."""

import asyncio
import time

import pytest

from tests.support.gateway import Gateway
from tests.support.oidc_provider import SECRET


@pytest.fixture
async def gateway(oidc_provider, httpbin):
    """Serve one protected route; logouts of the client `app` come on a listener of their own."""
    provider = {
        "issuer": oidc_provider.issuer,
        "client_id": "fastgate",
        "client_secret": SECRET,
        "timeout": "10s",
        "cache_ttl_max": "1h",
        "backchannel_logout": {"audience": ["app"]},
    }
    gateway = Gateway(
        {
            "identity_providers": {"idp": provider},
            "services": [{"name": "httpbin", "url": httpbin.url, "routes": [{"paths": ["/anything"]}]}],
        }
    )
    gateway.config["events"] = {"listen": f"127.0.0.1:{gateway.events_port}"}
    async with gateway:
        yield await gateway.ready()


async def statuses(gateway, *tokens):
    return [(await gateway.get("/anything", token=token)).status for token in tokens]


async def test_logouts(gateway, oidc_provider):
    """T24: tokens that name no session may be of the one that ended: refused at once; nobody else's are."""
    where = f"http://127.0.0.1:{gateway.events_port}/identity-providers/idp/logout"
    alex, sam = [await oidc_provider.token(claims={"sub": sub}) for sub in ("alex", "sam")]
    assert await statuses(gateway, alex, sam) == [200, 200]
    asked = await oidc_provider.introspections()
    assert await oidc_provider.logout(where, sub="alex", sid="s1") == 200
    ended = int(time.time())
    assert await statuses(gateway, alex, sam) == [401, 200]
    # It was forgotten and asked about again; that it is still active there does not bring it back.
    assert await oidc_provider.introspections() == asked + 1
    while int(time.time()) <= ended:  # noqa: ASYNC110 - times of tokens have whole seconds
        await asyncio.sleep(0.02)
    again = await oidc_provider.token(claims={"sub": "alex"})
    assert await statuses(gateway, again) == [200]
    assert await oidc_provider.logout(where, sub="alex") == 200
    assert await statuses(gateway, again, sam) == [401, 200]
    assert await gateway.metric("fastgate_notices_total", kind="logout", outcome="accepted") == 2
    assert (await gateway.status())["notices"] == {"idp/logout": {"keys": 1, "problem": None}}


async def test_a_logout_of_another_provider(gateway, oidc_provider):
    """Nobody listens there for one that is not configured."""
    where = f"http://127.0.0.1:{gateway.events_port}/identity-providers/nobody/logout"
    assert await oidc_provider.logout(where, sub="alex") == 404
