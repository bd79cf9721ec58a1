"""What the tests of the shared tier are made of: workers in this process, each with a memory and a line of its own."""

import asyncio
import ssl
import time
from dataclasses import replace
from types import TracebackType
from typing import Self

from fastgate.clock import SystemClock
from fastgate.model import ActiveToken
from fastgate.policy.digest import token_key
from fastgate.stats import Stats
from fastgate.tokens.shared.question import Question
from fastgate.tokens.shared.tier import SharedTier
from tests.support.client import PATIENCE
from tests.tokens.parts import World, access_to, provider_at


class SkewedClock(SystemClock):
    """The machine's clocks, the wall clock so many seconds off; `later` moves both."""

    def __init__(self, skew=0.0):
        self.skew = skew
        self.later = 0.0

    def now(self):
        return time.time() + self.skew + self.later

    def monotonic(self):
        return time.monotonic() + self.later


class Worker:
    """One worker: `async with` starts and stops it."""

    def __init__(self, settings, idp, *, skew=0.0, **changes):
        self.settings = settings
        self.clock = SkewedClock(skew)
        self.stats = Stats()
        self.world = World(self.clock, self.stats)
        self.provider = provider_at(idp, **changes)
        self.access = access_to(self.provider)
        self.tokens = self.world.of(self.provider)
        self.shared = None

    async def get(self, value, access=None):
        """Do what the gate does: look into the memory, else resolve."""
        return await self.world.get(access or self.access, value)

    async def active(self, value):
        """Whether the token is active, as this worker sees it."""
        return isinstance(await self.get(value), ActiveToken)

    async def ask(self, value):
        """Forget what is in memory, then resolve."""
        self.forget(value)
        return await self.get(value)

    def forget(self, value):
        self.world.memory.drop(token_key(self.provider, value))

    def key(self, value, kind="state"):
        """Name the key in Redis."""
        return f"{self.settings.prefix}:{kind}:{self.provider.name}:{{{token_key(self.provider, value).hex()}}}"

    def count(self, name, *labels):
        return getattr(self.stats, name).total(*labels)

    @property
    def status(self):
        return self.tokens.status()["shared"]

    @property
    def up(self):
        return self.status["reachable"]

    async def until(self, condition, what="this worker's state", patience=PATIENCE):
        """Wait until something is so, as seen by looking again and again."""
        end = time.monotonic() + patience
        while not condition():
            assert time.monotonic() < end, f"waited {patience} s for {what}: {self.status} {self.stats.leases.values}"
            await asyncio.sleep(0.005)

    async def landed(self):
        """Wait for what is being written in the background."""
        await self.shared._obtaining.close()

    async def start(self) -> Self:
        self.shared = SharedTier(self.settings, self.tokens.revoking, self.clock, self.stats)
        await self.tokens.join(self.shared)
        return self

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.tokens.close()


def soon(seconds=600):
    """An `exp` in so many seconds."""
    return int(time.time()) + seconds


def fresher(worker, **freshness):
    """A route of this worker with a freshness of its own."""
    return replace(worker.access, freshness=replace(worker.access.freshness, **freshness))


def question(worker, value):
    """Make a question for which nobody may be asked, and any answer is good."""

    async def never(_):
        raise AssertionError("nobody is to be asked")

    return Question(
        worker.provider, token_key(worker.provider, value), lambda _: True, never, lambda s: s, lambda: False
    )


def trusting(folder, *, ours=True):
    """Trust the certificates of a folder, and show our own."""
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    if ours:
        context.load_cert_chain(folder / "ours.pem")
    return context
