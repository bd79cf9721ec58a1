"""A token that one worker asked about is known to all: what is written, what is believed, for how long."""

import asyncio
import subprocess
import sys
import time

import pytest

from fastgate.errors import Cannot, IntrospectionError
from fastgate.model import INACTIVE, ActiveToken, Freshness
from fastgate.policy.digest import token_key
from fastgate.tokens.shared import obtaining
from tests.support.idp import Idp, says
from tests.tokens.shared.parts import fresher, soon

TOKEN = "tok-en-that-nobody-may-see"


async def test_one_worker_asks_for_all(redis, idp, worker):
    """I10: the second worker finds the state in Redis; claims and times are as the identity provider said them."""
    idp.tokens[TOKEN] = {"sub": "alex", "exp": soon(), "aud": ["a", "b"], "nested": {"a": [1, 2.5, None, "é"]}}
    one, two = await worker(redis), await worker(redis)
    first = await one.get(TOKEN)
    await one.landed()
    second = await two.get(TOKEN)
    assert second.claims == first.claims
    assert (second.exp, second.iat, second.iss, second.bound) == (first.exp, first.iat, first.iss, first.bound)
    assert len(idp.questions) == 1
    assert two.count("cache_hits", "shared", "active") == 1
    assert await two.get(TOKEN) is second  # from memory
    assert two.count("cache_misses", "memory") == 1


async def test_nothing_in_redis_can_be_read(redis, idp, worker):
    """N26, T12: neither token nor claims nor secrets, in keys or values; every key has our prefix and an end."""
    idp.tokens[TOKEN] = {"sub": "sub-of-alex", "exp": soon(), "email": "alex@example.com"}
    one = await worker(redis)
    await one.get(TOKEN)
    one.tokens.revoke(sub="sub-of-alex")
    one.tokens.revoke(token="another-token")
    await one.shared.first("a-jti", 60)
    await one.tokens.told()
    await one.landed()
    keys = redis.keys()
    assert {key.split(":")[1] for key in keys} == {"state", "once", "{marks}", "{probe}"}
    everything = b" ".join(key.encode() + (redis.call("DUMP", key) or b"") for key in keys)
    for word in (b"tok-en", b"alex", b"sub-of", b"email", b"another", b"a-jti", b"s3cret", b"active"):
        assert word not in everything
    endless = {key for key in keys if redis.call("PTTL", key) < 0}
    assert endless == {"fastgate:{marks}:ledger", "fastgate:{marks}:tag"}


async def test_redis_forgets_when_we_would(redis, idp, worker):
    """N19: the time to live ends with `exp`, or with the freshness that the provider allows."""
    idp.tokens |= {"soon": {"exp": soon(100)}, "late": {"exp": soon(10_000)}, "never": {}}
    one = await worker(redis)
    for value, seconds in (("soon", 100), ("late", 300), ("never", 300)):
        await one.get(value)
        await one.landed()
        assert seconds - 20 < redis.call("PTTL", one.key(value)) / 1000 <= seconds


async def test_an_inactive_token_is_shared_for_a_moment(redis, idp, worker):
    """N18, T25: with its short life, and in place of what was known of an active one."""
    idp.tokens["t"] = {"exp": soon()}
    one, two, three = [await worker(redis) for _ in range(3)]
    await one.get("t")
    await one.landed()
    del idp.tokens["t"]
    assert await two.get("t", fresher(two, ttl_max=0.0)) is INACTIVE
    await two.landed()
    assert await three.get("t") is INACTIVE
    assert len(idp.questions) == 2
    assert 0 < redis.call("PTTL", one.key("t")) <= 5000
    assert three.count("cache_hits", "shared", "inactive") == 1


async def test_a_flood_of_invented_tokens_does_not_fill_redis(redis, idp, worker, monkeypatch):
    """T25, I11: inactive ones are kept up to a number per worker, and those who wait are told all the same."""
    monkeypatch.setattr(obtaining, "INACTIVE_MAX", 5)
    idp.tokens["t"] = {"exp": soon()}
    one = await worker(redis)
    assert one.shared._obtaining._inactive.maxlen == 5
    await one.get("t")
    for number in range(20):
        assert await one.get(f"bad{number}") is INACTIVE
    await one.landed()
    assert len(redis.keys("*:state:*")) == 6
    del idp.tokens["t"]
    assert await one.get("t", fresher(one, ttl_max=0.0)) is INACTIVE
    await one.landed()
    assert redis.call("EXISTS", one.key("t")) == 0


async def test_a_flood_costs_redis_one_look_each(redis, idp, worker):
    """T25: while our own limit holds unknown tokens off, no lease is asked for."""
    one = await worker(redis, inactive_rate=0.001)
    await one.get("bad")
    await one.landed()
    before = one.count("leases")
    with pytest.raises(IntrospectionError, match="too many inactive tokens"):
        await one.get("worse")
    assert one.count("leases", "owner") == 1
    assert one.count("leases") == before + 1  # alone: refused before anything was sent
    assert redis.keys("*:lease:*") == []
    assert len(idp.questions) == 1


async def test_a_token_that_only_others_may_know(redis, idp, worker):
    """I11, T25: so it is while our own limit holds unknown tokens off, of one of which nothing good is known here."""
    idp.tokens["mine"] = {"exp": soon()}
    one, two = await worker(redis, inactive_rate=0.001), await worker(redis)

    def hopeless(value):
        return one.tokens.hopeless(one.access, token_key(one.provider, value))

    async def glanced(value):
        told = asyncio.get_running_loop().create_future()
        one.tokens.glance(one.access, token_key(one.provider, value), told.set_result)
        return await told

    assert not hopeless("new")
    await one.get("mine")
    await one.get("bad")
    assert hopeless("new")
    assert hopeless("bad")
    assert not hopeless("mine")
    error = await glanced("new")
    assert (error.kind, error.detail) == (Cannot.OVERLOADED, "too many inactive tokens")
    await two.get("other")
    await two.landed()
    assert await glanced("other") is None
    redis.suspend()
    try:
        assert (await glanced("new")).kind is Cannot.OVERLOADED
    finally:
        redis.resume()
    assert one.count("cache_misses", "shared", "bypassed") == 1


async def test_a_route_that_wants_it_fresher(redis, idp, worker):
    """T3: it asks anew, for all; a lax route goes on with what is there."""
    idp.tokens["t"] = {"exp": soon()}
    one, two = await worker(redis), await worker(redis)
    await one.get("t")
    await one.landed()
    await asyncio.sleep(0.05)
    strict = fresher(two, ttl_max=0.05)
    assert isinstance(await two.get("t", strict), ActiveToken)
    assert len(idp.questions) == 2
    assert two.count("cache_misses", "shared", "stale") == 1
    await two.landed()
    three = await worker(redis)
    await three.get("t")
    assert len(idp.questions) == 2


async def test_routes_of_two_freshnesses_at_once(redis, idp, worker):
    """T3, T22: who joins the flight of a lax route is not given what is too old for him."""
    idp.tokens["t"] = {"exp": soon()}
    one, two = await worker(redis), await worker(redis)
    await one.get("t")
    await one.landed()
    await asyncio.sleep(0.05)
    lax, strict, never = two.access, fresher(two, ttl_max=0.04), fresher(two, ttl_max=0.0)
    idp.tokens["t"] = {"exp": soon(), "new": True}
    states = await asyncio.gather(*(two.get("t", access) for access in (lax, strict, never, lax)))
    assert ["new" in state.claims for state in states] == [False, True, True, False]
    assert len(idp.questions) == 2


async def test_nothing_is_shared_with_ttl_zero(redis, idp, worker):
    """T27: 0 is "not at all", in Redis too; what is under way may be shared."""
    idp.tokens["t"] = {"exp": soon()}
    nothing = Freshness(0.0, 0.0, 0.0)
    one, two = await worker(redis, freshness=nothing), await worker(redis, freshness=nothing)
    for value in ("t", "bad"):
        await one.get(value)
        await one.landed()
        await two.get(value)
        await two.landed()
    assert len(idp.questions) == 4
    assert redis.keys("*:state:*") == []


async def test_two_identity_providers_and_one_token(redis, idp, worker):
    """N25, T2: what one says is never the other one's answer."""
    async with Idp() as other:
        idp.tokens["t"] = {"exp": soon()}
        first = await worker(redis, name="one", digest_key=b"1" * 64)
        second = await worker(redis, idp=other, name="two", digest_key=b"2" * 64)
        assert await first.active("t")
        await first.landed()
        assert not await second.active("t")
        assert len(other.questions) == 1


async def test_a_value_moved_to_another_provider(redis, idp, worker):
    """N25, T38: the provider is part of what is sealed, whatever the digest."""
    idp.tokens["t"] = {"exp": soon()}
    one, two = await worker(redis, name="one"), await worker(redis, name="two")
    await one.get("t")
    await one.landed()
    redis.call("COPY", one.key("t"), two.key("t"))
    del idp.tokens["t"]
    assert not await two.active("t")
    assert two.count("cache_misses", "shared", "forged") == 1


@pytest.mark.parametrize("skew", [-3600.0, -30.0, 30.0, 3600.0])
async def test_hosts_whose_clocks_differ(redis, idp, worker, skew):
    """T14, I13, R8: an answer is never taken for younger than it is; an hour ahead is not believed at all."""
    idp.tokens["t"] = {"exp": soon(10_000)}
    off = await worker(redis, skew=skew)
    right = await worker(redis)
    await off.get("t")
    await off.landed()
    redis.call("PEXPIRE", off.key("t"), 300_000 - 100_000)  # as if 100 s had passed for Redis
    asked = len(idp.questions)
    await right.get("t")
    if abs(skew) > 60:
        assert len(idp.questions) == asked + 1
        assert right.count("cache_misses", "shared", "ahead" if skew > 0 else "stale") == 1
    else:
        remembered = next(iter(right.world.memory._active.values())).remembered
        assert time.monotonic() - remembered.fetched_at >= 100.0


async def test_a_key_that_was_made_to_last(redis, idp, worker):
    """R8, N19: with its end taken away, a value is still as old as it is, and `exp` is still its end."""
    idp.tokens |= {"t": {"exp": soon(10_000)}, "ends": {"exp": soon(2)}}
    one = await worker(redis)
    for value in ("t", "ends"):
        await one.get(value)
        await one.landed()
        assert redis.call("PERSIST", one.key(value)) == 1
    old, later = await worker(redis, skew=301.0), await worker(redis, skew=3.0)
    asked = len(idp.questions)
    await old.get("t")
    assert old.count("cache_misses", "shared", "stale") == 1
    await later.get("ends")
    assert later.count("cache_misses", "shared", "stale") == 1
    assert len(idp.questions) == asked + 2


async def test_an_answer_that_is_too_large_to_share(redis, idp, worker):
    """N27: it serves here, and is asked about elsewhere."""
    long = b",".join([b"1E5"] * 15_000)  # which we would write as 100000.0
    answer = says(b'{"active": true, "exp": %d, "long": [%s]}' % (soon(), long))
    idp.will(answer)
    idp.will(answer)
    for _ in range(2):
        one = await worker(redis)
        assert await one.active("t")
        await one.landed()
        assert one.count("cache_misses", "shared", "too_large") == 1
    assert redis.keys("fastgate:[sl]*") == []


def test_what_is_loaded_without_a_shared_tier():
    """Neither redis nor what comes with it: memory that nobody uses."""
    code = "import sys, fastgate.app; print({'redis', 'aiocache', 'cryptography'} & set(sys.modules) or 'none')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "none"


async def test_asking_ahead_once_for_all(redis, idp, worker):
    """Figure 15: of all workers that have a token in use one asks before its end; the others find what it learned."""
    idp.tokens[TOKEN] = {"sub": "alex"}
    workers = [await worker(redis, ask_ahead=30.0) for _ in range(4)]
    for each in workers:
        await each.get(TOKEN)
        await each.landed()
    assert len(idp.questions) == 1
    for each in workers:
        each.clock.later = 290.0
        await each.get(TOKEN)
    for each in workers:
        await each.until(lambda each=each: not each.tokens.status()["flights"])
        assert each.count("flights", "ahead") == 1
        each.clock.later = 310.0
        assert await each.active(TOKEN)
        assert each.count("cache_misses", "memory", "stale") == 0
    assert len(idp.questions) == 2
