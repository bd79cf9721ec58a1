"""One worker as the supervisor sees it."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from typing import Any, Final

from fastgate.control.tally import Tally
from fastgate.errors import FastgateError
from fastgate.model import Mark
from fastgate.supervisor.nursery import Nursery
from fastgate.worker.channel import Channel, ChannelError, Message, RefusedError

STARTING: Final = 30.0
"""Seconds that a worker may take to compile its configuration and to begin."""
SILENT: Final = 2.5
"""Seconds without a sign of life after which others accept for a worker. It gives one every second."""


class State(StrEnum):
    """How far a worker has come."""

    STARTING = "starting"
    SERVING = "serving"
    LEAVING = "leaving"
    """It accepts no more and finishes what is open."""
    GONE = "gone"


class NotStartedError(FastgateError):
    """A worker could not begin; the message says why."""


class Member:
    """A worker process, from its birth to its end."""

    def __init__(self, number: int, sockets: Sequence[socket.socket], said: "Listener") -> None:
        """`number` is its place in the fleet, from 1; `sockets` are those that it can accept from."""
        self.number = number
        self.sockets = tuple(sockets)
        self.state = State.STARTING
        self.pid = 0
        self.begun = False
        """It was told what was known at that moment; what is revoked or changed from then on it has to be told."""
        self.version = ""
        """Of the configuration that it has in force."""
        self.accepting: frozenset[int] = frozenset()
        """The numbers, among `sockets`, of those that it was told to accept from."""
        self.tally: Tally | None = None
        """What it said last that it has counted."""
        self.status: Mapping[str, Any] = {}
        self.reasons: Sequence[str] = ("starting",)
        """Why it should get no requests."""
        self.answers = True
        """Whether it answered when it was asked last."""
        self.cut = 0
        """Connections that it had to cut in the end."""
        loop = asyncio.get_running_loop()
        self._loop = loop
        self.born = self.heard = loop.time()
        """Loop time: when it was made, and its last sign of life."""
        self.closed = asyncio.Event()
        """Set when it accepts no more and nobody waits any more where it was the last to accept."""
        self.gone = asyncio.Event()
        self.ended_with: asyncio.Future[int] = loop.create_future()
        """Its exit status, below zero for a signal; known a moment after it is gone, if at all."""
        self._said = said
        self._channel = Channel(self._received, self._lost)

    def __repr__(self) -> str:
        return f"<Member {self.number} {self.state} pid={self.pid}>"

    async def start(self, nursery: Nursery, *, patience: float, redis: bool, begin: Callable[[], Message]) -> None:
        """Have it made and begin with what it has to know at that moment. Raises NotStartedError and ZygoteError.

        `patience` and `redis`: see `Zygote.fork`.
        """
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            raise NotStartedError(f"a worker cannot be spoken to: {error.strerror}") from error
        try:
            with theirs:
                self.pid = await nursery.fork(theirs, self.sockets, patience=patience, redis=redis)
            ours.setblocking(False)  # noqa: FBT003 - the socket module's own signature
            await self._loop.create_unix_connection(lambda: self._channel, sock=ours)
        except BaseException:
            ours.close()
            raise
        what = begin()
        self.begun = True
        try:
            await self._channel.call("begin", within=STARTING, number=self.number, **what)
        except RefusedError as error:
            self.kill()
            raise NotStartedError(_told(error)) from error
        except ChannelError as error:
            self.kill()
            raise NotStartedError(f"it ended or hung before it could begin ({error})") from error
        self.version = what["config"]["version"]
        self.accepting = frozenset(what["accept"])
        if self.state is State.STARTING:
            self.state = State.SERVING

    @property
    def silent_for(self) -> float:
        """Seconds since its last sign of life."""
        return self._loop.time() - self.heard

    @property
    def serves(self) -> bool:
        """Whether it can be counted on to accept connections."""
        return self.state is State.SERVING and self.silent_for < SILENT

    # --- what it is told ---------------------------------------------------------------------------------------

    def accept(self, numbers: frozenset[int]) -> None:
        """Accept from exactly these of its sockets."""
        if numbers != self.accepting:
            self.accepting = numbers
            self._channel.tell("accept", accept=sorted(numbers))

    async def report(self, within: float) -> None:
        """Learn everything about it anew, if it answers in time; who is silent already is not waited for."""
        if self.silent_for >= SILENT:
            self.answers = False
            return
        try:
            said = await self._channel.call("report", within=within)
        except ChannelError:
            self.answers = False
            return
        self.answers = True
        self.tally, self.status, self.reasons = said["tally"], said["status"], said["reasons"]

    async def revoke(self, what: Mapping[str, Any], within: float) -> tuple[int, list[Mark]]:
        """Forget and refuse; returns how much went, and the revocations that began. Raises ChannelError."""
        said = await self._channel.call("revoke", within=within, what=what)
        return said["count"], [Mark(*each) for each in said["marks"]]

    async def learn(self, marks: Sequence[Mark], within: float) -> None:
        """Put revocations of others in force. Raises ChannelError."""
        await self._channel.call("learn", within=within, marks=marks)

    async def marks(self, within: float) -> list[Mark]:
        """Tell the revocations in force there; none when it does not answer."""
        try:
            return [Mark(*each) for each in await self._channel.call("marks", within=within)]
        except ChannelError:
            return []

    async def told(self, within: float) -> bool | None:
        """Say whether every revocation has reached what hosts share; None: nothing is shared, or it does not answer."""
        try:
            told: bool | None = await self._channel.call("told", within=within)
        except ChannelError:
            return None
        return told

    async def first(self, name: str, seconds: float, within: float) -> bool:
        """Say whether `name` is new to all hosts; see `tokens.seen.Seen`."""
        try:
            return bool(await self._channel.call("first", within=within, name=name, seconds=seconds))
        except ChannelError:
            return True

    def health(self, provider: str, *, well: bool) -> None:
        """Say that an identity provider has answered another worker, or fails it every time."""
        self._channel.tell("health", provider=provider, well=well)

    async def prepare(self, config: Mapping[str, Any], within: float) -> None:
        """Make sure that it could put a configuration in force. Raises ChannelError."""
        await self._channel.call("prepare", within=within, config=config)

    async def commit(self, version: str, within: float) -> None:
        """Put the configuration in force that it prepared. Raises ChannelError."""
        await self._channel.call("commit", within=within, version=version)
        self.version = version

    def leave(self, last: Sequence[socket.socket]) -> None:
        """Accept no more and finish what is open; at the sockets `last` nobody accepts after it."""
        if self.state in {State.STARTING, State.SERVING}:
            self.state = State.LEAVING
            ids = {id(sock) for sock in last}
            self._channel.tell("drain", last=[n for n, sock in enumerate(self.sockets) if id(sock) in ids])

    def kill(self) -> None:
        """End it at once."""
        # Its end of the channel is open: the process is still the one that was made.
        if self._channel.open and self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    # --- what it says ------------------------------------------------------------------------------------------

    def _received(self, message: Message) -> None:
        self.heard = self._loop.time()
        op = message["op"]
        if op == "alive":
            self.tally = message.get("tally", self.tally)
            self.reasons = message.get("reasons", self.reasons)
        elif op == "bye":
            self.tally, self.cut = message["tally"], message["cut"]
        elif op == "closed":
            self.closed.set()
        else:
            self._channel.answer(message, self._said(self, message))

    def _lost(self) -> None:
        self.state = State.GONE
        self.closed.set()
        self.gone.set()


Listener = Callable[[Member, Message], Any]
"""Gets what a worker says that is more than about itself, and returns what it is answered where it asks."""


def _told(error: RefusedError) -> str:
    """What a worker said about why it cannot begin, its configuration's problems one by one."""
    problems = [f"{path}: {message}" if path else message for path, message, _ in error.detail or ()]
    return "; ".join(problems) or str(error)
