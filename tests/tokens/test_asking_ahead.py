"""A remembered token that is in use is asked about before its time is over: nobody waits, and no one else asks."""

import asyncio

import pytest

from fastgate.model import INACTIVE, ActiveToken
from tests.support.idp import says
from tests.tokens.parts import NOW, access_to, bearer, peek, provider_at

ALL = 300.0
"""Seconds that an answer without a nearer `exp` is remembered."""
WINDOW = (ALL - 30.0, ALL - 15.0)
"""The earliest and the latest moment of asking ahead."""


@pytest.fixture
def access(idp):
    idp.tokens["t"] = {"sub": "alex"}
    return access_to(provider_at(idp, ask_ahead=30.0))


async def landed(world):
    await asyncio.gather(*world.tokens._flights._tasks)


async def test_in_use_near_its_end(idp, world, clock, stats, access):
    """Figure 15: one question in the background; the hit is served from memory, and the new answer after it."""
    tokens = world.of(access.provider)
    await world.get(access, "t")
    clock.pass_(WINDOW[0] - 0.1)
    peek(tokens, access, bearer("t"))
    assert stats.flights.values == {("started",): 1}
    clock.pass_(15.1)
    idp.tokens["t"] = {"sub": "alex", "new": True}
    states = [peek(tokens, access, bearer("t")) for _ in range(10)]
    assert all("new" not in state.claims for state in states)
    assert stats.flights.values == {("started",): 1, ("ahead",): 1}
    await landed(world)
    assert "new" in peek(tokens, access, bearer("t")).claims
    clock.pass_(200)
    assert isinstance(peek(tokens, access, bearer("t")), ActiveToken)
    assert len(idp.questions) == 2
    assert ("memory", "stale") not in stats.cache_misses.values


async def test_nobody_uses_it(idp, world, clock, access):
    """Figure 15: what is not in use is not asked about."""
    tokens = world.of(access.provider)
    await world.get(access, "t")
    clock.pass_(ALL + 1)
    assert peek(tokens, access, bearer("t")) is None
    assert len(idp.questions) == 1


@pytest.mark.parametrize(("exp", "asked"), [(NOW + 300, 1), (NOW + 290, 1), (NOW + 10_000, 2)])
async def test_a_token_that_ends_with_what_is_remembered(idp, world, clock, access, exp, asked):
    """N19: nothing makes it live longer, so nothing is asked."""
    idp.tokens["t"]["exp"] = exp
    tokens = world.of(access.provider)
    await world.get(access, "t")
    clock.pass_(WINDOW[1])
    peek(tokens, access, bearer("t"))
    await landed(world)
    assert len(idp.questions) == asked


async def test_it_was_revoked_meanwhile(idp, world, clock, access):
    """T24: the answer counts at once, whatever it says."""
    tokens = world.of(access.provider)
    await world.get(access, "t")
    del idp.tokens["t"]
    clock.pass_(WINDOW[1])
    assert isinstance(peek(tokens, access, bearer("t")), ActiveToken)
    await landed(world)
    assert peek(tokens, access, bearer("t")) is INACTIVE


async def test_asking_ahead_fails(idp, world, clock, access):
    """I3: what is remembered serves until its end; it is tried once."""
    tokens = world.of(access.provider)
    await world.get(access, "t")
    clock.pass_(WINDOW[1])
    idp.will(says(b"", 503))
    for _ in range(5):
        assert isinstance(peek(tokens, access, bearer("t")), ActiveToken)
        await landed(world)
    assert len(idp.questions) == 2
    clock.pass_(15)
    assert peek(tokens, access, bearer("t")) is None
    assert isinstance(await world.get(access, "t"), ActiveToken)


async def test_the_server_is_held_off_from(idp, world, clock, access):
    """I3: then nothing is tried."""
    tokens = world.of(access.provider)
    await world.get(access, "t")
    clock.pass_(WINDOW[1])
    tokens._introspectors._current[access.provider]._breaker.open = True
    assert isinstance(peek(tokens, access, bearer("t")), ActiveToken)
    await landed(world)
    assert len(idp.questions) == 1


async def test_inactive_tokens_and_short_lives(idp, world, clock, access):
    """T25: an inactive one is not asked about again, and a fifth of a short time is not thirty seconds."""
    tokens = world.of(access.provider)
    brief = access_to(access.provider, ttl_max=10.0)
    await world.get(access, "bad")
    await world.get(brief, "t")
    clock.pass_(4.9)
    assert peek(tokens, access, bearer("bad")) is INACTIVE
    clock.pass_(3.0)
    peek(tokens, brief, bearer("t"))
    assert len(idp.questions) == 2
    clock.pass_(1.1)
    peek(tokens, brief, bearer("t"))
    await landed(world)
    assert len(idp.questions) == 3


async def test_tokens_that_were_learned_together(idp, world, clock, stats, access):
    """I9: they are asked about one after the other, not as a herd."""
    values = [f"t{number}" for number in range(200)]
    idp.tokens |= {value: {} for value in values}
    tokens = world.of(access.provider)
    for value in values:
        await world.get(access, value)
    clock.pass_(WINDOW[0])
    asked = []
    for _ in range(15):
        clock.pass_(1)
        before = stats.flights.total("ahead")
        for value in values:
            peek(tokens, access, bearer(value))
        asked.append(stats.flights.total("ahead") - before)
        await landed(world)
    assert sum(asked) == 200
    assert max(asked) < 60
    assert stats.flights.total("ahead") == len(idp.questions) - 200


async def test_while_the_gateway_stops(idp, world, clock, access):
    """P3: a hit is a hit; nothing more is begun."""
    tokens = world.of(access.provider)
    await world.get(access, "t")
    clock.pass_(WINDOW[1])
    await tokens.close()
    assert isinstance(peek(tokens, access, bearer("t")), ActiveToken)
    assert len(idp.questions) == 1


async def test_never(idp, world, clock, access):
    """T3: it can be switched off."""
    off = access_to(provider_at(idp))
    tokens = world.of(off.provider)
    await world.get(off, "t")
    clock.pass_(ALL - 0.1)
    peek(tokens, off, bearer("t"))
    await landed(world)
    assert len(idp.questions) == 1
