"""One Redis for all tests of a file that do it no harm, and workers that use it."""

from contextlib import AsyncExitStack

import pytest
import trustme

from tests.conftest import real
from tests.support.process import scratch
from tests.support.redis import Redis
from tests.tokens.shared.parts import Worker


@pytest.fixture(scope="module")
def shared_redis():
    with real(Redis) as redis:
        yield redis


@pytest.fixture
def redis(shared_redis):
    """Give an empty Redis, which must be as it was when the test ends."""
    shared_redis.call("FLUSHALL")
    return shared_redis


@pytest.fixture
def own_redis():
    """Give a Redis of the test's own: it may be stopped, killed and changed."""
    with real(Redis) as redis:
        yield redis


@pytest.fixture
async def worker(idp):
    """Start workers that stop at the end."""
    async with AsyncExitStack() as stack:

        async def start(redis, **changes):
            settings = {name: changes.pop(name) for name in ("timeout", "secrets", "prefix") if name in changes}
            if "idp_timeout" in changes:
                changes["timeout"] = changes.pop("idp_timeout")
            at = redis.settings(**settings) if hasattr(redis, "settings") else redis
            return await stack.enter_async_context(Worker(at, changes.pop("idp", idp), **changes))

        yield start


@pytest.fixture(scope="module")
def certificates():
    """Give a folder with those of a server, of ours, and of who issued them."""
    ca = trustme.CA()
    folder = scratch("redis-tls")
    ca.cert_pem.write_to_path(folder / "ca.pem")
    leaf = ca.issue_cert("127.0.0.1")
    leaf.private_key_pem.write_to_path(folder / "key.pem")
    leaf.cert_chain_pems[0].write_to_path(folder / "server.pem")
    ours = ca.issue_cert("gateway.test")
    ours.private_key_and_cert_chain_pem.write_to_path(folder / "ours.pem")
    return folder
