"""Revoking: what operators and others revoke is forgotten at once, and refused from then on."""

import os
from collections.abc import Iterable, Mapping
from typing import Final

from fastgate.model import INACTIVE, ActiveToken, IdentityProvider, Mark, TokenState
from fastgate.policy.digest import fingerprint, token_key
from fastgate.stats import Stats
from fastgate.tokens.memory import MemoryTier
from fastgate.tokens.revocation import Revocations, claimed

MAX_DIGEST_KEYS: Final = 64


class Revoking:
    """The revocations in force and the memory that must not contradict them."""

    def __init__(
        self, memory: MemoryTier, revocations: Revocations, stats: Stats, fingerprint_key: bytes | None = None
    ) -> None:
        """`fingerprint_key` is that of all workers on this host; None: there is one."""
        self._memory = memory
        self._revocations = revocations
        self._stats = stats
        self._known: dict[bytes, IdentityProvider] = {}
        """By digest key, every provider under whose keys something may be remembered."""
        self._own_key = os.urandom(32) if fingerprint_key is None else fingerprint_key
        self._fingerprint_keys: tuple[bytes, ...] = (self._own_key,)
        """The first one is for new revocations of single tokens; shared with everybody who exchanges `marks`."""

    def __len__(self) -> int:
        return len(self._revocations)

    def swap(self, providers: Mapping[str, IdentityProvider]) -> None:
        """Take a new configuration; a token is looked for under the keys of former ones, too."""
        for each in providers.values():
            self._known[each.digest_key] = each
        if len(self._known) > MAX_DIGEST_KEYS:
            # Too many reloads ago to look everywhere for a token that is revoked: forget it all instead.
            self._known = {each.digest_key: each for each in providers.values()}
            self._memory.clear()

    def share(self, fingerprint_keys: Iterable[bytes]) -> None:
        """Exchange revocations with other hosts, too, who digest single tokens with these."""
        self._fingerprint_keys = (*fingerprint_keys, self._own_key)

    # --- what is refused ----------------------------------------------------------------------------------

    def token_revoked(self, token: str) -> bool:
        """Whether this very token was revoked."""
        return bool(self._revocations.tokens) and any(map(self._revocations.token_revoked, self.fingerprints(token)))

    def settled(self, token: str, state: TokenState) -> TokenState:
        """A state in the light of what was revoked until now."""
        if state is not INACTIVE and any(self._revocations.covers(each, state) for each in self.fingerprints(token)):
            return INACTIVE
        return state

    # --- what is revoked ----------------------------------------------------------------------------------

    def revoke(self, claim: str, value: str, at: int | None = None) -> tuple[Mark, int]:
        """Revoke one token, every token issued until now with a claim (one of `revocation.CLAIMS`), or all.

        `at`, for claims only, stands for now: whole seconds of the issuer's clock.
        Returns the revocation and 1 for a token, known or not; else how many remembered tokens were dropped.
        Raises RevocationsFullError (nothing was revoked).
        """
        if claim == "token":
            mark, count = self._revoke_token(value), 1
        else:
            revocations = self._revocations
            mark = revocations.revoke_all() if claim == "all" else revocations.revoke_claim(claim, value, at)
            count = self._drop_covered([mark])
        self._stats.revocations.add(claim)
        return mark, count

    def marks(self) -> list[Mark]:
        """List the revocations in force, for workers and hosts that do not know them."""
        return self._revocations.marks()

    def mark(self, claim: str, value: str) -> Mark | None:
        """Return the revocation of this, when it is in force."""
        return self._revocations.mark(claim, value)

    def take(self, marks: Iterable[Mark]) -> None:
        """Put revocations of other workers and hosts in force. Raises RevocationsFullError and ValueError."""
        taken = []
        try:
            for mark in marks:
                self._revocations.take(mark)
                taken.append(mark)
        finally:
            self._drop_covered(taken)

    def fingerprints(self, token: str) -> tuple[bytes, ...]:
        """Digest the token alone: it stays revoked when a reload changes the keys of the memory."""
        return tuple(fingerprint(token, key) for key in self._fingerprint_keys)

    # --- inside -------------------------------------------------------------------------------------------

    def _revoke_token(self, token: str) -> Mark:
        keys = [token_key(provider, token) for provider in self._known.values()]
        states = [remembered.state for key in keys if (remembered := self._memory.get(key)) is not None]
        ends = [state.exp for state in states if isinstance(state, ActiveToken)]
        # A single unknown end makes the end unknown: the same token may be remembered from two providers.
        known = [end for end in ends if end is not None]
        until = float(max(known)) if known and len(known) == len(ends) else None
        mark = self._revocations.revoke_token(self.fingerprints(token)[0], until)
        for key in keys:
            self._memory.drop(key)
        return mark

    def _drop_covered(self, marks: Iterable[Mark]) -> int:
        """Forget the remembered tokens that one of these covers: one walk through the whole memory."""
        claims = {mark.claim for mark in marks} - {"token"}
        if "all" in claims:
            return self._memory.drop_if(self._revocations.claims_revoked)
        values = [(claim, {mark.value for mark in marks if mark.claim == claim}) for claim in claims]

        def covered(state: ActiveToken) -> bool:
            for claim, these in values:
                value = claimed(state, claim)
                if isinstance(value, str) and value in these:  # the cheap comparison first
                    return self._revocations.claims_revoked(state)
            return False

        return self._memory.drop_if(covered) if values else 0
