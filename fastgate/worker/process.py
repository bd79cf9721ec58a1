"""One worker: an `App` that is told over the channel what to serve, and says that it lives."""

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import structlog
import uvloop

from fastgate.app import App
from fastgate.config.compile import compile_snapshot
from fastgate.config.handing import taken
from fastgate.control import logging as event_log
from fastgate.control.tally import Tally, tally
from fastgate.errors import ConfigError, FastgateError
from fastgate.model import Mark, Snapshot
from fastgate.worker.channel import Channel, Message
from fastgate.worker.turns import TurnsOfWorkers

log = structlog.get_logger("fastgate.worker")

HEARTBEAT: Final = 1.0
"""Seconds between two signs of life."""


def work(channel: socket.socket, sockets: Sequence[socket.socket]) -> int:
    """Serve until the supervisor says otherwise or is gone; returns the exit status."""
    try:
        return uvloop.run(Worker(sockets).run(channel))
    finally:
        event_log.close()


class Worker:
    """What the supervisor's words do here."""

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        self._sockets = sockets
        self._addresses: Sequence[int] = ()
        """For each socket, which of the addresses to listen on it belongs to."""
        self._kept: frozenset[int] = frozenset()
        """Sockets that somebody holds on to whatever becomes of the gateway: who waits there is not lost with us."""
        self._inbox: asyncio.Queue[Message | None] = asyncio.Queue()
        self._channel = Channel(self._inbox.put_nowait, lambda: self._inbox.put_nowait(None))
        self._app: App | None = None
        self._prepared: Snapshot | None = None
        self._marks: list[Mark] | None = None
        """Collects revocations that begin here while the supervisor waits for them."""
        self._ending: asyncio.Task[None] | None = None
        self._failed = False

    async def run(self, channel: socket.socket) -> int:
        """Do what the supervisor says, in its order, until it is done; returns the exit status."""
        loop = asyncio.get_running_loop()
        # Not an end by itself: the supervisor has somebody else in place first.
        loop.add_signal_handler(signal.SIGTERM, self._channel.tell, "relieve")
        await loop.create_unix_connection(lambda: self._channel, sock=channel)
        self._beat()
        while (message := await self._inbox.get()) is not None:
            await self._do(message)
        if self._app is not None and self._ending is None and not self._failed:
            # The supervisor is gone without a word: nobody accepts after us.
            log.warning("the supervisor is gone; ending")
            last = self._app.listeners.accepting - self._kept
            self._ending = loop.create_task(self._end(self._app, sorted(last)))
        if self._ending is not None:
            await self._ending
        return int(self._failed)

    async def _do(self, message: Message) -> None:
        try:
            self._channel.answer(message, await self._known[message["op"]](self, message))
        except ConfigError as error:
            problems = [[problem.path, problem.message, problem.line] for problem in error.problems]
            self._channel.refuse(message, str(error), problems)
        except FastgateError as error:
            self._channel.refuse(message, str(error))
        except Exception as error:
            log.exception("a worker failed to do as it was told: please report this", op=message["op"])
            self._channel.refuse(message, type(error).__name__)

    # --- what it is told ---------------------------------------------------------------------------------------

    async def _begin(self, message: Message) -> None:
        """Compile the configuration, know what was revoked, then serve."""
        try:
            snapshot = await _compiled(message)
            number = message["number"] if message["workers"] > 1 else None
            event_log.configure(
                snapshot.settings.log_format,
                process=None if number is None else {"worker": number, "pid": os.getpid()},
            )
            app = App(
                lambda: snapshot,
                fingerprint_key=bytes.fromhex(message["key"]),
                revoked=self._noted,
                learned=self._learned,
                turns=TurnsOfWorkers(self._channel, message["workers"]),
                worker=number,
            )
            await app.start(alone=False)
            self._app = app
            app.learn(Mark(*each) for each in message["marks"])
            self._addresses, self._kept = message["addresses"], frozenset(message["kept"])
            _collect_seldom()
            await self._accept(message)
        except BaseException:
            self._failed = True
            raise

    async def _accept(self, message: Message) -> None:
        app = self._serving
        await app.listeners.accept(
            {number: app.inlet(self._addresses[number], self._sockets[number]) for number in message["accept"]}
        )

    async def _report(self, _: Message) -> dict[str, Any]:
        app = self._serving
        return {"tally": self._tally(), "status": app.status(), "reasons": app.readiness()}

    async def _revoke(self, message: Message) -> dict[str, Any]:
        self._marks = []
        try:
            count = self._serving.forget(**message["what"])
        finally:
            marks, self._marks = self._marks, None
        return {"count": count, "marks": marks}

    async def _learn(self, message: Message) -> None:
        self._serving.learn(Mark(*each) for each in message["marks"])

    async def _told(self, _: Message) -> bool | None:
        return await self._serving.told()

    async def _first(self, message: Message) -> bool:
        return await self._serving.first(message["name"], message["seconds"])

    async def _hear(self, message: Message) -> None:
        self._serving.heard(message["provider"], well=message["well"])

    async def _tell_marks(self, _: Message) -> list[Mark]:
        return self._serving.marks()

    async def _prepare(self, message: Message) -> None:
        """Make sure that a configuration can be put in force, without doing so."""
        self._prepared = await _compiled(message)

    async def _commit(self, message: Message) -> None:
        snapshot, self._prepared = self._prepared, None
        if snapshot is None or snapshot.version != message["version"]:
            raise FastgateError("this configuration was not prepared")
        await self._serving.swap(snapshot)

    async def _drain(self, message: Message) -> None:
        """Begin to end; everything else goes on being answered meanwhile."""
        if self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self._end(self._serving, message["last"]))

    _known: Final[dict[str, Callable[["Worker", Message], Awaitable[Any]]]] = {
        "begin": _begin,
        "accept": _accept,
        "report": _report,
        "revoke": _revoke,
        "learn": _learn,
        "marks": _tell_marks,
        "told": _told,
        "first": _first,
        "health": _hear,
        "prepare": _prepare,
        "commit": _commit,
        "drain": _drain,
    }

    # --- what it says ------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        """Say that the loop turns, and what was counted: it would be lost with a process that is killed."""
        if self._app is None:
            self._channel.tell("alive")
        else:
            self._channel.tell("alive", tally=self._tally(), reasons=self._app.readiness())
        if self._channel.open:
            asyncio.get_running_loop().call_later(HEARTBEAT, self._beat)

    def _noted(self, mark: Mark) -> None:
        """Tell the others of a revocation that began here."""
        if self._marks is not None:
            self._marks.append(mark)
        else:
            self._channel.tell("revoked", marks=[mark])

    def _learned(self, marks: Sequence[Mark]) -> None:
        """Tell of revocations on other hosts: our successor must know them, though Redis be gone by then."""
        self._channel.tell("learned", marks=marks)

    async def _end(self, app: App, last: Sequence[int]) -> None:
        await app.stop_accepting(last)
        self._channel.tell("closed")
        cut = await app.drain()
        self._channel.tell("bye", tally=self._tally(), cut=cut)
        self._channel.close()

    @property
    def _serving(self) -> App:
        if self._app is None:
            raise FastgateError("this worker has not begun")
        return self._app

    def _tally(self) -> Tally:
        app = self._serving
        times = os.times()
        return tally(app.stats, app.gauges(), times.user + times.system)


async def _compiled(message: Message) -> Snapshot:
    """Compile beside the loop: requests go on, and signs of life. Raises ConfigError."""
    return await asyncio.to_thread(lambda: compile_snapshot(taken(message["config"])))


def _collect_seldom() -> None:
    """Keep the garbage collector from walking what stays."""
    gc.collect()
    gc.freeze()
    # A full collection walks every token state that is remembered, hundreds of thousands of them, while everybody
    # waits; next to nothing on the way of a request is a cycle. So most collections walk 2,000 new objects (1.4 ms of
    # the processor, and twice to six times as long on a busy machine), the one after six of these what they have left
    # (12 ms), and one in 140 million new objects all.
    gc.set_threshold(2_000, 5, 10_000)


def call_process(name: str) -> None:
    """Name this process for `ps` and `top` (15 characters are seen)."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text(name)
