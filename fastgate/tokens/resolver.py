"""Tokens: from an access token to a token state, for every identity provider of the process."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final

from fastgate.clock import Clock
from fastgate.errors import IntrospectionError
from fastgate.model import (
    INACTIVE,
    Access,
    AccessToken,
    ActiveToken,
    Freshness,
    IdentityProvider,
    Mark,
    Remembered,
    TokenState,
)
from fastgate.policy.digest import token_key
from fastgate.policy.freshness import ask_ahead, fresh_until, is_fresh, lifetime
from fastgate.stats import Stats
from fastgate.tokens.flight import Flights
from fastgate.tokens.health import OUT_OF_REACH
from fastgate.tokens.introspectors import Introspectors
from fastgate.tokens.memory import Entry, MemoryTier
from fastgate.tokens.revocation import Revocations
from fastgate.tokens.revoking import Revoking
from fastgate.tokens.shared.question import Learned, Question
from fastgate.tokens.turns import ALONE, Turns

if TYPE_CHECKING:
    from fastgate.tokens.shared.tier import SharedTier  # loads redis, which not every gateway needs

NEWER: Final = 1.0
"""Seconds by which an answer must be newer than another one to count as newer: ages are not exact between hosts."""
ANEW: Final = Freshness(ttl=0.0, ttl_max=0.0, ttl_neg=0.0)
"""Nothing that was learned earlier is fresh enough."""
REVOKED: Final = Entry(Remembered(INACTIVE, inf), current=False)
"""What is known of a revoked token: no answer is fresher. Nobody may hold on to it: a revocation ends one day."""


class Tokens:
    """Token states: remembered, under way, or asked for. What it returns is a fact, not yet a decision."""

    def __init__(
        self,
        memory: MemoryTier,
        providers: Mapping[str, IdentityProvider],
        clock: Clock,
        stats: Stats,
        revocations: Revocations,
        fingerprint_key: bytes | None = None,
        turns: Turns = ALONE,
    ) -> None:
        """Open nothing yet. Made inside the running loop.

        `fingerprint_key` is shared by all workers of this host that exchange `marks`; None: there is one. `turns` are
        theirs to ask a provider that is held off from.
        """
        self._memory = memory
        self._clock = clock
        self._stats = stats
        self.revoking: Final = Revoking(memory, revocations, stats, fingerprint_key)
        self.revoked = revocations.tokens
        """By fingerprint, the tokens that were revoked one by one; usually there are none."""
        self._flights: Flights[bytes, Learned] = Flights(stats.flights)
        self._introspectors = Introspectors(clock, stats, turns)
        self._active_hits = stats.cache_hits.cell("memory", "active")
        self._inactive_hits = stats.cache_hits.cell("memory", "inactive")
        self._revoked_hits = stats.cache_hits.cell("memory", "revoked")
        self.shared: SharedTier | None = None
        self.swap(providers)

    async def join(self, shared: "SharedTier") -> None:
        """Share with other workers and hosts from now on; returns when it is known what they revoked, or soon."""
        self.shared = shared
        self.revoking.share(shared.fingerprint_keys)
        await shared.start()

    # --- on every request ---------------------------------------------------------------------------------

    def recall(self, key: bytes, token: AccessToken) -> Entry | None:
        """Return what is remembered of a token, fresh or not; a revoked one is inactive, whatever is remembered."""
        if self.revoking.token_revoked(token.value):
            return REVOKED
        entry = self._memory.entry(key)
        if entry is None:
            self._stats.cache_misses.add("memory", "absent")
        return entry

    def fresh(self, access: Access, entry: Entry, token: AccessToken) -> TokenState | None:
        """Return the state of a remembered token, if this route may still use it; None: ask with `resolve`.

        Shortly before its end it is asked about again, in the background: it is in use.
        """
        state = entry.remembered.state
        if self._clock.monotonic() >= fresh_until(entry.remembered, access.freshness):
            self._stats.cache_misses.add("memory", "stale")
            return None
        if isinstance(state, ActiveToken) and state.exp is not None and state.exp <= self._clock.now():
            self._stats.cache_misses.add("memory", "expired")
            return None
        if self._clock.monotonic() >= self.settled_until(access, entry):
            self._ask_ahead(access, entry, token)
        return state

    def refusal(self, access: Access, key: bytes, entry: Entry | None) -> IntrospectionError | None:
        """Say why nobody is asked about a token now of which nothing good is known; None: `resolve` it.

        `entry` is what is remembered of it, if anything. `resolve` would say the same later, and cost more: a flood of
        invented tokens must not keep those waiting who have good ones.
        """
        if entry is not None and entry.remembered.state is not INACTIVE:
            return None
        if key in self._flights or (self.shared is not None and self.shared.up):
            return None
        return self._introspectors.turn_away(access.provider)

    def hopeless(self, access: Access, key: bytes) -> bool:
        """Whether only others may know a token: nothing good is remembered of it, and nobody would be asked."""
        if self.shared is None or not self.shared.up or key in self._flights:
            return False
        entry = self._memory.entry(key)
        if entry is not None and entry.remembered.state is not INACTIVE:
            return False
        return self._introspectors.refuses(access.provider, known=False)

    def glance(self, access: Access, key: bytes, then: Callable[[IntrospectionError | None], None]) -> None:
        """See whether others know a hopeless token: `then` is told why nobody is asked about it; None: `resolve` it.

        `resolve` would do the same, for ten times the work. `then` must not raise.
        """
        provider = access.provider

        def looked(known: bool) -> None:  # noqa: FBT001 - the word of a callback
            then(None if known or key in self._flights else self._introspectors.turn_away(provider))

        if self.shared is None:
            then(None)
        else:
            self.shared.glance(provider, key, looked)

    def settled_until(self, access: Access, entry: Entry) -> float:
        """Until when `fresh` need not be asked again, in monotonic seconds; `exp` is another matter."""
        ahead = access.provider.ask_ahead
        if entry.asked_ahead or not ahead or entry.remembered.state is INACTIVE:
            return fresh_until(entry.remembered, access.freshness)
        return ask_ahead(entry.remembered, access.freshness, ahead, entry.spread)

    def hits_of(self, entry: Entry) -> list[int]:
        """Return the counter of hits of this kind."""
        if entry is REVOKED:
            return self._revoked_hits
        return self._inactive_hits if entry.remembered.state is INACTIVE else self._active_hits

    def fingerprints(self, token: AccessToken) -> tuple[bytes, ...]:
        """Under what the token would be revoked: one for each key that revocations are exchanged with."""
        return self.revoking.fingerprints(token.value)

    async def resolve(self, access: Access, token: AccessToken) -> TokenState:
        """Return the state of a token of which nothing fresh is remembered. Raises IntrospectionError: we cannot know.

        May be cancelled at any time: the question goes on for whoever else waits, and is remembered.
        """
        provider = access.provider
        key = token_key(provider, token.value)
        if self.revoking.token_revoked(token.value):
            return INACTIVE
        state = self._remembered(key, access)  # another request may have learned it meanwhile
        if state is not None:
            return state
        if self._introspectors.out_of_reach(provider):
            stale = self._resurrect(key, access)
            if stale is not None:
                # Out of reach a moment ago: the question is asked again, but nobody waits for its deadline.
                self._flights.start(key, partial(self._load, provider, key, token, access.freshness))
                return stale
        try:
            return await self._join(key, access, token)
        except IntrospectionError as error:
            stale = self._resurrect(key, access) if error.kind in OUT_OF_REACH else None
            if stale is None:
                raise
            return stale

    # --- by operators -------------------------------------------------------------------------------------

    def revoke(
        self,
        *,
        token: str | None = None,
        sub: str | None = None,
        sid: str | None = None,
        client_id: str | None = None,
        sub_without_sid: str | None = None,
        all: bool = False,  # noqa: A002 - the word of the admin API
        at: int | None = None,
    ) -> int:
        """Revoke one token, or every token issued until now with that claim, or all. Exactly one is given.

        `sub_without_sid` is the subject of tokens that name no session. `at`, for claims only, stands for now:
        whole seconds of the issuer's clock.
        Returns 1 for a token, known or not; else how many remembered tokens were dropped.
        Raises RevocationsFullError (nothing was revoked) and ValueError.
        """
        written = {"sub": sub, "sid": sid, "client_id": client_id, "sub_without_sid": sub_without_sid}
        claims = [(name, value) for name, value in written.items() if value is not None]
        if (token is not None) + len(claims) + all != 1:
            raise ValueError("revoke exactly one of: token, sub, sid, client_id, all")
        claim, value = ("token", token) if token is not None else ("all", "") if all else claims[0]
        mark, count = self.revoking.revoke(claim, value, at)
        if self.shared is not None:
            self.shared.spread(mark)
        return count

    async def told(self) -> bool | None:
        """Whether every revocation made here has reached what all workers and hosts share; None: nothing is shared."""
        return None if self.shared is None else await self.shared.told()

    def marks(self) -> list[Mark]:
        """List the revocations in force, for workers and hosts that do not know them."""
        return self.revoking.marks()

    def take(self, marks: Iterable[Mark]) -> None:
        """Put revocations of other workers and hosts in force. Raises RevocationsFullError and ValueError."""
        self.revoking.take(marks)

    def swap(self, providers: Mapping[str, IdentityProvider], secrets: Sequence[str] = ()) -> None:
        """Take a new configuration: unchanged providers keep their connections, others close when idle.

        What is shared is sealed with `secrets` from now on; what former ones sealed is still read.
        """
        self._introspectors.swap(providers)
        self.revoking.swap(providers)
        if self.shared is not None:
            self.shared.rekey(secrets)
            self.revoking.share(self.shared.fingerprint_keys)

    async def meet(self) -> dict[str, IntrospectionError | None]:
        """Make first contact with every identity provider; what went wrong, by name."""
        return await self._introspectors.meet()

    def heard(self, provider: str, *, well: bool) -> None:
        """Take note that the provider of this name has answered another worker of this host, or fails it every time."""
        self._introspectors.heard(provider, well=well)

    def problems(self) -> dict[str, str]:
        """By name, the identity providers whose last question failed, and why, in our own words."""
        return self._introspectors.problems()

    def status(self) -> dict[str, Any]:
        """For the status page."""
        shared = {} if self.shared is None else {"shared": self.shared.status()}
        return {
            "memory": {"active": self._memory.active, "inactive": self._memory.inactive},
            **shared,
            "flights": len(self._flights),
            "revocations": len(self.revoking),
            "identity_providers": self._introspectors.status(),
        }

    async def close(self) -> None:
        """Stop: whoever still waits gets an IntrospectionError."""
        await self._flights.close()
        await self._introspectors.close()
        if self.shared is not None:
            await self.shared.close()

    # --- inside -------------------------------------------------------------------------------------------

    async def _join(self, key: bytes, access: Access, token: AccessToken) -> TokenState:
        """Wait for the load under way, or start one; what it found elsewhere may be too old for this route."""
        load = partial(self._load, access.provider, key, token, access.freshness)
        learned = await self._flights.join(key, load)
        if not learned.asked and not self._usable(access.freshness, learned.state, learned.fetched_at):
            load = partial(self._load, access.provider, key, token, ANEW)
            learned = await self._flights.join(key + b"anew", load)
        return learned.state

    def _ask_ahead(self, access: Access, entry: Entry, token: AccessToken) -> None:
        """Ask about a token that is in use, once, if it lives on: nobody will have to wait when its time is over."""
        entry.asked_ahead = True
        state, fetched_at = entry.remembered
        left = fresh_until(entry.remembered, access.freshness) - self._clock.monotonic()
        ends_with_it = (
            isinstance(state, ActiveToken) and state.exp is not None and state.exp - self._clock.now() <= left
        )
        if not ends_with_it and not self._introspectors.refuses(access.provider, known=True):
            key = token_key(access.provider, token.value)
            load = partial(self._load, access.provider, key, token, access.freshness, fetched_at + NEWER)
            with suppress(IntrospectionError):  # the gateway is stopping
                self._flights.start(key, load)
                self._stats.flights.add("ahead")

    async def _load(
        self,
        provider: IdentityProvider,
        key: bytes,
        token: AccessToken,
        freshness: Freshness,
        after: float = -inf,
    ) -> Learned:
        """One answer, from who knows it already or from a question, and what is remembered of it.

        `after`, in monotonic seconds: nothing that was fetched before will do.
        """
        before = self._memory.get(key)
        known = before is not None and before.state is not INACTIVE
        question = Question(
            provider,
            key,
            usable=lambda remembered: remembered.fetched_at > after and self._usable(freshness, *remembered),
            ask=lambda seconds: self._introspectors.introspect(provider, token.value, known=known, seconds=seconds),
            settle=partial(self.revoking.settled, token.value),
            refused=lambda: self._introspectors.refuses(provider, known=known),
        )
        learned = await (self._ask(question) if self.shared is None else self.shared.obtain(question))
        # From here on nothing awaits: no revocation can come between this look at them and the writing.
        learned = learned._replace(state=question.settle(learned.state))
        # Whatever was known is out of date, even when the new answer is not to be remembered.
        self._memory.drop(key)
        if lifetime(learned.state, provider.freshness, self._clock.now()) > 0.0:
            self._memory.put(key, Remembered(learned.state, learned.fetched_at))
        return learned

    async def _ask(self, question: Question) -> Learned:
        asked_at = self._clock.monotonic()
        return Learned(await question.ask(question.provider.timeout), asked_at, asked=True)

    def _resurrect(self, key: bytes, access: Access) -> ActiveToken | None:
        """Find a known-active token that may go on while its provider is out of reach."""
        state = self._remembered(key, access, access.provider.ttl_resurrect)
        if not isinstance(state, ActiveToken):
            return None
        self._stats.cache_hits.add("memory", "stale")
        return state

    def _remembered(self, key: bytes, access: Access, extra: float = 0.0) -> TokenState | None:
        """Return what is remembered and `extra` seconds past its freshness at most, but never past `exp`."""
        remembered = self._memory.get(key)
        if remembered is None:
            return None
        state, fetched_at = remembered
        return state if self._usable(access.freshness, state, fetched_at + extra) else None

    def _usable(self, freshness: Freshness, state: TokenState, fetched_at: float) -> bool:
        if not is_fresh(state, max(0.0, self._clock.monotonic() - fetched_at), freshness):
            return False
        return state is INACTIVE or state.exp is None or state.exp > self._clock.now()
