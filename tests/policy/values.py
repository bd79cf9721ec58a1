"""Small values to test the policy room with; every builder takes what differs as keywords."""

import re
from dataclasses import replace
from typing import Any

from fastgate.model import (
    NO_BODY,
    Access,
    AccessPolicy,
    AccessToken,
    ActiveToken,
    AnswerHead,
    BodyKind,
    Extraction,
    Forward,
    Framing,
    Freshness,
    IdentityProvider,
    Match,
    Permit,
    RequestHead,
    Route,
    Service,
    Target,
    TokenSource,
)

IDP = IdentityProvider("idp", "https://idp.test", "https://idp.test/introspect", "gate", "secret", digest_key=b"k" * 64)
SERVICE = Service("up", "http", "up.test:8080", "", (Target("127.0.0.1", 8080),))
HEADER_ONLY = Extraction(frozenset({TokenSource.HEADER}))
EVERYWHERE = Extraction(frozenset(TokenSource))
BEARER = (b"Authorization", b"Bearer tok")


def length(octets: int) -> Framing:
    return Framing(BodyKind.LENGTH, octets)


CHUNKED = Framing(BodyKind.CHUNKED)
UNTIL_CLOSE = Framing(BodyKind.UNTIL_CLOSE)


def fields(*pairs: tuple[bytes, bytes]) -> tuple[tuple[bytes, bytes, bytes], ...]:
    return tuple((name.lower(), name, value) for name, value in pairs)


def head(target: str = "/", *pairs: tuple[bytes, bytes], method: str = "GET", **changes: Any) -> RequestHead:
    path, mark, query = target.partition("?")
    base = RequestHead(
        method=method,
        target=target.encode(),
        path=path,
        query=query if mark else None,
        http_1_0=False,
        host="gate.test",
        fields=fields(*pairs),
        framing=NO_BODY,
        keep_alive=True,
        upgrade=None,
        expects_continue=False,
        scheme="http",
        peer="192.0.2.7",
        port=8000,
    )
    return base._replace(**changes)


def answer(status: int, *pairs: tuple[bytes, bytes], reason: bytes = b"OK", **changes: Any) -> AnswerHead:
    base = AnswerHead(status, reason, fields(*pairs), NO_BODY, keep_alive=True, upgrade=None)
    return base._replace(**changes)


def access(**changes: Any) -> Access:
    return replace(Access(IDP, AccessPolicy(), HEADER_ONLY, Freshness()), **changes)


def route(name: str, *paths: str, public: bool = False, patterns: tuple[str, ...] = (), **changes: Any) -> Route:
    """A route; keywords of `Match` go into its match, the others into the route."""
    criteria = {key: changes.pop(key) for key in ("methods", "hosts", "headers") if key in changes}
    match = Match(paths=paths, patterns=tuple(map(re.compile, patterns)), **criteria)
    return replace(Route(name, match, SERVICE, None if public else access()), **changes)


def forward(
    *, source: TokenSource | None = TokenSource.HEADER, identity: tuple[tuple[bytes, bytes], ...] = (), **changes: Any
) -> Forward:
    """A request that may go on: with a permit for the token "tok" found at `source`, or public without one."""
    if source is None:
        return Forward(route("public", "/", public=True, **changes), None)
    permit = Permit(AccessToken("tok", source), ActiveToken({"active": True}), identity)
    return Forward(route("protected", "/", **changes), permit)
