"""Several gateways that share a Redis: what becomes of requests while something is wrong with it; see test_topology."""

import asyncio
import json
import time
from contextlib import AsyncExitStack

import pytest

from tests.conftest import real
from tests.contract.parts import READER, config, provider
from tests.support.gateway import Gateway
from tests.support.idp import Idp
from tests.support.redis import SECRET, Redis

COUNT = 2
AMPLE = 5.0


@pytest.fixture
async def idp():
    async with Idp() as started:
        started.tokens |= {f"t{number}": {**READER, "sub": f"user-{number}"} for number in range(2000)}
        yield started


@pytest.fixture
def redis():
    with real(Redis) as started:
        yield started


@pytest.fixture
async def gateways(idp, upstream, redis):
    """Two gateways, and patience for a busy machine."""
    shared = {"redis": {"url": redis.url, "secrets": [SECRET], "timeout": "1s"}}
    made = config(idp, upstream, cache=shared, identity_providers={"idp": provider(idp, timeout="10s")})
    async with AsyncExitStack() as stack:
        yield await asyncio.gather(*(stack.enter_async_context(Gateway(made)) for _ in range(COUNT)))


async def until(condition, what):
    end = time.monotonic() + 30
    while not await condition():
        assert time.monotonic() < end, f"waited 30 s for {what}"
        await asyncio.sleep(0.02)


async def test_redis_comes_and_goes_under_load(gateways, idp, redis):
    """R1, R2, R9, figure 17: hung, killed, flushed: lost = 0; shared again within two seconds."""
    stop = asyncio.Event()
    answered = []

    async def ask(gateway, number):
        client = await gateway.connect()
        while not stop.is_set():
            number = (number + 7) % 2000
            answer = await client.request("GET", "/api", ("Authorization", f"Bearer t{number}"))
            assert answer.status == 200, answer
            answered.append(number)
        await client.close()

    clients = [asyncio.ensure_future(ask(each, 100 * index)) for index, each in enumerate(gateways)]

    async def passing(count=100):
        seen = len(answered)
        await until(lambda: asyncio.sleep(0, len(answered) > seen + count), "requests to pass")

    async def shared_again():
        return all([(await each.status())["cache"]["shared"]["reachable"] for each in gateways])

    for harm, good in ((redis.suspend, redis.resume), (redis.kill, redis.start)):
        await passing()
        harm()
        await passing()
        good()
        back = time.monotonic()
        await until(shared_again, "sharing again")
        assert time.monotonic() - back < 2.0 + AMPLE
    redis.call("FLUSHALL")
    await passing()
    stop.set()
    await asyncio.gather(*clients)
    text = "".join(each.log() for each in gateways)
    for secret in (SECRET, "Bearer t", "user-"):
        assert secret not in text


async def test_without_a_redis(idp, upstream):
    """P6, T37: it starts, is ready, serves, and says what is missing."""
    shared = {"redis": {"url": "redis://:hunter2-of-redis@127.0.0.1:9/0", "secrets": [SECRET]}}
    async with Gateway(config(idp, upstream, cache=shared)) as gateway:
        await gateway.ready()
        assert (await gateway.get("/api", token="t1")).status == 200
        shared = (await gateway.status())["cache"]["shared"]
        assert shared["reachable"] is False
        assert shared["problem"].startswith("connection: is it running")
        assert await gateway.metric("fastgate_shared_up", backend="redis") == 0
        assert await gateway.metric("fastgate_cache_misses_total", tier="shared", reason="bypassed") == 1
        answer = await gateway.admin("POST", "/tokens/revoke", {"sub": "x"})
        assert json.loads(answer.body) == {"revoked": 0, "shared": False}
    assert "hunter2" not in gateway.log()
    assert gateway.log().count("shared_tier_bypassed") == 1
