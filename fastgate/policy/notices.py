"""What every token that tells us something of its own accord must be (RFC 7519 section 4.1, RFC 8417 section 2.2)."""

from collections.abc import Mapping
from math import isfinite
from typing import Any, Final, NamedTuple

from fastgate.model import Notifier, Refusal, Refused
from fastgate.policy.claims import words

LEEWAY: Final = 60.0
"""Seconds by which the issuer's clock and ours may differ."""


class Standing(NamedTuple):
    """What can be relied on in a token that is for us and for now. Times in seconds."""

    jti: str
    issued: float
    keep: float
    """Until it is refused as stale: so long its `jti` must be recognised."""


def standing(claims: Mapping[str, Any], notifier: Notifier, now: float, max_age: float) -> Standing | Refusal:
    """Hold a verified token against who may send it, and now (RFC 7519 sections 4.1.1, 4.1.3, 4.1.4, 4.1.6, 4.1.7).

    `now` in wall seconds; `max_age` in seconds since `iat`, whatever `exp` says.
    """
    issued, ends = seconds(claims.get("iat")), seconds(claims.get("exp"))
    jti = claims.get("jti")
    if issued is None or not isinstance(jti, str) or not jti or ("exp" in claims and ends is None):
        return Refusal(Refused.MALFORMED, "it has no usable iat and jti, or an exp that is no time")
    if claims.get("iss") != notifier.issuer:
        return Refusal(Refused.WRONG_ISSUER, "its iss is not the configured issuer")
    if words(claims.get("aud"), split=False).isdisjoint(notifier.audiences):
        return Refusal(Refused.WRONG_AUDIENCE, "its aud is none of the configured audiences")
    if issued > now + LEEWAY:
        return Refusal(Refused.STALE, "its iat is in the future; do the clocks agree?")
    last = issued + max_age
    keep = (last if ends is None else min(last, ends)) + LEEWAY - now
    if keep <= 0:
        return Refusal(Refused.STALE, "it has expired, or is too old; do the clocks agree?")
    return Standing(jti, issued, keep)


def seconds(value: Any) -> float | None:
    """Read a NumericDate (RFC 7519 section 2) that lies after 1970."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or value <= 0:
        return None
    return float(value)
