"""`check --connect` and the shared tier: everything that it will do is tried, and what is wrong is said."""

import pytest

from tests.conftest import real
from tests.support.idp import Idp
from tests.support.process import free_port
from tests.support.redis import SECRET, Cluster, Redis
from tests.support.upstream import Upstream

from .conftest import ENVIRON, FILE

NEEDED = [
    *("reset", "on", ">pass", "~fastgate:*", "&fastgate:*", "+evalsha", "+eval", "+ping", "+subscribe", "+publish"),
    *("+get", "+set", "+del", "+pttl", "+append", "+getrange", "+pexpire"),
    *("+hmget", "+hset", "+hlen", "+hexists", "+hdel", "+hscan"),
]
"""What deploy/README.md says that our user needs."""


@pytest.fixture
def redis():
    with real(Redis) as started:
        yield started


@pytest.fixture
def connected(tmp_path, thread):
    """Check a configuration with this `url`, everything else being well."""

    async def check(url, more=""):
        async with Upstream() as up, Idp() as idp:
            idp.credentials = (ENVIRON["CLIENT_ID"], ENVIRON["CLIENT_SECRET"])
            file = tmp_path / "fastgate.yaml"
            cache = f"cache: {{redis: {{url: '{url}', secrets: [{SECRET}]{more}}}}}\n"
            file.write_text(FILE.replace("http://127.0.0.1:9/", f"http://127.0.0.1:{up.port}/") + cache)
            ended = await thread("check", "-c", file, "--connect", **ENVIRON | {"ISSUER": idp.issuer})
        (line,) = [line for line in ended.out.splitlines() if " redis " in line]
        return ended.status, line

    return check


async def test_a_redis_that_has_everything(connected, redis):
    """P6: named without its password; nothing is left behind."""
    redis.call("ACL", "SETUSER", "gate", *NEEDED)
    status, line = await connected(f"redis://gate:pass@127.0.0.1:{redis.port}/0")
    assert (status, line.split()) == (0, ["ok", "redis", "server", f"(127.0.0.1:{redis.port})"])
    assert redis.call("DBSIZE") == 0
    assert redis.call("PUBSUB", "CHANNELS") == []


@pytest.mark.parametrize("lacking", [rule for rule in NEEDED if rule.startswith("+")] + ["~", "&"])
async def test_an_acl_that_lacks_something(connected, redis, lacking):
    """R6: every rule is needed, and missed."""
    rules = [rule for rule in NEEDED if rule[0] != lacking[0]] if len(lacking) == 1 else [*NEEDED, f"-{lacking[1:]}"]
    redis.call("ACL", "SETUSER", "gate", *rules)
    status, line = await connected(f"redis://gate:pass@127.0.0.1:{redis.port}/0")
    assert status == 1
    assert "FAILED" in line
    assert "its ACL lacks a command, key pattern or channel pattern" in line or "refuses to do" in line


async def test_nobody_listens(connected):
    """P6, R1: the command fails, the gateway would not."""
    status, line = await connected(f"redis://127.0.0.1:{free_port()}")
    assert status == 1
    assert line.endswith("connecting: is it running, and reachable from here?")


async def test_a_wrong_password(connected, redis):
    """R6, T12: said without it."""
    redis.call("CONFIG", "SET", "requirepass", "right")
    status, line = await connected(f"redis://:wrong-one@127.0.0.1:{redis.port}")
    assert status == 1
    assert line.endswith("it refuses our user name or password")
    assert "wrong-one" not in line


async def test_a_replica(connected, redis):
    """R4: it can be read, which is not enough."""
    redis.call("REPLICAOF", "127.0.0.1", free_port())
    status, line = await connected(redis.url)
    assert status == 1
    assert "writing: it is a replica" in line


async def test_a_full_one(connected, redis):
    """R5: said before it matters."""
    redis.call("CONFIG", "SET", "maxmemory", 1)
    status, line = await connected(redis.url)
    assert status == 1
    assert "writing: it is full" in line


async def test_one_that_may_throw_revocations_away(connected, redis):
    """R5: allowed, and said; Redis without a limit throws nothing away."""
    redis.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    assert (await connected(redis.url))[1].split()[-1] == f"(127.0.0.1:{redis.port})"
    redis.call("CONFIG", "SET", "maxmemory", "100mb")
    status, line = await connected(redis.url)
    assert status == 0
    assert "maxmemory-policy allkeys-lru may throw revocations away" in line


async def test_one_that_is_too_slow(connected, redis):
    """R3: an operation must be done within `timeout`."""
    status, line = await connected(redis.url, ", timeout: 0.00001")
    assert status == 0
    assert "more than `timeout` allows" in line


async def test_a_cluster(connected):
    """R4, R6: the same, with two commands more."""
    with real(Cluster) as cluster:
        for node in cluster.nodes:
            node.call("ACL", "SETUSER", "gate", *NEEDED, "+cluster|slots", "+command")
        addresses = ",".join(f"127.0.0.1:{node.port}" for node in cluster.nodes)
        status, line = await connected(f"redis+cluster://gate:pass@{addresses}")
        assert (status, line.split()) == (0, ["ok", "redis", "cluster", f"({addresses})"])
        assert cluster.keys() == []
