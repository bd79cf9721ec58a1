"""Where the access token stands in a request (RFC 6750 section 2, RFC 9110 section 11.6.2)."""

import re
from typing import Final

from fastgate.model import (
    NO_BODY,
    AccessToken,
    Denial,
    DenialReason,
    Extraction,
    RequestHead,
    TokenSource,
)
from fastgate.policy import parameters

PARAMETER: Final = "access_token"
"""Name of the query and form parameter (RFC 6750 sections 2.2 and 2.3)."""

# An Enum's attribute costs fifteen times a global's in Python 3.11, and these are read on every request.
_IN_HEADER: Final = TokenSource.HEADER
_IN_BODY: Final = TokenSource.BODY
_NONE: Final = Denial(DenialReason.NO_CREDENTIALS)
_MALFORMED: Final = Denial(DenialReason.MALFORMED_CREDENTIALS)

_CREDENTIALS: Final = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9\-._~+/]+=*)")
_SCHEME: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+)")
_B64TOKEN: Final = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
_FORM: Final = b"application/x-www-form-urlencoded"


def extract(extraction: Extraction, head: RequestHead, form: bytes | None = None) -> AccessToken | Denial:
    """Find the one access token of a request (RFC 6750 section 2).

    A second Authorization field, a token in two places, a broken or overlong one is malformed; another
    scheme, or nothing at all, is no credentials (section 3.1). Places the route does not name are not looked
    at. `form` is the body, read when `wants_form` asked for it.
    """
    authorization: bytes | None = None
    for name, _, value in head.fields:
        if name == b"authorization":
            if authorization is not None:
                return _MALFORMED
            authorization = value
    sources = extraction.sources
    found: AccessToken | Denial = _NONE
    if authorization is not None and _IN_HEADER in sources:
        found = from_header(authorization, extraction.max_length)
    if len(sources) == 1 and _IN_HEADER in sources:
        return found
    candidates = [] if found is _NONE else [found]
    candidates += [
        _token(value, source, extraction.max_length)
        for source in (TokenSource.QUERY, TokenSource.COOKIE, _IN_BODY)
        if source in sources
        for value in _values(source, extraction, head, form)
    ]
    if len(candidates) > 1:
        return _MALFORMED
    return candidates[0] if candidates else _NONE


def wants_form(extraction: Extraction, head: RequestHead) -> bool:
    """Tell whether the token may stand in the body, to be read before `extract` (RFC 6750 section 2.2)."""
    if _IN_BODY not in extraction.sources or head.method in {"GET", "HEAD"} or head.framing == NO_BODY:
        return False
    types = [value for name, _, value in head.fields if name == b"content-type"]
    return (
        len(types) == 1
        and types[0].partition(b";")[0].strip().lower() == _FORM
        and not any(name == b"content-encoding" for name, _, _ in head.fields)
    )


def from_header(value: bytes, max_length: int) -> AccessToken | Denial:
    """Read the value of Authorization (RFC 6750 section 2.1); the scheme's case does not matter."""
    credentials = _CREDENTIALS.fullmatch(value)
    if credentials is not None:
        token = credentials[1]
        if len(token) > max_length:
            return _MALFORMED
        return AccessToken(token.decode("ascii"), _IN_HEADER)
    scheme = _SCHEME.match(value)
    return _MALFORMED if scheme is None or scheme[1].lower() == b"bearer" else _NONE


def _token(value: str, source: TokenSource, max_length: int) -> AccessToken | Denial:
    if len(value) > max_length or _B64TOKEN.fullmatch(value) is None:
        return _MALFORMED
    return AccessToken(value, source)


def _values(source: TokenSource, extraction: Extraction, head: RequestHead, form: bytes | None) -> list[str]:
    """Collect what stands in one place, well-formed or not."""
    if source is TokenSource.QUERY:
        return parameters.values(head.query or "", PARAMETER, form=False)
    if source is _IN_BODY:
        return parameters.values((form or b"").decode("latin-1"), PARAMETER, form=True)
    return [
        value
        for name, _, field in head.fields
        if name == b"cookie"
        for key, _, value in (pair.strip().partition("=") for pair in field.decode("latin-1").split(";"))
        if key == extraction.cookie_name
    ]
