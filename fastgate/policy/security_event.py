"""Security event tokens (RFC 8417), with the events of Shared Signals: CAEP 1.0, RISC 1.0 and SSF 1.0 themselves."""

from collections.abc import Mapping
from typing import Any, Final

from fastgate.model import Notice, NoticeKind, Notifier, Refusal, Refused
from fastgate.policy.notices import LEEWAY, Standing, seconds, standing
from fastgate.policy.signed import Signed
from fastgate.policy.subjects import of_session, of_user

MAX_AGE: Final = 7 * 86_400.0
"""Seconds since `iat`: a transmitter may queue what it could not deliver."""
TYPE: Final = "secevent+jwt"

_BASE: Final = "https://schemas.openid.net/secevent/"
_KINDS: Final = {
    f"{_BASE}caep/event-type/session-revoked": NoticeKind.SESSION_REVOKED,
    f"{_BASE}caep/event-type/credential-change": NoticeKind.CREDENTIAL_CHANGE,
    f"{_BASE}risc/event-type/account-disabled": NoticeKind.ACCOUNT_DISABLED,
    f"{_BASE}risc/event-type/account-purged": NoticeKind.ACCOUNT_PURGED,
    f"{_BASE}ssf/event-type/verification": NoticeKind.VERIFICATION,
    f"{_BASE}ssf/event-type/stream-updated": NoticeKind.STREAM_UPDATED,
}
_ABOUT: Final = {
    NoticeKind.SESSION_REVOKED: of_session,
    NoticeKind.CREDENTIAL_CHANGE: of_user,
    NoticeKind.ACCOUNT_DISABLED: of_user,
    NoticeKind.ACCOUNT_PURGED: of_user,
}
"""What revokes, and whose tokens. Every other event is acknowledged and changes nothing."""


def read(signed: Signed, claims: Mapping[str, Any], notifier: Notifier, now: float) -> Notice | Refusal:
    """Read a token whose signature was verified (RFC 8417 section 2.2, SSF 1.0 section 4). `now` in wall seconds.

    What does not decide is not read: a changed credential revokes whatever its type and whatever the change.
    """
    if signed.typ != TYPE:
        return Refusal(Refused.MALFORMED, f"its typ is not {TYPE}")
    if "exp" in claims or "sub" in claims:
        return Refusal(Refused.MALFORMED, "it has an exp or a sub, which no security event has")
    events = claims.get("events")
    if not isinstance(events, dict) or not events:
        return Refusal(Refused.MALFORMED, "it has no events")
    known = {_KINDS[name]: event for name, event in events.items() if name in _KINDS}
    if not all(isinstance(event, dict) for event in known.values()):
        return Refusal(Refused.MALFORMED, "one of its events is not a JSON object")
    stands = standing(claims, notifier, now, MAX_AGE)
    return stands if isinstance(stands, Refusal) else _understood(stands, claims, known, notifier.subject_issuers)


def _understood(
    stands: Standing, claims: Mapping[str, Any], events: Mapping[NoticeKind, Any], issuers: frozenset[str]
) -> Notice | Refusal:
    """Turn the events that we know into revocations (SSF 1.0 section 4.2: several are names of the same one)."""
    revoking = [kind for kind in events if kind in _ABOUT]
    found = [_ABOUT[kind](claims.get("sub_id"), issuers) for kind in revoking]
    if not all(found):
        detail = "its sub_id names nobody as tokens do: iss_sub of our issuer, or opaque, alone or in a complex one"
        return Refusal(Refused.UNKNOWN_SUBJECT, detail)
    return Notice(
        next(iter(revoking or events), NoticeKind.SECURITY_EVENT),
        stands.jti,
        stands.keep,
        at=max((_happened(stands, claims, events[kind]) for kind in revoking), default=int(stands.issued)),
        revocations=tuple(dict.fromkeys(pair for pairs in found for pair in pairs)),
    )


def _happened(stands: Standing, claims: Mapping[str, Any], event: Mapping[str, Any]) -> int:
    """When an event happened: `event_timestamp` (CAEP 1.0 section 2), `toe` or `iat` (RFC 8417 section 2.2).

    A time after `iat` is not what it says, such as one in milliseconds; then the next one holds.
    """
    stated = (seconds(event.get("event_timestamp")), seconds(claims.get("toe")))
    return int(next((time for time in stated if time is not None and time <= stands.issued + LEEWAY), stands.issued))
