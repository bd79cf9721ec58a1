"""redis-py's clients for every form of `cache.redis.url`, and every touch of what is not its public interface."""

import asyncio
from contextlib import suppress
from random import SystemRandom
from ssl import SSLContext
from typing import Any, Final, Self

from redis.asyncio import ConnectionPool, RedisCluster
from redis.asyncio import Redis as RedisClient
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from fastgate.model import Redis
from fastgate.tokens.shared.connections import CLOSE_SECONDS, Opened, PlainConnection, TlsConnection, UnixConnection

SLOTS_FIRST: Final = 4
SLOTS_MAX: Final = 32
"""Operations under way at once, each on a connection of its own: a slow one holds up no other."""
SLOTS_URGENT: Final = 8
"""Apart from those: for what others wait for, or would take for dead; it never stands in a queue behind questions."""
CONNECTIONS_MAX: Final = SLOTS_MAX + SLOTS_URGENT + 1
CONNECT_SECONDS: Final = 1.0
"""For connecting, TLS and logging in; whoever waits for an operation has a shorter deadline of his own."""
SENTINEL_SECONDS: Final = 0.25
"""For one Sentinel to answer before the next one is asked."""
_chance: Final = SystemRandom()

Client = RedisClient | RedisCluster


class Way:
    """An open way to Redis: a client for operations, and a connection for messages only."""

    __slots__ = ("_opened", "client", "messages")

    def __init__(self, client: Client, messages: AbstractConnection, opened: Opened) -> None:
        """`opened` has the connections of both."""
        self.client = client
        self.messages = messages
        self._opened = opened

    async def ping(self) -> None:
        """See that it answers; of a Cluster, every master."""
        if isinstance(self.client, RedisCluster):
            await self.client.ping(target_nodes=RedisCluster.PRIMARIES)
        else:
            # At once, so that these connections are there before somebody waits for them.
            await asyncio.gather(*(self.client.ping() for _ in range(SLOTS_FIRST)))

    async def close(self) -> None:
        """Close every connection, also those that are in use, whatever else is under way or cancelled meanwhile."""
        try:
            await self._opened.close()
        finally:
            # Nothing is open any more: it only has to know.
            with suppress(RedisError, OSError, TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self.client.aclose()


class Ways:
    """Makes ways to the Redis of a configuration. Every one is new: names, masters and slots are looked up again."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._sentinels = list(redis.addresses)

    async def open(self) -> Way:
        """Connect. Raises what redis-py raises, and OSError."""
        if self._redis.kind == "cluster":
            return await self._cluster()
        options = await self._options()
        pool = ConnectionPool(max_connections=CONNECTIONS_MAX, **options)
        made = options.pop("connection_class")
        return await _met(Way(RedisClient.from_pool(pool), made(**options), options["opened"]))

    def doubt(self) -> None:
        """Ask another Sentinel first the next time: what this one called the master was none."""
        self._sentinels.append(self._sentinels.pop(0))

    async def _options(self) -> dict[str, Any]:
        """What a connection to the server, or to the master as Sentinels know it, is made with."""
        redis = self._redis
        options = {"db": redis.database, "username": redis.username, "password": redis.password, **_PLAIN}
        if redis.kind == "unix":
            return {"connection_class": UnixConnection, "opened": Opened(), "path": redis.path, **options}
        host, port = await self._master() if redis.kind == "sentinel" else redis.addresses[0]
        return {**_over(redis.tls, Opened()), "host": host, "port": port, **options}

    async def _master(self) -> tuple[str, int]:
        redis, opened = self._redis, Opened()
        asking = Sentinel([])  # type: ignore[no-untyped-call]
        asking.sentinels = [
            RedisClient.from_pool(
                ConnectionPool(
                    **_over(redis.tls, opened),
                    host=host,
                    port=port,
                    username=redis.sentinel_username,
                    password=redis.sentinel_password,
                    **{**_PLAIN, "socket_timeout": SENTINEL_SECONDS, "socket_connect_timeout": SENTINEL_SECONDS},
                )
            )
            for host, port in self._sentinels
        ]
        try:
            host, port = await asking.discover_master(redis.master)
        finally:
            await opened.close()
        return str(host), int(port)

    async def _cluster(self) -> Way:
        redis = self._redis
        client = _Cluster(
            startup_nodes=[ClusterNode(host, port) for host, port in redis.addresses],
            username=redis.username,
            password=redis.password,
            max_connections=CONNECTIONS_MAX,
            **_PLAIN,
        )
        client.opened = opened = Opened()
        over = _over(redis.tls, opened)
        # It has a way of its own to say TLS, which reads files, for every connection anew.
        client.get_connection_kwargs().update(over)
        made = over.pop("connection_class")
        for node in client.startup_nodes:
            node.connection_class = made
            node.connection_kwargs.update(over)
        options = {"username": redis.username, "password": redis.password, **over, **_PLAIN}
        way = Way(client, made(**options), opened)
        try:
            await client.initialize()
        except BaseException:
            await way.close()
            raise
        node = _chance.choice(client.get_primaries())
        way.messages = made(host=node.host, port=node.port, **options)
        return await _met(way)


class _Cluster(RedisCluster):
    """A Cluster that stays closed: whoever still asks it makes it look its nodes up again."""

    opened: Opened

    async def initialize(self, *arguments: Any, **named: Any) -> Self:
        await super().initialize(*arguments, **named)
        if self.opened.closed:
            await self.aclose()
        return self


_PLAIN: Final[dict[str, Any]] = {
    "protocol": 2,
    "retry": Retry(NoBackoff(), 0),
    "driver_info": None,
    "socket_timeout": None,
    "socket_connect_timeout": CONNECT_SECONDS,
}
"""Deadlines are ours, and so is trying again; nothing is said to Redis that an ACL might forbid."""


def _over(tls: SSLContext | None, opened: Opened) -> dict[str, Any]:
    if tls is None:
        return {"connection_class": PlainConnection, "opened": opened}
    return {"connection_class": TlsConnection, "opened": opened, "tls": tls}


async def _met(way: Way) -> Way:
    try:
        await way.messages.connect()  # type: ignore[no-untyped-call]
        await way.ping()
    except BaseException:
        await way.close()
        raise
    return way
