"""Revocations over several workers: in force in all of them before they are confirmed, and in those that come later."""

import os
import signal
import time

from tests.contract.parts import READER, config

from .parts import Fleet, until

TWO = {"workers": 2}
TRIES = 12
"""New connections, each to any worker: that one of two gets none of them happens once in two thousand times."""


async def answered(gateway, token="good"):
    """Ask on many new connections; returns which answers came."""
    return {(await gateway.get("/api", token=token)).status for _ in range(TRIES)}


async def test_on_all_of_them_and_on_those_that_come_later(idp, upstream):
    """T24: the number is that of all memories together; a worker that is new refuses what was revoked before it."""
    idp.tokens |= {token: {**READER, "sub": token} for token in ("sam", "kim")}
    async with Fleet(config(idp, upstream, **TWO)) as gateway:

        async def all_answer(*statuses):
            assert [await answered(gateway, token) for token in ("good", "sam", "kim")] == [{each} for each in statuses]

        await all_answer(200, 200, 200)
        assert await gateway.metric("fastgate_cache_entries", state="active") == 6
        assert await gateway.revoke(token="good") == 1
        await all_answer(401, 200, 200)
        assert await gateway.revoke(sub="sam") == 2
        await all_answer(401, 401, 200)
        before = await gateway.pids()
        os.kill(before[1], signal.SIGKILL)
        os.kill(before[2], signal.SIGKILL)
        await gateway.serving(2, without=set(before.values()))
        # The identity provider would still say "active": only the gateway knows.
        await all_answer(401, 401, 200)
        assert (await gateway.status())["revocations"] == 2
        assert await gateway.metric("fastgate_revocations_total") == 2
        assert await gateway.revoke(all=True) == 2
        await all_answer(401, 401, 401)
        gateway.process.signal(signal.SIGUSR2)

        async def renewed():
            return await gateway.metric("fastgate_config_reloads_total", outcome="taken") == 1

        await until(renewed, "new workers")
        await all_answer(401, 401, 401)
    assert "good" not in gateway.log()


async def test_how_long_it_has_to_last(idp, upstream):
    """T24: what one worker knows of a token's end holds in all of them, also in those that have never seen it."""
    idp.tokens["good"] |= {"exp": int(time.time()) + 3600}
    changes = {**TWO, "cache": {"revocation_ttl": "1s"}}
    async with Fleet(config(idp, upstream, **changes)) as gateway:
        assert (await gateway.get("/api", token="good")).status == 200
        assert await gateway.metric("fastgate_cache_entries", state="active") == 1
        assert await gateway.revoke(token="good") == 1
        end = time.time() + 1.5

        async def over():
            return time.time() > end

        await until(over, "the end of the time for revocations of which no end is known")
        before = await gateway.pids()
        os.kill(before[1], signal.SIGKILL)
        await gateway.serving(2, without={before[1]})
        assert await answered(gateway) == {401}


async def test_a_worker_that_does_not_confirm(idp, upstream):
    """T24: the answer waits for it, but not for ever: it is replaced by one that refuses, before operators are told."""
    async with Fleet(config(idp, upstream, **TWO, worker_timeout="1m")) as gateway:
        assert await answered(gateway) == {200}
        before = await gateway.pids()
        os.kill(before[1], signal.SIGSTOP)
        assert await gateway.revoke(sub="alex") == 1
        after = await gateway.serving(2, without={before[1]})
        assert after[2] == before[2]
        assert await answered(gateway) == {401}
    assert [event["worker"] for event in gateway.events("worker does not confirm a change: ended")] == [1]
