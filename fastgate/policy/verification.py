"""What a token must be and have, verified on every request (RFC 6750 section 3.1, RFC 7662 section 2.2)."""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from fastgate.model import (
    INACTIVE,
    Access,
    AccessPolicy,
    AccessToken,
    ActiveToken,
    Decision,
    Denial,
    DenialReason,
    Permit,
    Requirement,
    TokenState,
)
from fastgate.policy.claims import ABSENT, claim, words
from fastgate.policy.identity import identity

# An Enum's attribute costs fifteen times a global's in Python 3.11, and these are read on every request.
_AUDIENCE: Final = DenialReason.AUDIENCE
_DENIED: Final = {reason: Denial(reason) for reason in DenialReason}
_RANK: Final = {reason: rank for rank, reason in enumerate(DenialReason)}
"""Of several requirements that fail, the first in the enumeration is the reason."""


class Check(NamedTuple):
    """One thing that was verified, for people."""

    name: str
    ok: bool
    detail: str
    """What was compared; holds claim values, never the token."""


_Predicate = Callable[[ActiveToken, AccessPolicy, float], bool]
_Description = Callable[[ActiveToken, AccessPolicy, float], str]


def _unexpired(state: ActiveToken, policy: AccessPolicy, now: float) -> bool:
    # The subtraction is on the side of the clock: `exp` may be an integer too large for a float.
    return state.exp is None or now - policy.leeway < state.exp


def _begun(state: ActiveToken, policy: AccessPolicy, now: float) -> bool:
    return state.nbf is None or now + policy.leeway >= state.nbf


def _issued(state: ActiveToken, policy: AccessPolicy, now: float) -> bool:
    return state.iat is None or now + policy.leeway >= state.iat


def _issuer_accepted(state: ActiveToken, policy: AccessPolicy, _: float) -> bool:
    if state.iss is None:
        return not policy.issuer_required
    return not policy.issuers or state.iss in policy.issuers


def _unbound(state: ActiveToken, _: AccessPolicy, __: float) -> bool:
    return not state.bound


def _times(name: str) -> _Description:
    return lambda state, policy, now: (
        f"{name} {getattr(state, name)}, now {now:.0f}, leeway {policy.leeway:g} s"
        if getattr(state, name) is not None
        else f"no {name}"
    )


def _issuers(state: ActiveToken, policy: AccessPolicy, _: float) -> str:
    accepted = ", ".join(sorted(policy.issuers)) or "any"
    stated = "no iss" if state.iss is None else f"iss {state.iss}"
    return f"{stated}, accepted {accepted}"


def _binding(state: ActiveToken, _: AccessPolicy, __: float) -> str:
    return "bound to a key that the client cannot prove here" if state.bound else "a plain bearer token"


_CHECKS: Final[tuple[tuple[str, DenialReason, _Predicate, _Description], ...]] = (
    ("exp", DenialReason.EXPIRED, _unexpired, _times("exp")),
    ("nbf", DenialReason.NOT_YET_VALID, _begun, _times("nbf")),
    ("iat", DenialReason.NOT_YET_VALID, _issued, _times("iat")),
    ("iss", DenialReason.ISSUER, _issuer_accepted, _issuers),
    ("binding", DenialReason.BINDING, _unbound, _binding),
)
"""In this order; requirements and forbidden claims follow."""


def verify(state: TokenState, token: AccessToken, access: Access, now: float) -> Decision:
    """Decide whether a token in this state satisfies a route (RFC 6750 section 3.1).

    `now` is wall time in seconds since the epoch. A claim that is absent, or not made of words, satisfies
    nothing; a sender-constrained token is refused because its binding cannot be checked (RFC 8705 section 3,
    RFC 9449 section 7.2).
    """
    if state is INACTIVE:
        return _DENIED[DenialReason.INACTIVE]
    policy = access.policy
    for _, reason, holds, _ in _CHECKS:
        if not holds(state, policy, now):
            return _DENIED[reason]
    claims = state.claims
    failed = [item.reason for item in policy.requirements if not _satisfied(item, claims)]
    if failed:
        return _DENIED[min(failed, key=_RANK.__getitem__)]
    for path in policy.claims_forbidden:
        if claim(claims, path) is not ABSENT:
            return _DENIED[DenialReason.FORBIDDEN_CLAIM]
    return Permit(token, state, identity(access.headers, claims) if access.headers else ())


def window(state: ActiveToken, policy: AccessPolicy) -> tuple[float, float]:
    """Return [begin, end) in wall seconds: within it the passing of time changes nothing about `verify`.

    Not as wide as it could be: the leeway after `exp` is left out, because a token past it is asked about again.
    """
    begins = [min(at, _FAR) - policy.leeway for at in (state.nbf, state.iat) if at is not None]
    return max(begins, default=0.0), _FAR if state.exp is None else min(state.exp, _FAR)


_FAR: Final = 2**53
"""Seconds: no clock comes there, and a float still tells one from the next."""


def checks(state: TokenState, access: Access, now: float) -> tuple[Check, ...]:
    """List everything `verify` looks at, in its order; of an inactive token there is nothing more to look at."""
    if state is INACTIVE:
        return (Check("active", ok=False, detail="the authorization server says it is not active"),)
    policy, claims = access.policy, state.claims
    found = [Check("active", ok=True, detail="the authorization server says it is active")]
    for name, _, holds, describe in _CHECKS:
        found.append(Check(name, holds(state, policy, now), describe(state, policy, now)))
    found += [
        Check(item.reason.value, _satisfied(item, claims), _requirement(item, claims))
        for item in sorted(policy.requirements, key=lambda item: _RANK[item.reason])
    ]
    found += [
        Check("forbidden_claim", claim(claims, path) is ABSENT, f"{'.'.join(path)} must be absent")
        for path in policy.claims_forbidden
    ]
    return tuple(found)


def _held(requirement: Requirement, claims: Mapping[str, Any]) -> frozenset[str]:
    value = claim(claims, requirement.claim)
    return words(value, split=requirement.reason is not _AUDIENCE)


def _satisfied(requirement: Requirement, claims: Mapping[str, Any]) -> bool:
    held = _held(requirement, claims)
    for alternative in requirement.alternatives:  # noqa: SIM110 - `any` costs twice as much on every request
        # An alternative without words would let everybody pass; it lets nobody.
        if alternative and alternative <= held:
            return True
    return False


def _requirement(requirement: Requirement, claims: Mapping[str, Any]) -> str:
    wanted = " or ".join(" and ".join(sorted(alternative)) for alternative in requirement.alternatives)
    held = " ".join(sorted(_held(requirement, claims))) or "nothing"
    return f"{'.'.join(requirement.claim)} has {held}, needs {wanted or 'what nobody has'}"
