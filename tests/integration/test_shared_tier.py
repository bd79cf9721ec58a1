"""Several gateways, each a process, that share a Redis: one question for all, and revocations that reach everybody."""

import asyncio
import json
import os
import signal
import time
from contextlib import AsyncExitStack

import pytest

from tests.conftest import real
from tests.contract.parts import READER, config, provider
from tests.support.gateway import Gateway
from tests.support.idp import Idp
from tests.support.redis import SECRET, Redis

COUNT = 4
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
    """Four gateways, and patience for a busy machine."""
    shared = {"redis": {"url": redis.url, "secrets": [SECRET], "timeout": "1s"}}
    made = config(idp, upstream, cache=shared, identity_providers={"idp": provider(idp, timeout="10s")})
    async with AsyncExitStack() as stack:
        yield await asyncio.gather(*(stack.enter_async_context(Gateway(made)) for _ in range(COUNT)))


async def every(gateways, name, **labels):
    """Add a metric of all gateways up."""
    return sum([await each.metric(name, **labels) for each in gateways])


async def until(condition, what):
    end = time.monotonic() + 30
    while not await condition():
        assert time.monotonic() < end, f"waited 30 s for {what}"
        await asyncio.sleep(0.02)


async def asked_everywhere(gateways, idp, token, count=100):
    """Send so many requests with one cold token to each gateway, and wait until all of them wait for the answer."""
    questions, flights = len(idp.questions), await every(gateways, "fastgate_flights_total")
    asking = [asyncio.ensure_future(each.get("/api", token=token)) for each in gateways for _ in range(count)]
    await idp.asked(questions + 1)

    async def all_wait():
        return await every(gateways, "fastgate_flights_total") == flights + count * len(gateways)

    await until(all_wait, "all requests to wait")
    return asking


async def test_four_hundred_requests_and_one_cold_token(gateways, idp):
    """I10, R11, figure 13: exactly 1 introspection; the one that asks is killed: at most 2, all others are answered."""
    hold = asyncio.Event()
    idp.will(hold, idp.truth)
    asking = await asked_everywhere(gateways, idp, "t0")
    hold.set()
    assert {answer.status for answer in await asyncio.gather(*asking)} == {200}
    assert len(idp.questions) == 1
    assert await every(gateways, "fastgate_leases_total", outcome="owner") == 1
    assert await every(gateways, "fastgate_leases_total", outcome="follower") == COUNT - 1

    idp.will(asyncio.Event())
    before = [await each.metric("fastgate_leases_total", outcome="owner") for each in gateways]
    asking = await asked_everywhere(gateways, idp, "t1")
    after = [await each.metric("fastgate_leases_total", outcome="owner") for each in gateways]
    (index,) = [index for index in range(COUNT) if after[index] > before[index]]
    (worker,) = (await gateways[index].status())["workers"]
    os.kill(worker["pid"], signal.SIGKILL)
    killed = time.monotonic()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert time.monotonic() - killed < 1.0 + AMPLE
    del answers[index * 100 : (index + 1) * 100]
    assert {answer.status for answer in answers} == {200}
    assert len(idp.questions) == 3
    assert await every(gateways, "fastgate_leases_total", outcome="taken_over") == 1


async def test_revoked_on_one_host(gateways, idp):
    """T24, figure 3: refused on every other one within a second, and on one that starts later."""
    for number, what in enumerate(({"token": "t1"}, {"sub": "user-2"}), 1):
        for each in gateways:
            assert (await each.get("/api", token=f"t{number}")).status == 200
        answer = await gateways[0].admin("POST", "/tokens/revoke", what)
        revoked = time.monotonic()
        assert json.loads(answer.body)["shared"] is True
        for each in gateways:
            while (await each.get("/api", token=f"t{number}")).status != 401:
                assert time.monotonic() - revoked < 1.0 + AMPLE
    status = await gateways[1].status()
    assert status["revocations"] == 2
    good = {"reachable": True, "writable": True, "problem": None, "unsent_revocations": 0}
    assert status["cache"]["shared"] == status["cache"]["shared"] | good
    same = {key: value for key, value in gateways[0].config.items() if key not in {"listen", "admin"}}
    async with Gateway(same) as late:
        assert [(await late.get("/api", token=token)).status for token in ("t1", "t2", "t3")] == [401, 401, 200]


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
