"""Asking the authorization server about a token (RFC 7662): only here does a token leave the process."""

import asyncio
import math
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from fastgate.clock import Clock
from fastgate.errors import Cannot, IntrospectionError
from fastgate.model import INACTIVE, ClientAuth, IdentityProvider, TokenState
from fastgate.policy import introspection
from fastgate.stats import Stats
from fastgate.tokens.breaker import Breaker, HeldOffError
from fastgate.tokens.budget import InactiveBudget
from fastgate.tokens.client import Answer, Client
from fastgate.tokens.discovery import Discovery, refuse_plaintext
from fastgate.tokens.health import Health
from fastgate.tokens.lanes import Lanes
from fastgate.tokens.turns import ALONE, Turns

PAUSE_SECONDS_MAX: Final = 60.0
"""The longest pause that an authorization server may ask for."""
ASKS_FOR_PAUSE: Final = frozenset({429, 503})


class Introspector:
    """Questions to one identity provider: one deadline each, so many at once, none while it wants a pause."""

    def __init__(self, provider: IdentityProvider, clock: Clock, stats: Stats, turns: Turns = ALONE) -> None:
        self.provider: Final = provider
        self._clock = clock
        self._stats = stats
        self._client = Client(provider)
        self._discovery = Discovery(provider, self._client, clock)
        self._lanes = Lanes(provider.concurrency)
        rate = provider.inactive_rate / turns.workers
        self._budget = InactiveBudget(rate, rate, clock.monotonic)
        self._health = Health(provider, clock)
        self._breaker = Breaker(
            provider.name, provider.failures, self._probe_once, self._pause_left, turns, self._health, stats
        )
        self._pause_until = clock.monotonic()
        self._auth = provider.client_auth
        """As the provider's metadata offer it."""
        self._asking = introspection.asking(provider)
        self._may_be_asked = False
        """Whether the configured endpoint is one to send credentials to."""
        self._idle = asyncio.Event()
        self._idle.set()
        self._open = 0

    def __repr__(self) -> str:
        return f"<Introspector {self.provider.name} {self._lanes.under_way} under way>"

    @property
    def reachable(self) -> bool | None:
        """Whether the last question was answered; None before the first one."""
        return self._health.reachable

    @property
    def out_of_reach(self) -> bool:
        """Whether the last question failed without any answer."""
        return self._health.out_of_reach

    @property
    def problem(self) -> str | None:
        """Why the last question was not answered, in our own words."""
        return self._health.problem

    def status(self) -> dict[str, Any]:
        """For the status page."""
        return {
            "reachable": self.reachable,
            "problem": self.problem,
            "held_off": self._breaker.open,
            "discovered": self._discovery.learned,
            "under_way": self._lanes.under_way,
            "waiting": self._lanes.waiting,
        }

    def refuses(self, *, known: bool) -> bool:
        """Whether nothing would be sent now."""
        try:
            self._refuse(known=known)
        except IntrospectionError:
            return True
        return False

    def turn_away(self) -> IntrospectionError | None:
        """What `introspect` would raise at once about an unknown token, and noted as there; None: it would ask."""
        try:
            self._refuse(known=True)
            _refuse_flood(self._budget.admit())
        except IntrospectionError as error:
            self._note(error)
            # Its traceback leads to the frames of our callers, which hold it: a cycle for each of a flood.
            return error.with_traceback(None)
        return None

    async def introspect(self, token: str, *, known: bool = False, seconds: float = math.inf) -> TokenState:
        """Ask about `token`; one `known` to have been active is not held back by a flood of unknown ones.

        The provider's timeout, or `seconds` where that is less, covers everything: waiting, discovery,
        connecting, a retry, reading.
        Raises IntrospectionError, also when nothing was sent: OVERLOADED, UNAVAILABLE during a pause, or as the last
        questions failed while it is held off from.
        """
        name = self.provider.name
        started = self._clock.monotonic()
        with self._in_use():
            try:
                state = await self._in_time(token, min(seconds, self.provider.timeout), known=known)
            except IntrospectionError as error:
                self._note(error)
                raise
        self._stats.introspections.add(name, "inactive" if state is INACTIVE else "active")
        self._stats.introspection_seconds.observe(self._clock.monotonic() - started, name)
        self._health.succeeded()
        return state

    def heard(self, *, well: bool) -> None:
        """Take note that it has answered another process of this host, or fails it every time."""
        self._breaker.heard(well=well)

    async def probe(self) -> None:
        """Ask about a token that nobody issued: `active: false` proves our credentials.

        Raises IntrospectionError; MALFORMED when such a token is called active.
        """
        if await self.introspect(secrets.token_urlsafe(32), known=True) is not INACTIVE:
            error = IntrospectionError(Cannot.MALFORMED, "it calls a token active that nobody issued")
            self._health.failed(error)
            raise error

    async def meet(self) -> None:
        """Make first contact: learn where to ask, or see that somebody listens there. Asks about no token.

        Raises IntrospectionError.
        """
        with self._in_use():
            try:
                await self._contact()
            except IntrospectionError as error:
                self._health.failed(error)
                raise

    async def _contact(self) -> None:
        try:
            async with asyncio.timeout(self.provider.timeout):
                endpoint = await self._endpoint()
                if self.provider.introspection_endpoint is not None:
                    await self._client.reach(endpoint)
        except TimeoutError:
            raise IntrospectionError(Cannot.TIMEOUT, f"no contact within {self.provider.timeout:g} s") from None

    async def close(self) -> None:
        """Close when the questions under way are answered; each has its deadline. A later one opens anew."""
        await self._idle.wait()
        await self._breaker.close()  # what was under way may have opened it
        await self._discovery.close()
        await self._client.close()

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        self._open += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._open -= 1
            if not self._open:
                self._idle.set()

    def _note(self, error: IntrospectionError) -> None:
        """Take note of a question that failed, or was not sent."""
        if isinstance(error, HeldOffError):
            self._stats.introspections.add(self.provider.name, "held_off")
            return
        self._stats.introspections.add(self.provider.name, str(error.kind))
        self._health.failed(error)
        if error.kind is not Cannot.OVERLOADED:
            self._discovery.doubt()

    async def _in_time(self, token: str, seconds: float, *, known: bool) -> TokenState:
        self._refuse(known=known)
        asked = False
        try:
            async with asyncio.timeout(seconds), self._lanes.slot(known=known):
                self._refuse(known=known)
                asked = True
                state = await (self._ask(token) if known else self._ask_about_unknown(token))
        except TimeoutError:
            failure = IntrospectionError(Cannot.TIMEOUT, f"no answer within {seconds:.3g} s")
        except IntrospectionError as error:
            failure = error
        else:
            self._breaker.answered()
            return state
        if asked:
            self._breaker.failed(failure)
        raise failure

    def _refuse(self, *, known: bool) -> None:
        """Raise when nothing may be sent now. Called twice: a queue outlives what let its questions in."""
        self._refuse_in_pause(IntrospectionError)
        self._breaker.check()
        if not known:
            _refuse_flood(self._budget.wait())

    def _pause_left(self) -> float:
        """Seconds that are left of a pause that it asked for; 0.0 or less: none."""
        return self._pause_until - self._clock.monotonic()

    def _refuse_in_pause(self, kind: type[IntrospectionError]) -> None:
        pause = self._pause_left()
        if pause > 0.0:
            raise kind(Cannot.UNAVAILABLE, "it asked for a pause", pause)

    async def _probe_once(self) -> None:
        """Ask about a token that nobody issued, past every limit but a pause that the server asked for."""
        self._refuse_in_pause(HeldOffError)
        try:
            async with asyncio.timeout(self.provider.timeout):
                await self._ask(secrets.token_urlsafe(32))
        except TimeoutError:
            raise IntrospectionError(Cannot.TIMEOUT, f"no answer within {self.provider.timeout:g} s") from None

    async def _ask_about_unknown(self, token: str) -> TokenState:
        self._budget.asked()
        inactive = None
        try:
            state = await self._ask(token)
            inactive = state is INACTIVE
        finally:
            self._budget.answered(inactive=inactive)
        return state

    async def _ask(self, token: str) -> TokenState:
        endpoint = await self._endpoint()
        answer = await self._client.post(endpoint, self._asking.headers, self._asking.form(token))
        try:
            return introspection.decode(answer.status, answer.content_type, answer.body)
        except IntrospectionError as error:
            self._pause(answer, error)
            raise

    def _pause(self, answer: Answer, error: IntrospectionError) -> None:
        if answer.retry_after and answer.status in ASKS_FOR_PAUSE:
            error.retry_after = min(answer.retry_after, PAUSE_SECONDS_MAX)
            self._pause_until = self._clock.monotonic() + error.retry_after

    async def _endpoint(self) -> str:
        configured = self.provider.introspection_endpoint
        if configured is not None:
            if not self._may_be_asked:
                refuse_plaintext(configured, self.provider)
                self._may_be_asked = True
            return configured
        metadata = await self._discovery.metadata()
        self._choose_auth(metadata.auth_methods)
        return metadata.introspection_endpoint

    def _choose_auth(self, offered: tuple[str, ...]) -> None:
        """Authenticate as configured, unless only the other way to send the same secret is offered."""
        method = self.provider.client_auth
        if method is not ClientAuth.NONE and offered and method not in offered:
            method = next((m for m in (ClientAuth.BASIC, ClientAuth.POST) if m in offered), method)
            if self._auth is not method:
                self._health.other_auth_method(method)
        if self._auth is not method:
            self._auth = method
            self._asking = introspection.asking(replace(self.provider, client_auth=method))


def _refuse_flood(wait: float) -> None:
    """Raise while unknown tokens have to wait, so many seconds."""
    if wait > 0.0:
        raise IntrospectionError(Cannot.OVERLOADED, "too many inactive tokens", max(wait, 1.0))
