"""Every form of the URL against the real thing: TLS, ACL users, a unix socket, Sentinels, a Cluster."""

import asyncio
import ssl
import time

import pytest

from fastgate.model import INACTIVE
from fastgate.tokens.shared import leases
from tests.conftest import real
from tests.support.redis import Cluster, Redis, Replicated
from tests.tokens.shared.parts import soon, trusting


@pytest.fixture(autouse=True)
def patient_leases(monkeypatch):
    """Many workers and servers on one busy machine: how soon a dead owner is noticed is not the point here."""
    monkeypatch.setattr(leases, "LEASE_SECONDS", 10.0)


async def works(worker, settings, idp):
    """Two workers share a token, a lease and a revocation."""
    idp.tokens |= {f"t{number}": {"sub": f"user-{number}", "exp": soon()} for number in range(100)}
    one, two = await worker(settings), await worker(settings)
    assert one.status == {**one.status, "reachable": True, "writable": True, "problem": None}
    asked = len(idp.questions)
    states = await asyncio.gather(*(each.get(f"t{number}") for number in range(100) for each in (one, two)))
    assert [state.claims["sub"] for state in states] == [f"user-{number // 2}" for number in range(200)]
    assert len(idp.questions) == asked + 100
    one.tokens.revoke(sub="user-0")
    assert await one.tokens.told()
    await two.until(lambda: two.count("marks", "received") == 1)
    assert await two.get("t0") is INACTIVE
    assert await one.shared.first("jti", 10)
    assert not await two.shared.first("jti", 10)
    assert one.count("redis_errors") == two.count("redis_errors") == 0
    return one, two


async def test_over_tls_with_a_certificate_of_our_own(certificates, idp, worker):
    """T21: verified both ways, and many connections at once."""
    with real(lambda: Redis(tls=certificates)) as redis:
        await works(worker, redis.settings(tls=trusting(certificates)), idp)


@pytest.mark.parametrize("trust", ["nobody", "without ours", "plain"])
async def test_over_tls_without_trust(certificates, idp, worker, trust):
    """T21, R6: degraded and said; never without TLS, never unverified."""
    context = {
        "nobody": ssl.create_default_context(),
        "without ours": trusting(certificates, ours=False),
        "plain": None,
    }[trust]
    with real(lambda: Redis(tls=certificates)) as redis:
        one = await worker(redis.settings(tls=context, password="secret-of-redis"))
        assert not one.up
        expected = "connection" if trust == "plain" else ("tls", "connection")
        assert one.status["problem"].startswith(expected)
        idp.tokens["t"] = {"exp": soon()}
        assert await one.active("t")


async def test_over_a_unix_socket(redis, idp, worker):
    """T37: the same, and another database."""
    path = str(redis.folder / "redis.sock")
    await works(worker, redis.settings(kind="unix", addresses=(), path=path, database=3), idp)
    redis.call("SWAPDB", 0, 3)
    assert len(redis.keys("fastgate:state:*")) == 100


async def test_with_passwords(own_redis, idp, worker):
    """R6: the default user, and one with a name and a password full of signs."""
    own_redis.call("ACL", "SETUSER", "us.er", "on", ">p:w@/#", "~*", "&*", "+@all")
    await works(worker, own_redis.settings(username="us.er", password="p:w@/#"), idp)
    own_redis.call("CONFIG", "SET", "requirepass", "pw")
    wrong = await worker(own_redis.settings(password="other"))
    assert wrong.status["problem"].startswith("auth")
    none = await worker(own_redis.settings())
    assert none.status["problem"].startswith("auth")
    right = await worker(own_redis.settings(password="pw"))
    assert right.up


async def test_two_gateways_that_share_a_redis_but_nothing_in_it(redis, idp, worker):
    """N25: prefixes keep them apart."""
    idp.tokens["t"] = {"sub": "alex", "exp": soon()}
    one, two = await worker(redis), await worker(redis, prefix="other")
    assert await one.active("t")
    await one.landed()
    one.tokens.revoke(sub="alex")
    await one.tokens.told()
    assert await two.active("t")
    assert two.tokens.marks() == []


async def test_a_failover_by_sentinels(idp, worker):
    """R2, R4, figure 17: no request fails; shared again by the new master, what was revoked included."""
    with real(Replicated) as replicated:
        for process in replicated.sentinels[:2]:
            process.suspend()
        hung = await worker(replicated.settings())
        await hung.until(lambda: hung.up)  # the next one was asked
        wrong = await worker(replicated.settings(master="unknown"))
        assert wrong.status["problem"].startswith("cluster")
        for process in replicated.sentinels[:2]:
            process.resume()
        one, two = await works(worker, replicated.settings(), idp)
        old = replicated.master
        old.kill()
        idp.tokens |= {f"u{number}": {"exp": soon()} for number in range(10_000)}
        number = 0
        began = time.monotonic()
        while not (one.up and two.up and one.status["writable"]) or number < 100:
            assert await one.active(f"u{number}")
            assert await two.active(f"u{number}")
            number += 1
            assert time.monotonic() - began < 30
            await asyncio.sleep(0.01)
        new = replicated.master
        assert new is not old
        assert await one.ask("t0") is INACTIVE
        await one.get("after")
        await one.landed()
        assert new.call("EXISTS", one.key("after")) == 1
        assert new.call("HLEN", "fastgate:{marks}:ledger") == 1
        # The former master comes back as a replica, and nobody takes it for the master.
        old.start()
        one.tokens.revoke(sub="user-1")
        assert await one.tokens.told()


async def test_a_url_of_the_wrong_kind(redis, idp, worker):
    """P6: a single server is no Cluster, and no Sentinel."""
    for kind in ("cluster", "sentinel"):
        one = await worker(redis.settings(kind=kind, master="mymaster"))
        assert not one.up
        assert one.status["problem"].split(":")[0] in {"cluster", "refused", "protocol"}


@pytest.fixture(scope="module")
def cluster(certificates):
    """Give a Cluster that is reached over TLS only; the one of tests/cli has none."""
    with real(lambda: Cluster(tls=certificates)) as started:
        yield started


async def test_a_cluster_moves_slots(cluster, certificates, idp, worker):
    """R4: MOVED is followed."""
    idp.tokens |= {f"t{number}": {"exp": soon()} for number in range(100)}
    one = await worker(cluster.settings(prefix="slots", tls=trusting(certificates)))
    for number in range(50):
        assert await one.active(f"t{number}")
    await one.landed()
    source, target = cluster.nodes[0], cluster.nodes[1]
    slot = source.call("CLUSTER", "KEYSLOT", source.keys("slots:state:*")[0])
    name = target.call("CLUSTER", "MYID")
    source.call("FLUSHALL")
    for node in cluster.nodes:
        node.call("CLUSTER", "SETSLOT", slot, "NODE", name)
    for number in range(100):
        one.forget(f"t{number}")
        assert await one.active(f"t{number}")
    await one.until(lambda: one.up)


async def test_a_cluster_of_which_a_node_dies(cluster, certificates, idp, worker):
    """R4: keys are spread, both keys of a token lie together, messages reach everybody; nobody fails."""
    one, _ = await works(worker, cluster.settings(tls=trusting(certificates)), idp)
    assert all(node.keys("fastgate:state:*") for node in cluster.nodes)
    assert len(cluster.keys()) >= 100
    cluster.nodes[2].kill()
    idp.tokens |= {f"u{number}": {"exp": soon()} for number in range(200)}
    for number in range(100):
        assert await one.active(f"u{number}")
    await one.until(lambda: not one.up)
    assert one.status["problem"].split(":")[0] in {"cluster", "connection"}
    cluster.nodes[2].start()
    await one.until(lambda: one.up)
    for number in range(100, 200):
        assert await one.active(f"u{number}")


async def test_a_cluster_that_nobody_trusts(cluster, idp, worker):
    """T21: the context that was made once holds for every node."""
    unknown = await worker(cluster.settings(tls=ssl.create_default_context()))
    assert not unknown.up
