"""What only Keycloak shows: secrets beyond ASCII, nested role claims, an audience it insists on itself."""

import json

import pytest

from tests.support.gateway import Gateway
from tests.support.keycloak import ODD_SECRET, SECRET

pytestmark = [pytest.mark.keycloak, pytest.mark.timeout(900)]


def configuration(keycloak, httpbin, auth, **provider):
    """One protected route."""
    settings = {"issuer": keycloak.issuer, "client_id": "fastgate", "client_secret": SECRET, "timeout": "10s"}
    routes = [{"paths": ["/anything"], "auth": auth}]
    return {
        "identity_providers": {"keycloak": {**settings, **provider}},
        "services": [{"name": "httpbin", "url": httpbin.url, "routes": routes}],
    }


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
async def test_a_secret_with_octets_of_every_kind(keycloak, httpbin, method):
    """N14: `odd:+ %é&=/secret` reaches Keycloak as it is."""
    provider = {"client_id": "fastgate-odd", "client_secret": ODD_SECRET, "client_auth": method}
    async with Gateway(configuration(keycloak, httpbin, {}, **provider)) as gateway:
        assert (await gateway.get("/anything", token=await keycloak.token())).status == 200


async def test_roles_and_audience_of_a_real_token(keycloak, httpbin):
    """N22, N65: a role nested in a claim and the audience are required; the user's name goes upstream."""
    auth = {
        "audience_required": ["fastgate"],
        "roles_required": ["reader"],
        "roles_claim": ["realm_access", "roles"],
        "upstream_headers": [{"header": "X-User-Name", "path": ["preferred_username"]}],
    }
    async with Gateway(configuration(keycloak, httpbin, auth)) as gateway:
        got = await gateway.get("/anything", ("X-User-Name", "root"), token=await keycloak.token())
        assert got.status == 200, got
        assert json.loads(got.body)["headers"]["X-User-Name"] == "alex"
    auth["roles_required"] = ["operator"]
    async with Gateway(configuration(keycloak, httpbin, auth)) as gateway:
        assert (await gateway.get("/anything", token=await keycloak.token())).status == 403
