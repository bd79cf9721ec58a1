"""The workers: one for each number, replaced when it ends or hangs, relieved one by one when they are to be new.

While a number has no worker that answers, the others accept from its sockets.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from socket import socket
from typing import Any, Final, NamedTuple

import structlog

from fastgate.control.tally import Totals
from fastgate.errors import FastgateError, StartError
from fastgate.model import Mark, Settings
from fastgate.supervisor.ledger import WITHIN, Ledger
from fastgate.supervisor.member import Member, NotStartedError, State
from fastgate.supervisor.nursery import Nursery
from fastgate.supervisor.sharing import shares
from fastgate.supervisor.sockets import Place, Sockets
from fastgate.supervisor.turns import TurnsOfFleet
from fastgate.supervisor.watchdog import Watchdog
from fastgate.supervisor.zygote import Zygote
from fastgate.worker.channel import Message

log = structlog.get_logger("fastgate.supervisor")

SHORT: Final = 1.0
"""A life of fewer seconds was none."""
PAUSES: Final = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds before a worker is replaced, by the number of lives that were none before it."""
STORM: Final = 3
"""Lives that were none until it is said what to do."""
ADVICE: Final = (
    "workers end as soon as they begin: see what they wrote before this line, run `fastgate check` on the "
    "configuration, and look at the limits of memory and of open files"
)
MARGIN: Final = 5.0
"""Seconds beyond the drain deadline after which a worker is ended."""
_WHY: Final = 0.5
"""Seconds to learn how a worker ended."""


class Force(NamedTuple):
    """What is in force: workers that are made from now on begin with it."""

    config: Mapping[str, Any]
    """As `config.handing` describes it."""
    settings: Settings
    workers: int


@dataclass
class Post:
    """The place of one worker."""

    number: int
    """From 1."""
    member: Member | None = None
    restarts: int = 0
    failures: int = 0
    """Lives that were none, in a row."""
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a worker is made for it."""

    @property
    def pause(self) -> float:
        """Seconds before the next try to fill it."""
        return PAUSES[min(max(self.failures - 1, 0), len(PAUSES) - 1)]


class _Inherited(NamedTuple):
    """A socket that a worker is born with."""

    place: Place
    sock: socket
    own: bool
    """It is meant to accept from this one."""


class Fleet:
    """All workers."""

    def __init__(self, force: Force, sockets: Sockets, zygote: Zygote, totals: Totals) -> None:
        self.force = force
        self.sockets = sockets
        self.posts = [Post(number + 1) for number in range(force.workers)]
        self.members: set[Member] = set()
        """Every worker that lives, also those that are about to end."""
        self.ledger = Ledger(force.settings.revocation_ttl, self.told)
        self._turns = TurnsOfFleet(self.told)
        self.on_change: Callable[[], None] = lambda: None
        """Called when workers have come or gone."""
        self._nursery = Nursery(zygote)
        self._watchdog = Watchdog(self.members, totals.own)
        self._parting: list[Place] = []
        """Places that are about to be given up: who accepts there is the last to do so."""
        self._totals = totals
        self._tasks: set[asyncio.Task[None]] = set()
        self._gone: set[Member] = set()
        """Those of whom it is not known yet how they ended."""
        self._ending = False

    @property
    def serving(self) -> list[Member]:
        """Workers that serve, also those that hang."""
        return [post.member for post in self.posts if post.member is not None]

    @property
    def pids(self) -> tuple[int, ...]:
        """Every process but this one."""
        return (self._nursery.pid, *(member.pid for member in self.members if member.pid))

    def told(self) -> list[Member]:
        """Who has begun, and has to be told of everything that changes."""
        return [member for member in self.members if member.begun and member.state is not State.GONE]

    # --- what the supervisor wants -----------------------------------------------------------------------------

    async def start(self) -> None:
        """Start every worker. Raises StartError when none can be had; those that fail are tried again."""
        await self._nursery.start(self._ended)
        results = await asyncio.gather(*(self._fill(post) for post in self.posts), return_exceptions=True)
        failed = [result for result in results if isinstance(result, BaseException)]
        if len(failed) == len(self.posts):
            raise StartError(f"no worker can start: {failed[0]}") from failed[0]
        for post in self.posts:
            if post.member is None:
                self._go(self._refill(post))
        self._go(self._watch())

    async def renew(self, *, fresh: bool, gone: Sequence[Place] = ()) -> None:
        """Relieve the workers one by one: each successor serves before its predecessor ends. Raises FastgateError.

        `fresh`: with the code as it is on disk now. `gone`: places at which no successor accepts; they are given up.
        """
        self._parting += gone
        leaving = list(self.members)
        try:
            former = await self._nursery.refresh() if fresh else None
            for number in range(len(self.posts), self.force.workers):
                self.posts.append(Post(number + 1))
            surplus, self.posts = self.posts[self.force.workers :], self.posts[: self.force.workers]
            for post in self.posts:
                await self.relieve(post)
            for post in surplus:
                if post.member is not None:
                    self._leave(post.member)
            self.share()
            if former is not None:
                former.retire()
            if gone:
                with suppress(TimeoutError):
                    async with asyncio.timeout(MARGIN):
                        await asyncio.gather(*(member.closed.wait() for member in leaving))
        finally:
            for place in gone:
                place.close()
                self._parting.remove(place)

    async def relieve(self, post: Post) -> None:
        """Put a new worker in place of one. Raises FastgateError: the old one goes on."""
        before = [member for member in self.members if member.number == post.number and member.state is State.LEAVING]
        # Relieved twice in a row: no third one while the first is not done.
        await asyncio.gather(*(member.gone.wait() for member in before))
        async with post.changing:
            predecessor = post.member
            await self._make(post)
            if predecessor is not None:
                self._leave(predecessor)

    async def drain(self, seconds: float) -> int:
        """Let everybody finish, at most so many seconds; returns how many connections were cut."""
        self._ending = True
        self._parting += [place for place in self.sockets.places if place.ours]
        everybody = list(self.members)
        for member in everybody:
            self._leave(member)
        with suppress(TimeoutError):
            async with asyncio.timeout(MARGIN):
                await asyncio.gather(*(member.closed.wait() for member in everybody))
        self.sockets.close_public()
        await self._all_gone(seconds + MARGIN)
        return sum(member.cut for member in everybody)

    async def stop(self) -> None:
        """End everything at once."""
        self._ending = True
        await self._all_gone(0.0)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._nursery.stop()

    def share(self) -> None:
        """See to it that every socket has somebody who accepts from it."""
        able = [member for member in self.serving if member.serves]
        for member, numbers in shares(able, (*self.sockets.places, *self._parting)).items():
            member.accept(numbers)
        self.on_change()

    # --- how workers come --------------------------------------------------------------------------------------

    async def _make(self, post: Post) -> None:
        """Make a worker for a post that serves. Raises FastgateError."""
        force = self.force
        inherited = [
            _Inherited(place, sock, (post.number - 1) % len(place.sockets) == index)
            for place in self.sockets.places
            for index, sock in enumerate(place.sockets)
        ]
        await self.ledger.learn(member for member in self.serving if member.serves)
        member = Member(post.number, [each.sock for each in inherited], self._said)
        self.members.add(member)
        settings = force.settings
        try:
            await member.start(
                self._nursery,
                patience=settings.limits.drain_timeout + MARGIN,
                redis=settings.redis is not None,
                begin=lambda: self._beginning(force, inherited),
            )
            while force is not self.force:
                # Another configuration was put in force meanwhile.
                force = self.force
                await member.prepare(force.config, WITHIN)
                await member.commit(force.config["version"], WITHIN)
        except BaseException:
            member.kill()
            self.members.discard(member)
            raise
        post.member = member
        self._go(self._bury(post, member))
        log.info("worker serving", worker=post.number, pid=member.pid)
        self.share()

    def _beginning(self, force: Force, inherited: Sequence[_Inherited]) -> dict[str, Any]:
        """What a worker has to know at this moment. Raises NotStartedError when it comes too late."""
        if self._ending:
            raise NotStartedError("the gateway is about to end")
        return {
            "config": force.config,
            "workers": force.workers,
            "key": self.ledger.key.hex(),
            "marks": self.ledger.marks(),
            "addresses": [each.place.address for each in inherited],
            "accept": [number for number, each in enumerate(inherited) if each.own],
            "kept": [number for number, each in enumerate(inherited) if not each.place.ours],
        }

    async def _fill(self, post: Post) -> None:
        async with post.changing:
            if post.member is None and not self._ending:
                await self._make(post)

    async def _refill(self, post: Post) -> None:
        """Make a worker for a post that has none, until it has one; after a pause when that did not help before."""
        while post.member is None and not self._ending and post in self.posts:
            await asyncio.sleep(post.pause)
            try:
                await self._fill(post)
            except FastgateError as error:
                post.failures += 1
                self._totals.own.worker_restarts.add("not_started")
                self._complain(post, str(error))

    # --- how workers go ----------------------------------------------------------------------------------------

    def _leave(self, member: Member) -> None:
        member.leave([sock for place in self._parting for sock in place.sockets])
        limit = self.force.settings.limits.drain_timeout + MARGIN
        asyncio.get_running_loop().call_later(limit, member.kill)

    async def _bury(self, post: Post, member: Member) -> None:
        """Wait for the end of a worker, keep what it counted, replace it if nobody wanted that."""
        await member.gone.wait()
        lived = asyncio.get_running_loop().time() - member.born
        self.members.discard(member)
        self._gone.add(member)
        if member.tally is not None:
            self._totals.keep(member.tally)
        wanted = post.member is not member or self._ending
        if post.member is member:
            post.member = None
        if not wanted:
            post.restarts += 1
            post.failures = post.failures + 1 if lived < SHORT else 0
            self._totals.own.worker_restarts.add("ended")
            self._go(self._refill(post))
        self.share()
        status = await self._status(member)
        if wanted:
            log.info("worker ended", worker=post.number, pid=member.pid, cut=member.cut)
            return
        log.error("worker lost", worker=post.number, pid=member.pid, status=status, seconds=round(lived, 1))
        if post.failures >= STORM:
            self._complain(post, "it ended as soon as it served")

    async def _status(self, member: Member) -> int | None:
        """How a worker ended: its exit status, below zero a signal; None when nobody knows."""
        try:
            async with asyncio.timeout(_WHY):
                return await asyncio.shield(member.ended_with)
        except TimeoutError:
            with suppress(ChildProcessError):  # ours when its zygote is gone and we are the first process
                os.waitpid(member.pid, os.WNOHANG)  # noqa: ASYNC222 - it waits for nothing
            return None
        finally:
            self._gone.discard(member)

    def _complain(self, post: Post, why: str) -> None:
        advice = ADVICE if post.failures >= STORM else None
        log.error("worker cannot be kept", worker=post.number, problem=why, next_try_in=post.pause, advice=advice)

    async def _all_gone(self, seconds: float) -> None:
        """Wait until every worker has ended; end those that have not by then."""
        for patience in (seconds, MARGIN):
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await asyncio.gather(*(member.gone.wait() for member in self.members if member.begun))
            for member in self.members:
                member.kill()

    async def _watch(self) -> None:
        while True:
            await self._watchdog.look(self.force.settings.worker_timeout)
            self.share()

    # --- what workers and zygotes say --------------------------------------------------------------------------

    def _said(self, member: Member, message: Message) -> Any:
        match message["op"]:
            case "revoked":
                self._go(self.ledger.spread(_marks(message), besides=member))
            case "learned":
                self.ledger.keep(_marks(message))
            case "turn":
                return self._turns.wait(member, message["provider"])
            case "health":
                self._turns.tell(member, message["provider"], well=message["well"])
            case "relieve" if not self._ending:
                self._go(self._relieve_quietly(member))
        return None

    async def _relieve_quietly(self, member: Member) -> None:
        """A worker was told to end by somebody else: it does, when another serves."""
        for post in self.posts:
            if post.member is member:
                try:
                    await self.relieve(post)
                except FastgateError as error:
                    log.error("worker not relieved: it goes on", worker=post.number, problem=str(error))  # noqa: TRY400

    def _ended(self, pid: int, status: int) -> None:
        """The zygote says how a worker ended, before or after its channel does."""
        for member in self.members | self._gone:
            if member.pid == pid and not member.ended_with.done():
                member.ended_with.set_result(status)

    def _go(self, doing: Coroutine[Any, Any, None]) -> None:
        """Do something beside everything else."""
        task = asyncio.get_running_loop().create_task(doing)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the supervisor failed at something: please report this", exc_info=error)


def _marks(message: Message) -> list[Mark]:
    return [Mark(*each) for each in message["marks"]]
