"""What the gateway owes a real identity provider and its operators: npm oidc-provider in front, httpbin behind."""

import asyncio
import json

import pytest

from tests.support.gateway import Gateway
from tests.support.oidc_provider import ODD_SECRET, SECRET
from tests.support.tutorial import until_served


def configuration(idp, httpbin, *, auth=None, **provider):
    """One protected route; keyword arguments override the identity provider's settings."""
    settings = {"issuer": idp.issuer, "client_id": "fastgate", "client_secret": SECRET, **provider}
    route = {"paths": ["/anything"], "auth": auth or {}}
    return {
        "identity_providers": {"idp": {key: value for key, value in settings.items() if value is not None}},
        "services": [{"name": "httpbin", "url": httpbin.url, "routes": [route]}],
    }


@pytest.mark.parametrize(
    "provider",
    [
        {"client_auth": "client_secret_basic"},
        {"client_id": "fastgate-post", "client_auth": "client_secret_post"},
        {"client_id": "fastgate:odd", "client_secret": ODD_SECRET},
        {"client_id": "fastgate:odd-post", "client_secret": ODD_SECRET, "client_auth": "client_secret_post"},
    ],
    ids=["basic", "post", "odd-basic", "odd-post"],
)
async def test_credentials_of_every_kind_are_understood(oidc_provider, httpbin, provider):
    """N13, N14: a client id with `:` and a secret with `:+ %&=/` work, by both methods."""
    async with Gateway(configuration(oidc_provider, httpbin, **provider)) as gateway:
        token = await oidc_provider.token()
        got = await gateway.get("/anything", token=token)
        assert got.status == 200, got
        assert await gateway.metric("fastgate_introspections_total", outcome="active") == 1


async def test_endpoint_without_discovery(oidc_provider, httpbin):
    """N13: an introspection endpoint of its own needs no issuer and no discovery."""
    endpoint = f"{oidc_provider.issuer}/token/introspection"
    before = await oidc_provider.counts()
    config = configuration(oidc_provider, httpbin, issuer=None, introspection_endpoint=endpoint)
    async with Gateway(config) as gateway:
        got = await gateway.get("/anything", token=await oidc_provider.token())
    assert got.status == 200
    assert (await oidc_provider.counts())["discovery"] == before["discovery"]


async def test_wrong_client_secret_is_our_problem_not_the_clients(oidc_provider, httpbin):
    """N17: 503 without a challenge, nothing remembered, an alarm, and the secret in no log."""
    config = configuration(oidc_provider, httpbin, client_secret="certainly-not-the-secret")
    async with Gateway(config) as gateway:
        token = await oidc_provider.token()
        for _ in range(2):
            got = await gateway.get("/anything", token=token)
            assert got.status == 503
            assert got.all("www-authenticate") == []
        assert await gateway.metric("fastgate_introspections_total", outcome="rejected") >= 1
        assert "refused" in (await gateway.status())["identity_providers"]["idp"]["problem"]
    said = gateway.log()
    assert "certainly-not-the-secret" not in said
    assert token not in said
    assert '"kind":"rejected"' in said


async def test_audience_is_this_resource(oidc_provider, httpbin):
    """N22: a token for another resource is refused, one for ours passes."""
    config = configuration(oidc_provider, httpbin, auth={"audience_required": ["api"]})
    async with Gateway(config) as gateway:
        for audience, status in (("api", 200), ("other", 401), (None, 401)):
            got = await gateway.get("/anything", token=await oidc_provider.token(audience=audience))
            assert got.status == status, audience


async def test_claims_become_headers_and_spoofed_ones_vanish(oidc_provider, httpbin):
    """N65, T26: the identity header holds the claim, never the client's own word."""
    headers = [{"header": "X-Auth-Subject", "path": ["sub"]}]
    async with Gateway(configuration(oidc_provider, httpbin, auth={"upstream_headers": headers})) as gateway:
        spoofed = ("X-Auth-Subject", "root")
        named = await oidc_provider.token(claims={"sub": "alex"})
        got = json.loads((await gateway.get("/anything", spoofed, token=named)).body)
        assert got["headers"]["X-Auth-Subject"] == "alex"
        nameless = await oidc_provider.token()
        got = json.loads((await gateway.get("/anything", spoofed, token=nameless)).body)
        assert "X-Auth-Subject" not in got["headers"]


async def test_identity_provider_that_hangs_costs_its_timeout_only(oidc_provider, httpbin):
    """T4: accepted connections without answers end in 503 for new tokens; remembered ones do not notice."""
    async with Gateway(configuration(oidc_provider, httpbin, timeout="300ms")) as gateway:
        remembered, new = await oidc_provider.token(), await oidc_provider.token()
        assert (await gateway.get("/anything", token=remembered)).status == 200
        oidc_provider.suspend()
        try:
            answers = await asyncio.gather(*(gateway.get("/anything", token=new) for _ in range(20)))
            assert {got.status for got in answers} == {503}
            assert (await gateway.get("/anything", token=remembered)).status == 200
        finally:
            oidc_provider.resume()
        assert await gateway.metric("fastgate_introspections_total", outcome="timeout") >= 1
        assert (await until_served(gateway, new)).status == 200


async def test_start_while_the_identity_provider_is_down(oidc_provider, httpbin):
    """T20: the gateway starts, says that it is not ready and fails closed; it needs no restart afterwards."""
    token = await oidc_provider.token()
    await asyncio.to_thread(oidc_provider.stop)
    try:
        async with Gateway(configuration(oidc_provider, httpbin)) as gateway:
            status, reasons = await gateway.readiness()
            assert status == 503
            assert "idp" in json.dumps(reasons)
            assert (await gateway.get("/anything", token=token)).status == 503
            await asyncio.to_thread(oidc_provider.start)
            await gateway.ready()
            assert (await until_served(gateway, token)).status == 200
    finally:
        if oidc_provider.process is None:
            await asyncio.to_thread(oidc_provider.start)


async def test_revoked_here_stays_revoked_although_the_identity_provider_says_active(oidc_provider, httpbin):
    """T24: the admin listener's word holds beyond the remembered time, and costs no question."""
    async with Gateway(configuration(oidc_provider, httpbin, cache_ttl_max="1s")) as gateway:
        token = await oidc_provider.token()
        assert (await gateway.get("/anything", token=token)).status == 200
        assert await gateway.revoke(token=token) == 1
        asked = await gateway.introspections()
        assert (await gateway.get("/anything", token=token)).status == 401
        await asyncio.sleep(1.1)
        assert (await gateway.get("/anything", token=token)).status == 401
        assert await gateway.introspections() == asked


async def test_token_expires_while_remembered(oidc_provider, httpbin):
    """N19, T14: `exp` is checked on the hit, whatever cache_ttl_max says."""
    async with Gateway(configuration(oidc_provider, httpbin, cache_ttl_max="1h")) as gateway:
        token = await oidc_provider.token(expires=2)
        assert (await gateway.get("/anything", token=token)).status == 200
        await asyncio.sleep(2.1)
        assert (await gateway.get("/anything", token=token)).status == 401


async def test_many_clients_with_one_cold_token_ask_once(oidc_provider, httpbin):
    """N13, T28: fifty at once, one question."""
    async with Gateway(configuration(oidc_provider, httpbin)) as gateway:
        await gateway.ready()
        before = await oidc_provider.introspections()
        token = await oidc_provider.token()
        answers = await asyncio.gather(*(gateway.get("/anything", token=token) for _ in range(50)))
        assert {got.status for got in answers} == {200}
        assert await oidc_provider.introspections() - before == 1
