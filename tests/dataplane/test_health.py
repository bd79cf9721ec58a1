"""Targets that are asked how they are."""

import asyncio

from fastgate.model import HealthCheck
from tests.support.plane import BEARER, Plane
from tests.support.upstream import Upstream, answer

CHECK = HealthCheck(path="/health", interval=0.05, timeout=5.0, unhealthy_after=2, healthy_after=1)


async def test_an_unwell_target_gets_no_requests_until_it_is_well():
    """U1, N85: 503 with Retry-After while no watched target is healthy; its word counts, not a guess of ours."""
    well = True

    async def play(conversation):
        asked = conversation.request.target == "/health"
        await conversation.send(answer(200 if well or not asked else 503, b"ok"))

    async with Upstream(default=play) as upstream, Plane.before(upstream.port, health=CHECK) as plane:
        async with await plane.client() as client:
            (pool,) = plane.upstreams.current[0].pools
            assert (await client.request("GET", "/api", BEARER)).status == 200
            well = False
            await plane.until(lambda: not pool.health.healthy, "the target to be found unwell")
            got = await client.request("GET", "/api", BEARER)
            assert got.status == 503
            assert got.header("retry-after")
            assert plane.upstreams.current[0].status()[pool.name]["healthy"] is False
            well = True
            await plane.until(lambda: pool.health.healthy, "the target to be well again")
            assert (await client.request("GET", "/api", BEARER)).status == 200
        asked = [each for each in upstream.requests if each.target == "/health"]
        assert asked[0].header("host") == "upstream.test"
        assert all(each.header("authorization") is None for each in asked)


async def test_of_two_targets_the_well_one_is_used():
    """U1: a target that answers nothing sensible is as unwell as one that does not answer."""

    async def garbage(conversation):
        await conversation.send(b"what?\r\n\r\n")
        await conversation.close()

    async with (
        Upstream(default=garbage) as sick,
        Upstream() as fit,
        Plane.before(sick.port, fit.port, health=CHECK) as plane,
        await plane.client() as client,
    ):
        pools = plane.upstreams.current[0].pools
        await plane.until(lambda: not pools[0].health.healthy and pools[1].health.healthy, "the checks")
        before = len([each for each in sick.requests if each.target != "/health"])
        for _ in range(6):
            assert (await client.request("GET", "/api", BEARER)).status == 200
        assert len([each for each in sick.requests if each.target != "/health"]) == before


async def test_checks_end_with_the_upstream():
    """P3: no task is left when the configuration or the process goes."""
    before = len(asyncio.all_tasks())
    async with Upstream() as upstream, Plane.before(upstream.port, health=CHECK):
        await upstream.until(lambda: bool(upstream.requests), "a first check")
        assert len(asyncio.all_tasks()) > before
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == before
