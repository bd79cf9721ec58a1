"""Pools of upstream connections: which target gets a request, and on which connection.

Taking and giving back are O(1): each target keeps its resting connections on a stack, so that the warmest is used
first and the rest run into their idle timeout.
"""

import asyncio
import ssl

from fastgate.dataplane.health import Health
from fastgate.dataplane.upstream import UpstreamConnection
from fastgate.errors import ForwardError, Side, Stage
from fastgate.model import Service, Target
from fastgate.stats import Stats


class TargetPool:
    """The connections to one target."""

    __slots__ = (
        *("_idle", "_loop", "_open", "_retired", "_reused", "health", "name", "service", "stats", "target", "turn"),
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, service: Service, target: Target, stats: Stats, health: Health
    ) -> None:
        self._loop = loop
        self.service = service
        self.target = target
        self.stats = stats
        self.health = health
        self.turn = 0
        """Current weight in the smooth weighted round-robin."""
        self._idle: dict[UpstreamConnection, None] = {}
        """A stack that can also lose any member in O(1)."""
        self._open: set[UpstreamConnection] = set()
        self._retired = False
        self._reused = stats.upstream_connections.cell(service.name, "reused")
        self.name = f"{target.host}:{target.port}"
        """For logs and the status page."""

    def __repr__(self) -> str:
        return f"<TargetPool {self.name} open={len(self._open)} idle={len(self._idle)} {self.health!r}>"

    @property
    def open_count(self) -> int:
        """Connections open, in use or resting."""
        return len(self._open)

    @property
    def idle_count(self) -> int:
        """Connections resting."""
        return len(self._idle)

    def take(self) -> UpstreamConnection | None:
        """A resting connection, or None."""
        idle = self._idle
        while idle:
            connection = idle.popitem()[0]
            if connection.usable:
                self._reused[0] += 1
                return connection
        return None

    async def connect(self) -> UpstreamConnection:
        """A new connection. Raises ForwardError(upstream, select | connect | connect_timeout)."""
        service = self.service
        if len(self._open) >= service.max_connections:
            raise ForwardError(Side.UPSTREAM, Stage.SELECT, "every connection of the pool is in use")
        connection = UpstreamConnection(self._loop, service, self.name, self._rests, self._is_lost)
        # Counted from here, so that a burst cannot pass the limit while connections are being made.
        self._open.add(connection)
        try:
            async with asyncio.timeout(service.connect_timeout):
                await self._open_connection(connection)
        except TimeoutError:
            self._connect_failed(connection)
            raise ForwardError(Side.UPSTREAM, Stage.CONNECT_TIMEOUT, f"{self.name} did not accept in time") from None
        except (OSError, ssl.SSLError) as error:
            self._connect_failed(connection)
            detail = "TLS failed" if isinstance(error, ssl.SSLError) else "connection refused or unreachable"
            raise ForwardError(Side.UPSTREAM, Stage.CONNECT, f"{self.name}: {detail}") from error
        except BaseException:
            self._open.discard(connection)
            raise
        if not connection.usable:
            # Ended, or spoken on unasked, in the moment between: a request on it would wait for nobody.
            connection.abort()
            self._connect_failed(connection)
            raise ForwardError(Side.UPSTREAM, Stage.CONNECT, f"{self.name}: closed at once")
        self.health.succeeded()
        self.stats.upstream_connections.add(service.name, "opened")
        return connection

    async def _open_connection(self, connection: UpstreamConnection) -> None:
        target, tls = self.target, self.service.tls
        if tls is None:
            await self._loop.create_connection(lambda: connection, target.host, target.port)
            return
        # In two steps, to have hold of the TCP transport: see `UpstreamConnection.secured`.
        wire, _ = await self._loop.create_connection(asyncio.Protocol, target.host, target.port)
        try:
            name = self.service.server_name or target.host
            transport = await self._loop.start_tls(wire, connection, tls, server_hostname=name)
        except BaseException:
            wire.abort()
            raise
        if transport is None:
            raise ConnectionResetError("lost while TLS was agreed on")
        connection.secured(transport, wire)

    def retire(self) -> None:
        """Take no connection back: resting ones are closed now, the others when their exchange ends."""
        self._retired = True
        idle, self._idle = self._idle, {}
        for connection in idle:
            connection.close()

    def abort(self) -> None:
        """Close every connection at once."""
        self.retire()
        for connection in list(self._open):
            connection.abort()

    def _connect_failed(self, connection: UpstreamConnection) -> None:
        self._open.discard(connection)
        self.health.failed()

    def _rests(self, connection: UpstreamConnection) -> None:
        if self._retired:
            connection.close()
            return
        connection.rest(self.service.idle_timeout)
        self._idle[connection] = None

    def _is_lost(self, connection: UpstreamConnection) -> None:
        self._open.discard(connection)
        self._idle.pop(connection, None)


class Upstream:
    """One service at run time: its targets, weighted and watched."""

    __slots__ = ("_only", "_pools", "service")

    def __init__(self, loop: asyncio.AbstractEventLoop, service: Service, stats: Stats) -> None:
        self.service = service
        self._pools = tuple(
            TargetPool(loop, service, target, stats, Health(service, target, loop)) for target in service.targets
        )
        self._only = self._pools[0] if len(self._pools) == 1 else None

    def __repr__(self) -> str:
        return f"<Upstream {self.service.name} {self._pools!r}>"

    @property
    def pools(self) -> tuple[TargetPool, ...]:
        """Every target's pool."""
        return self._pools

    def take(self) -> UpstreamConnection | None:
        """A resting connection of the only target: the usual case, without a detour. None: ask `acquire`."""
        only = self._only
        return only.take() if only is not None and (only.health.healthy_now or only.health.fit) else None

    async def acquire(self, *, fresh: bool = False) -> UpstreamConnection:
        """A connection of the best target that gives one, a new one when it has to be `fresh`.

        Raises ForwardError when none does; nothing was sent then, so every method may go to the next target.
        """
        failure: ForwardError | None = None
        for pool in self._choices():
            connection = None if fresh else pool.take()
            if connection is not None:
                return connection
            try:
                return await pool.connect()
            except ForwardError as error:
                failure = error
        raise failure or ForwardError(Side.UPSTREAM, Stage.SELECT, f"no healthy target of {self.service.name}")

    def _choices(self) -> list[TargetPool]:
        """Targets to try, best first; none when those that are watched are all unwell."""
        if self._only is not None:
            return [self._only] if self._only.health.fit else []
        healthy = [pool for pool in self._pools if pool.health.healthy and pool.target.weight]
        if not healthy and not any(pool.health.watched for pool in self._pools):
            # Without health checks an outage is only a guess: better to try than to refuse.
            healthy = [pool for pool in self._pools if pool.target.weight]
        if not healthy:
            return []
        first = _smooth_round_robin(healthy)
        return [first, *(pool for pool in healthy if pool is not first)]

    async def start(self) -> None:
        """Begin the active health checks."""
        for pool in self._pools:
            pool.health.start()

    async def retire(self) -> None:
        """Stop watching and close what rests."""
        for pool in self._pools:
            await pool.health.stop()
        self.take_no_rest()

    def take_no_rest(self) -> None:
        """Close every connection that rests, and from now on each when its exchange ends."""
        for pool in self._pools:
            pool.retire()

    def abort(self) -> None:
        """Close every connection at once."""
        for pool in self._pools:
            pool.abort()

    def status(self) -> dict[str, object]:
        """For the status page."""
        return {
            pool.name: {
                "healthy": pool.health.healthy,
                "open_connections": pool.open_count,
                "idle_connections": pool.idle_count,
            }
            for pool in self._pools
        }


def _smooth_round_robin(pools: list[TargetPool]) -> TargetPool:
    """nginx's smooth weighted round-robin: each turn everybody gains his weight, the leader pays the total."""
    total = 0
    best = pools[0]
    for pool in pools:
        pool.turn += pool.target.weight
        total += pool.target.weight
        if pool.turn > best.turn:
            best = pool
    best.turn -= total
    return best
