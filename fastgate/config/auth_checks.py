"""What concerns the `auth` of a route together with its service, its match and the identity providers."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from fastgate.config.auth import NONE, Auth
from fastgate.config.document import Finding, Path
from fastgate.config.known import Unknown, each, known
from fastgate.config.provider import Provider
from fastgate.config.units import show_duration

RESERVED_UPSTREAM: Final = frozenset(
    (
        *("authorization", "connection", "content-encoding", "content-length", "content-type", "cookie", "date"),
        *("expect", "forwarded", "host", "keep-alive", "max-forwards", "proxy-authenticate", "proxy-authorization"),
        *("proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "via", "x-forwarded-for"),
        *("x-forwarded-host", "x-forwarded-port", "x-forwarded-proto", "x-real-ip"),
    )
)
"""Framing, hop-by-hop and what fastgate says itself: no claim may stand there."""


def upstream_headers(path: Path, section: Mapping[str, Any]) -> Iterator[Finding]:
    """Check the headers that the `auth` of a service or route writes upstream."""
    if section.get("auth", NONE) == NONE:
        return
    seen: set[str] = set()
    for index, wanted in enumerate(known(Auth, section["auth"]).upstream_headers):
        at = (*path, "auth", "upstream_headers", index, "header")
        name = wanted.header.lower()
        if name in RESERVED_UPSTREAM or name.startswith("sec-websocket-"):
            yield Finding(at, "cannot carry a claim: it belongs to HTTP or is set by fastgate itself")
        if name in seen:
            yield Finding(at, "appears twice; a header carries one claim")
        seen.add(name)


def protection(
    providers: Mapping[str, Any], path: Path, service: Mapping[str, Any], route: Mapping[str, Any]
) -> Iterator[Finding]:
    """Check that a route is protected by an identity provider that there is, or public by its request line alone."""
    merged = _merged(service, route)
    if merged == NONE:
        if route.get("headers"):
            yield Finding(
                (*path, "headers"),
                "cannot be matched on a public route: a client could choose to be public by sending them",
            )
        return
    name = known(Auth, merged).identity_provider
    if name is None and len(providers) != 1:
        yield Finding((*path, "auth") if "auth" in route else path, _unprotected(providers))
        return
    if name is not None and name not in providers:
        there = ", ".join(providers) or "none"
        at = _written(path, route, "identity_provider")
        yield Finding(at, f"names no identity provider of this file; there are: {there}")
        return
    provider = known(Provider, providers[name if name is not None else next(iter(providers))])
    for key in ("cache_ttl_max", "cache_ttl_neg"):
        yield from each((_not_longer,), key, _written(path, route, key), known(Auth, merged), provider)


def _merged(service: Mapping[str, Any], route: Mapping[str, Any]) -> Any:
    """The auth of a route as data: `none`, or its keys over those of its service."""
    shared = service.get("auth", {})
    if "auth" not in route:
        return shared
    own = route["auth"]
    if own == NONE:
        return NONE
    if not isinstance(own, dict):
        raise Unknown("auth")
    return {**shared, **own} if isinstance(shared, dict) else own


def _written(path: Path, route: Mapping[str, Any], key: str) -> Path:
    """Where a key of the merged auth stands: in the route (at `path`) or in its service."""
    own = isinstance(route.get("auth"), dict) and key in route["auth"]
    return (*(path if own else path[:2]), "auth", key)


def _unprotected(providers: Mapping[str, Any]) -> str:
    if not providers:
        return "is protected, but there are no `identity_providers`: add one, or say `auth: none` for a public route"
    return f"must name the `identity_provider` that protects it ({', '.join(providers)}), or say `auth: none`"


def _not_longer(key: str, path: Path, auth: Auth, provider: Provider) -> Iterator[Finding]:
    wanted, most = getattr(auth, key), getattr(provider, key)
    if wanted is not None and wanted > most:
        yield Finding(path, f"can only be shorter than the identity provider's, which is {show_duration(most)}")
