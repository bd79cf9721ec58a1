"""From a question to an answer: the shared state, else the lease and asking, else somebody else's answer."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

from fastgate.clock import Clock
from fastgate.errors import Cannot, IntrospectionError
from fastgate.model import INACTIVE, IdentityProvider, Remembered
from fastgate.policy.freshness import lifetime
from fastgate.stats import Stats
from fastgate.tokens.shared.cache import RedisStates
from fastgate.tokens.shared.faults import RedisError
from fastgate.tokens.shared.leases import Held, Lease, Leases, Odd, Place
from fastgate.tokens.shared.question import Learned, Question
from fastgate.tokens.shared.sealing import MARK_SIZE
from fastgate.tokens.shared.session import Session
from fastgate.tokens.shared.states import Entry, Found, Opened, Unusable
from fastgate.tokens.shared.wakeups import Wakeups

REGAIN_SECONDS: Final = 0.1
"""How long a flight that waits for another worker waits for Redis, should the line break meanwhile."""
PROMPT_SECONDS: Final = 0.02
"""How long after its end a lease is looked at again."""
ASK_SHARE: Final = 4
"""Who takes over late has at least this share of the provider's timeout, one in so many, to ask."""
LANDED_MAX: Final = 3
"""States in the way of the lease, each another one, that will not do: somebody plays with us, or with our routes."""
INACTIVE_MAX: Final = 1000
"""Inactive tokens that one worker keeps in Redis: a flood of invented ones does not fill it."""

_Claimed = Lease | Held | Learned | bytes | None
"""The lease, or who holds it; what is shared and will do; how that begins which will not; None: ask alone."""


class Obtaining:
    """Where the questions of one worker go."""

    def __init__(
        self,
        session: Session,
        states: RedisStates,
        leases: Leases,
        wakeups: Wakeups,
        prefix: str,
        clock: Clock,
        stats: Stats,
    ) -> None:
        self._session = session
        self._states = states
        self._leases = leases
        self._wakeups = wakeups
        self._prefix = prefix
        self._clock = clock
        self._stats = stats
        self._inactive: deque[float] = deque(maxlen=INACTIVE_MAX)
        """When the inactive tokens that this worker wrote are forgotten, in monotonic seconds."""
        self._landing: set[asyncio.Task[None]] = set()

    async def obtain(self, question: Question) -> Learned:
        """Answer a question. Raises IntrospectionError: we cannot know."""
        if not self._session.up:
            self._stats.cache_misses.add("shared", "bypassed")
            return await self._alone(question)
        place = self._place(question.provider, question.key)
        if question.refused() or not self._session.writable:
            return await self._look(question, place) or await self._alone(question)
        return await self._together(question, place)

    def glance(self, provider: IdentityProvider, key: bytes, then: Callable[[bool], None]) -> None:
        """Tell `then`, soon, whether anything is shared about a token; no, when Redis does not say."""
        self._states.glance(self._place(provider, key).state, partial(self._glanced, then))

    def _glanced(self, then: Callable[[bool], None], found: Any) -> None:
        if found is None or isinstance(found, RedisError):
            self._stats.cache_misses.add("shared", "absent" if found is None else "bypassed")
            then(False)  # noqa: FBT003
        else:
            then(True)  # noqa: FBT003

    async def close(self) -> None:
        """Finish what is being told to others: each has its deadline."""
        await asyncio.gather(*self._landing)

    def _place(self, provider: IdentityProvider, key: bytes) -> Place:
        name = f"{provider.name}:{{{key.hex()}}}"
        return Place(f"{self._prefix}:state:{name}", f"{self._prefix}:lease:{name}")

    # --- looking ------------------------------------------------------------------------------------------

    async def _look(self, question: Question, place: Place) -> Learned | None:
        """Return what is shared already, if that will do."""
        try:
            opened = await self._states.get(place.state)
        except Unusable as error:
            self._stats.cache_misses.add("shared", error.reason)
            return None
        except RedisError:
            self._stats.cache_misses.add("shared", "bypassed")
            return None
        if opened is None:
            self._stats.cache_misses.add("shared", "absent")
            return None
        judged = self._judged(question, opened)
        return judged if isinstance(judged, Learned) else None

    def _judged(self, question: Question, opened: Opened) -> Learned | bytes:
        """Return what is shared, or how that begins which will not do."""
        fetched_at = self._clock.monotonic() - opened.age
        if not question.usable(Remembered(opened.state, fetched_at)):
            self._stats.cache_misses.add("shared", "stale")
            return opened.name
        state = question.settle(opened.state)
        kind = "inactive" if opened.state is INACTIVE else "active" if state is opened.state else "revoked"
        self._stats.cache_hits.add("shared", kind)
        return Learned(state, fetched_at, asked=False)

    def _opened(self, found: Found) -> Opened | None:
        try:
            opened: Opened | None = self._states.serializer.loads(found)
        except Unusable as error:
            self._stats.cache_misses.add("shared", error.reason)
            return None
        return opened

    # --- asking or waiting --------------------------------------------------------------------------------

    async def _alone(self, question: Question) -> Learned:
        """Ask without telling anybody."""
        self._stats.leases.add("alone")
        asked_at = self._clock.monotonic()
        state = question.settle(await question.ask(question.provider.timeout))
        return Learned(state, asked_at, asked=True)

    async def _together(self, question: Question, place: Place) -> Learned:
        """Take what is shared; else ask for everybody, or wait for who does; take over from one that died."""
        timeout = question.provider.timeout
        until = self._clock.monotonic() + timeout
        waited, landed, known = False, 0, b""
        while (left := until - self._clock.monotonic()) > 0.0:
            claimed = await self._claim(question, place, known)
            if not (waited or known):
                self._count_miss(claimed)
            if isinstance(claimed, Lease):
                self._stats.leases.add("taken_over" if waited else "owner")
                return await self._lead(question, claimed, max(left, timeout / ASK_SHARE))
            if isinstance(claimed, Held):
                if not waited:
                    self._stats.leases.add("follower")
                    waited = True
                claimed = await self._follow(question, place, claimed, left)
            elif claimed is None and not (waited and await self._regained()):
                return await self._alone(question)
            if isinstance(claimed, Learned):
                return claimed
            if isinstance(claimed, bytes):
                landed += 1
                if landed == LANDED_MAX:
                    return await self._alone(question)
                known = claimed
        raise IntrospectionError(Cannot.TIMEOUT, f"no answer within {timeout:g} s by the worker that asks")

    async def _regained(self) -> bool:
        """Whether the line broke and is open again: then whoever asks may still tell."""
        return not self._session.up and await self._session.regained(REGAIN_SECONDS)

    async def _claim(self, question: Question, place: Place, known: bytes) -> _Claimed:
        """Ask for the lease."""
        try:
            claimed = await self._leases.claim(place, known, question.provider.timeout)
        except RedisError:
            return None
        if isinstance(claimed, Odd):
            self._stats.leases.add("odd")
            return None
        if isinstance(claimed, Found):
            opened = self._opened(claimed)
            return claimed.sealed[:MARK_SIZE] if opened is None else self._judged(question, opened)
        return claimed

    def _count_miss(self, claimed: _Claimed) -> None:
        """Count it where nothing was shared; a state that was there is counted by who looked at it."""
        if claimed is None:
            self._stats.cache_misses.add("shared", "bypassed")
        elif not isinstance(claimed, Learned | bytes):
            over = claimed.over if isinstance(claimed, Lease) else ""
            self._stats.cache_misses.add("shared", over or "absent")

    async def _lead(self, question: Question, lease: Lease, seconds: float) -> Learned:
        asked_at, wall = self._clock.monotonic(), self._clock.now()
        try:
            state = question.settle(await question.ask(seconds))
        except IntrospectionError as error:
            self._later(self._leases.fail(lease, error))
            raise
        except BaseException:
            self._later(self._leases.release(lease))
            raise
        # Nothing was awaited since the revocations were looked at, and nothing will be until this is on its way.
        life = lifetime(state, question.provider.freshness, wall)
        seconds = life - (self._clock.monotonic() - asked_at)
        if state is INACTIVE and not self._may_keep(seconds):
            seconds = 0.0
        self._later(self._leases.land(lease, Entry(lease.place.state, state, wall, life), max(0.0, seconds)))
        return Learned(state, asked_at, asked=True)

    async def _follow(self, question: Question, place: Place, held: Held, left: float) -> Learned | None:
        """Wait for the owner's answer; None: look again who asks now."""
        message = self._wakeups.expect(held.owner)
        lost = asyncio.get_running_loop().create_task(self._session.lost.wait())
        try:
            await asyncio.wait(
                (message, lost),
                timeout=max(0.0, min(held.lapses + PROMPT_SECONDS, left)),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            lost.cancel()
            self._wakeups.forget(held.owner)
        if not message.done():
            return None
        told = self._leases.read(place, held, message.result())
        if isinstance(told, IntrospectionError):
            raise told
        opened = None if told is None else self._opened(told)
        # Older than the question: somebody put an old answer into a new message.
        if opened is None or opened.at < held.at:
            return None
        self._stats.cache_hits.add("shared", "told")
        return Learned(question.settle(opened.state), self._clock.monotonic() - opened.age, asked=True)

    # --- telling ------------------------------------------------------------------------------------------

    def _may_keep(self, seconds: float) -> bool:
        now = self._clock.monotonic()
        while self._inactive and self._inactive[0] <= now:
            self._inactive.popleft()
        if len(self._inactive) == INACTIVE_MAX:
            return False
        self._inactive.append(now + seconds)
        return True

    def _later(self, telling: Coroutine[Any, Any, None]) -> None:
        """Tell in the background: whoever asked here need not wait for it."""
        task = asyncio.get_running_loop().create_task(telling)
        self._landing.add(task)
        task.add_done_callback(self._landing.discard)
