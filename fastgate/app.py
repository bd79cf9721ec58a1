"""The composition root of one worker: the only module that constructs the others."""

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Final

import structlog

from fastgate import __version__
from fastgate.clock import Clock, SystemClock, TurnClock
from fastgate.control.access_log import AccessLog
from fastgate.control.admin_listener import AdminListener
from fastgate.control.events_listener import EventsListener
from fastgate.control.metrics import Processes
from fastgate.dataplane.aiohttp_seam import check_aiohttp
from fastgate.dataplane.listening import Inlet, Listeners, listen_on
from fastgate.dataplane.plane import Dataplane, Upstreams
from fastgate.dataplane.server import GatewayServer
from fastgate.gate import Gate
from fastgate.model import Address, Mark, Settings, Snapshot
from fastgate.stats import Counter, Stats
from fastgate.tokens.memory import MemoryTier
from fastgate.tokens.notifications import Notifications
from fastgate.tokens.resolver import Tokens
from fastgate.tokens.revocation import Revocations
from fastgate.tokens.seen import SeenHere
from fastgate.tokens.turns import ALONE, Turns

log = structlog.get_logger("fastgate.app")

INACTIVE_SHARE: Final = 10
"""Inactive tokens have a budget of their own: one in so many entries of the memory tier."""
_HANDSHAKE: Final = 0.5
"""Seconds that clients get to finish a TLS handshake after the last connection was accepted."""


class App:
    """One worker: what listens, what decides, what forwards; and the admin listener where it is on its own."""

    def __init__(
        self,
        load: Callable[[], Snapshot],
        *,
        clock: Clock | None = None,
        fingerprint_key: bytes | None = None,
        revoked: Callable[[Mark], None] | None = None,
        learned: Callable[[Sequence[Mark]], None] = lambda _: None,
        turns: Turns = ALONE,
        worker: int | None = None,
    ) -> None:
        """`load` reads and compiles the configuration; it raises ConfigError, at start and at every reload.

        One of several gets the `fingerprint_key` of all, tells `revoked` what was revoked here and `learned` what on
        other hosts, takes `turns` at what one of them has to do, and has a number.
        """
        self._load = load
        self._fingerprint_key = fingerprint_key
        self._revoked = revoked
        self._learned = learned
        self._turns = turns
        self._clock = clock or SystemClock()
        self._snapshot = load()
        settings = self._started = self._snapshot.settings
        """What sockets and sizes were made from: reloads do not change those."""
        self._admin_token = settings.admin.token if settings.admin is not None else None
        self.stats = Stats()
        self._memory = MemoryTier(settings.max_entries, max(1, settings.max_entries // INACTIVE_SHARE))
        self._access_log = AccessLog(settings.log_format, sys.__stdout__, self.stats, worker=worker)
        self._bound: list[socket.socket] = []
        """What this worker bound itself."""
        self._admin: AdminListener | None = None
        self._events: EventsListener | None = None
        self._notifications: Notifications | None = None
        """What identity providers tell of their own accord, told to a worker that is alone."""
        self._meeting: asyncio.Task[None] | None = None
        self._reloading = asyncio.Lock()
        """Two reloads at once could end with the older configuration in force."""
        self._unseen: set[str] = set(self._snapshot.providers)
        """Identity providers that have not answered since the start."""
        self.addresses: list[tuple[str, int]] = []
        """Where the public listeners are bound, by this worker."""

    async def start(self, *, alone: bool = True) -> None:
        """Bind and serve; not `alone`: accept nothing until `listeners` is told what to accept from.

        Raises StartError, with nothing left half-started.
        """
        check_aiohttp()
        settings = self._snapshot.settings
        loop = asyncio.get_running_loop()
        clock = TurnClock(self._clock, loop)
        self._tokens = Tokens(
            self._memory,
            self._snapshot.providers,
            clock,
            self.stats,
            Revocations(clock, settings.revocation_ttl, made=self._revoked),
            self._fingerprint_key,
            self._turns,
        )
        if settings.redis is not None:
            from fastgate.tokens.shared.tier import SharedTier  # noqa: PLC0415 - loads redis: 20 MiB for those who use it

            shared = SharedTier(settings.redis, self._tokens.revoking, clock, self.stats, self._learned)
            await self._tokens.join(shared)
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
        self.listeners = Listeners(self._server)
        if alone:
            self._notifications = Notifications(
                self._snapshot.providers,
                clock=clock,
                stats=self.stats,
                seen=self._tokens.shared or SeenHere(clock.monotonic),
                revoke=self.revoke,
            )
            try:
                await self._serve_alone(settings)
            except BaseException:
                await self.stop()
                raise
        self._access_log.start()
        self._meeting = loop.create_task(self._meet_providers())

    async def stop_accepting(self, last: Collection[int] | None = None) -> None:
        """Take no more connections.

        `last` are the sockets at which nobody will accept after us (None: all): who waits there is under way already.
        """
        self._plane.draining = True
        await self.listeners.finish(self.listeners.accepting if last is None else last)
        self._close_bound()

    async def drain(self) -> int:
        """Accept no more, finish what is open by the deadline, stop. Returns how many connections were cut."""
        await self.stop_accepting()
        if any(address.tls is not None for address in self._started.listen):
            await asyncio.sleep(_HANDSHAKE)
        cut = await self._server.drain(self._plane.limits.drain_timeout)
        await self.stop()
        return cut

    async def stop(self) -> None:
        """Close everything at once."""
        self.listeners.close()
        self._close_bound()
        if self._meeting is not None:
            self._meeting.cancel()
        await self._server.shutdown(0.1)
        await self._upstreams.close()
        await self._tokens.close()
        if self._admin is not None:
            await self._admin.close()
        if self._events is not None:
            await self._events.close()
        if self._notifications is not None:
            await self._notifications.close()
        await asyncio.to_thread(self._access_log.close)

    @property
    def admin_address(self) -> tuple[str, int] | None:
        """Where the admin listener is bound, by this worker."""
        return None if self._admin is None else self._admin.address

    @property
    def events_address(self) -> tuple[str, int] | None:
        """Where the listener for identity providers is bound, by this worker."""
        return None if self._events is None else self._events.address

    def inlet(self, number: int, sock: socket.socket) -> Inlet:
        """What is spoken on a socket of the address that stands at `number` of `listen`."""
        return Inlet(sock, self._started.listen[number].tls)

    def marks(self) -> list[Mark]:
        """Revocations in force here."""
        return self._tokens.marks()

    def learn(self, marks: Iterable[Mark]) -> None:
        """Put revocations of others in force. Raises FastgateError when no more can be noted."""
        self._tokens.take(marks)

    def forget(self, **what: Any) -> int:
        """Forget and refuse tokens, here; see `Operations.revoke`."""
        return self._tokens.revoke(**what)

    async def first(self, name: str, seconds: float) -> bool:
        """Whether something happens for the first time on the hosts that share a Redis; see `tokens.seen.Seen`."""
        return self._tokens.shared is None or await self._tokens.shared.first(name, seconds)

    def heard(self, provider: str, *, well: bool) -> None:
        """Take note that an identity provider has answered another worker of this host, or fails it every time."""
        self._tokens.heard(provider, well=well)

    # --- control.admin.Operations ------------------------------------------------------------------------------

    @property
    def notifications(self) -> Notifications:
        """Who may tell of logouts and security events; only a worker that is alone is told of them."""
        if self._notifications is None:
            raise RuntimeError("the supervisor is told of logouts and security events, not its workers")
        return self._notifications

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
            **({} if self._notifications is None else {"notices": self._notifications.status()}),
            **tokens,
        }

    def _hit_ratio(self, tier: str) -> dict[str, float | None]:
        hits, misses = self.stats.cache_hits.total(tier), self.stats.cache_misses.total(tier)
        return {"hit_ratio": hits / (hits + misses) if hits + misses else None}

    async def refresh(self) -> None:
        """Nothing: everything is known here."""

    def processes(self) -> Processes:
        """Name the one there is."""
        return Processes((os.getpid(),))

    def missing(self) -> list[str]:
        """Nothing: one worker is ready or not."""
        return []

    async def revoke(self, **what: Any) -> int:
        """Forget and refuse tokens."""
        revoked = self.forget(**what)
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
        fixed = fixed_settings(self._started, snapshot.settings)
        admin = snapshot.settings.admin
        if admin is not None and "admin.listen" not in fixed:
            # The token of another listener, or of none, is not for the one that is open.
            self._admin_token = admin.token
        self.notifications.swap(snapshot.providers)
        await self.swap(snapshot)
        self.stats.config_reloads.add("taken")
        log.info("configuration reloaded", config_version=snapshot.version, needs_restart=fixed)
        return {"config_version": snapshot.version, "needs_restart": fixed}

    async def swap(self, snapshot: Snapshot) -> None:
        """Put a configuration in force, all of it but `fixed_settings`."""
        redis = snapshot.settings.redis
        self._tokens.swap(snapshot.providers, () if redis is None else redis.secrets)
        await self._upstreams.swap(snapshot.services.values())
        self._unseen &= set(snapshot.providers)
        self._snapshot = snapshot
        self._gate.swap(snapshot)
        self._plane.use_express_lane(wanted=snapshot.settings.express_lane)

    # --- inside ------------------------------------------------------------------------------------------------

    async def _serve_alone(self, settings: Settings) -> None:
        """Bind everything, then serve it."""
        inlets: list[Inlet] = []
        for number, address in enumerate(settings.listen):
            made = listen_on(address)
            self._bound += made
            self.addresses.append(made[0].getsockname()[:2])
            inlets += [self.inlet(number, sock) for sock in made]
        if settings.admin is not None:
            admin = listen_on(settings.admin.address)
            self._bound += admin
            self._admin = AdminListener(self)
            await self._admin.start(admin, settings.admin.address.tls)
        if settings.events is not None:
            events = listen_on(settings.events)
            self._bound += events
            self._events = EventsListener(self)
            await self._events.start(events, settings.events.tls)
        await self.listeners.accept(dict(enumerate(inlets)))
        log.info("serving", listen=_text(self.addresses), admin=_text([self.admin_address]), version=__version__)

    def _close_bound(self) -> None:
        while self._bound:
            self._bound.pop().close()

    async def _meet_providers(self) -> None:
        """Make contact with every provider once: readiness says so, requests do not wait for it."""
        if self._notifications is not None:
            await asyncio.gather(self._notifications.meet(), self._meet_until_answered())
        else:
            await self._meet_until_answered()

    async def _meet_until_answered(self) -> None:
        pause = 0.5
        while self._unseen:
            problems = await self._tokens.meet()
            self._unseen &= {name for name, problem in problems.items() if problem is not None}
            if self._unseen:
                await asyncio.sleep(pause)
                pause = min(pause * 2, 5.0)


def fixed_settings(old: Settings, new: Settings) -> list[str]:
    """The settings that differ but belong to sockets and sizes of a running worker."""
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


def _text(addresses: Iterable[tuple[str, int] | None]) -> str:
    return " ".join(f"{each[0]}:{each[1]}" for each in addresses if each is not None)
