"""What one worker revokes is refused by all within a second, and ever after, whatever becomes of Redis."""

import asyncio
import random
import time

import pytest
import structlog

from fastgate.model import INACTIVE, ActiveToken, Mark
from fastgate.policy.digest import fingerprint
from fastgate.tokens.revocation import RevocationsFullError
from fastgate.tokens.shared import ledger, session
from tests.support.chaos import Chaos
from tests.support.idp import says
from tests.support.redis import SECRET
from tests.tokens.shared.parts import Worker, soon

LEDGER, TAG, CHANNEL = "fastgate:{marks}:ledger", "fastgate:{marks}:tag", "fastgate:marks"
SECOND = 1.0
AMPLE = 4.0
OTHER = "another-secret-that-seals-things"


@pytest.fixture
def tokens_of(idp):
    now = int(time.time())
    idp.tokens |= {
        value: {"sub": f"sub-of-{value}", "sid": f"sid-of-{value}", "client_id": "app", "iat": now, "exp": now + 600}
        for value in ("a", "b", "c")
    }
    return idp.tokens


@pytest.fixture
def brisk(monkeypatch):
    """Let sessions look after everything more often than once a second."""
    monkeypatch.setattr(session, "WATCH_SECONDS", 0.1)


async def knows(worker, claim, value=""):
    """Wait until the worker knows of a revocation."""
    await worker.until(lambda: worker.tokens.revoking.mark(claim, value) is not None, f"the revocation of {claim}")


@pytest.mark.parametrize(
    "what", [{"token": "a"}, {"sub": "sub-of-a"}, {"sid": "sid-of-a"}, {"client_id": "app"}, {"all": True}]
)
async def test_revoked_here_refused_there(redis, tokens_of, worker, what):
    """T24, figure 3: within a second, remembered or not, on a worker that starts later, and ever after."""
    one, two = await worker(redis), await worker(redis)
    for each in (one, two):
        assert await each.active("a")
    one.tokens.revoke(**what)
    began = time.monotonic()
    assert await one.get("a") is INACTIVE
    await two.until(lambda: two.count("marks", "received") == 1)
    assert time.monotonic() - began < SECOND + AMPLE
    assert await two.get("a") is INACTIVE
    assert await one.tokens.told() is True
    three = await worker(redis)
    for each in (one, two, three):
        assert await each.ask("a") is INACTIVE
        assert await each.active("b") is (what.keys() & {"token", "sub", "sid"} != set())


async def test_one_token_of_which_nobody_knows_the_end(redis, tokens_of, worker):
    """T24: it is refused by name, wherever it turns up."""
    one, two = await worker(redis), await worker(redis)
    one.tokens.revoke(token="never seen")
    await two.until(lambda: two.count("marks", "received") == 1)
    tokens_of["never seen"] = {"sub": "alex"}
    assert await two.get("never seen") is INACTIVE


async def test_many_at_once(redis, worker):
    """T24: in batches, each of them known to the others and to those that come later."""
    one, two = await worker(redis), await worker(redis)
    for number in range(1000):
        one.tokens.revoke(sub=f"user-{number}")
    assert await one.tokens.told()
    assert redis.call("HLEN", LEDGER) == 1000
    await two.until(lambda: len(two.tokens.marks()) == 1000)
    three = await worker(redis)
    assert sorted(three.tokens.marks()) == sorted(one.tokens.marks()) == sorted(two.tokens.marks())
    assert one.count("marks", "sent") == 1000
    assert one.count("marks", "received") == 0


async def test_the_same_again(redis, worker):
    """T24: a revocation that is made twice, and by two, lies there once."""
    one, two = await worker(redis), await worker(redis)
    for each in (one, two, one):
        each.tokens.revoke(sub="alex")
        assert await each.tokens.told()
    assert redis.call("HLEN", LEDGER) == 1
    first, second = one.tokens.revoking.mark("sub", "alex"), two.tokens.revoking.mark("sub", "alex")
    await one.until(lambda: one.tokens.revoking.mark("sub", "alex") == two.tokens.revoking.mark("sub", "alex"))
    assert first.until <= one.tokens.revoking.mark("sub", "alex").until >= second.until


# --- races ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [250, pytest.param(1000, marks=pytest.mark.slow)])
async def test_revoked_while_it_is_asked_about(redis, tokens_of, idp, worker, count):
    """T24, I12: whichever comes first, and wherever: 0 tokens come back."""
    chance = random.Random(1)
    one, two, three = [await worker(redis) for _ in range(3)]
    for number in range(count):
        value = f"race-{number}"
        tokens_of[value] = {"sub": value, "iat": int(time.time()), "exp": soon()}
        asking = [asyncio.ensure_future(each.get(value)) for each in (one, two)]
        await asyncio.sleep(chance.choice([0, 0, 0.001, 0.002, 0.004]))
        what = {"token": value} if chance.random() < 0.5 else {"sub": value}
        three.tokens.revoke(**what)
        await asyncio.gather(*asking)
        await three.tokens.told()
        claim = "sub" if "sub" in what else "token"
        name = value if claim == "sub" else three.tokens.revoking.fingerprints(value)[0].hex()
        for each in (one, two, three):
            await knows(each, claim, name)
            assert await each.get(value) is INACTIVE
            assert await each.ask(value) is INACTIVE


async def test_an_answer_from_before_the_revocation(redis, tokens_of, idp, worker):
    """I12: what was under way when it was revoked elsewhere is not written as active."""
    hold = asyncio.Event()
    idp.will(hold, says({"active": True, **tokens_of["a"]}))
    one, two = await worker(redis), await worker(redis)
    asking = asyncio.ensure_future(one.get("a"))
    await idp.asked(1)
    two.tokens.revoke(sub="sub-of-a")
    await knows(one, "sub", "sub-of-a")
    hold.set()
    assert await asking is INACTIVE
    await one.landed()
    three = await worker(redis)
    assert await three.get("a") is INACTIVE
    assert three.count("cache_hits", "shared", "inactive") == 1


# --- Redis loses it ------------------------------------------------------------------------------------------------


async def test_redis_comes_back_empty(own_redis, tokens_of, worker):
    """T24, R5: the gateways that know put it back, before anybody new needs it."""
    one = await worker(own_redis)
    one.tokens.revoke(sub="sub-of-a")
    one.tokens.revoke(token="b")
    assert await one.tokens.told()
    own_redis.kill()
    own_redis.start()
    await one.until(lambda: own_redis.call("HLEN", LEDGER) == 2)
    two = await worker(own_redis)
    assert [await two.get(value) for value in "ab"] == [INACTIVE] * 2


@pytest.mark.parametrize("how", ["FLUSHALL", "HDEL", "DEL", "other type", "altered", "older"])
async def test_it_vanishes_from_a_redis_that_stays(brisk, redis, tokens_of, worker, how):
    """T24, T38: looked after by everybody who knows, and put back within seconds."""
    one = await worker(redis)
    one.tokens.revoke(sub="sub-of-a")
    await one.tokens.told()
    (name, first) = redis.call("HGETALL", LEDGER)
    await asyncio.sleep(0.01)
    one.tokens.revoke(sub="sub-of-a")
    await one.tokens.told()
    good = redis.call("HGETALL", LEDGER)
    assert good[1] != first
    match how:
        case "FLUSHALL":
            redis.call("FLUSHALL")
        case "HDEL":
            redis.call("HDEL", LEDGER, name)
        case "DEL":
            redis.call("DEL", LEDGER)
        case "other type":
            redis.call("SET", LEDGER, "x")
        case "altered":
            redis.call("HSET", LEDGER, name, good[1][:-1] + b"x")
        case "older":
            redis.call("HSET", LEDGER, name, first)
    await one.until(lambda: redis.call("TYPE", LEDGER) == b"hash" and redis.call("HGETALL", LEDGER) == good)
    two = await worker(redis)
    assert await two.get("a") is INACTIVE


async def test_revoked_while_redis_is_away(own_redis, tokens_of, worker):
    """T24: in force here at once, said not to have reached the others, and sent when Redis is there again."""
    one, two = await worker(own_redis), await worker(own_redis)
    own_redis.kill()
    await one.until(lambda: not one.up)
    one.tokens.revoke(sub="sub-of-a")
    assert await one.tokens.told() is False
    assert one.status["unsent_revocations"] == 1
    assert await one.get("a") is INACTIVE
    own_redis.start()
    await two.until(lambda: two.count("marks", "received") == 1)
    assert await two.get("a") is INACTIVE
    assert await one.tokens.told() is True


async def test_revoked_while_redis_is_hung(own_redis, worker):
    """T24, R2: the answer to the operator waits a deadline, no longer."""
    one = await worker(own_redis, timeout=0.05)
    own_redis.suspend()
    began = time.monotonic()
    one.tokens.revoke(sub="alex")
    assert await one.tokens.told() is False
    assert time.monotonic() - began < 0.05 + AMPLE
    own_redis.resume()
    await one.until(lambda: not one.status["unsent_revocations"])


async def test_redis_cannot_be_written_to(brisk, own_redis, worker):
    """R5: not sent, said so, and sent when it can be."""
    one, two = await worker(own_redis), await worker(own_redis)
    own_redis.call("CONFIG", "SET", "maxmemory", 1)
    one.tokens.revoke(sub="alex")
    assert await one.tokens.told() is False
    own_redis.call("CONFIG", "SET", "maxmemory", 0)
    await knows(two, "sub", "alex")
    assert await one.tokens.told() is True


async def test_a_worker_that_was_cut_off(brisk, redis, tokens_of, worker):
    """T24: what was revoked meanwhile is learned before anything is taken out of Redis again."""
    async with Chaos(redis.port) as way:
        one = await worker(redis)
        two = await worker(redis.settings(timeout=0.1, addresses=(("127.0.0.1", way.port),)))
        assert await one.active("a")
        await one.landed()
        way.hung = True
        await two.until(lambda: not two.up)
        one.tokens.revoke(sub="sub-of-a")
        await one.tokens.told()
        way.hung = False
        await two.until(lambda: two.up)
        assert await two.get("a") is INACTIVE


async def test_a_message_that_is_lost(redis, tokens_of, worker):
    """T24: a change that nobody told of is noticed within a second or so."""
    one, two = await worker(redis), await worker(redis)
    two.shared._session._messages._receivers = {}
    one.tokens.revoke(sub="alex")
    began = time.monotonic()
    await knows(two, "sub", "alex")
    assert time.monotonic() - began < 1.2 + AMPLE


async def test_a_message_connection_that_says_nothing_any_more(brisk, redis, worker):
    """R2, T24: it is pinged, and replaced when it does not answer."""
    one = await worker(redis)
    connection = one.shared._session._messages._connection
    connection._writer.transport.pause_reading()
    await one.until(lambda: one.shared._session._messages._connection is not connection and one.up)
    assert one.count("redis_errors", "timeout") == 1
    two = await worker(redis)
    two.tokens.revoke(sub="alex")
    await knows(one, "sub", "alex")


# --- who lies ------------------------------------------------------------------------------------------------------


async def test_forged_revocations(brisk, redis, tokens_of, worker):
    """T38: whoever can write to Redis can neither revoke nor read; each attempt is counted, and said."""
    one, two = await worker(redis), await worker(redis, secrets=(OTHER,))
    two.tokens.revoke(all=True)
    two.tokens.revoke(sub="sub-of-a")
    await two.tokens.told()
    one_mark, another = redis.call("HVALS", LEDGER)
    with structlog.testing.capture_logs() as logs:
        redis.call("HSET", LEDGER, b"x" * 16, b"garbage", b"y" * 16, one_mark, b"", b"")
        redis.call("HSET", LEDGER, b"w" * 16, another[:2] + one.shared._keyring._keys[0].id + another[6:])
        for message in (
            b"",
            b"x" * 40,
            b"x" * 32 + b"i" * 16 + b"\xff\xff\xff\xff",
            b"x" * 32 + b"i" * 16 + b"\0\0\0\1x",
        ):
            redis.call("PUBLISH", CHANNEL, message)
        redis.call("SET", TAG, "changed")
        await one.until(lambda: one.count("marks", "refused_forged") >= 1)
    assert one.count("marks", "refused_key") >= 1
    assert one.count("marks", "refused_version") >= 1
    assert [line["event"] for line in logs] == ["revocation_refused"]
    assert one.tokens.marks() == []
    assert await one.active("a")
    assert one.up
    assert redis.call("HLEN", LEDGER) == 6  # what cannot be read may be somebody else's


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b'["sub"]',
        b'["jti", "x", 1, 2.0]',
        b'["sub", 5, 1, 2.0]',
        b'["token", "no hex", 1, 2.0]',
        b'["sub", "alex", "1", 2.0]',
        b'["sub", "alex", true, 2.0]',
        b'["sub", "alex", 1, null]',
        b'["sub", "alex", 1, 1e999]',
    ],
)
async def test_a_revocation_that_makes_no_sense(brisk, redis, worker, content):
    """T38: sealed by one of us that went wrong."""
    one = await worker(redis)
    redis.call("HSET", LEDGER, b"i" * 16, one.shared._keyring.seal(b"mark", b"i" * 16, content))
    redis.call("SET", TAG, "changed")
    await one.until(lambda: one.count("marks", "refused_malformed") >= 1)
    assert one.tokens.marks() == []


async def test_a_revocation_that_is_over(redis, worker):
    """T24: what has run out long ago is removed, what has run out just now is not taken."""
    one = await worker(redis, skew=-10_000.0)
    one.tokens.revoking._revocations._ttl = 100.0
    one.tokens.revoke(sub="old")
    await one.tokens.told()
    assert redis.call("HLEN", LEDGER) == 1
    two = await worker(redis)
    assert two.tokens.marks() == []
    assert redis.call("HLEN", LEDGER) == 0


# --- secrets -------------------------------------------------------------------------------------------------------


async def test_a_host_with_another_secret(redis, tokens_of, worker):
    """R7: it believes nothing of the others, they nothing of it; all are served, and it is counted."""
    one, wrong = await worker(redis), await worker(redis, secrets=(OTHER,))
    assert await one.active("a")
    await one.landed()
    assert await wrong.active("a")
    assert wrong.count("cache_misses", "shared", "key") == 1
    one.tokens.revoke(sub="sub-of-a")
    await wrong.until(lambda: wrong.count("marks", "refused_key") >= 1)
    assert await wrong.active("a")


async def test_secrets_are_rotated(redis, tokens_of, worker):
    """N26: the new one is read everywhere, then it writes, then the old one is gone; nothing is lost on the way."""
    old, new = SECRET, OTHER
    one = await worker(redis, secrets=(old,))
    assert await one.active("a")
    await one.landed()
    one.tokens.revoke(token="b")
    await one.tokens.told()
    reading = await worker(redis, secrets=(old, new))
    writing = await worker(redis, secrets=(new, old))
    for each in (reading, writing):
        assert await each.active("a")
        assert await each.get("b") is INACTIVE
    writing.tokens.revoke(token="c")
    await reading.until(lambda: reading.count("marks", "received") >= 1)
    assert await reading.get("c") is INACTIVE
    await writing.ask("a")
    await writing.landed()
    assert await reading.ask("a") is not INACTIVE
    assert reading.count("cache_misses", "shared", "key") == 0


async def test_a_secret_changes_while_we_run(redis, tokens_of, worker):
    """P5: a reload takes it; what is known is sealed anew for those that only know the new one."""
    one = await worker(redis)
    one.tokens.revoke(sub="sub-of-a")
    one.tokens.revoke(token="b")
    await one.tokens.told()
    one.tokens.swap({"idp": one.provider}, (OTHER,))
    assert await one.tokens.told()
    assert [await one.get(value) for value in "ab"] == [INACTIVE] * 2
    two = await worker(redis, secrets=(OTHER,))
    assert await two.get("a") is INACTIVE
    two.tokens.revoke(token="c")
    await one.until(lambda: one.count("marks", "received") >= 1)
    assert await one.get("c") is INACTIVE


# --- limits --------------------------------------------------------------------------------------------------------


async def test_the_ledger_in_redis_is_full(redis, worker, monkeypatch):
    """T24: an alarm; what is in it may still be renewed."""
    monkeypatch.setattr(ledger, "MARKS_MAX", 2)
    one, two = await worker(redis), await worker(redis)
    for sub in ("a", "b"):
        one.tokens.revoke(sub=sub)
    await one.tokens.told()
    with structlog.testing.capture_logs() as logs:
        one.tokens.revoke(sub="c")
        await one.tokens.told()
    assert one.count("marks", "full") == 1
    assert [line["event"] for line in logs] == ["revocations_full"]
    assert redis.call("HLEN", LEDGER) == 2
    await knows(two, "sub", "c")  # told all the same
    one.tokens.revoke(sub="a")
    await one.tokens.told()
    assert one.count("marks", "full") == 1


async def test_a_worker_without_room(redis, worker):
    """T24: an alarm; what it has stays, and it goes on."""
    one, two = await worker(redis), await worker(redis)
    two.tokens.revoking._revocations._max_entries = 1
    for sub in ("a", "b"):
        one.tokens.revoke(sub=sub)
        await one.tokens.told()
    await two.until(lambda: two.count("marks", "full") >= 1)
    assert len(two.tokens.marks()) == 1
    assert two.up
    with pytest.raises(RevocationsFullError):
        two.tokens.revoke(sub="c")


async def test_nothing_is_shared(idp):
    """T24: without a shared tier there is nobody to tell."""
    alone = Worker(None, idp)
    alone.tokens.revoke(sub="a")
    assert await alone.tokens.told() is None
    await alone.tokens.close()


async def test_a_mark_lives_as_long_as_the_tokens_it_covers(brisk, redis, tokens_of, idp, worker):
    """T24: a later `exp` that one worker sees keeps the revocation alive everywhere."""
    one = await worker(redis)
    one.tokens.revoke(sub="sub-of-a")
    await one.tokens.told()
    long = soon(500_000)
    tokens_of["a"]["exp"] = long
    assert await one.get("a") is INACTIVE
    assert one.tokens.revoking.mark("sub", "sub-of-a").until == long
    two = await worker(redis)
    await two.until(lambda: two.tokens.revoking.mark("sub", "sub-of-a") == Mark("sub", "sub-of-a", *times(one)))
    assert isinstance(await two.get("b"), ActiveToken)


def times(worker):
    mark = worker.tokens.revoking.mark("sub", "sub-of-a")
    return mark.at, mark.until


async def test_workers_of_one_host_that_exchange_revocations_themselves(redis, tokens_of, worker):
    """T24: what they digest with a key of the host's own is known to them, whatever is known in Redis."""
    one, two = await worker(redis), await worker(redis)
    for each in (one, two):
        each.tokens.revoking._own_key = b"of this host"
        each.tokens.revoking.share(each.shared.fingerprint_keys)
    mark = Mark("token", fingerprint("a", b"of this host").hex(), int(time.time()), soon())
    two.tokens.take([mark])
    assert await two.get("a") is INACTIVE
    one.tokens.revoke(token="b")
    await two.until(lambda: two.count("marks", "received") == 1)
    assert await two.get("b") is INACTIVE
