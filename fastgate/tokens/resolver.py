"""Tokens: from an access token to a token state, for every identity provider of the process."""

import os
from collections.abc import Iterable, Mapping
from functools import partial
from math import inf
from typing import Any, Final

from fastgate.clock import Clock
from fastgate.errors import IntrospectionError
from fastgate.model import (
    INACTIVE,
    Access,
    AccessToken,
    ActiveToken,
    IdentityProvider,
    Mark,
    Remembered,
    TokenState,
)
from fastgate.policy.digest import fingerprint, token_key
from fastgate.policy.freshness import fresh_until, is_fresh, lifetime
from fastgate.stats import Stats
from fastgate.tokens.flight import Flights
from fastgate.tokens.health import OUT_OF_REACH
from fastgate.tokens.introspectors import Introspectors
from fastgate.tokens.memory import Entry, MemoryTier
from fastgate.tokens.revocation import Revocations, claimed

MAX_DIGEST_KEYS: Final = 64
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
    ) -> None:
        """Open nothing yet. Made inside the running loop.

        `fingerprint_key` is shared by everybody who exchanges `marks`; None: there is nobody.
        """
        self._memory = memory
        self._clock = clock
        self._stats = stats
        self._revocations = revocations
        self.revoked = revocations.tokens
        """By fingerprint, the tokens that were revoked one by one; usually there are none."""
        self._flights: Flights[bytes, TokenState] = Flights(stats.flights)
        self._introspectors = Introspectors(clock, stats)
        self._active_hits = stats.cache_hits.cell("memory", "active")
        self._inactive_hits = stats.cache_hits.cell("memory", "inactive")
        self._revoked_hits = stats.cache_hits.cell("memory", "revoked")
        self._known: dict[bytes, IdentityProvider] = {}
        """By digest key, every provider under whose keys something may be remembered."""
        self._fingerprint_key = os.urandom(32) if fingerprint_key is None else fingerprint_key
        self.swap(providers)

    # --- on every request ---------------------------------------------------------------------------------

    def recall(self, key: bytes, token: AccessToken) -> Entry | None:
        """Return what is remembered of a token, fresh or not; a revoked one is inactive, whatever is remembered."""
        if self.revoked and self._revocations.token_revoked(self.fingerprint(token)):
            return REVOKED
        entry = self._memory.entry(key)
        if entry is None:
            self._stats.cache_misses.add("memory", "absent")
        return entry

    def fresh(self, access: Access, entry: Entry) -> TokenState | None:
        """Return the state of a remembered token, if this route may still use it; None: ask with `resolve`."""
        state = entry.remembered.state
        if self._clock.monotonic() >= fresh_until(entry.remembered, access.freshness):
            self._stats.cache_misses.add("memory", "stale")
            return None
        if isinstance(state, ActiveToken) and state.exp is not None and state.exp <= self._clock.now():
            self._stats.cache_misses.add("memory", "expired")
            return None
        return state

    def hits_of(self, entry: Entry) -> list[int]:
        """Return the counter of hits of this kind."""
        if entry is REVOKED:
            return self._revoked_hits
        return self._inactive_hits if entry.remembered.state is INACTIVE else self._active_hits

    def fingerprint(self, token: AccessToken) -> bytes:
        """Digest the token alone: it stays revoked when a reload changes the keys of the memory."""
        return fingerprint(token.value, self._fingerprint_key)

    async def resolve(self, access: Access, token: AccessToken) -> TokenState:
        """Return the state of a token of which nothing fresh is remembered. Raises IntrospectionError: we cannot know.

        May be cancelled at any time: the question goes on for whoever else waits, and is remembered.
        """
        provider = access.provider
        key = token_key(provider, token.value)
        if self._revocations.token_revoked(self.fingerprint(token)):
            return INACTIVE
        state = self._remembered(key, access)  # another request may have learned it meanwhile
        if state is not None:
            return state
        load = partial(self._load, provider, key, token)
        if self._introspectors.out_of_reach(provider):
            stale = self._resurrect(key, access)
            if stale is not None:
                # Out of reach a moment ago: the question is asked again, but nobody waits for its deadline.
                self._flights.start(key, load)
                return stale
        try:
            return await self._flights.join(key, load)
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
        if token is not None:
            self._revoke_token(token)
            self._stats.revocations.add("token")
            return 1
        mark = self._revocations.revoke_all() if all else self._revocations.revoke_claim(*claims[0], at)
        self._stats.revocations.add(mark.claim)
        return self._drop_covered(mark)

    def marks(self) -> list[Mark]:
        """List the revocations in force, for workers and hosts that do not know them."""
        return self._revocations.marks()

    def take(self, marks: Iterable[Mark]) -> None:
        """Put revocations of other workers and hosts in force. Raises RevocationsFullError and ValueError."""
        for mark in marks:
            self._revocations.take(mark)
            if mark.claim != "token":
                self._drop_covered(mark)

    def swap(self, providers: Mapping[str, IdentityProvider]) -> None:
        """Take a new configuration: unchanged providers keep their connections, others close when idle."""
        self._introspectors.swap(providers)
        for each in providers.values():
            self._known[each.digest_key] = each
        if len(self._known) > MAX_DIGEST_KEYS:
            # Too many reloads ago to look everywhere for a token that is revoked: forget it all instead.
            self._known = {each.digest_key: each for each in providers.values()}
            self._memory.clear()

    async def meet(self) -> dict[str, IntrospectionError | None]:
        """Make first contact with every identity provider; what went wrong, by name."""
        return await self._introspectors.meet()

    def problems(self) -> dict[str, str]:
        """By name, the identity providers whose last question failed, and why, in our own words."""
        return self._introspectors.problems()

    def status(self) -> dict[str, Any]:
        """For the status page."""
        return {
            "memory": {"active": self._memory.active, "inactive": self._memory.inactive},
            "flights": len(self._flights),
            "revocations": len(self._revocations),
            "identity_providers": self._introspectors.status(),
        }

    async def close(self) -> None:
        """Stop: whoever still waits gets an IntrospectionError."""
        await self._flights.close()
        await self._introspectors.close()

    # --- inside -------------------------------------------------------------------------------------------

    async def _load(self, provider: IdentityProvider, key: bytes, token: AccessToken) -> TokenState:
        """One question, and what is remembered of its answer."""
        asked_at = self._clock.monotonic()
        before = self._memory.get(key)
        known = before is not None and before.state is not INACTIVE
        state = await self._introspectors.introspect(provider, token.value, known=known)
        # From here on nothing awaits: no revocation can come between this check and the writing.
        if isinstance(state, ActiveToken) and self._revocations.covers(self.fingerprint(token), state):
            state = INACTIVE
        # Whatever was known is out of date, even when the new answer is not to be remembered.
        self._memory.drop(key)
        if lifetime(state, provider.freshness, self._clock.now()) > 0.0:
            self._memory.put(key, Remembered(state, asked_at))
        return state

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
        age = max(0.0, self._clock.monotonic() - fetched_at - extra)
        if not is_fresh(state, age, access.freshness):
            return None
        if isinstance(state, ActiveToken) and state.exp is not None and state.exp <= self._clock.now():
            return None
        return state

    def _revoke_token(self, token: str) -> None:
        keys = [token_key(provider, token) for provider in self._known.values()]
        states = [remembered.state for key in keys if (remembered := self._memory.get(key)) is not None]
        ends = [state.exp for state in states if isinstance(state, ActiveToken)]
        # A single unknown end makes the end unknown: the same token may be remembered from two providers.
        known = [end for end in ends if end is not None]
        until = float(max(known)) if known and len(known) == len(ends) else None
        self._revocations.revoke_token(fingerprint(token, self._fingerprint_key), until)
        for key in keys:
            self._memory.drop(key)

    def _drop_covered(self, mark: Mark) -> int:
        """Forget the remembered tokens that a mark covers."""
        if mark.claim == "all":
            return self._memory.drop_if(self._revocations.claims_revoked)
        # The cheap comparison first: this walks the whole memory.
        return self._memory.drop_if(
            lambda state: claimed(state, mark.claim) == mark.value and self._revocations.claims_revoked(state)
        )
