"""What somebody else wrote into Redis: nothing of it is believed, all of it is counted, nothing breaks."""

import random
import struct
import time

import pytest

from fastgate.model import INACTIVE
from fastgate.tokens.shared.sealing import Keyring
from fastgate.tokens.shared.states import PURPOSE
from tests.tokens.shared.parts import question, soon

REASONS = {"version", "key", "forged", "malformed", "ahead", "stale", "other_type"}


def sealed(worker, key, plain):
    """Seal as we do: for what only a colleague that went wrong could write."""
    return worker.shared._keyring.seal(PURPOSE, key.encode(), plain)


def record(said, at=None, life=300.0):
    return struct.pack(">dd", time.time() if at is None else at, life) + said


def poison(chance, worker, good, key):
    """Make one poisoned value out of a good one and the key it will lie under."""
    kinds = [
        lambda: good[: chance.randrange(1, len(good))],
        lambda: flipped(good, chance.randrange(len(good) * 8)),
        lambda: good + chance.randbytes(chance.randrange(1, 64)),
        lambda: chance.randbytes(chance.randrange(1, 200)),
        lambda: good[:2] + chance.randbytes(len(good) - 2),
        lambda: good,  # another key's
        lambda: b'{"active": true, "sub": "mallory"}',
        lambda: b"f0" + good[2:],
        lambda: Keyring(["another secret of somebody"]).seal(PURPOSE, key.encode(), record(b'{"active": true}')),
        lambda: worker.shared._keyring.seal(b"mark", key.encode(), record(b'{"active": true}')),
    ]
    return chance.choice(kinds)()


def flipped(octets, bit):
    changed = bytearray(octets)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


async def test_ten_thousand_poisoned_values(redis, idp, worker):
    """T38, R7: accepted 0 of 10,000; each is counted, whichever way it is wrong, and whichever way it is found."""
    chance = random.Random(4)
    idp.tokens["good"] = {"sub": "alex", "exp": soon()}
    one = await worker(redis)
    await one.get("good")
    await one.landed()
    good = redis.call("GET", one.key("good"))
    count = 10_000
    for start in range(0, count, 1000):
        values = {f"t{number}": one.key(f"t{number}") for number in range(start, start + 1000)}
        words = [word for key in values.values() for word in (key, poison(chance, one, good, key))]
        redis.call("MSET", *words)
        for value in values:
            asked, obtaining = question(one, value), one.shared._obtaining
            assert await obtaining._look(asked, obtaining._place(asked.provider, asked.key)) is None
            assert isinstance(await obtaining._claim(asked, obtaining._place(asked.provider, asked.key), b""), bytes)
    counted = one.stats.cache_misses.values
    assert sum(n for (tier, reason), n in counted.items() if tier == "shared" and reason in REASONS) == 2 * count
    assert one.count("cache_hits", "shared") == 0
    assert one.up


@pytest.mark.parametrize("value", [b"", b"x", b"f", b"\0" * 200], ids=["empty", "short", "shorter than a mark", "long"])
async def test_a_poisoned_value_costs_a_question(redis, idp, worker, value):
    """R7: the request is answered as if nothing had been there, at once, and what is true is written over it."""
    idp.tokens["t"] = {"sub": "alex"}
    one = await worker(redis)
    redis.call("SET", one.key("t"), value)
    assert (await one.get("t")).claims["sub"] == "alex"
    await one.landed()
    assert len(idp.questions) == 1
    assert redis.call("GET", one.key("t")) != value
    assert one.count("leases", "owner") == 1
    assert one.count("cache_misses", "shared", "version") == 1


async def test_values_that_change_all_the_time(redis, idp, worker, monkeypatch):
    """R7: whoever may write to Redis makes us ask; he keeps nobody waiting."""
    idp.tokens["t"] = {"sub": "alex"}
    one = await worker(redis)
    claim = one.shared._leases.claim

    async def poisoned(place, known, seconds):
        redis.call("SET", place.state, random.randbytes(100))
        return await claim(place, known, seconds)

    monkeypatch.setattr(one.shared._leases, "claim", poisoned)
    assert (await one.get("t")).claims["sub"] == "alex"
    assert one.count("leases", "alone") == 1


async def test_every_bit_of_a_value(redis, idp, worker):
    """T38: none may be changed, and no octet be missing."""
    idp.tokens["t"] = {"sub": "alex"}
    one = await worker(redis)
    await one.get("t")
    await one.landed()
    key = one.key("t")
    good = redis.call("GET", key)
    place = one.shared._obtaining._place(one.provider, question(one, "t").key)
    changed = [flipped(good, bit) for bit in range(len(good) * 8)] + [good[:end] for end in range(len(good))]
    for value in changed:
        redis.call("SET", key, value)
        assert await one.shared._obtaining._look(question(one, "t"), place) is None
    redis.call("SET", key, good)
    assert await one.shared._obtaining._look(question(one, "t"), place) is not None


@pytest.mark.parametrize(
    "plain",
    [
        b"",
        b"short",
        record(b""),
        record(b"null"),
        record(b"[]"),
        record(b"{}"),
        record(b'{"active": "true"}'),
        record(b'{"active": 1}'),
        record(b'{"active": true, "active": true}'),
        record(b'{"active": true} x'),
        record(b'{"active": true, "exp": "1"}'),
        record(b'{"active": true, "exp": -1}'),
        record(b'{"active": true, "iss": 5}'),
        record(b'{"active": true, "x": %s}' % (b"[" * 40 + b"]" * 40)),
        record(b'{"active": true, "x": "%s"}' % (b"x" * 70_000)),
        record(b'{"active": true}', at=float("nan")),
        record(b'{"active": true}', at=float("inf")),
        record(b'{"active": true}', at=float("-inf")),
        record(b'{"active": true}', life=float("nan")),
        record(b'{"active": true}', at=0.0),
        record(b'{"active": true}', at=time.time() + 3600),
    ],
    ids=lambda plain: repr(plain[16:60]),  # without the time
)
async def test_what_is_sealed_is_read_as_strictly_as_an_answer(redis, idp, worker, plain):
    """N16, N21, T38: the seal says who wrote it, not that it makes sense."""
    one = await worker(redis)
    key = one.key("t")
    redis.call("SET", key, sealed(one, key, plain))
    assert await one.get("t") is INACTIVE
    assert len(idp.questions) == 1
    assert sum(one.count("cache_misses", "shared", reason) for reason in REASONS) == 1


@pytest.mark.parametrize("make", [("LPUSH", "x"), ("HSET", "f", "v"), ("SADD", "x"), ("XADD", "*", "f", "v")])
async def test_a_key_of_another_type(redis, idp, worker, make):
    """T37, R7: a miss; the next answer takes its place."""
    idp.tokens["t"] = {"sub": "alex"}
    one, two = await worker(redis), await worker(redis)
    command, *rest = make
    redis.call(command, one.key("t"), *rest)
    assert await one.active("t")
    await one.landed()
    assert one.count("cache_misses", "shared", "other_type") == 1
    assert await two.active("t")
    assert len(idp.questions) == 1


async def test_a_poisoned_value_is_asked_about_and_replaced(redis, idp, worker):
    """T38: one question, for all; then the good one is there."""
    idp.tokens["t"] = {"sub": "alex"}
    one, two = await worker(redis), await worker(redis)
    redis.call("SET", one.key("t"), b'{"active": true, "sub": "mallory"}')
    assert (await one.get("t")).claims["sub"] == "alex"
    await one.landed()
    assert (await two.get("t")).claims["sub"] == "alex"
    assert len(idp.questions) == 1


async def test_two_values_swapped(redis, idp, worker):
    """T38, N25: each is sealed for its own key."""
    idp.tokens |= {"a": {"sub": "alex"}, "b": {"sub": "sam"}}
    one, two = await worker(redis), await worker(redis)
    for value in "ab":
        await one.get(value)
    await one.landed()
    a, b = (redis.call("GET", one.key(value)) for value in "ab")
    redis.call("MSET", one.key("a"), b, one.key("b"), a)
    assert [(await two.get(value)).claims["sub"] for value in "ab"] == ["alex", "sam"]
    assert two.count("cache_misses", "shared", "forged") == 2


async def test_an_old_value_put_back_after_a_revocation(redis, idp, worker):
    """T24, R7: it opens, and it is refused: the ledger beats every value."""
    idp.tokens |= {"t": {"sub": "alex"}, "u": {"sub": "sam"}}
    one, two = await worker(redis), await worker(redis)
    old = {}
    for value in "tu":
        await one.get(value)
        await one.landed()
        old[value] = redis.call("GET", one.key(value))
    one.tokens.revoke(token="t")
    one.tokens.revoke(sub="sam")
    assert await one.tokens.told()
    for value in "tu":
        redis.call("SET", one.key(value), old[value])
    three = await worker(redis)
    for each in (one, two, three):
        for value in "tu":
            assert await each.ask(value) is INACTIVE
    assert three.count("cache_hits", "shared", "revoked") == 1


async def test_an_old_value_put_back_in_its_time(redis, idp, worker):
    """R7, N20: it is as old as it says, however long Redis would keep it now."""
    idp.tokens["t"] = {"sub": "alex"}
    one = await worker(redis)
    await one.get("t")
    await one.landed()
    old = redis.call("GET", one.key("t"))
    later = await worker(redis, skew=301.0)
    redis.call("SET", one.key("t"), old, "PX", 300_000)
    del idp.tokens["t"]
    assert await later.get("t") is INACTIVE
    assert later.count("cache_misses", "shared", "stale") == 1
