"""Two hosts of two workers behind a real HAProxy, as deploy/ describes them, with a real Redis: they behave as one."""

import asyncio
import json
import os
import signal
import time
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlencode

import pytest

from tests.conftest import ROOT, real
from tests.contract.parts import READER, config, provider
from tests.supervisor.parts import Fleet, until
from tests.support import programs
from tests.support.balancer import haproxy
from tests.support.client import fetch
from tests.support.connections import Ends, holders
from tests.support.idp import Idp
from tests.support.ledger import Ledger, Repeater
from tests.support.oidc_provider import SECRET as CLIENT_SECRET
from tests.support.process import answers, free_port, scratch
from tests.support.redis import SECRET, Cluster, Redis, Replicated
from tests.support.signer import Signer

SIGNER = Signer("ES256")
TRIES = 12
"""New connections, each to any of two workers."""
AMPLE = 5.0
"""Seconds for a busy machine, beyond those that are promised."""


@pytest.fixture
async def idp():
    async with Idp() as started:
        started.keys = [SIGNER.public]
        started.tokens |= {f"t{number}": {**READER, "sub": f"u{number}", "sid": f"s{number}"} for number in range(20)}
        yield started


@pytest.fixture
async def repeater():
    """Give an upstream for a load."""
    async with Repeater() as started:
        yield started


@pytest.fixture
def redis():
    with real(Redis) as started:
        yield started


def shared(url):
    return {"redis": {"url": url, "secrets": [SECRET], "timeout": "1s"}}


class Hosts:
    """Two hosts, and the load balancer before them."""

    def __init__(self, one, two, port):
        self.each = (one, two)
        self.port = port

    async def get(self, token):
        """Ask any of them."""
        return await fetch(self.port, "GET", "/api", ("Authorization", f"Bearer {token}"))

    async def said(self, token):
        """Ask every worker of every host, most likely; returns which answers came."""
        return {(await host.get("/api", token=token)).status for host in self.each for _ in range(TRIES)}

    async def refused(self, token):
        """Wait until every worker of every host refuses; returns how many seconds that took."""
        began = time.monotonic()
        while await self.said(token) != {401}:
            assert time.monotonic() - began < 1.0 + AMPLE
        return time.monotonic() - began

    async def count(self, name, **labels):
        return sum([await host.metric(name, **labels) for host in self.each])

    async def told(self, host, **what):
        """Revoke at one host; returns whether Redis knows."""
        said = json.loads((await self.each[host].admin("POST", "/tokens/revoke", what)).body)
        return said.get("shared")


@asynccontextmanager
async def standing(*configs):
    """Start the hosts and the load balancer."""
    program = real(lambda: programs.program("haproxy"))
    async with AsyncExitStack() as stack:
        hosts = await asyncio.gather(*(stack.enter_async_context(Fleet(each)) for each in configs))
        for host in hosts:
            await host.ready()
        servers = [(host.port, host.admin_port) for host in hosts]
        port, process = haproxy(program, ROOT / "deploy", scratch("haproxy"), servers, maxconn=2000)
        stack.callback(process.kill)
        await asyncio.to_thread(process.wait_until, lambda: answers(port))
        yield Hosts(*hosts, port)


def configs(idp, upstream, url, **changes):
    """Describe two hosts that differ in their addresses only."""
    told = provider(idp, issuer=idp.issuer, introspection_endpoint=None, timeout="10s", backchannel_logout=True)
    plain = {"workers": 2, "cache": shared(url), "identity_providers": {"idp": told}, **changes}
    return [config(idp, upstream, **plain, events={"listen": f"127.0.0.1:{free_port()}"}) for _ in range(2)]


@pytest.fixture
async def hosts(idp, upstream, redis):
    async with standing(*configs(idp, upstream, redis.url)) as started:
        yield started


# --- asking once ----------------------------------------------------------------------------------------------------


async def asking(hosts, idp, token):
    """Send 400 requests with one cold token, and wait until all of them wait for its answer."""
    questions, flights = len(idp.questions), await hosts.count("fastgate_flights_total")
    tasks = [asyncio.ensure_future(hosts.get(token)) for _ in range(400)]
    question = await idp.asked(questions + 1)

    async def all_wait():
        return await hosts.count("fastgate_flights_total") == flights + 400

    await until(all_wait, "all requests to wait")
    return tasks, question


async def test_four_hundred_requests_and_one_cold_token(hosts, idp):
    """I10, figure 13: exactly one question for four workers; the worker that asks is killed: one more, all answered."""
    hold = asyncio.Event()
    idp.will(hold, idp.truth)
    tasks, _ = await asking(hosts, idp, "t0")
    hold.set()
    assert {answer.status for answer in await asyncio.gather(*tasks)} == {200}
    assert len(idp.questions) == 1
    assert await hosts.count("fastgate_leases_total", outcome="owner") == 1
    assert await hosts.count("fastgate_leases_total", outcome="follower") == 3

    idp.will(asyncio.Event())
    tasks, question = await asking(hosts, idp, "t1")
    asker = Ends(question.request.connection.writer.get_extra_info("peername")[1], idp.port)
    (pid,) = holders({asker}, [pid for host in hosts.each for pid in host.processes()]).values()
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    # HAProxy sends again what may be sent again; nothing else was lost.
    assert {answer.status for answer in await asyncio.gather(*tasks)} == {200}
    assert time.monotonic() - killed < 1.0 + AMPLE
    assert len(idp.questions) == 3
    assert await hosts.count("fastgate_leases_total", outcome="taken_over") == 1


# --- forgetting everywhere ------------------------------------------------------------------------------------------


async def test_revoked_at_one_host(hosts, idp, redis):
    """T24, figure 3: refused by every worker of both within a second, by new ones, and while Redis is gone."""
    ways = {"t1": {"token": "t1"}, "t2": {"sub": "u2"}, "t3": {"sid": "s3"}}
    for number, (token, what) in enumerate(ways.items()):
        assert await hosts.said(token) == {200}
        assert await hosts.told(number % 2, **what) is True
        await hosts.refused(token)
    assert await hosts.said("t0") == {200}
    one, two = hosts.each
    before = set((await two.pids()).values())
    two.process.signal(signal.SIGUSR2)
    await two.serving(2, without=before)
    assert [await hosts.said(token) for token in ways] == [{401}] * 3

    redis.kill()
    # What the first host revoked, the second one's new workers can have from nobody but their supervisor.
    before = await two.pids()
    os.kill(before[1], signal.SIGKILL)
    os.kill(before[2], signal.SIGKILL)
    await two.serving(2, without=set(before.values()))
    assert [await hosts.said(token) for token in ways] == [{401}] * 3
    assert await hosts.said("t4") == {200}
    assert await hosts.told(0, sub="u4") is False
    assert {(await one.get("/api", token="t4")).status for _ in range(TRIES)} == {401}
    redis.start()
    await hosts.refused("t4")
    assert [await hosts.said(token) for token in ways] == [{401}] * 3


async def test_logged_out_at_one_host(hosts, idp, redis):
    """T24: a logout token that one host took is in force at both and later, and is a replay at the other one."""

    async def log_out(host, token):
        port = int(hosts.each[host].config["events"]["listen"].rpartition(":")[2])
        kind = ("Content-Type", "application/x-www-form-urlencoded")
        body = urlencode({"logout_token": token}).encode()
        return (await fetch(port, "POST", "/identity-providers/idp/logout", kind, body=body)).status

    assert [await hosts.said(token) for token in ("t5", "t6")] == [{200}] * 2
    token = SIGNER.logout(idp.issuer, sub="u5", sid="s5")
    assert await log_out(0, token) == 200
    await hosts.refused("t5")
    assert await hosts.said("t6") == {200}
    assert [await log_out(1, token), await log_out(0, token)] == [400, 400]
    assert await hosts.count("fastgate_notices_total", outcome="replayed") == 2
    assert await log_out(1, SIGNER.logout(idp.issuer, sub="u6", sid="s6")) == 200
    await hosts.refused("t6")

    redis.kill()
    one, two = hosts.each
    before = await one.pids(), await two.pids()
    one.process.signal(signal.SIGUSR2)
    for pid in before[1].values():
        os.kill(pid, signal.SIGKILL)
    for host, former in zip(hosts.each, before, strict=True):
        await host.serving(2, without=set(former.values()))
    # One of the two tokens came to the other host: what Redis told its workers, its supervisor told their successors.
    assert [await hosts.said(token) for token in ("t5", "t6", "t7")] == [{401}, {401}, {200}]
    # A logout that comes while Redis is gone holds at its host; elsewhere it is no replay, but says nothing else.
    token = SIGNER.logout(idp.issuer, sub="u7", sid="s7")
    assert [await log_out(0, token), await log_out(0, token)] == [200, 400]
    assert {(await one.get("/api", token="t7")).status for _ in range(TRIES)} == {401}
    redis.start()
    await hosts.refused("t7")


# --- changing under load --------------------------------------------------------------------------------------------


async def test_hosts_change_under_load(idp, repeater, redis):
    """P1, figures 9 and 10: a host is renewed, reloaded, ended and started again: nothing is lost or refused."""
    idp.tokens["good"] = dict(READER)
    async with standing(*configs(idp, repeater, redis.url)) as hosts:
        one, two = hosts.each
        async with Ledger(hosts.port, kept=8, closing=4) as ledger:
            await ledger.answered(1000)
            before = set((await one.pids()).values())
            one.process.signal(signal.SIGUSR2)
            await one.serving(2, without=before)
            two.write({"via": "v2"})
            two.process.signal(signal.SIGHUP)
            await two.logged("configuration reloaded")
            await ledger.answered(500)
            assert await one.stop() == 0
            await ledger.answered(500)
            await one.start()
            await one.ready()
            await ledger.answered(500)
            assert await two.stop() == 0
            await ledger.answered(500)
            await two.start()
        assert ledger.lost == []
        assert repeater.repeated == []


# --- other kinds of Redis, another provider -------------------------------------------------------------------------


async def passing(hosts, count=40):
    """Ask with many tokens, each of them for the first or the hundredth time."""
    for number in range(count):
        assert (await hosts.get(f"t{number % 20}")).status == 200


async def sharing(hosts):
    """Wait until every worker shares again."""

    async def all_share():
        return await hosts.count("fastgate_shared_up", backend="redis") == 4

    await until(all_share, "sharing")


async def test_a_failover(idp, upstream):
    """R6, figure 17: the master is killed, a replica takes over; every request is answered, and shared again."""
    with real(Replicated) as redis:
        url = "redis+sentinel://" + ",".join(f"127.0.0.1:{port}" for port in redis.ports) + "/mymaster/0"
        async with standing(*configs(idp, upstream, url, cache=shared(url))) as hosts:
            await passing(hosts)
            await sharing(hosts)
            assert await hosts.told(0, sub="u19") is True
            redis.master.kill()
            for _ in range(20):
                await passing(hosts, 19)
            await sharing(hosts)
            asked = len(idp.questions)
            idp.tokens["new"] = dict(READER)
            assert await hosts.said("new") == {200}
            assert len(idp.questions) == asked + 1
            assert await hosts.said("t19") == {401}
            assert await hosts.told(1, sub="u18") is True
            await hosts.refused("t18")


async def test_a_cluster(idp, upstream):
    """R6: three nodes; tokens are asked about once, wherever their keys are; one is killed, and comes back."""
    with real(Cluster) as redis:
        url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in redis.nodes)
        async with standing(*configs(idp, upstream, url, cache=shared(url))) as hosts:
            await sharing(hosts)
            await passing(hosts, 20)
            for token in range(20):
                assert await hosts.said(f"t{token}") == {200}
            assert len(idp.questions) == 20
            assert await hosts.told(0, sub="u1") is True
            await hosts.refused("t1")
            redis.nodes[2].kill()
            idp.tokens["new"] = dict(READER)
            for token in ("new", *(f"t{number}" for number in range(2, 20))):
                assert (await hosts.get(token)).status == 200
            assert await hosts.said("t1") == {401}
            redis.nodes[2].start()
            await until(lambda: asyncio.to_thread(redis.whole), "the cluster")
            await sharing(hosts)
            asked = len(idp.questions)
            idp.tokens["newer"] = dict(READER)
            assert await hosts.said("newer") == {200}
            assert len(idp.questions) == asked + 1
            assert await hosts.told(1, sub="u2") is True
            await hosts.refused("t2")


async def test_with_oidc_provider(oidc_provider, httpbin, redis):
    """I10, T24: real tokens are asked about once for both hosts; refused by both when one is told of their end."""
    provider = {
        "issuer": oidc_provider.issuer,
        "client_id": "fastgate",
        "client_secret": CLIENT_SECRET,
        "timeout": "10s",
        "cache_ttl_max": "1h",
        "backchannel_logout": {"audience": ["app"]},
    }
    plain = {
        "workers": 2,
        "cache": shared(redis.url),
        "identity_providers": {"idp": provider},
        "services": [{"name": "httpbin", "url": httpbin.url, "routes": [{"paths": ["/anything"]}]}],
    }
    each = [{**plain, "events": {"listen": f"127.0.0.1:{free_port()}"}} for _ in range(2)]
    tokens = [await oidc_provider.token(claims={"sub": f"user-{number}"}) for number in range(5)]
    async with standing(*each) as hosts:
        asked = await oidc_provider.introspections()

        async def until_statuses(*expected):
            began = time.monotonic()
            while await statuses() != [status for status in expected for _ in range(10)]:
                assert time.monotonic() - began < 1.0 + AMPLE

        async def statuses():
            got = [
                await fetch(hosts.port, "GET", "/anything", ("Authorization", f"Bearer {token}"))
                for token in tokens
                for _ in range(10)
            ]
            return [answer.status for answer in got]

        assert await statuses() == [200] * 50
        assert await oidc_provider.introspections() == asked + 5
        assert await hosts.told(0, sub="user-0") is True
        assert await hosts.told(1, token=tokens[1]) is True
        await until_statuses(401, 401, 200, 200, 200)
        # Revoked there only: nobody has told us, it is remembered; then somebody does.
        await oidc_provider.revoke(tokens[2])
        await until_statuses(401, 401, 200, 200, 200)
        assert await hosts.told(0, token=tokens[2]) is True
        where = f"http://{each[1]['events']['listen']}/identity-providers/idp/logout"
        assert await oidc_provider.logout(where, sub="user-3") == 200
        await until_statuses(401, 401, 401, 401, 200)
    for secret in (SECRET, CLIENT_SECRET, *tokens):
        assert all(secret not in host.log() for host in hosts.each)
