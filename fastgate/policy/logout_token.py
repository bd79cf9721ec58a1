"""Logout tokens (OpenID Connect Back-Channel Logout 1.0 sections 2.4 to 2.7)."""

from collections.abc import Mapping
from typing import Any, Final

from fastgate.model import Notice, NoticeKind, Notifier, Refusal, Refused
from fastgate.policy.notices import standing
from fastgate.policy.signed import Signed

EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"
MAX_AGE: Final = 600.0
"""Seconds since `iat` for which one is taken at most, whatever its `exp` says."""
TYPES: Final = frozenset({None, "logout+jwt", "jwt"})
"""Of the header: section 2.4 recommends the second, older servers say the third or nothing."""


def read(signed: Signed, claims: Mapping[str, Any], notifier: Notifier, now: float) -> Notice | Refusal:
    """Read a token whose signature was verified (section 2.6). `now` in wall seconds.

    With `sid` it is about that session; tokens of its `sub` that name no session may belong to it, and are
    concerned as well. Without, it is about every session of `sub` (section 2.7).
    """
    if signed.typ not in TYPES:
        return Refusal(Refused.MALFORMED, "its typ says that it is another kind of token")
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(EVENT), dict) or "nonce" in claims:
        return Refusal(Refused.MALFORMED, "it is not a logout token: no logout among its events, or a nonce")
    if "exp" not in claims:
        return Refusal(Refused.MALFORMED, "it has no exp")
    stands = standing(claims, notifier, now, MAX_AGE)
    if isinstance(stands, Refusal):
        return stands
    sub, sid = claims.get("sub", ""), claims.get("sid", "")
    if not isinstance(sub, str) or not isinstance(sid, str) or not (sub or sid):
        return Refusal(Refused.MALFORMED, "it has neither a sub nor a sid that is text")
    revocations = {"sid": sid, "sub_without_sid": sub} if sid else {"sub": sub}
    return Notice(
        NoticeKind.LOGOUT,
        jti=stands.jti,
        keep=stands.keep,
        at=int(stands.issued),
        revocations=tuple((claim, value) for claim, value in revocations.items() if value),
    )
