"""The shared tier: what one worker asked about is known to all, and what one revoked is refused by all."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from fastgate.clock import Clock
from fastgate.model import IdentityProvider, Mark, Redis
from fastgate.stats import Stats
from fastgate.tokens.shared.cache import RedisStates
from fastgate.tokens.shared.leases import Leases
from fastgate.tokens.shared.ledger import Ledger, MarkBook
from fastgate.tokens.shared.line import Line
from fastgate.tokens.shared.messages import Messages
from fastgate.tokens.shared.obtaining import Obtaining
from fastgate.tokens.shared.once import Once
from fastgate.tokens.shared.question import Learned, Question
from fastgate.tokens.shared.sealing import Keyring
from fastgate.tokens.shared.session import Session
from fastgate.tokens.shared.states import StateSerializer
from fastgate.tokens.shared.wakeups import Wakeups

START_SECONDS: Final = 2.0
"""For the first session at the start: what was revoked should be known before anything is served."""


class SharedTier:
    """Everything that this worker shares with others. Made inside the running loop."""

    def __init__(
        self,
        redis: Redis,
        book: MarkBook,
        clock: Clock,
        stats: Stats,
        learned: Callable[[Sequence[Mark]], None] = lambda _: None,
    ) -> None:
        """Open nothing yet.

        `book` holds the revocations that this worker knows; `learned` is told of those that others made.
        """
        self._keyring = Keyring(redis.secrets)
        line = Line(redis.timeout, stats)
        together = redis.kind != "cluster"
        self._states = states = RedisStates(line, StateSerializer(self._keyring, clock), together=together)
        wakeups = Wakeups()
        self._book = book
        self._leases = Leases(line, states, self._keyring, redis.prefix, clock, stats, together=together)
        self._ledger = Ledger(line, self._keyring, redis.prefix, book, clock, stats, learned)
        messages = Messages({self._leases.channel: wakeups.received, self._ledger.channel: self._ledger.received})
        self._session = Session(redis, line, messages, self._ledger, clock, stats)
        self._obtaining = Obtaining(self._session, states, self._leases, wakeups, redis.prefix, clock, stats)
        self._once = Once(states, self._keyring, redis.prefix, clock)

    @property
    def fingerprint_keys(self) -> tuple[bytes, ...]:
        """Key the digests that single revoked tokens are known by; the first is for new ones."""
        return self._keyring.fingerprint_keys

    @property
    def up(self) -> bool:
        """Whether others may know what this worker does not."""
        return self._session.up

    async def start(self) -> None:
        """Begin; returns when it is known what was revoked, or when that has to wait for Redis."""
        await self._session.start(START_SECONDS)

    async def obtain(self, question: Question) -> Learned:
        """Answer a question about a token. Raises IntrospectionError: we cannot know."""
        return await self._obtaining.obtain(question)

    def glance(self, provider: IdentityProvider, key: bytes, then: Callable[[bool], None]) -> None:
        """Tell `then`, within milliseconds, whether others know a token. It must not raise."""
        self._obtaining.glance(provider, key, then)

    def spread(self, mark: Mark) -> None:
        """Tell everybody what was revoked here, now or as soon as Redis can be reached."""
        self._ledger.spread(mark)

    async def told(self) -> bool:
        """Whether every revocation made here has reached Redis; waits for what is on its way."""
        return await self._ledger.settled()

    async def first(self, name: str, seconds: float) -> bool:
        """Whether `name` happens for the first time within so many seconds, on any worker and host.

        In doubt, when Redis cannot be reached: as far as this worker knows.
        """
        return await self._once.first(name, seconds)

    def rekey(self, secrets: Sequence[str]) -> None:
        """Take other secrets: the first one seals from now on, the former ones still open."""
        if self._keyring.take(secrets):
            for mark in self._book.marks():
                self._ledger.spread(mark)

    def status(self) -> dict[str, Any]:
        """For the status page."""
        return {
            **self._session.status(),
            "leases": len(self._leases),
            "unsent_revocations": self._ledger.unsent,
        }

    async def close(self) -> None:
        """Tell what is still to be told, within its deadline, and end."""
        await self._obtaining.close()
        await self._states.close()
        await self._ledger.close()
        await self._leases.close()
        await self._session.close()
