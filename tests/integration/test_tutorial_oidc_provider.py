"""The tutorial through the real gateway: npm oidc-provider, PyPI httpbin."""

from tests.support.gateway import Gateway
from tests.support.oidc_provider import SECRET
from tests.support.tutorial import Tutorial, configuration


async def test_tutorial(oidc_provider, httpbin):
    """N1, N7, N9, N10, N18, N20, N85, T24: step by step, the questions counted on both sides."""
    before = await oidc_provider.introspections()
    async with Gateway(configuration(oidc_provider, httpbin, SECRET, "write")) as gateway:
        tutorial = Tutorial(gateway, oidc_provider, scope="write", other_scope="read")
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
