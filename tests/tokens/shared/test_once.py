"""What may happen once happens once, on all workers together, and in doubt once on each."""

import asyncio


async def test_once_for_all(redis, worker):
    """R7: the second one is told so, here or elsewhere; another name is another matter."""
    one, two = await worker(redis), await worker(redis)
    assert await one.shared.first("a-jti", 60)
    assert not await one.shared.first("a-jti", 60)
    assert not await two.shared.first("a-jti", 60)
    assert await two.shared.first("b-jti", 60)
    key = redis.keys("fastgate:once:*")[0]
    assert 50_000 < redis.call("PTTL", key) <= 60_000
    assert "jti" not in key


async def test_at_once(redis, worker):
    """R7: of many at the same time exactly one is the first."""
    workers = [await worker(redis) for _ in range(3)]
    said = await asyncio.gather(*(each.shared.first("jti", 60) for each in workers for _ in range(20)))
    assert said.count(True) == 1


async def test_again_when_its_time_is_over(redis, worker):
    """R7: the name is free again."""
    one = await worker(redis)
    assert await one.shared.first("jti", 0.05)
    assert not await one.shared.first("jti", 0.05)
    await asyncio.sleep(0.1)
    assert await one.shared.first("jti", 0.05)


async def test_without_redis(own_redis, worker):
    """R1: as far as each worker knows."""
    one, two = await worker(own_redis), await worker(own_redis)
    own_redis.kill()
    for each in (one, two):
        assert await each.shared.first("jti", 60)
        assert not await each.shared.first("jti", 60)


async def test_somebody_else_says_that_it_happened(redis, worker):
    """T38: a key that none of us wrote means nothing."""
    one = await worker(redis)
    assert await one.shared.first("jti", 60)
    key = redis.keys("fastgate:once:*")[0]
    for words in (("SET", key, "x" * 16), ("SET", key, ""), ("DEL", key), ("LPUSH", key, "x")):
        redis.call("DEL", key)
        redis.call(*words)
        assert await (await worker(redis)).shared.first("jti", 60)


async def test_redis_breaks_while_it_is_asked(own_redis, worker, monkeypatch):
    """R2: it is there, but who said so cannot be learned any more: in doubt it is the first time."""
    one, two = await worker(own_redis), await worker(own_redis)
    assert await one.shared.first("jti", 60)
    real = two.shared._once._states.raw

    async def hung(*words):
        own_redis.kill()
        return await real(*words)

    monkeypatch.setattr(two.shared._once._states, "raw", hung)
    assert await two.shared.first("jti", 60)
