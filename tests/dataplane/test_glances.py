"""Tokens that nobody is asked about now: the express lane refuses them after a glance at what other workers know."""

from contextlib import asynccontextmanager

import pytest

from fastgate.dataplane.exchange import Exchange
from fastgate.dataplane.express_exchange import ExpressExchange
from fastgate.errors import Cannot
from fastgate.tokens.shared.tier import SharedTier
from tests.conftest import real
from tests.support.idp import Idp
from tests.support.plane import BEARER, Plane, access, provider
from tests.support.redis import Redis

LANES = ("express",)
"""What comes of such tokens on the general lane is what `Tokens.resolve` says: tests/tokens."""
FLOODED = {"inactive_rate": 0.001}
"""The first invented token is asked about, no other one for a quarter of an hour."""


@pytest.fixture
def redis():
    with real(Redis) as started:
        yield started


@pytest.fixture
async def idp():
    async with Idp() as started:
        yield started


@asynccontextmanager
async def sharing(redis, idp, upstream, **changes):
    """A worker that shares what it learns."""
    needs = access(provider(idp.endpoint, timeout=10.0, **changes))
    async with Plane.before(upstream.port, needs=needs) as plane:
        tier = SharedTier(redis.settings(timeout=1.0), plane.tokens.revoking, plane.clock, plane.stats)
        await plane.tokens.join(tier)
        await plane.until(lambda: tier.up, "Redis")
        yield plane


@pytest.fixture
async def flooded(redis, idp, upstream, lane):
    """A worker that has asked about one invented token too many."""
    async with sharing(redis, idp, upstream, **FLOODED) as plane:
        async with await plane.client() as client:
            assert (await ask(client, "invented")).status == 401
        await plane.tokens.shared._obtaining.close()  # its answer has landed
        yield plane


@pytest.fixture
def exchanges(monkeypatch):
    """Exchanges of the general lane, as they begin."""
    seen: list[object] = []
    begin = Exchange.begin

    def note(exchange, *arguments):
        seen.append(exchange)
        begin(exchange, *arguments)

    monkeypatch.setattr(Exchange, "begin", note)
    return seen


def ask(client, token, method="GET", **more):
    return client.request(method, "/api", ("Authorization", f"Bearer {token}"), **more)


def sent(token):
    return f"GET /api HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n".encode()


async def test_a_token_that_nobody_knows(flooded, idp, exchanges):
    """I11, T25: 503 with a wait, counted, written down, and the connection goes on; no question, no lease."""
    async with await flooded.client() as client:
        for number in range(3):
            got = await ask(client, f"t{number}")
            assert (got.status, got.header("retry-after") is not None) == (503, True)
        assert (await client.request("GET", "/api", BEARER)).status == 200
    assert exchanges == []
    assert len(idp.questions) == 1
    line = await flooded.line(1)
    assert (line.status, line.outcome, line.reason, line.route) == (503, "failed", Cannot.OVERLOADED, "/api")
    stats = flooded.stats
    assert stats.requests.total("/api", "503") == 3
    assert stats.introspections.total("idp", "overloaded") == 3
    assert stats.cache_misses.total("shared", "absent") == 4  # with the first one
    assert stats.leases.total() == 1
    assert stats.requests_active.values[()] == 0


async def test_a_token_that_another_worker_knows(flooded, redis, idp, upstream, exchanges):
    """I11: good tokens are served, flood or not; one that another worker found inactive is refused as such."""
    idp.tokens["good"] = {"scope": "read", "sub": "blake"}
    async with sharing(redis, idp, upstream) as other, await other.client() as client:
        assert (await ask(client, "good")).status == 200
        assert (await ask(client, "stale")).status == 401
        await other.tokens.shared._obtaining.close()
    exchanges.clear()
    async with await flooded.client() as client:
        assert [(await ask(client, token)).status for token in ("good", "stale", "good")] == [200, 401, 200]
    assert len(idp.questions) == 3
    assert len(exchanges) == 2
    assert flooded.stats.cache_misses.total("memory", "absent") == 3  # each counted once


async def test_a_body_and_what_has_to_be_waited_for(flooded, exchanges):
    """T31: a request that is not a head alone is the general lane's, with the same answer."""
    async with await flooded.client() as client:
        assert (await ask(client, "t", "POST", body=b"x")).status == 503
    assert len(exchanges) == 1


@pytest.fixture
def patient(flooded):
    """The same worker; others that may look, too, are waited for so long that a test can act meanwhile."""
    flooded.tokens.shared._states._looking._patience = 0.3
    return flooded


async def under_way(plane):
    await plane.until(lambda: plane.stats.requests_active.values[()] == 1, "a request")


async def test_a_client_that_leaves(patient):
    """C1: the line says so, and nothing is left under way."""
    client = await patient.client()
    await client.send(sent("t"))
    await under_way(patient)
    client.abort()
    line = await patient.line(1)
    assert (line.outcome, line.status) == ("client_gone", 0)
    assert patient.stats.requests_active.values[()] == 0
    async with await patient.client() as other:  # what was looked for meanwhile is told to nobody
        assert (await ask(other, "u")).status == 503
    assert len(patient.lines) == 3


async def test_requests_behind_it(patient):
    """N56, U4: what comes meanwhile waits for its turn; the answers keep their order."""
    async with await patient.client() as client:
        await client.send(sent("t"))
        await under_way(patient)
        await client.send(sent("good-token") + sent("u"))
        assert [(await client.answer()).status for _ in range(3)] == [503, 200, 503]


async def test_a_client_that_sends_no_more(patient):
    """C3: it gets its answer, which says that it is the last one."""
    async with await patient.client() as client:
        await client.send(sent("t"))
        await under_way(patient)
        client.half_close()
        got = await client.answer()
        assert (got.status, got.header("connection")) == (503, "close")
        assert await client.ended()


async def test_redis_stands_still(flooded, redis):
    """R1: refused within the deadline of one operation, as without Redis."""
    redis.suspend()
    try:
        async with await flooded.client() as client:
            assert (await ask(client, "t")).status == 503
            assert (await ask(client, "u")).status == 503
    finally:
        redis.resume()
    assert flooded.stats.cache_misses.total("shared", "bypassed") >= 1


async def test_a_fault_of_ours(flooded, monkeypatch):
    """P10: 500, and the connection ends; the next one is served."""
    monkeypatch.setattr(ExpressExchange, "answer_ourselves", lambda *_: 1 / 0)
    async with await flooded.client() as client:
        got = await ask(client, "t")
        assert (got.status, got.header("connection")) == (500, "close")
    monkeypatch.undo()
    assert flooded.stats.requests_active.values[()] == 0
    async with await flooded.client() as client:
        assert (await client.request("GET", "/api", BEARER)).status == 200
