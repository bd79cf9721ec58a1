"""What was revoked here: it beats every answer, remembered or still under way."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from fastgate.clock import Clock
from fastgate.errors import FastgateError
from fastgate.model import ActiveToken, Mark

CLAIMS: Final = frozenset({"sub", "sid", "client_id", "sub_without_sid"})
"""Claims by which tokens can be revoked together. The last is `sub`, for tokens that name no session: which of them
belong to the session that ended cannot be known."""


ALL: Final = ("", "")
"""Stands among the claims for every token."""


class RevocationsFullError(FastgateError):
    """No room for another revocation, and none has run out: the caller must not say that it was taken."""


class _Revocation(NamedTuple):
    """Forgotten when *both* clocks have passed: a jump of the wall clock never revives a token."""

    at: int
    """Whole wall seconds; tokens issued up to and including then are covered."""
    until: float
    """Wall seconds."""
    until_monotonic: float


class Revocations:
    """Revoked tokens by key, and revoked claims; bounded, forgotten when no token can be covered any more.

    A claim revocation covers tokens issued up to that moment (`iat`, RFC 7662 section 2.2, has whole seconds)
    and tokens that do not say when they were issued. It lives for `ttl` seconds, or as long as the latest
    `exp` of the tokens it was seen to cover.
    """

    __slots__ = ("_claims", "_clock", "_made", "_max_entries", "_tokens", "_ttl")

    def __init__(
        self,
        clock: Clock,
        ttl: float = 86_400.0,
        max_entries: int = 100_000,
        *,
        made: Callable[[Mark], None] | None = None,
    ) -> None:
        """`ttl` in seconds, for revocations of which no `exp` is known; `made` is told of each that begins here."""
        self._clock = clock
        self._made = made
        self._ttl = ttl
        self._max_entries = max_entries
        self._tokens: dict[bytes, _Revocation] = {}
        self._claims: dict[tuple[str, str], _Revocation] = {}

    def __len__(self) -> int:
        return len(self._tokens) + len(self._claims)

    def __repr__(self) -> str:
        return f"<Revocations tokens={len(self._tokens)} claims={len(self._claims)}>"

    @property
    def tokens(self) -> Mapping[bytes, object]:
        """The tokens that were revoked one by one, always the same mapping; one not in it need not be asked about."""
        return self._tokens

    def revoke_token(self, key: bytes, until: float | None = None) -> Mark:
        """Revoke one token until its `exp` (wall seconds), where known. Raises RevocationsFullError."""
        return self._revoke("token", key.hex(), until)

    def revoke_claim(self, claim: str, value: str, at: int | None = None) -> Mark:
        """Revoke every token whose `claim` (one of CLAIMS) is `value`, issued until now or until `at`.

        `at` in whole seconds of the clock that `iat` is of: the issuer's, which may be ahead of ours.
        Raises RevocationsFullError.
        """
        if claim not in CLAIMS:
            raise ValueError("tokens are revoked by sub, sid or client_id")
        return self._revoke(claim, value, at=at)

    def revoke_all(self) -> Mark:
        """Revoke every token issued until now. Never raises: it takes the place of the claim revocations."""
        return self._revoke("all", "")

    def _revoke(self, claim: str, value: str, until: float | None = None, at: int | None = None) -> Mark:
        now = self._clock.now()
        mark = Mark(claim, value, int(now) if at is None else at, now + self._ttl if until is None else until)
        self.take(mark)
        if self._made is not None:
            self._made(mark)
        return mark

    def marks(self) -> list[Mark]:
        """List every revocation in force, for whoever has to learn of them."""
        tokens = [
            Mark("token", key.hex(), each.at, each.until) for key, each in self._tokens.items() if self._live(each)
        ]
        claims = [
            Mark(*(("all", "") if name == ALL else name), each.at, each.until)
            for name, each in self._claims.items()
            if self._live(each)
        ]
        return tokens + claims

    def mark(self, claim: str, value: str) -> Mark | None:
        """Return the revocation of this, when it is in force."""
        if claim == "token":
            known = self._tokens.get(bytes.fromhex(value))
        else:
            known = self._claims.get(ALL if claim == "all" else (claim, value))
        return Mark(claim, value, known.at, known.until) if known is not None and self._live(known) else None

    def take(self, mark: Mark) -> None:
        """Put a revocation in force, from here or elsewhere; one that is in force already is never shortened.

        Raises RevocationsFullError, and ValueError for what is no mark.
        """
        claim, value, at, until = mark
        if claim == "all":
            older = [name for name, each in self._claims.items() if each.at <= at]
            replaced = [self._claims.pop(name) for name in older]
            self._claims[ALL] = self._merged(at, until, replaced)
        elif claim == "token":
            key = bytes.fromhex(value)
            self._tokens[key] = self._joined(self._tokens.get(key), at, until)
        elif claim in CLAIMS:
            self._claims[claim, value] = self._joined(self._claims.get((claim, value)), at, until)
        else:
            raise ValueError("tokens are revoked by token, sub, sid, client_id or all")

    def _joined(self, known: _Revocation | None, at: int, until: float) -> _Revocation:
        self._make_room(known=known is not None)
        return self._merged(at, until, () if known is None else (known,))

    def _merged(self, at: int, until: float, others: Iterable[_Revocation]) -> _Revocation:
        others = tuple(others)
        return self._until(max([at, *(each.at for each in others)]), max([until, *(each.until for each in others)]))

    def token_revoked(self, key: bytes) -> bool:
        """Whether this very token was revoked."""
        revocation = self._tokens.get(key)
        if revocation is None:
            return False
        if self._live(revocation):
            return True
        del self._tokens[key]
        return False

    def covers(self, key: bytes, state: ActiveToken) -> bool:
        """Whether a token in this state was revoked, by itself or by one of its claims."""
        return self.token_revoked(key) or (bool(self._claims) and self.claims_revoked(state))

    def claims_revoked(self, state: ActiveToken) -> bool:
        """Whether a token in this state was revoked by one of its claims."""
        names = [ALL]
        for claim in CLAIMS:
            value = claimed(state, claim)
            if isinstance(value, str):
                names.append((claim, value))
        # All of them are asked, not up to the first: each must live as long as the tokens that it covers.
        covering = [name for name in names if self._claim_covers(name, state)]
        return bool(covering)

    def _claim_covers(self, name: tuple[str, str], state: ActiveToken) -> bool:
        revocation = self._claims.get(name)
        if revocation is None or (state.iat is not None and state.iat > revocation.at):
            return False
        if not self._live(revocation):
            del self._claims[name]
            return False
        if state.exp is not None and state.exp > revocation.until:
            self._claims[name] = self._until(revocation.at, state.exp)
        return True

    def _until(self, at: int, until: float) -> _Revocation:
        return _Revocation(at, until, self._clock.monotonic() + (until - self._clock.now()))

    def _live(self, revocation: _Revocation) -> bool:
        return self._clock.now() < revocation.until or self._clock.monotonic() < revocation.until_monotonic

    def _make_room(self, *, known: bool) -> None:
        if known or len(self) < self._max_entries:
            return
        for key in [key for key, each in self._tokens.items() if not self._live(each)]:
            del self._tokens[key]
        self._claims = {name: each for name, each in self._claims.items() if self._live(each)}
        if len(self) >= self._max_entries:
            raise RevocationsFullError(f"{self._max_entries} revocations are held already")


def claimed(state: ActiveToken, claim: str) -> Any:
    """Return what a token says of itself as one of CLAIMS."""
    if claim == "sub_without_sid":
        sid = state.claims.get("sid")
        return None if isinstance(sid, str) and sid else state.claims.get("sub")
    return state.claims.get(claim)
