"""Ways to Redis, closed whatever is under way: as its own list of connections says, none is left."""

import asyncio
import random
from contextlib import suppress

import pytest

from fastgate.tokens.shared.clients import Ways
from tests.conftest import real
from tests.support.client import PATIENCE
from tests.support.process import free_port
from tests.support.redis import Redis, until
from tests.tokens.shared.parts import trusting

FORMS = ("server", "server over TLS", "unix", "cluster", "cluster over TLS")


@pytest.fixture(scope="module", params=FORMS)
def form(request, certificates):
    """Give a server, alone or all of a Cluster, and the settings of ways to it."""
    kind, _, over = request.param.partition(" over ")
    tls, context = (certificates, trusting(certificates)) if over else (None, None)
    options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port())) if kind == "cluster" else ()
    options += ("--tls-cluster", "yes") if options and over else ()
    with real(lambda: Redis(*options, tls=tls)) as redis:
        if kind == "cluster":
            redis.call("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            until(lambda: b"cluster_state:ok" in redis.call("CLUSTER", "INFO"), "the cluster")
        where = {"path": str(redis.folder / "redis.sock"), "addresses": ()} if kind == "unix" else {}
        yield redis, redis.settings(kind=kind, tls=context, **where)


async def nobody_is_connected(redis):
    """Wait until it has no connection but the one that asks."""
    async with asyncio.timeout(PATIENCE):
        while len(redis.call("CLIENT", "LIST").splitlines()) > 1:  # noqa: ASYNC110 - seen from outside
            await asyncio.sleep(0.01)


async def test_closed_while_it_is_in_use(form):
    """R10: who was waiting is told, and whoever asks afterwards opens nothing anew."""
    redis, settings = form
    way = await Ways(settings).open()
    redis.suspend()
    asking = [asyncio.ensure_future(way.client.get("k")) for _ in range(8)]
    await asyncio.sleep(0.02)  # some have sent their question, some are about to connect
    closing = asyncio.ensure_future(way.close())
    asking += [asyncio.ensure_future(way.client.get("k")) for _ in range(8)]
    await closing
    redis.resume()
    asking += [asyncio.ensure_future(way.client.get("k")) for _ in range(8)]
    async with asyncio.timeout(PATIENCE):
        said = await asyncio.gather(*asking, return_exceptions=True)
    assert [each for each in said if not isinstance(each, Exception)] == []
    await nobody_is_connected(redis)


async def test_closing_that_is_cancelled(form):
    """R10: it is closed all the same, also where TLS still waits for an answer to its goodbye."""
    redis, settings = form
    way = await Ways(settings).open()
    redis.suspend()
    closing = asyncio.ensure_future(way.close())
    await asyncio.sleep(0.01)
    closing.cancel()
    await asyncio.wait([closing])
    redis.resume()
    await nobody_is_connected(redis)


async def test_opening_that_is_cancelled_at_any_moment(form):
    """R10: once, or again while that is being seen to, as a gateway does that ends while Redis is away."""
    redis, settings = form
    chance = random.Random(3)
    for _ in range(25):
        opening = asyncio.ensure_future(Ways(settings).open())
        await asyncio.sleep(chance.uniform(0.0, 0.02))
        while opening.cancel():  # noqa: ASYNC110 - again and again is the point
            await asyncio.sleep(chance.choice((0.0, 0.0005)))
        with suppress(asyncio.CancelledError):
            await (await opening).close()
    await nobody_is_connected(redis)


async def test_a_gateway_that_ends_while_redis_is_being_lost(form, worker, idp):
    """R10: the session is at its own end then, at whatever moment of it."""
    redis, settings = form
    for turns in range(20):
        one = await worker(settings)
        assert one.up
        redis.call("CLIENT", "KILL", "TYPE", "pubsub")
        for _ in range(turns):
            await asyncio.sleep(0)
        await one.tokens.close()
        await nobody_is_connected(redis)


@pytest.mark.parametrize("form", [each for each in FORMS if each.startswith("cluster")], indirect=True)
async def test_closed_while_it_looks_its_nodes_up(form):
    """R10: a client that has everything it wanted when it is closed takes itself for closed, too."""
    redis, settings = form
    for turns in range(0, 60, 3):
        way = await Ways(settings).open()
        way.client._initialize = True  # as after an error
        asking = asyncio.ensure_future(way.client.get("k"))
        for _ in range(turns):
            await asyncio.sleep(0)
        await way.close()
        await asyncio.wait([asking])
        asking.exception()
        assert way.client._initialize
    await nobody_is_connected(redis)
