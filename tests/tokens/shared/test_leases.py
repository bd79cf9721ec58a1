"""Of all workers one asks and the others are told: whoever dies, fails, is late, or lies."""

import asyncio
import time

import pytest

from fastgate.errors import Cannot, IntrospectionError
from fastgate.model import INACTIVE, ActiveToken
from fastgate.tokens.shared import leases, obtaining
from fastgate.tokens.shared.leases import Held, Lease
from fastgate.tokens.shared.states import Entry
from tests.support.idp import says
from tests.tokens.shared.parts import fresher, question, soon

AMPLE = 5.0


def place(worker, value):
    return leases.Place(worker.key(value), worker.key(value, "lease"))


async def claim(worker, value):
    return await worker.shared._leases.claim(place(worker, value), b"", 20.0)


async def dead_owner(worker, value):
    """Claim a lease as a worker does that is killed right after."""
    lease = await claim(worker, value)
    assert isinstance(lease, Lease)
    worker.shared._leases._held.clear()
    return lease


async def following(*workers):
    for worker in workers:
        await worker.until(lambda worker=worker: worker.count("leases", "follower") == 1, "a follower")


def held(idp):
    """Let the token `t` be active, and the first question about it wait for what is returned."""
    idp.tokens["t"] = {"sub": "alex", "exp": soon()}
    hold = asyncio.Event()
    idp.will(hold, idp.truth)
    return hold


async def settled(asking):
    return await asyncio.gather(*asking, return_exceptions=True)


# --- one asks, all are told ----------------------------------------------------------------------------------------


async def test_four_workers_with_a_hundred_requests_each(redis, idp, worker):
    """I10, T28, figure 13: exactly one question; the others are told, none looks again."""
    hold = held(idp)
    workers = [await worker(redis) for _ in range(4)]
    asking = [asyncio.ensure_future(each.get("t")) for each in workers for _ in range(100)]
    await idp.asked(1)
    await asyncio.sleep(0.05)
    hold.set()
    states = await asyncio.gather(*asking)
    assert {state.claims["sub"] for state in states} == {"alex"}
    assert len(idp.questions) == 1
    assert sorted(tuple(each.stats.leases.values.items()) for each in workers) == [
        *([((("follower",), 1),)] * 3),
        ((("owner",), 1),),
    ]
    assert sum(each.count("cache_hits", "shared", "told") for each in workers) == 3
    await asyncio.gather(*(each.landed() for each in workers))
    assert redis.keys("*:lease:*") == []


async def test_an_inactive_answer_is_told_too(redis, idp, worker):
    """I10, N18: of an unknown token all learn by one question that it is inactive."""
    hold = asyncio.Event()
    idp.will(hold, idp.truth)
    workers = [await worker(redis) for _ in range(3)]
    asking = [asyncio.ensure_future(each.get("bad")) for each in workers]
    await idp.asked(1)
    await asyncio.sleep(0.05)
    hold.set()
    assert await asyncio.gather(*asking) == [INACTIVE] * 3
    assert len(idp.questions) == 1


async def test_an_answer_that_is_not_kept_is_told(redis, idp, worker):
    """T27, T28: with freshness 0 nothing stays, but who waits is told."""
    hold = held(idp)
    one, two = await worker(redis), await worker(redis)
    asking = [asyncio.ensure_future(each.get("t", fresher(each, ttl_max=0.0))) for each in (one, two)]
    await idp.asked(1)
    await asyncio.sleep(0.05)
    hold.set()
    assert all(isinstance(state, ActiveToken) for state in await asyncio.gather(*asking))
    assert len(idp.questions) == 1


async def test_a_slow_identity_provider(redis, idp, worker):
    """R11: an owner that lives keeps its lease, however long the answer takes."""
    hold = held(idp)
    one, two = await worker(redis), await worker(redis)
    asking = [asyncio.ensure_future(each.get("t")) for each in (one, two)]
    await idp.asked(1)
    await asyncio.sleep(2 * leases.LEASE_SECONDS)
    hold.set()
    assert all(isinstance(state, ActiveToken) for state in await asyncio.gather(*asking))
    assert len(idp.questions) == 1


async def test_the_question_fails(redis, idp, worker):
    """T30, I15: all who wait are told at once, nothing is remembered, the next one asks."""
    idp.tokens["t"] = {"sub": "alex", "exp": soon()}
    hold = asyncio.Event()
    idp.will(hold, says(b"", 503, ("Retry-After", "7")))
    workers = [await worker(redis) for _ in range(3)]
    asking = [asyncio.ensure_future(each.get("t")) for each in workers]
    await idp.asked(1)
    await asyncio.sleep(0.05)
    hold.set()
    failures = await settled(asking)
    assert [(error.kind, error.retry_after) for error in failures] == [(Cannot.UNAVAILABLE, 7.0)] * 3
    assert sorted("another worker" in error.detail for error in failures) == [False, True, True]
    assert len(idp.questions) == 1
    assert redis.keys("*:[sl]*:*") == []
    followers = [each for each in workers if each.count("leases", "follower")]
    assert await followers[0].active("t")
    assert len(idp.questions) == 2


async def test_the_owner_has_no_room_to_ask(redis, idp, worker):
    """I11: its own limit is nobody else's: another worker takes over at once."""
    idp.tokens["t"] = {"sub": "alex", "exp": soon()}
    busy, idle = await worker(redis, concurrency=1), await worker(redis)
    hold = asyncio.Event()
    idp.will(hold, idp.truth)
    blocking = asyncio.ensure_future(busy.get("other"))
    await idp.asked(1)
    busy.tokens._introspectors._current[busy.provider]._lanes._max_waiting = 0
    asking = asyncio.ensure_future(busy.get("t"))
    with pytest.raises(IntrospectionError) as caught:
        await asking
    assert caught.value.kind is Cannot.OVERLOADED
    assert await idle.active("t")
    hold.set()
    await blocking


# --- whoever dies, is late or loses something ----------------------------------------------------------------------


async def test_the_owner_dies(redis, idp, worker):
    """R11, figure 13: exactly one of those who wait takes over, within the time of a lease."""
    idp.tokens["t"] = {"sub": "alex", "exp": soon()}
    dying, *others = [await worker(redis) for _ in range(4)]
    await dead_owner(dying, "t")
    began = time.monotonic()
    states = await asyncio.gather(*(each.get("t") for each in others for _ in range(50)))
    assert time.monotonic() - began < leases.LEASE_SECONDS + AMPLE
    assert {state.claims["sub"] for state in states} == {"alex"}
    assert len(idp.questions) == 1
    assert sorted(each.count("leases", "taken_over") for each in others) == [0, 0, 1]


async def test_the_owner_stops(redis, idp, worker):
    """P3, R11: a worker that is stopped gives its lease back at once."""
    idp.tokens["t"] = {"sub": "alex", "exp": soon()}
    idp.will(asyncio.Event())
    one, two = await worker(redis), await worker(redis)
    first = asyncio.ensure_future(one.get("t"))
    await idp.asked(1)
    second = asyncio.ensure_future(two.get("t"))
    await following(two)
    await one.tokens.close()
    assert isinstance(await second, ActiveToken)
    assert two.count("leases", "taken_over") == 1
    with pytest.raises(IntrospectionError):
        await first


async def test_an_owner_that_comes_late(redis, idp, worker):
    """R11, I12: what it learned is not written over what was learned after it."""
    late, prompt = await worker(redis), await worker(redis)
    lease = await dead_owner(late, "t")
    redis.call("DEL", prompt.key("t", "lease"))
    idp.tokens["t"] = {"sub": "new", "exp": soon()}
    await prompt.get("t")
    await prompt.landed()
    old = ActiveToken({"active": True, "sub": "old"})
    await late.shared._leases.land(lease, Entry(late.key("t"), old, time.time(), 300.0), 300.0)
    assert late.count("leases", "lost") == 1
    third = await worker(redis)
    assert (await third.get("t")).claims["sub"] == "new"


async def test_a_lost_message(redis, idp, worker):
    """I10: whoever was not told looks when the lease should have ended, and finds the answer."""
    hold = held(idp)
    one, two = await worker(redis), await worker(redis)
    first = asyncio.ensure_future(one.get("t"))
    await idp.asked(1)
    two.shared._session._messages._receivers = {}
    second = asyncio.ensure_future(two.get("t"))
    await following(two)
    hold.set()
    assert (await first).claims == (await second).claims
    assert len(idp.questions) == 1


async def test_a_message_that_comes_before_it_is_waited_for(redis, idp, worker):
    """I10: the answer to the claim and the message come on two connections, in any order."""
    idp.tokens["t"] = {"sub": "alex", "exp": soon()}
    one, two = await worker(redis), await worker(redis)
    lease = await claim(one, "t")
    held = await claim(two, "t")
    assert isinstance(held, Held)
    state = ActiveToken({"active": True, "sub": "alex"})
    await one.shared._leases.land(lease, Entry(one.key("t"), state, time.time(), 300.0), 0.0)
    await two.until(lambda: two.shared._obtaining._wakeups._recent)
    learned = await two.shared._obtaining._follow(question(two, "t"), place(two, "t"), held, 0.1)
    assert learned.state.claims["sub"] == "alex"


async def test_redis_dies_while_another_worker_asks(own_redis, idp, worker):
    """R1, R11: whoever waits asks for himself; one question per worker."""
    hold = held(idp)
    workers = [await worker(own_redis) for _ in range(3)]
    asking = [asyncio.ensure_future(each.get("t")) for each in workers for _ in range(10)]
    await idp.asked(1)
    await asyncio.sleep(0.05)
    own_redis.kill()
    await idp.asked(3)
    hold.set()
    assert all(isinstance(state, ActiveToken) for state in await asyncio.gather(*asking))
    assert len(idp.questions) == 3


async def test_the_line_breaks_for_a_moment_while_another_worker_asks(redis, idp, worker, monkeypatch):
    """R4, I10: whoever waits goes on waiting when the line is open again at once."""
    # "At once" is as long as it takes on a machine with other things to do.
    monkeypatch.setattr(obtaining, "REGAIN_SECONDS", AMPLE)
    monkeypatch.setattr(leases, "LEASE_SECONDS", AMPLE)
    hold = held(idp)
    one, two = await worker(redis), await worker(redis)
    first = asyncio.ensure_future(one.get("t"))
    await idp.asked(1)
    second = asyncio.ensure_future(two.get("t"))
    await following(two)
    for line in redis.call("CLIENT", "LIST", "TYPE", "pubsub").decode().splitlines():
        redis.call("CLIENT", "KILL", "ID", line.split()[0].removeprefix("id="))
    await one.until(lambda: one.count("redis_errors", "connection") and two.count("redis_errors", "connection"))
    for each in (one, two):
        await each.until(lambda each=each: each.up)
    hold.set()
    assert (await first).claims == (await second).claims
    assert len(idp.questions) == 1


async def test_the_owner_never_tells(redis, idp, worker):
    """T4: whoever waits does so no longer than the provider's timeout."""
    one, two = await worker(redis), await worker(redis, idp_timeout=0.4)
    await claim(one, "t")  # and renews it
    began = time.monotonic()
    with pytest.raises(IntrospectionError) as caught:
        await two.get("t")
    assert caught.value.kind is Cannot.TIMEOUT
    assert time.monotonic() - began < 0.4 + AMPLE
    assert idp.questions == []


# --- whoever lies --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("SET", "garbage"),
        ("SET", ""),
        ("SET", "x" * 5000),
        ("LPUSH", "x"),
        ("HSET", "f", "v"),
    ],
)
async def test_what_is_no_lease(redis, idp, worker, words):
    """T37, T38: nobody waits for it; the question is asked at once, by each worker for itself."""
    idp.tokens["t"] = {"sub": "alex", "exp": soon()}
    one = await worker(redis)
    command, *rest = words
    redis.call(command, one.key("t", "lease"), *rest)
    began = time.monotonic()
    assert await one.active("t")
    assert time.monotonic() - began < leases.LEASE_SECONDS + AMPLE
    assert one.stats.leases.values == {("odd",): 1, ("alone",): 1}


@pytest.mark.parametrize("how", ["another token's", "an old one", "an endless one", "of the future"])
async def test_a_lease_put_there_by_somebody_else(redis, idp, worker, how):
    """T38, R7: sealed for its place, for a time, and with an end."""
    idp.tokens["t"] = {"sub": "alex", "exp": soon()}
    skew = {"an old one": -50.0, "of the future": 3600.0}.get(how, 0.0)
    other, one = await worker(redis, skew=skew), await worker(redis)
    value = "other" if how == "another token's" else "t"
    await dead_owner(other, value)
    lease = redis.call("GET", other.key(value, "lease"))
    end = () if how == "an endless one" else ("PX", 60_000)
    redis.call("SET", one.key("t", "lease"), lease, *end)
    assert await one.active("t")
    assert one.count("leases", "odd") == 1


async def test_messages_put_there_by_somebody_else(redis, idp, worker):
    """T38, R7: neither an answer nor a failure that the owner did not tell is believed."""
    hold = held(idp)
    one, two = await worker(redis), await worker(redis)
    first = asyncio.ensure_future(one.get("t"))
    await idp.asked(1)
    second = asyncio.ensure_future(two.get("t"))
    await following(two)
    owner = redis.call("GET", two.key("t", "lease"))[8:24]
    channel = two.shared._leases.channel
    for said in (b"", b"\x01", b"\x02" + bytes(16) + b"{}", b"\x01" + bytes(16) + b'{"active": true}', b"\x03"):
        redis.call("PUBLISH", channel, owner + said)
        redis.call("PUBLISH", channel, b"x" * 20 + said)
    redis.call("PUBLISH", channel, b"y" * 200_000)
    await two.until(lambda: two.count("leases", "forged") >= 1)
    assert not second.done()
    hold.set()
    assert (await first).claims == (await second).claims
    assert len(idp.questions) == 1


async def test_an_old_answer_in_a_new_message(redis, idp, worker):
    """T38, T27: an owner's message with somebody else's content: older than the question, so it is none."""
    idp.tokens["t"] = {"sub": "alex", "exp": soon()}
    one, two = await worker(redis), await worker(redis)
    await one.get("t")
    await one.landed()
    old = redis.call("GET", one.key("t"))
    redis.call("DEL", one.key("t"))
    await asyncio.sleep(0.01)
    lease = await claim(one, "t")
    held = await claim(two, "t")
    waiting = asyncio.ensure_future(two.shared._obtaining._follow(question(two, "t"), place(two, "t"), held, 5.0))
    await asyncio.sleep(0.01)
    real = one.shared._leases._terms(lease, leases.Told.STATE).message
    redis.call("PUBLISH", two.shared._leases.channel, real + old)
    assert await waiting is None


async def test_a_lease_has_no_room_for_more_who_wait(redis, idp, worker, monkeypatch):
    """T37: they look again when it ends."""
    monkeypatch.setattr(leases, "LEASE_SIZE_MAX", 40)
    hold = held(idp)
    one, two = await worker(redis), await worker(redis)
    first = asyncio.ensure_future(one.get("t"))
    await idp.asked(1)
    second = asyncio.ensure_future(two.get("t"))
    await following(two)
    assert len(redis.call("GET", one.key("t", "lease"))) == 40
    hold.set()
    assert (await first).claims == (await second).claims
    assert len(idp.questions) == 1
