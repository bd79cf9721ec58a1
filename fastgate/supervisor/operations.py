"""What operators see and steer, over all workers."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

import structlog

from fastgate import __version__
from fastgate.clock import SystemClock
from fastgate.control.metrics import Processes
from fastgate.control.tally import Totals
from fastgate.model import IdentityProvider
from fastgate.stats import Counter, Stats
from fastgate.supervisor.adding_up import added_up
from fastgate.supervisor.fleet import Fleet
from fastgate.supervisor.member import Member, State
from fastgate.supervisor.seen import FleetSeen
from fastgate.tokens.notifications import Notifications

log = structlog.get_logger("fastgate.supervisor")

WITHIN: Final = 1.0
"""Seconds that a worker may take to report; then what it said last counts."""
ALONE: Final = frozenset({"version", "config_version", "ready", "workers"})
"""What a worker says of itself that is not added up."""


class FleetOperations:
    """`control.admin.Operations` for the supervisor."""

    def __init__(
        self,
        fleet: Fleet,
        totals: Totals,
        reload: Callable[[], Awaitable[dict[str, Any]]],
        admin_token: str | None,
        providers: Mapping[str, IdentityProvider],
    ) -> None:
        self.admin_token = admin_token
        self.draining = False
        self._fleet = fleet
        self._totals = totals
        self._reload = reload
        self.stats: Stats = totals.own
        self._gauges: tuple[Counter, ...] = ()
        self.notifications = Notifications(
            providers, clock=SystemClock(), stats=totals.own, seen=FleetSeen(fleet), revoke=self.revoke
        )
        """What identity providers tell of their own accord: once for all workers."""

    async def refresh(self) -> None:
        """Ask every worker; who does not answer in time is counted with what it said last."""
        await asyncio.gather(*(member.report(WITHIN) for member in self._fleet.members if member.begun))
        tallies = [member.tally for member in self._fleet.members if member.tally is not None]
        self.stats, self._gauges = self._totals.sum(tallies)

    def gauges(self) -> Iterable[Counter]:
        """What workers measure, added up; and the workers themselves."""
        workers = Counter("fastgate_workers", "Processes that serve, by state.", "state", kind="gauge")
        for state in ("serving", "silent", "starting", "leaving"):
            workers.cell(state)
        for member in self._fleet.members:
            workers.add(_state(member))
        # One that is not there, and is tried again after a pause, is missed as much as one that takes its time.
        coming = {member.number for member in self._fleet.members if member.state is State.STARTING}
        absent = [post for post in self._fleet.posts if post.member is None and post.number not in coming]
        workers.add("starting", amount=len(absent))
        return (*self._gauges, workers)

    def processes(self) -> Processes:
        """The supervisor, the process that makes workers, and the workers."""
        return Processes((os.getpid(), *self._fleet.pids), self._totals.ended_cpu)

    def readiness(self) -> list[str]:
        """One worker that is ready is enough."""
        if self.draining:
            return ["draining"]
        serving = self._fleet.serving
        if any(member.serves and member.answers and not member.reasons for member in serving):
            return []
        return list(dict.fromkeys(reason for member in serving for reason in member.reasons)) or self.missing()

    def missing(self) -> list[str]:
        """Workers that are not there, do not answer, or are not ready."""
        told = []
        for post in self._fleet.posts:
            member = post.member
            if member is None:
                told.append(f"worker {post.number} is not running")
            elif not (member.serves and member.answers):
                told.append(f"worker {post.number} does not answer")
            else:
                told += [f"worker {post.number}: {reason}" for reason in member.reasons]
        return told

    def status(self) -> dict[str, Any]:
        """For `GET /status`: every worker, then everything else added up."""
        said = [{k: v for k, v in member.status.items() if k not in ALONE} for member in self._fleet.serving]
        merged = added_up(said) or {}
        for tier, figures in merged.get("cache", {}).items():
            hits, misses = self.stats.cache_hits.total(tier), self.stats.cache_misses.total(tier)
            figures["hit_ratio"] = hits / (hits + misses) if hits + misses else None
        # Each worker knows them all.
        merged["revocations"] = max([each.get("revocations", 0) for each in said], default=0)
        return {
            "version": __version__,
            "config_version": self._fleet.force.config["version"],
            "ready": not self.readiness(),
            "missing": self.missing(),
            "workers": [self._worker(member) for member in sorted(self._fleet.members, key=lambda each: each.number)],
            **merged,
            "notices": self.notifications.status(),
        }

    def _worker(self, member: Member) -> dict[str, Any]:
        restarts = next((post.restarts for post in self._fleet.posts if post.number == member.number), 0)
        own = member.status.get("workers") or [{}]
        return {
            "worker": member.number,
            "pid": member.pid,
            "state": _state(member),
            "uptime": round(asyncio.get_running_loop().time() - member.born, 1),
            "restarts": restarts,
            "version": member.status.get("version"),
            "config_version": member.version,
            **own[0],
        }

    async def revoke(self, **what: Any) -> int:
        """Forget and refuse tokens in every worker, and in those that come later."""
        named = {name: value for name, value in what.items() if value is not None and value is not False}
        revoked = await self._fleet.ledger.revoke(named)
        self._totals.own.revocations.add(next(iter(named)))
        log.info("revoked", by=next(iter(named)), count=revoked)
        return revoked

    async def told(self) -> bool | None:
        """Whether every revocation has reached what all hosts share, as far as workers answer."""
        told = await asyncio.gather(*(member.told(WITHIN) for member in self._fleet.told()))
        known = [each for each in told if each is not None]
        return all(known) if known else None

    async def reload(self) -> dict[str, Any]:
        """Put the configuration as it is now in force; see `changes`."""
        return await self._reload()


def _state(member: Member) -> str:
    return "silent" if member.state is State.SERVING and not (member.serves and member.answers) else member.state
