"""The life of the line: connect, subscribe, catch up, watch; and all of it again when any of it is lost."""

import asyncio
from contextlib import suppress
from random import SystemRandom
from typing import Any, Final

import structlog

from fastgate.clock import Clock
from fastgate.model import Redis
from fastgate.stats import Stats
from fastgate.tokens.quiet import Quiet
from fastgate.tokens.shared.clients import Way, Ways
from fastgate.tokens.shared.faults import ADVICE, Fault, RedisError, fault_of
from fastgate.tokens.shared.ledger import Ledger
from fastgate.tokens.shared.line import Line
from fastgate.tokens.shared.messages import Messages

log: Final = structlog.get_logger("fastgate.tokens")

OPEN_SECONDS: Final = 1.0
"""For connecting, logging in and subscribing."""
PAUSE_SECONDS: Final = 0.02
PAUSE_SECONDS_MAX: Final = 0.5
"""Between two attempts: doubled each time, and shared again within a second of Redis' return."""
STEADY_SECONDS: Final = 5.0
"""A session that lasted so long was a good one: the next attempt follows at once."""
WATCH_SECONDS: Final = 1.0
_chance: Final = SystemRandom()


class Session:
    """Whether the shared tier may be used now. It may when Redis answers in time and no revocation can be missed."""

    def __init__(
        self, redis: Redis, line: Line, messages: Messages, ledger: Ledger, clock: Clock, stats: Stats
    ) -> None:
        self._redis = redis
        self._ways = Ways(redis)
        self._line = line
        self._messages = messages
        self._ledger = ledger
        self._stats = stats
        self._up = asyncio.Event()
        self._tried = asyncio.Event()
        self._ending = asyncio.Event()
        self._closing: set[asyncio.Task[None]] = set()
        self._running: asyncio.Task[None] | None = None
        self._quiet = Quiet(clock)
        self._told = True
        """Whether it was logged that things are not as they should be: then it is, too, when they are again."""
        self.fault: Fault | None = None
        """Why the shared tier is bypassed, or not written to; None when all is well."""
        self._unwritten: Fault | None = None

    @property
    def up(self) -> bool:
        """Whether the shared tier may be used now."""
        return self._up.is_set() and not self._line.broken.is_set()

    @property
    def writable(self) -> bool:
        """Whether Redis takes what is written."""
        return self._line.writable

    @property
    def lost(self) -> asyncio.Event:
        """Set when the line has closed."""
        return self._line.broken

    async def start(self, patience: float) -> None:
        """Begin, and wait for the first attempt to succeed or fail, `patience` seconds at most."""
        self._show()
        self._running = asyncio.get_running_loop().create_task(self._run())
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._tried.wait()

    async def regained(self, seconds: float) -> bool:
        """Wait for the shared tier to come back, so long at most; whether it did."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._up.wait()
        return self.up

    def status(self) -> dict[str, Any]:
        """For the status page."""
        problem = None if self.fault is None else str(RedisError(self.fault))
        errors = {kind: count for (kind,), count in self._stats.redis_errors.values.items()}
        return {"reachable": self.up, "writable": self.up and self.writable, "problem": problem, "errors": errors}

    async def close(self) -> None:
        """End it."""
        self._ending.set()
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
        await asyncio.gather(*self._closing)

    # --- inside -------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        pause = PAUSE_SECONDS
        while True:
            began = loop.time()
            try:
                await self._once()
            except RedisError as error:
                self._bypass(error.fault)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again
                fault = fault_of(error)
                self._stats.redis_errors.add(str(fault))
                self._bypass(fault)
            pause = PAUSE_SECONDS if loop.time() - began > STEADY_SECONDS else min(2 * pause, PAUSE_SECONDS_MAX)
            await asyncio.sleep(pause * _chance.uniform(0.75, 1.0))

    async def _once(self) -> None:
        """One session, from its beginning to whatever ends it: always raises."""
        way: Way | None = None
        tasks: list[asyncio.Task[None]] = []
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                way = await self._ways.open()
                self._line.open(way.client)
                await self._try_writing()
                await self._messages.subscribe(way.messages)
            tasks = [loop.create_task(each) for each in (self._messages.listen(), self._broken())]
            await self._ledger.catch_up()
            self._use()
            tasks.append(loop.create_task(self._watch()))
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    await task
        finally:
            self._up.clear()
            self._line.close(Fault.BYPASSED)
            for task in tasks:
                task.cancel()
            # Before anything is waited for: a gateway that ends just now cancels that.
            if way is not None:
                self._retire(way)
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _broken(self) -> None:
        await self._line.broken.wait()
        raise RedisError(self._line.fault)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            await self._messages.ping()
            if not self._line.writable:
                await self._try_writing()
            try:
                await self._ledger.look_after()
            except RedisError:
                if self._line.broken.is_set():
                    raise
            self._show()

    async def _try_writing(self) -> None:
        """Write something small, within the deadline of every operation: Redis may be slow, or a replica."""
        key = f"{self._redis.prefix}:{{probe}}"
        self._line.writable = False
        fault = None
        try:
            await self._line.run(lambda client: client.set(key, b"", px=1000))
        except RedisError as error:
            if self._line.broken.is_set() or (error.fault is Fault.READ_ONLY and self._redis.kind == "sentinel"):
                self._ways.doubt()
                raise
            fault = error.fault
        self._line.writable = fault is None
        if fault is not None and fault is not self._unwritten:
            self._say("shared_tier_not_written", fault)
        self.fault = self._unwritten = fault

    def _use(self) -> None:
        self._up.set()
        self._tried.set()
        self._show()
        if self._told:
            self._told = False
            log.info("shared_tier_in_use", written=self._line.writable, **self._labels())

    def _bypass(self, fault: Fault) -> None:
        self.fault = fault
        self._tried.set()
        self._show()
        self._say("shared_tier_bypassed", fault)

    def _say(self, event: str, fault: Fault) -> None:
        if self._quiet.suppressed((event, fault)) is not None:
            self._told = True
            log.warning(event, kind=str(fault), advice=ADVICE[fault], **self._labels())

    def _labels(self) -> dict[str, Any]:
        redis = self._redis
        at = redis.path or ",".join(f"{host}:{port}" for host, port in redis.addresses)
        return {"backend": "redis", "kind_of_url": redis.kind, "at": at}

    def _show(self) -> None:
        self._stats.shared_up.cell("redis")[0] = int(self.up)

    def _retire(self, way: Way) -> None:
        """Close it when what is under way on it has come to its deadline."""
        task = asyncio.get_running_loop().create_task(self._close_later(way))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close_later(self, way: Way) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(2 * self._redis.timeout):
                await self._ending.wait()
        await way.close()
