"""What only workers can know, since they speak with Redis: asked of real ones, by the supervisor's own parts."""

import asyncio
import json
import os
import signal
from contextlib import asynccontextmanager

import pytest

from fastgate.config.load import load
from fastgate.control.tally import Totals
from fastgate.stats import Stats
from fastgate.supervisor.changes import read_once
from fastgate.supervisor.fleet import Fleet
from fastgate.supervisor.operations import FleetOperations
from fastgate.supervisor.seen import FleetSeen
from fastgate.supervisor.sockets import Sockets
from fastgate.supervisor.zygote import Zygote
from tests.conftest import real
from tests.contract.parts import config
from tests.support.process import free_port, scratch
from tests.support.redis import SECRET, Redis

from .parts import until

PATIENCE = 30.0
LONG = 60.0
"""Seconds for which a name is not new."""


@pytest.fixture
def redis():
    with real(Redis) as started:
        yield started


class Host:
    """A fleet of two workers in this very process."""

    def __init__(self, fleet, totals):
        self.fleet = fleet
        self.seen = FleetSeen(fleet)
        self.operations = FleetOperations(fleet, totals, lambda: None, None, {})

    async def sharing(self):
        """Wait until every worker speaks with Redis."""

        async def all_share():
            await self.operations.refresh()
            serving = self.fleet.serving
            return len(serving) == 2 and all(each.status["cache"]["shared"]["reachable"] for each in serving)

        await until(all_share, "workers to share")

    async def told(self):
        """Ask each worker."""
        return [await member.told(PATIENCE) for member in self.fleet.serving]

    async def replaced(self, before):
        """Wait until none of these processes is left."""

        async def there():
            serving = self.fleet.serving
            return len(serving) == 2 and not before & {member.pid for member in serving}

        await until(there, "new workers")

    def signal(self, number):
        """Send a signal to every worker."""
        for member in self.fleet.serving:
            os.kill(member.pid, number)


@asynccontextmanager
async def host(idp, upstream, redis=None):
    """Start one; `redis` is what it shares with others."""
    shared = {} if redis is None else {"redis": {"url": redis.url, "secrets": [SECRET], "timeout": "500ms"}}
    file = scratch("fleet") / "fastgate.yaml"
    listen = f"127.0.0.1:{free_port()}"
    file.write_text(json.dumps(config(idp, upstream, listen=listen, admin=False, workers=2, cache=shared)))
    reading = read_once(lambda: load(str(file), {}))
    sockets, totals = Sockets(reading.settings, reading.force.workers), Totals(Stats())
    fleet = Fleet(reading.force, sockets, Zygote(), totals)
    try:
        await fleet.start()
        started = Host(fleet, totals)
        if redis is not None:
            await started.sharing()
        yield started
    finally:
        await fleet.stop()
        sockets.close()


async def test_a_name_on_two_hosts(idp, upstream, redis):
    """I12, R1: taken by one it is new to nobody, while Redis is there; else it is new to each host, once."""
    async with host(idp, upstream, redis) as one, host(idp, upstream, redis) as two:
        assert await one.seen.first("a-jti", LONG)
        assert not await one.seen.first("a-jti", LONG)
        assert not await two.seen.first("a-jti", LONG)
        assert await two.seen.first("b-jti", LONG)
        # Whichever worker is asked: what one of them knows, Redis tells all.
        for member in (*one.fleet.serving, *two.fleet.serving):
            assert not await member.first("b-jti", LONG, PATIENCE)
        redis.kill()
        for each in (one, two):
            assert await each.seen.first("c-jti", LONG)
            assert not await each.seen.first("c-jti", LONG)
            assert not await each.seen.first("a-jti", LONG)


async def test_a_name_that_was_taken_by_workers_that_are_gone(idp, upstream, redis):
    """I12: the supervisor knows it, and Redis tells others: nothing depends on the worker that was asked."""
    async with host(idp, upstream, redis) as one, host(idp, upstream, redis) as two:
        assert await one.seen.first("a-jti", LONG)
        before = {member.pid for member in one.fleet.serving}
        one.signal(signal.SIGKILL)
        await one.replaced(before)
        assert not await one.seen.first("a-jti", LONG)
        assert not await two.seen.first("a-jti", LONG)


async def test_workers_that_hang(idp, upstream, redis):
    """I12: a notice is not lost with a worker that does not answer in time, and is a replay here all the same."""
    async with host(idp, upstream, redis) as one:
        one.signal(signal.SIGSTOP)
        assert await one.seen.first("a-jti", LONG)
        assert not await one.seen.first("a-jti", LONG)
        assert [await member.told(0.1) for member in one.fleet.serving] == [None, None]
        assert await one.operations.told() is None
        one.signal(signal.SIGKILL)
        await asyncio.gather(*(member.gone.wait() for member in list(one.fleet.members)))


async def test_without_a_redis(idp, upstream):
    """T24: nothing is shared, so nothing is said of that; a name is new once."""
    async with host(idp, upstream) as one:
        assert await one.seen.first("a-jti", LONG)
        assert not await one.seen.first("a-jti", LONG)
        assert await one.operations.revoke(sub="alex") == 0
        assert await one.told() == [None, None]
        assert await one.operations.told() is None
        # Each worker for itself: nobody has asked them.
        assert [await member.first("a-jti", LONG, PATIENCE) for member in one.fleet.serving] == [True, True]


async def test_whether_a_revocation_has_reached_redis(idp, upstream, redis):
    """T24: it has when every worker that answers says so; none of them keeps the others from being asked."""
    async with host(idp, upstream, redis) as one:
        assert await one.operations.revoke(sub="alex") == 0
        assert await one.told() == [True, True]
        assert await one.operations.told() is True
        hung = one.fleet.serving[0]
        os.kill(hung.pid, signal.SIGSTOP)
        assert await one.operations.told() is True
        os.kill(hung.pid, signal.SIGCONT)
        redis.kill()
        assert await one.operations.revoke(sub="sam") == 0
        assert await one.told() == [False, False]
        assert await one.operations.told() is False
        redis.start()

        async def told():
            return await one.operations.told()

        assert await until(told, "the revocation to reach Redis")
        assert len(redis.keys("fastgate:*")) > 0


async def test_what_another_host_revoked(idp, upstream, redis):
    """T24: the supervisor knows it as soon as one of its workers does, for those that begin when Redis is gone."""
    async with host(idp, upstream, redis) as one, host(idp, upstream, redis) as two:
        await one.operations.revoke(sub="alex")

        async def known():
            return [(mark.claim, mark.value) for mark in two.fleet.ledger.marks()] == [("sub", "alex")]

        await until(known, "the word of a worker")
        redis.kill()
        before = {member.pid for member in two.fleet.serving}
        two.signal(signal.SIGKILL)
        await two.replaced(before)
        assert [mark.value for member in two.fleet.serving for mark in await member.marks(PATIENCE)] == ["alex"] * 2
