"""Redis that is down, hung, slow, empty, full, read-only or of no use: requests go on, and it is used again soon."""

import asyncio
import sys
import time
from contextlib import suppress

import pytest
import structlog

from fastgate.model import INACTIVE
from fastgate.model import Redis as Settings
from tests.support.chaos import Chaos
from tests.support.redis import Redis
from tests.tokens.shared.parts import soon

BACK = 2.0
"""Seconds within which a Redis that has come back is used again."""
AMPLE = 5.0
"""Added where the machine may be busy with something else."""


@pytest.fixture
def tokens_of(idp):
    """Make tokens that the identity provider knows."""
    idp.tokens |= {f"t{number}": {"sub": f"user-{number}", "exp": soon()} for number in range(500)}
    return idp.tokens


async def test_redis_comes_after_the_gateway(own_redis, tokens_of, idp, worker):
    """R1, P6: it starts without, says so once, and shares as soon as Redis is there."""
    own_redis.kill()
    with structlog.testing.capture_logs() as logs:
        one = await worker(own_redis)
        assert not one.up
        assert one.status["problem"].startswith("connection: is it running")
        assert await one.active("t0")
        assert one.stats.shared_up.values == {("redis",): 0}
        own_redis.start()
        came = time.monotonic()
        await one.until(lambda: one.up)
        assert time.monotonic() - came < BACK + AMPLE
        await one.get("t1")
        await one.landed()
    assert own_redis.call("EXISTS", one.key("t1")) == 1
    assert one.stats.shared_up.values == {("redis",): 1}
    assert [(line["event"], line.get("kind")) for line in logs] == [
        ("shared_tier_bypassed", "connection"),
        ("shared_tier_in_use", None),
    ]


async def test_redis_dies_under_load(own_redis, tokens_of, worker):
    """R1, T37: no request fails that a cold memory would have served, and none waits long."""
    one, two = await worker(own_redis), await worker(own_redis)

    async def load(each, begin):
        for number in range(begin, begin + 100):
            assert await each.active(f"t{number}")
            if number == begin + 30:
                own_redis.kill()
            if number == begin + 60:
                own_redis.start()

    await asyncio.gather(load(one, 0), load(two, 100))
    for each in (one, two):
        await each.until(lambda each=each: each.up)
        assert each.count("redis_errors", "connection") >= 1


@pytest.mark.parametrize("how", ["SIGSTOP", "CLIENT PAUSE"])
async def test_redis_hangs(own_redis, tokens_of, idp, worker, how):
    """R2, figure 17: the first request waits one deadline, the next ones none; used again when it goes on."""
    one = await worker(own_redis, timeout=0.05)
    await one.active("t0")
    if how == "SIGSTOP":
        own_redis.suspend()
    else:
        own_redis.call("CLIENT", "PAUSE", 2000, "ALL")
    began = time.monotonic()
    assert await one.active("t1")
    assert time.monotonic() - began < 0.05 + 1.0  # ample for asking; without a deadline it would be 2 s and more
    assert not one.up
    counted = one.count("redis_errors")
    states = await asyncio.gather(*(one.active(f"t{number}") for number in range(2, 100)))
    assert all(states)
    assert one.count("redis_errors") == counted  # nobody else has tried
    assert one.count("cache_misses", "shared", "bypassed") == 99
    if how == "SIGSTOP":
        own_redis.resume()
    await one.until(lambda: one.up)
    await one.active("t100")
    await one.landed()
    assert own_redis.call("EXISTS", one.key("t100")) == 1


async def test_redis_hangs_with_many_requests_under_way(own_redis, tokens_of, worker):
    """R2, R3: all that were under way give up together, and are served."""
    one = await worker(own_redis, timeout=0.05)
    own_redis.suspend()
    began = time.monotonic()
    assert all(await asyncio.gather(*(one.active(f"t{number}") for number in range(300))))
    assert time.monotonic() - began < 0.05 + AMPLE
    own_redis.resume()
    await one.until(lambda: one.up)


async def test_redis_hangs_while_its_answer_is_awaited(own_redis, tokens_of, idp, worker):
    """R2: what is to be told is given up in the background; who asked is served at once."""
    hold = asyncio.Event()
    idp.will(hold, idp.truth)
    one = await worker(own_redis, timeout=0.05)
    asking = asyncio.ensure_future(one.active("t0"))
    await idp.asked(1)
    own_redis.suspend()
    hold.set()
    assert await asyncio.wait_for(asking, AMPLE)
    await one.landed()
    own_redis.resume()
    await one.until(lambda: one.up)


async def test_a_slow_redis(own_redis, tokens_of, worker):
    """R3: slower than the deadline it is bypassed, and not tried by every request in turn."""
    async with Chaos(own_redis.port) as way:
        settings = own_redis.settings(timeout=0.05, addresses=(("127.0.0.1", way.port),))
        one = await worker(settings)
        assert one.up
        way.latency = 0.2
        assert await one.active("t0")
        assert not one.up
        counted = one.count("redis_errors")
        assert all(await asyncio.gather(*(one.active(f"t{number}") for number in range(1, 50))))
        assert one.count("redis_errors") - counted <= 2  # attempts to come back
        way.latency = 0.0
        await one.until(lambda: one.up)


async def test_a_redis_that_is_slow_within_the_deadline(own_redis, tokens_of, worker):
    """R3: operations go side by side: a hundred take little longer than one."""
    async with Chaos(own_redis.port) as way:
        one = await worker(own_redis.settings(timeout=1.0, addresses=(("127.0.0.1", way.port),)))
        way.latency = 0.01
        began = time.monotonic()
        assert all(await asyncio.gather(*(one.active(f"t{number}") for number in range(100))))
        assert time.monotonic() - began < 100 * 0.02  # one after the other: a look and a claim of 20 ms each
        assert one.up
        assert 4 < way.accepted <= 34


async def test_a_narrow_way(own_redis, tokens_of, worker):
    """R3: an octet now and then is a hung Redis, too."""
    async with Chaos(own_redis.port) as way:
        one = await worker(own_redis.settings(timeout=0.1, addresses=(("127.0.0.1", way.port),)))
        way.bandwidth = 100
        assert await one.active("t0")
        assert not one.up
        way.bandwidth = None
        await one.until(lambda: one.up)


async def test_connections_are_reset_again_and_again(own_redis, tokens_of, worker):
    """R4: each time it is a miss, and a new connection."""
    async with Chaos(own_redis.port) as way:
        one = await worker(own_redis.settings(timeout=1.0, addresses=(("127.0.0.1", way.port),)))
        for number in range(5):
            way.reset()
            assert await one.active(f"t{number}")
            assert one.count("redis_errors", "connection") > number  # seen as what it is, at once
            await one.until(lambda: one.up)
        # asyncio (not uvloop) of Python 3.13 may lose the wake-up of a connection under way then: that one times out.
        assert sys.version_info >= (3, 13) or one.count("redis_errors", "timeout") == 0


async def test_everything_is_flushed_again_and_again(own_redis, tokens_of, idp, worker):
    """R9, figure 13: each live token is asked about once more, by one worker of all."""
    workers = [await worker(own_redis) for _ in range(4)]
    for round_ in range(1, 4):
        await asyncio.gather(*(each.ask(f"t{number}") for each in workers for number in range(50)))
        assert len(idp.questions) == 50 * round_
        await asyncio.gather(*(each.landed() for each in workers))
        own_redis.call("FLUSHALL")


async def test_redis_is_a_replica_now(own_redis, tokens_of, idp, worker):
    """R4: it is read, nothing is written, every worker asks for itself; written to again when it is the master."""
    with Redis() as master:
        one, two = await worker(own_redis), await worker(own_redis)
        await one.get("t0")
        await one.landed()
        own_redis.call("CONFIG", "SET", "replica-read-only", "yes")
        with structlog.testing.capture_logs() as logs:
            own_redis.call("REPLICAOF", "127.0.0.1", master.port)
            assert await one.active("t1")
            await one.until(lambda: one.up and not one.status["writable"])
            assert "replica" in one.status["problem"]
            assert await one.active("t2")
            counted = one.count("leases", "alone")
            assert await one.active("t3")
            assert one.count("leases", "alone") == counted + 1
        assert [line["event"] for line in logs].count("shared_tier_not_written") >= 1
        own_redis.call("REPLICAOF", "NO", "ONE")
        await one.until(lambda: one.status["writable"])
        await one.get("t4")
        await one.landed()
        assert own_redis.call("EXISTS", one.key("t4")) == 1
        await two.until(lambda: two.up)


async def test_redis_is_full(own_redis, tokens_of, worker):
    """R5: what cannot be written is counted and shown; reading goes on."""
    one, two = await worker(own_redis), await worker(own_redis)
    await one.get("t0")
    await one.landed()
    own_redis.call("CONFIG", "SET", "maxmemory-policy", "noeviction")
    own_redis.call("CONFIG", "SET", "maxmemory", 1)
    assert await two.active("t0")
    assert two.count("cache_hits", "shared", "active") == 1
    for number in range(1, 5):
        assert await one.active(f"t{number}")
    assert one.up
    assert one.status["errors"] == {"out_of_memory": 1}  # the first one; the others did not try
    three = await worker(own_redis)
    assert three.status == {
        **three.status,
        "reachable": True,
        "writable": False,
        "problem": "out_of_memory: it is full: raise its maxmemory, or choose a maxmemory-policy that evicts",
    }
    assert await three.active("t0")
    own_redis.call("CONFIG", "SET", "maxmemory", 0)
    await three.until(lambda: three.status["writable"])
    await one.get("t5")
    await one.landed()
    assert own_redis.call("EXISTS", one.key("t5")) == 1


async def test_redis_fills_up_while_we_ask(own_redis, tokens_of, idp, worker):
    """R5, I10: the answer cannot be kept, but whoever waits is told."""
    hold = asyncio.Event()
    idp.will(hold, idp.truth)
    one, two = await worker(own_redis), await worker(own_redis)
    first = asyncio.ensure_future(one.active("t0"))
    await idp.asked(1)
    second = asyncio.ensure_future(two.active("t0"))
    await two.until(lambda: two.count("leases", "follower") == 1)
    own_redis.call("CONFIG", "SET", "maxmemory", 1)
    hold.set()
    assert await first
    assert await second
    await one.landed()
    assert len(idp.questions) == 1
    assert one.count("redis_errors", "out_of_memory") == 1


LOADING = b"-LOADING Redis is loading the dataset in memory\r\n"
ACL = ["reset", "on", ">pass", "~*", "&*", "+@all"]


@pytest.mark.parametrize(
    ("rules", "kind", "up"),
    [
        ([">other", "<pass"], "auth", False),
        (["-@write"], "permission", True),
        (["-@scripting"], "permission", False),
        (["resetchannels"], "permission", False),
        (["resetkeys", "~other:*"], "permission", False),
    ],
)
async def test_an_acl_that_lacks_something(own_redis, tokens_of, idp, worker, rules, kind, up):
    """R6, T37: degraded and said, never a crash; requests are served."""
    own_redis.call("ACL", "SETUSER", "gate", *ACL, *rules)
    settings = own_redis.settings(username="gate", password="pass", timeout=0.5)
    with structlog.testing.capture_logs() as logs:
        one = await worker(settings)
        assert (one.up, one.status["writable"]) == (up, False)
        assert one.status["problem"].startswith(kind)
        assert await one.active("t0")
    assert {line.get("kind") for line in logs if line["log_level"] == "warning"} == {kind}
    own_redis.call("ACL", "SETUSER", "gate", *ACL)
    await one.until(lambda: one.status["writable"])


async def test_a_user_with_no_more_than_is_needed(own_redis, tokens_of, worker):
    """R6: the rules of deploy/README suffice for everything."""
    own_redis.call("ACL", "SETUSER", "gate", *NEEDED)
    settings = own_redis.settings(username="gate", password="pass")
    one, two = await worker(settings), await worker(settings)
    assert await one.active("t0")
    await one.landed()
    assert await two.active("t0")
    assert await one.shared.first("x", 10)
    assert not await two.shared.first("x", 10)
    one.tokens.revoke(sub="user-0")
    assert await one.tokens.told()
    assert await two.get("t0") is INACTIVE or not await two.until(lambda: two.world.memory.active == 0)
    assert one.count("redis_errors") == two.count("redis_errors") == 0


NEEDED = ["reset", "on", ">pass", "~fastgate:*", "&fastgate:*"]
NEEDED += ["+evalsha", "+eval", "+ping", "+subscribe", "+publish", "+get", "+set", "+del", "+pttl", "+append"]
NEEDED += ["+getrange", "+pexpire", "+hmget", "+hset", "+hlen", "+hexists", "+hdel", "+hscan"]


@pytest.mark.parametrize(
    "answer", [LOADING * 50, b"HTTP/1.1 400 Bad Request\r\n\r\n", b"-ERR unknown\r\n" * 50, b"\x00" * 4096, b""]
)
async def test_something_else_listens_there(tokens_of, idp, worker, answer):
    """R6, P6: whatever it says, it is no Redis."""
    speaking = set()

    async def speak(reader, writer):
        speaking.add(asyncio.current_task())
        with suppress(OSError):
            writer.write(answer)
            await reader.read()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    one = await worker(Settings(kind="server", addresses=(("127.0.0.1", port),), secrets=("0123456789abcdef",)))
    assert not one.up
    assert answer[:8] != LOADING[:8] or one.status["problem"].startswith("loading")
    assert await one.active("t0")
    # It tries again and again: first it ends, then whoever it spoke to.
    await one.tokens.close()
    server.close()
    await asyncio.wait(speaking)
