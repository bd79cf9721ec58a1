"""What every exchange of a worker shares: the gate, the upstreams, the counters, the clock of Date."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from fastgate.clock import Clock
from fastgate.dataplane.date import HttpDate
from fastgate.dataplane.express import ExpressLane
from fastgate.dataplane.outbox import Outbox
from fastgate.dataplane.pool import Upstream
from fastgate.dataplane.splice import Pumps
from fastgate.gate import Gate
from fastgate.model import Completion, Limits, RequestHead, Service
from fastgate.stats import Stats


class Upstreams:
    """Every service's upstream, kept over reloads where the service did not change."""

    __slots__ = ("_by_service", "_current", "_loop", "_stats")

    def __init__(self, loop: asyncio.AbstractEventLoop, stats: Stats) -> None:
        self._loop = loop
        self._stats = stats
        self._by_service: dict[Service, Upstream] = {}
        self._current: tuple[Service, ...] = ()

    def of(self, service: Service) -> Upstream:
        """The upstream of a service of any snapshot whose requests may still be under way."""
        upstream = self._by_service.get(service)
        if upstream is None:
            # A request that waited, for its token say, through more than one reload: its route still leads there.
            upstream = self._by_service[service] = Upstream(self._loop, service, self._stats)
            upstream.take_no_rest()
        return upstream

    @property
    def current(self) -> tuple[Upstream, ...]:
        """The upstreams of the snapshot in force."""
        return tuple(self._by_service[service] for service in self._current)

    async def swap(self, services: Iterable[Service]) -> None:
        """Serve these services. Those of the snapshot before stay reachable for its requests, but take no rest."""
        before = {service: self._by_service[service] for service in self._current}
        same = {_identity(service): upstream for service, upstream in before.items()}
        after: dict[Service, Upstream] = {}
        for service in services:
            kept = same.get(_identity(service))
            after[service] = kept or Upstream(self._loop, service, self._stats)
            if kept is None:
                await after[service].start()
        for upstream in before.values():
            if upstream not in after.values():
                await upstream.retire()
        self._by_service = before | after
        self._current = tuple(after)

    async def close(self) -> None:
        """Close every connection."""
        for upstream in set(self._by_service.values()):
            await upstream.retire()
            upstream.abort()


def _identity(service: Service) -> tuple[object, ...]:
    return tuple(getattr(service, name) for name in Service.__slots__)


class Dataplane:
    """The shared side of all exchanges."""

    __slots__ = (
        *("clock", "date", "draining", "express", "gate", "limits", "loop", "outbox", "pumps", "record", "stats"),
        "upstreams",
    )

    def __init__(
        self,
        *,
        gate: Gate,
        upstreams: Upstreams,
        stats: Stats,
        clock: Clock,
        limits: Limits,
        record: Callable[[Completion], None] | None,
        express_lane: bool = True,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.gate = gate
        self.upstreams = upstreams
        self.stats = stats
        self.clock = clock
        self.limits = limits
        self.record = record
        """Takes the access line of a finished request; None: not wanted."""
        self.date = HttpDate(clock.now)
        self.outbox = Outbox(self.loop)
        self.pumps = Pumps(self.loop, stats)
        self.draining = False
        self.express: ExpressLane | None = None
        self.use_express_lane(wanted=express_lane)

    def use_express_lane(self, *, wanted: bool) -> None:
        """Let usual requests take the express lane from now on, or none."""
        if wanted is not (self.express is not None):
            self.express = ExpressLane(self) if wanted else None

    def complete(
        self, head: RequestHead, *, peer: str, began: float, reason: str, outcome: str, **counted: Any
    ) -> None:
        """Hand the line of a finished request to the access log. `began` is monotonic."""
        if self.record is None:
            return
        elapsed = self.clock.monotonic() - began
        self.record(
            Completion(
                at=self.clock.now() - elapsed,
                seconds=elapsed,
                peer=peer,
                method=head.method,
                host=head.host,
                path=head.path,
                outcome=outcome,
                reason=reason,
                **counted,
            )
        )
