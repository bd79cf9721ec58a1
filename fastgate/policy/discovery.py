"""Where an authorization server says it can be asked (OpenID Connect Discovery 1.0 section 4, RFC 8414)."""

from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from fastgate.policy.strict_json import malformed, read_object

MAX_METADATA: Final = 256 * 1024
"""Octets of a metadata document."""


class Metadata(NamedTuple):
    """What we need of a metadata document."""

    introspection_endpoint: str
    """Empty: not stated, one has to be configured."""
    auth_methods: tuple[str, ...]
    """Offered at that endpoint; empty: not stated, the configured method is used (RFC 8414 section 2)."""
    jwks_uri: str | None = None
    """Where the keys are with which the issuer signs; None: not stated, or no usable address."""


def metadata_urls(issuer: str) -> tuple[str, ...]:
    """List where the metadata of an issuer may be, most likely place first.

    OpenID Connect Discovery 1.0 section 4 appends to the issuer, RFC 8414 section 3.1 inserts before its path.
    """
    appended = issuer.rstrip("/") + "/.well-known/openid-configuration"
    scheme, _, rest = issuer.partition("://")
    authority, _, path = rest.partition("/")
    path = path.rstrip("/")
    inserted = f"{scheme}://{authority}/.well-known/oauth-authorization-server"
    return appended, f"{inserted}/{path}" if path else inserted


def decode(issuer: str, body: bytes) -> Metadata:
    """Read a metadata document (RFC 8414 sections 2 and 3.3).

    Raises IntrospectionError (MALFORMED) when it is not one JSON object, is about another issuer, by so much as a
    slash, or names an introspection endpoint that is not usable.
    """
    document = read_object(body, MAX_METADATA)
    if document.get("issuer") != issuer:
        raise malformed("the metadata are about another issuer than the configured one")
    endpoint = document.get("introspection_endpoint")
    if endpoint is None:
        endpoint = ""
    elif not _usable(endpoint):
        raise malformed("the introspection_endpoint of the metadata is not an absolute http(s) URL")
    methods = document.get("introspection_endpoint_auth_methods_supported", [])
    if not isinstance(methods, list) or not all(isinstance(method, str) for method in methods):
        raise malformed("introspection_endpoint_auth_methods_supported is not a list of names")
    keys = document.get("jwks_uri")
    return Metadata(endpoint, tuple(methods), keys if _usable(keys) else None)


def _usable(url: Any) -> bool:
    if not isinstance(url, str):
        return False
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        return False
    if not url.isascii() or not url.isprintable() or " " in url:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and not parts.fragment and port_is_fine
