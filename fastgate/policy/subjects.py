"""Whom a security event is about (RFC 9493, Shared Signals Framework 1.0 section 3), as tokens name them."""

from collections.abc import Mapping
from typing import Any


def of_session(subject: Any, issuers: frozenset[str]) -> tuple[tuple[str, str], ...]:
    """Find the tokens of a revoked session (CAEP 1.0 section 3.1): pairs of a claim and its value; none: unknown.

    A session without a name that tokens carry becomes every session of its user: rather too much than too little.
    `issuers` are those whose subjects tokens name.
    """
    if not isinstance(subject, dict):
        return ()
    if subject.get("format") == "opaque":
        # The identifier of a session, says CAEP's example; a user's, say others.
        name = _simple(subject, issuers)
        return (("sid", name), ("sub", name)) if name else ()
    session, user = subject.get("session"), _user(subject, issuers)
    name = _simple(session, frozenset())
    if name:
        return (("sid", name), ("sub_without_sid", user)) if user else (("sid", name),)
    return (("sub", user),) if user else ()


def of_user(subject: Any, issuers: frozenset[str]) -> tuple[tuple[str, str], ...]:
    """Find the tokens of a user (CAEP 1.0 section 3.3); where only a session of the user is named, its tokens."""
    if not isinstance(subject, dict):
        return ()
    user = _user(subject, issuers)
    if user:
        return (("sub", user),)
    name = _simple(subject.get("session"), frozenset())
    return (("sid", name),) if name else ()


def _user(subject: Mapping[str, Any], issuers: frozenset[str]) -> str:
    return _simple(subject.get("user") if subject.get("format") == "complex" else subject, issuers)


def _simple(subject: Any, issuers: frozenset[str]) -> str:
    """Read a simple subject (RFC 9493 section 3.2): iss_sub of one of our issuers, opaque, or aliases; "": neither."""
    if not isinstance(subject, dict):
        return ""
    match subject:
        case {"format": "iss_sub", "iss": str(issuer), "sub": str(name)} if issuer in issuers:
            return name
        case {"format": "opaque", "id": str(name)}:
            return name
        case {"format": "aliases", "identifiers": list(identifiers)}:
            # Aliases do not hold aliases (RFC 9493 section 3.2.8).
            plain = [each for each in identifiers if isinstance(each, dict) and each.get("format") != "aliases"]
            return next(filter(None, (_simple(each, issuers) for each in plain)), "")
    return ""
