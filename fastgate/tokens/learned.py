"""What is learned from an identity provider once and then used for long: its metadata, its keys."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from fastgate.clock import Clock
from fastgate.errors import Cannot, IntrospectionError
from fastgate.tokens.flight import Flights

T = TypeVar("T")

RETRY_SECONDS: Final = 1.0
"""Between two attempts while nothing was learned yet."""
RETRY_SECONDS_MAX: Final = 60.0
"""However long the server asks us to wait, and between attempts to refresh what was learned."""
REFRESH_SECONDS: Final = 3600.0
DOUBT_SECONDS: Final = 30.0
"""It is read again, at most this often, when what it led to fails."""


class Learned(Generic[T]):
    """One load at a time, on demand. What was learned is used until something newer has come.

    Refreshing happens in the background, and its failure changes nothing.
    """

    __slots__ = (
        "_ask",
        "_asked_at",
        "_clock",
        "_failure",
        "_flights",
        "_refresh_at",
        "_retry_at",
        "_timeout",
        "_value",
        "_what",
    )

    def __init__(self, what: str, ask: Callable[[], Awaitable[T]], timeout: float, clock: Clock) -> None:
        """`what` begins every failure; `ask` raises IntrospectionError, and gets `timeout` seconds."""
        self._what = what
        self._ask = ask
        self._timeout = timeout
        self._clock = clock
        self._flights: Flights[None, T] = Flights()
        self._value: T | None = None
        self._asked_at = 0.0
        self._refresh_at = 0.0
        self._failure: IntrospectionError | None = None
        self._retry_at = 0.0

    @property
    def known(self) -> T | None:
        """What was learned; None: nothing yet."""
        return self._value

    @property
    def problem(self) -> str | None:
        """Why the last attempt failed, in our own words; None when it did not."""
        return None if self._failure is None else self._failure.detail

    async def get(self) -> T:
        """Return what was learned, or learn it. The caller owns the deadline; raises IntrospectionError."""
        now = self._clock.monotonic()
        if self._value is not None:
            if now >= self._refresh_at:
                self._refresh_at = now + RETRY_SECONDS_MAX  # should this attempt fail
                self._flights.start(None, self._load)
            return self._value
        self._fail_again(now)
        return await self._flights.join(None, self._load)

    async def newer(self, pause: float) -> T | None:
        """Learn it anew; None: that was done less than `pause` seconds ago.

        The caller owns the deadline; raises IntrospectionError: whether there is something newer cannot be known.
        """
        now = self._clock.monotonic()
        if not len(self._flights):
            if self._failure is None and now < self._asked_at + pause:
                return None
            self._fail_again(now)
        return await self._flights.join(None, self._load)

    def doubt(self) -> None:
        """Learn it anew soon: what it led to failed, and may have moved."""
        self._refresh_at = min(self._refresh_at, self._asked_at + DOUBT_SECONDS)

    async def close(self) -> None:
        """Stop whatever is under way."""
        await self._flights.close()

    async def _load(self) -> T:
        self._asked_at = self._clock.monotonic()
        try:
            async with asyncio.timeout(self._timeout):
                value = await self._ask()
        except TimeoutError:
            failure = IntrospectionError(Cannot.TIMEOUT, f"{self._what}: no answer in time")
        except IntrospectionError as error:
            failure = IntrospectionError(error.kind, f"{self._what}: {error.detail}", error.retry_after)
        else:
            self._value, self._failure = value, None
            self._refresh_at = self._clock.monotonic() + REFRESH_SECONDS
            return value
        self._failure = failure
        wait = min(max(failure.retry_after or 0.0, RETRY_SECONDS), RETRY_SECONDS_MAX)
        self._retry_at = self._clock.monotonic() + wait
        raise failure

    def _fail_again(self, now: float) -> None:
        """Raise what was raised a moment ago, when it is too early to try again."""
        if self._failure is not None and now < self._retry_at:
            raise IntrospectionError(self._failure.kind, self._failure.detail, self._retry_at - now)
