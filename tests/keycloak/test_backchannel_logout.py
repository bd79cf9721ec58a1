"""Back-channel logout as somebody sets it in the admin console of a real Keycloak."""

import asyncio
import time

import pytest

from tests.support.client import fetch
from tests.support.gateway import Gateway
from tests.support.keycloak import SECRET

ADMIN_TOKEN = "op-token-for-tests"
pytestmark = [pytest.mark.keycloak, pytest.mark.timeout(900)]


@pytest.fixture(params=["events", "admin"])
async def gateway(request, keycloak, httpbin):
    """Remember introspection answers for long, and take logouts of the clients that log people in."""
    provider = {
        "issuer": keycloak.issuer,
        "client_id": "fastgate",
        "client_secret": SECRET,
        "timeout": "10s",
        "cache_ttl_max": "1h",
        "backchannel_logout": {"audience": ["app", "fastgate"]},
    }
    gateway = Gateway(
        {
            "identity_providers": {"keycloak": provider},
            "services": [{"name": "httpbin", "url": httpbin.url, "routes": [{"paths": ["/anything"]}]}],
        }
    )
    gateway.config["admin"]["token"] = ADMIN_TOKEN
    port = gateway.admin_port
    if request.param == "events":
        port = gateway.events_port
        gateway.config["events"] = {"listen": f"127.0.0.1:{port}"}
    async with gateway:
        gateway.logout_url = f"http://127.0.0.1:{port}/identity-providers/keycloak/logout"
        yield gateway


async def statuses(gateway, *tokens):
    return [(await gateway.get("/anything", token=token)).status for token in tokens]


async def introspections(gateway):
    """How often the gateway asked."""
    token = ("Authorization", f"Bearer {ADMIN_TOKEN}")
    text = (await fetch(gateway.admin_port, "GET", "/metrics", token)).body.decode()
    lines = [line for line in text.splitlines() if line.startswith("fastgate_introspections_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def console(url, *, session=True):
    """What the client's settings say: "Backchannel logout URL", "... session required", "... revoke offline"."""
    return {
        "backchannel.logout.url": url,
        "backchannel.logout.session.required": str(session).lower(),
        "backchannel.logout.revoke.offline.tokens": "true",
    }


async def test_a_session_is_ended(gateway, keycloak):
    """T24: its tokens are refused at once, although their answers are remembered; the user's other session goes on."""
    await keycloak.configure("app", console(gateway.logout_url), frontchannelLogout=False)
    ended, other = await keycloak.token(), await keycloak.token()
    assert await statuses(gateway, ended, other) == [200, 200]
    sid = (await keycloak.introspect(ended, "fastgate", SECRET))["sid"]
    await keycloak.admin("DELETE", f"/sessions/{sid}")
    assert await statuses(gateway, ended, other) == [401, 200]
    assert await introspections(gateway) == 3  # the one that was dropped is asked about again, the other is not


async def test_a_user_is_logged_out(gateway, keycloak):
    """T24: from everywhere, by an administrator; who logs in again is let in."""
    await keycloak.configure("app", console(gateway.logout_url), frontchannelLogout=False)
    tokens = [await keycloak.token() for _ in range(3)]
    assert await statuses(gateway, *tokens) == [200] * 3
    [user] = await keycloak.admin("GET", "/users?username=alex")
    await keycloak.admin("POST", f"/users/{user['id']}/logout")
    assert await statuses(gateway, *tokens) == [401] * 3
    assert await statuses(gateway, await keycloak.token()) == [200]


async def test_without_the_session_in_the_logout_token(gateway, keycloak):
    """T24: "Backchannel logout session required" off: it is about the user; later sessions are let in."""
    await keycloak.configure("app", console(gateway.logout_url, session=False), frontchannelLogout=False)
    first, second = await keycloak.token(), await keycloak.token()
    assert await statuses(gateway, first, second) == [200, 200]
    sid = (await keycloak.introspect(first, "fastgate", SECRET))["sid"]
    await keycloak.admin("DELETE", f"/sessions/{sid}")
    ended = int(time.time())
    assert await statuses(gateway, first, second) == [401, 401]
    while int(time.time()) <= ended:  # noqa: ASYNC110 - times of tokens have whole seconds
        await asyncio.sleep(0.02)
    assert await statuses(gateway, await keycloak.token()) == [200]


async def test_the_client_of_the_gateway_itself(gateway, keycloak):
    """T24: where people log in at the client that also introspects, its own URL is the one to set."""
    await keycloak.configure(
        "fastgate",
        console(gateway.logout_url),
        frontchannelLogout=False,
        directAccessGrantsEnabled=True,
    )
    await keycloak.configure("app", console(""))
    token = await keycloak.token(scope="openid", client=("fastgate", SECRET))
    claims = await keycloak.introspect(token, "fastgate", SECRET)
    assert await statuses(gateway, token) == [200]
    await keycloak.admin("DELETE", f"/sessions/{claims['sid']}")
    assert await statuses(gateway, token) == [401]
