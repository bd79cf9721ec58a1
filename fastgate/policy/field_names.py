"""Which header fields pass, by name in lower case (RFC 9110 sections 7.6.1 and 16.3.1)."""

import re
from functools import lru_cache
from typing import Final

HOP_BY_HOP: Final = frozenset(
    (
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
"""Meant for one connection; never forwarded as they came."""

END_TO_END: Final = frozenset(
    (
        b"accept",
        b"accept-charset",
        b"accept-encoding",
        b"accept-language",
        b"access-control-request-headers",
        b"access-control-request-method",
        b"cache-control",
        b"content-disposition",
        b"content-encoding",
        b"content-language",
        b"content-location",
        b"content-range",
        b"content-type",
        b"date",
        b"dnt",
        b"from",
        b"if-match",
        b"if-modified-since",
        b"if-none-match",
        b"if-range",
        b"if-unmodified-since",
        b"origin",
        b"pragma",
        b"prefer",
        b"priority",
        b"range",
        b"referer",
        b"sec-ch-ua",
        b"sec-ch-ua-mobile",
        b"sec-ch-ua-platform",
        b"sec-fetch-dest",
        b"sec-fetch-mode",
        b"sec-fetch-site",
        b"sec-fetch-user",
        b"sec-websocket-extensions",
        b"sec-websocket-key",
        b"sec-websocket-protocol",
        b"sec-websocket-version",
        b"traceparent",
        b"tracestate",
        b"upgrade-insecure-requests",
        b"user-agent",
        b"via",
        b"x-request-id",
        b"x-requested-with",
        b"x-user-agent",
    )
)
"""Well known and forwarded as they came; the shortcut for most fields of most requests."""

REWRITTEN: Final = frozenset((b"authorization", b"content-length", b"cookie", b"expect", b"host", b"max-forwards"))
"""End to end too, but looked at one by one."""

KEPT_FROM_TRUSTED: Final = frozenset(
    (b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-proto", b"x-real-ip")
)
"""Set by us; what a trusted peer says is continued or kept."""

PROTECTED: Final = frozenset(
    (
        b"access-token",
        b"cf-connecting-ip",
        b"fastly-client-ip",
        b"forwarded",
        b"front-end-https",
        b"id-token",
        b"proxy",
        b"remote-addr",
        b"remote-user",
        b"true-client-ip",
        b"x-access-token",
        b"x-anonymous-consumer",
        b"x-client-id",
        b"x-client-ip",
        b"x-cluster-client-ip",
        b"x-email",
        b"x-envoy-external-address",
        b"x-envoy-internal",
        b"x-envoy-original-path",
        b"x-groups",
        b"x-host",
        b"x-http-method",
        b"x-http-method-override",
        b"x-id-token",
        b"x-method-override",
        b"x-original-forwarded-for",
        b"x-original-host",
        b"x-original-method",
        b"x-original-uri",
        b"x-original-url",
        b"x-real-ip",
        b"x-remote-addr",
        b"x-remote-ip",
        b"x-rewrite-url",
        b"x-roles",
        b"x-url-scheme",
    )
)
"""What upstreams believe about identity and origin of a request: only we may say it (RFC 9700 section 4.13)."""

_PROTECTED_PREFIXES: Final = (
    b"client-cert",
    b"ssl-client-",
    b"x-auth-request-",
    b"x-authenticated-",
    b"x-client-cert",
    b"x-consumer-",
    b"x-credential-",
    b"x-forwarded",
    b"x-introspection",
    b"x-jwt-",
    b"x-remote-user",
    b"x-scope",
    b"x-ssl-",
    b"x-user",
    b"x-webauth-",
)

_FORBIDDEN_TRAILERS: Final = (
    HOP_BY_HOP
    | REWRITTEN
    | END_TO_END
    | frozenset(
        (
            b"age",
            b"allow",
            b"clear-site-data",
            b"expires",
            b"last-modified",
            b"location",
            b"refresh",
            b"retry-after",
            b"set-cookie",
            b"strict-transport-security",
            b"vary",
            b"warning",
            b"www-authenticate",
        )
    )
)
"""Framing, routing, authentication, conditions, content format, control data (RFC 9110 section 6.5.1)."""

USUAL_CONNECTION: Final = frozenset((b"close", b"keep-alive", b"upgrade", b"Upgrade", b"keep-alive, Upgrade"))
_NOTHING: Final[frozenset[bytes]] = frozenset()
_NAME: Final = re.compile(rb"[a-z0-9-]+")
_SHORT: Final = 64
"""Octets of a name worth remembering a judgement about."""


def options_of(value: bytes) -> list[bytes]:
    """Read the options of Connection (RFC 9110 section 7.6.1)."""
    return [option.strip() for option in value.lower().split(b",")]


def nominated(value: bytes) -> frozenset[bytes]:
    """Collect the fields that Connection names and that are not hop-by-hop anyway (RFC 9110 section 7.6.1)."""
    if not value or value in USUAL_CONNECTION:
        return _NOTHING
    return frozenset(options_of(value)) - HOP_BY_HOP


def is_protected(name: bytes, configured: frozenset[bytes]) -> bool:
    """Tell whether only we may send this field upstream (RFC 9700 section 4.13)."""
    return name in configured or name in PROTECTED or name.startswith(_PROTECTED_PREFIXES)


def passes(name: bytes, configured: frozenset[bytes]) -> bool:
    """Tell whether a client's field of a name that is neither hop-by-hop nor REWRITTEN goes upstream.

    Names with anything but letters, digits and "-" do not: upstreams read "_" and "." as "-", which would let a
    client spell a protected name in another way.
    """
    return _passes(name, configured) if len(name) <= _SHORT else _passes.__wrapped__(name, configured)


@lru_cache(maxsize=1024)
def _passes(name: bytes, configured: frozenset[bytes]) -> bool:
    return _NAME.fullmatch(name) is not None and not is_protected(name, configured)


def passes_as_trailer(name: bytes, configured: frozenset[bytes]) -> bool:
    """Tell whether a trailer field may follow a body (RFC 9110 section 6.5.1)."""
    return name not in _FORBIDDEN_TRAILERS and passes(name, configured)
