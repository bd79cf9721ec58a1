"""The tutorial through the real gateway: Keycloak from Maven Central, httpbin from PyPI."""

import pytest

from tests.support.gateway import Gateway
from tests.support.keycloak import SECRET
from tests.support.tutorial import Tutorial, configuration

pytestmark = [pytest.mark.keycloak, pytest.mark.timeout(900)]


async def test_tutorial(keycloak, httpbin):
    """N1, N7, N9, N10, N18, N20, N85, T24: step by step, the questions counted on both sides."""
    before = await keycloak.introspections()
    async with Gateway(configuration(keycloak, httpbin, SECRET, "invoices:read", timeout="5s")) as gateway:
        tutorial = Tutorial(gateway, keycloak, scope="invoices:read", other_scope="invoices:write")
        await gateway.ready()
        await tutorial.without_a_token()
        await tutorial.with_garbage()
        await tutorial.with_basic_credentials()
        token = await tutorial.with_a_fresh_token()
        await tutorial.after_the_remembered_time(token)
        await tutorial.revoked(token)
        await tutorial.without_the_scope()
        await tutorial.counts_agree(before)
        await tutorial.identity_provider_stopped()
