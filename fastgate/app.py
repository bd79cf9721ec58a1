"""The composition root of one worker: the only module that constructs the others."""

import asyncio
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

import structlog
from aiohttp import web

from fastgate import __version__
from fastgate.clock import Clock, SystemClock, TurnClock
from fastgate.control.access_log import AccessLog
from fastgate.control.admin import admin_application
from fastgate.control.events_listener import EventsListener
from fastgate.dataplane.aiohttp_seam import check_aiohttp
from fastgate.dataplane.plane import Dataplane, Upstreams
from fastgate.dataplane.server import GatewayServer
from fastgate.errors import StartError
from fastgate.gate import Gate
from fastgate.model import Address, Settings, Snapshot
from fastgate.stats import Counter, Stats
from fastgate.tokens.memory import MemoryTier
from fastgate.tokens.notifications import Notifications
from fastgate.tokens.resolver import Tokens
from fastgate.tokens.revocation import Revocations
from fastgate.tokens.seen import SeenHere

log = structlog.get_logger("fastgate.app")

INACTIVE_SHARE = 10
"""Inactive tokens have a budget of their own: one in so many entries of the memory tier."""
_BACKLOG = 4096


class App:
    """One worker: the public listeners, the admin listener and everything between."""

    def __init__(self, load: Callable[[], Snapshot], *, clock: Clock | None = None) -> None:
        """`load` reads and compiles the configuration; it raises ConfigError, at start and at every reload."""
        self._load = load
        self._clock = clock or SystemClock()
        self._snapshot = load()
        settings = self._started = self._snapshot.settings
        """What sockets and sizes were made from: reloads do not change those."""
        self._admin_token = settings.admin.token if settings.admin is not None else None
        self.stats = Stats()
        self._memory = MemoryTier(settings.max_entries, max(1, settings.max_entries // INACTIVE_SHARE))
        self._access_log = AccessLog(settings.log_format, sys.__stdout__, self.stats)
        self._servers: list[asyncio.Server] = []
        self._admin: web.AppRunner | None = None
        self._events: EventsListener | None = None
        self._meeting: asyncio.Task[None] | None = None
        self._reloading = asyncio.Lock()
        """Two reloads at once could end with the older configuration in force."""
        self._unseen: set[str] = set(self._snapshot.providers)
        """Identity providers that have not answered since the start."""
        self.addresses: list[tuple[str, int]] = []
        """Where the public listeners are bound."""
        self.admin_address: tuple[str, int] | None = None

    async def start(self) -> None:
        """Bind and serve. Raises StartError, with nothing left half-started."""
        check_aiohttp()
        settings = self._snapshot.settings
        loop = asyncio.get_running_loop()
        clock = TurnClock(self._clock, loop)
        self._tokens = Tokens(
            self._memory, self._snapshot.providers, clock, self.stats, Revocations(clock, settings.revocation_ttl)
        )
        if settings.redis is not None:
            from fastgate.tokens.shared.tier import SharedTier  # noqa: PLC0415 - loads redis: 20 MiB for those who use it

            await self._tokens.join(SharedTier(settings.redis, self._tokens.revoking, clock, self.stats))
        self.notifications = Notifications(
            self._snapshot.providers,
            clock=clock,
            stats=self.stats,
            seen=self._tokens.shared or SeenHere(clock.monotonic),
            revoke=self.revoke,
        )
        """What identity providers tell of their own accord."""
        self._gate = Gate(self._snapshot, self._tokens, clock)
        self._upstreams = Upstreams(loop, self.stats)
        await self._upstreams.swap(self._snapshot.services.values())
        self._plane = Dataplane(
            gate=self._gate,
            upstreams=self._upstreams,
            stats=self.stats,
            clock=clock,
            limits=settings.limits,
            record=self._access_log.record if settings.access_log else None,
            express_lane=settings.express_lane,
        )
        self._server = GatewayServer(self._plane)
        try:
            for address in settings.listen:
                self._servers.append(await self._bind(address))
            if settings.admin is not None:
                await self._start_admin(settings.admin.address)
            if settings.events is not None:
                await self._start_events(settings.events)
        except BaseException:
            await self.stop()
            raise
        self.addresses = [server.sockets[0].getsockname()[:2] for server in self._servers]
        self._access_log.start()
        self._meeting = loop.create_task(self._meet_providers())
        log.info("serving", listen=_text(self.addresses), admin=_text([self.admin_address]), version=__version__)

    async def drain(self) -> int:
        """Accept no more, finish what is open by the deadline, stop. Returns how many connections were cut."""
        log.info("draining", seconds=self._plane.limits.drain_timeout)
        self._plane.draining = True
        # Two turns of the loop: closing a listener resets the connections that wait to be accepted.
        for _ in range(2):
            await asyncio.sleep(0)
        for server in self._servers:
            server.close()
        cut = await self._server.drain(self._plane.limits.drain_timeout)
        await self.stop()
        log.info("stopped", cut=cut)
        return cut

    async def stop(self) -> None:
        """Close everything at once."""
        for server in self._servers:
            server.close()
        if self._meeting is not None:
            self._meeting.cancel()
        await self._server.shutdown(0.1)
        await self._upstreams.close()
        await self._tokens.close()
        if self._admin is not None:
            await self._admin.cleanup()
        if self._events is not None:
            await self._events.close()
        await self.notifications.close()
        await asyncio.to_thread(self._access_log.close)

    @property
    def events_address(self) -> tuple[str, int] | None:
        """Where the listener for identity providers is bound."""
        return None if self._events is None else self._events.address

    # --- control.admin.Operations ------------------------------------------------------------------------------

    @property
    def admin_token(self) -> str | None:
        """The token that the admin listener asks for."""
        return self._admin_token

    def gauges(self) -> Iterable[Counter]:
        """What is measured when asked."""
        entries = Counter("fastgate_cache_entries", "Token states remembered now.", "tier", "state", kind="gauge")
        entries.add("memory", "active", amount=self._memory.active)
        entries.add("memory", "inactive", amount=self._memory.inactive)
        pools = Counter("fastgate_upstream_open", "Open upstream connections.", "service", kind="gauge")
        for upstream in self._upstreams.current:
            pools.add(upstream.service.name, amount=sum(pool.open_count for pool in upstream.pools))
        return entries, pools

    def readiness(self) -> list[str]:
        """Why no requests should come now; an identity provider counts until it has answered once."""
        reasons = [f"identity provider {name} has not answered yet" for name in sorted(self._unseen)]
        if self._plane.draining:
            reasons.append("draining")
        return reasons

    def status(self) -> dict[str, Any]:
        """For `GET /status`."""
        tokens = self._tokens.status()
        tiers = {tier: tokens.pop(tier) for tier in ("memory", "shared") if tier in tokens}
        return {
            "version": __version__,
            "config_version": self._snapshot.version,
            "ready": not self.readiness(),
            "workers": [{"connections": self.stats.connections.total()}],
            "identity_providers": tokens.pop("identity_providers"),
            "upstreams": {each.service.name: each.status() for each in self._upstreams.current},
            "cache": {tier: said | self._hit_ratio(tier) for tier, said in tiers.items()},
            "notices": self.notifications.status(),
            **tokens,
        }

    def _hit_ratio(self, tier: str) -> dict[str, float | None]:
        hits, misses = self.stats.cache_hits.total(tier), self.stats.cache_misses.total(tier)
        return {"hit_ratio": hits / (hits + misses) if hits + misses else None}

    def revoke(self, **what: Any) -> int:
        """Forget and refuse tokens."""
        revoked = self._tokens.revoke(**what)
        log.info("revoked", by=next(iter(name for name, value in what.items() if value)), count=revoked)
        return revoked

    async def told(self) -> bool | None:
        """Whether other workers and hosts know of every revocation; None: there are none."""
        return await self._tokens.told()

    async def reload(self) -> dict[str, Any]:
        """Put the configuration as it is now in force, whole or not at all. Raises ConfigError."""
        async with self._reloading:
            return await self._reload()

    async def _reload(self) -> dict[str, Any]:
        try:
            snapshot = await asyncio.to_thread(self._load)
        except Exception:
            self.stats.config_reloads.add("refused")
            raise
        fixed = _needs_restart(self._started, snapshot.settings)
        admin = snapshot.settings.admin
        if admin is not None and "admin.listen" not in fixed:
            # The token of another listener, or of none, is not for the one that is open.
            self._admin_token = admin.token
        self._tokens.swap(
            snapshot.providers, () if snapshot.settings.redis is None else snapshot.settings.redis.secrets
        )
        self.notifications.swap(snapshot.providers)
        await self._upstreams.swap(snapshot.services.values())
        self._unseen &= set(snapshot.providers)
        self._snapshot = snapshot
        self._gate.swap(snapshot)
        self._plane.use_express_lane(wanted=snapshot.settings.express_lane)
        self.stats.config_reloads.add("taken")
        log.info("configuration reloaded", config_version=snapshot.version, needs_restart=fixed)
        return {"config_version": snapshot.version, "needs_restart": fixed}

    # --- inside ------------------------------------------------------------------------------------------------

    async def _bind(self, address: Address) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        try:
            return await loop.create_server(
                self._server,
                address.host,
                address.port,
                ssl=address.tls,
                backlog=_BACKLOG,
                reuse_address=True,
            )
        except OSError as error:
            raise _cannot_listen(address, error) from error

    async def _start_admin(self, address: Address) -> None:
        self._admin = web.AppRunner(
            admin_application(self), access_log=None, handle_signals=False, shutdown_timeout=1.0
        )
        await self._admin.setup()
        site = web.TCPSite(self._admin, address.host, address.port, ssl_context=address.tls)
        try:
            await site.start()
        except OSError as error:
            raise _cannot_listen(address, error) from error
        self.admin_address = self._admin.addresses[0][:2]

    async def _start_events(self, address: Address) -> None:
        self._events = EventsListener(self)
        try:
            await self._events.start(address)
        except OSError as error:
            raise _cannot_listen(address, error) from error

    async def _meet_providers(self) -> None:
        """Make contact with every provider once: readiness says so, requests do not wait for it."""
        await asyncio.gather(self.notifications.meet(), self._meet_until_answered())

    async def _meet_until_answered(self) -> None:
        pause = 0.5
        while self._unseen:
            problems = await self._tokens.meet()
            self._unseen &= {name for name, problem in problems.items() if problem is not None}
            if self._unseen:
                await asyncio.sleep(pause)
                pause = min(pause * 2, 5.0)


def _needs_restart(old: Settings, new: Settings) -> list[str]:
    """The settings that differ but belong to sockets and sizes of the running process."""
    changed = {
        "listen": [_listening(address) for address in old.listen] != [_listening(address) for address in new.listen],
        "admin.listen": _admin_at(old) != _admin_at(new),
        "events.listen": _events_at(old) != _events_at(new),
        "limits": old.limits != new.limits,
        "cache": (old.max_entries, old.revocation_ttl, old.redis) != (new.max_entries, new.revocation_ttl, new.redis),
        "log": (old.log_format, old.access_log) != (new.log_format, new.access_log),
    }
    return [name for name, differs in changed.items() if differs]


def _admin_at(settings: Settings) -> tuple[str, int, bool] | None:
    return None if settings.admin is None else _listening(settings.admin.address)


def _events_at(settings: Settings) -> tuple[str, int, bool] | None:
    return None if settings.events is None else _listening(settings.events)


def _listening(address: Address) -> tuple[str, int, bool]:
    return address.host, address.port, address.tls is not None


def _cannot_listen(address: Address, error: OSError) -> StartError:
    # asyncio wraps the reason in a sentence of its own; the number is what the kernel said.
    reason = os.strerror(error.errno) if error.errno else str(error)
    return StartError(
        f"cannot listen on {address.host}:{address.port}: {reason}; stop what holds the port or change the address"
    )


def _text(addresses: Iterable[tuple[str, int] | None]) -> str:
    return " ".join(f"{each[0]}:{each[1]}" for each in addresses if each is not None)
