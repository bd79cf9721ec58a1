"""`fastgate explain`: what would become of a request, step by step, by the functions that decide it in the gateway."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from fastgate.cli.connecting import ADVICE
from fastgate.cli.routes import leads_to, matched, required
from fastgate.clock import SystemClock
from fastgate.config.units import show_duration
from fastgate.dataplane.head import parse_request_head
from fastgate.errors import HeadError, IntrospectionError
from fastgate.model import (
    INACTIVE,
    Access,
    AccessToken,
    ActiveToken,
    BodyKind,
    Denial,
    Framing,
    Reply,
    RequestHead,
    Route,
    Snapshot,
    TokenSource,
    TokenState,
)
from fastgate.policy import bearer, freshness, replies, routing, verification
from fastgate.policy.refusing import refuse
from fastgate.stats import Stats
from fastgate.tokens.introspector import Introspector

FORM: Final = b"application/x-www-form-urlencoded"


@dataclass
class Explanation:
    """The steps of one request; `ok` of a step is None where there is nothing to be right or wrong."""

    steps: list[tuple[str, bool | None, str]] = field(default_factory=list)
    claims: dict[str, Any] | None = None
    """What the identity provider said about an active token."""
    known: bool = True
    """False: the identity provider could not be asked, so this is not what would become of every such request."""

    def step(self, name: str, detail: str, *, ok: bool | None = None) -> None:
        """Add one step."""
        self.steps.append((name, ok, detail))

    def answered(self, reply: Reply) -> "Explanation":
        """The request ends with an answer of our own."""
        extra = [
            f"{name.decode()}: {value.decode('latin-1')}"
            for name, value in reply.fields
            if name in {b"WWW-Authenticate", b"Allow", b"Location", b"Retry-After", b"Upgrade"}
        ]
        why = f"({reply.reason})"
        self.step("status", "  ".join((str(reply.status), replies.PHRASES.get(reply.status, ""), why, *extra)))
        return self


async def explain(
    snapshot: Snapshot, method: str, target: str, headers: list[tuple[str, str]], token: str | None
) -> Explanation:
    """Take a request through the gateway as far as its identity provider, and not to its service."""
    told = Explanation()
    address = snapshot.settings.listen[0]
    port = address.port or 8000
    try:
        raw = request_octets(method, target, headers, f"{address.host or 'localhost'}:{port}")
        head = parse_request_head(
            raw,
            limits=snapshot.settings.limits,
            scheme="http" if address.tls is None else "https",
            peer="127.0.0.1",
            port=port,
        )
    except HeadError as error:
        told.step("request", error.detail, ok=False)
        return told.answered(replies.head_refused(error))
    route = routing.match(snapshot.table, head)
    told.step("request", f"{head.method} {head.path} for host {head.host}")
    if isinstance(route, Reply):
        told.step("route", "none of `fastgate routes` takes it", ok=False)
        return told.answered(route)
    told.step("route", f"{route.name}: {matched(route.match)}", ok=True)
    told.step("requires", required(route.access))
    access = route.access
    if access is not None:
        reply = await _token(told, route, access, head, token)
        if reply is not None:
            return told.answered(reply)
    refused = refuse(head, snapshot.settings.forwarding)
    if refused is not None:
        return told.answered(refused)
    told.step("status", f"forwarded to {leads_to(route)}: whatever the service answers", ok=True)
    return told


def request_octets(method: str, target: str, headers: list[tuple[str, str]], host: str) -> bytes:
    """The head of the request as it would come over the wire."""
    if not any(name.lower() == "host" for name, _ in headers):
        headers = [("Host", host), *headers]
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    if any("\r" in line or "\n" in line for line in lines):
        raise HeadError(400, "line ends inside a line of the request")
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("utf-8", "surrogateescape")


async def _token(told: Explanation, route: Route, access: Access, head: RequestHead, token: str | None) -> Reply | None:
    """Find the token, ask about it, verify it. Returns the answer that ends the request here."""
    form = None
    if token is not None:
        head, form = with_token(head, access, token)
    found = bearer.extract(access.extraction, head, form if bearer.wants_form(access.extraction, head) else None)
    if isinstance(found, Denial):
        places = ", ".join(sorted(access.extraction.sources))
        told.step("token", f"{found.reason.replace('_', ' ')}; looked for in: {places}", ok=False)
        return route.denials[found.reason]
    told.step("token", f"{len(found.value)} characters, found in: {found.source}", ok=True)
    try:
        state = await _ask(told, access, found)
    except IntrospectionError as error:
        told.known = False
        told.step("introspection", f"{error.kind}: {error.detail}; {ADVICE[error.kind]}", ok=False)
        return replies.introspection_failed(error, route.name)
    now = SystemClock().now()
    for name, ok, detail in verification.checks(state, access, now):
        told.step(f"check {name}", detail, ok=ok)
    told.step("remembered", _remembered(state, access, now))
    decision = verification.verify(state, found, access, now)
    if isinstance(decision, Denial):
        return route.denials[decision.reason]
    for field_name, value in decision.fields:
        told.step("upstream header", f"{field_name.decode()}: {value.decode('latin-1')}")
    return None


def with_token(head: RequestHead, access: Access, token: str) -> tuple[RequestHead, bytes | None]:
    """The request with the token in the first place that the route looks at; a form body when that is the body."""
    sources = access.extraction.sources
    octets = token.encode("ascii")
    if TokenSource.HEADER in sources:
        return _with_field(head, b"Authorization", b"Bearer " + octets), None
    if TokenSource.COOKIE in sources:
        name = access.extraction.cookie_name.encode("ascii")
        return _with_field(head, b"Cookie", name + b"=" + octets), None
    if TokenSource.QUERY in sources:
        parts = (*([] if head.query is None else [head.query]), f"{bearer.PARAMETER}={quote(token, safe='')}")
        query = "&".join(parts)
        return head._replace(query=query, target=f"{head.path}?{query}".encode("ascii")), None
    form = f"{bearer.PARAMETER}={quote(token, safe='')}".encode("ascii")
    typed = _with_field(head, b"Content-Type", FORM)._replace(framing=Framing(BodyKind.LENGTH, len(form)))
    return typed, form


def _with_field(head: RequestHead, name: bytes, value: bytes) -> RequestHead:
    return head._replace(fields=(*head.fields, (name.lower(), name, value)))


async def _ask(told: Explanation, access: Access, token: AccessToken) -> TokenState:
    clock = SystemClock()
    introspector = Introspector(access.provider, clock, Stats())
    started = clock.monotonic()
    try:
        state = await introspector.introspect(token.value)
    finally:
        await introspector.close()
    milliseconds = (clock.monotonic() - started) * 1000
    answer = "inactive" if state is INACTIVE else "active"
    told.step(
        "introspection", f"{access.provider.name} says {answer}, in {milliseconds:.0f} ms", ok=state is not INACTIVE
    )
    if isinstance(state, ActiveToken):
        told.claims = dict(state.claims)
    return state


def _remembered(state: TokenState, access: Access, now: float) -> str:
    seconds = freshness.lifetime(state, access.freshness, now)
    if seconds <= 0:
        return "not at all"
    return f"{show_duration(round(seconds, 1))} ({', '.join(_bounds(state, access, now))})"


def _bounds(state: TokenState, access: Access, now: float) -> Iterator[str]:
    """What the time was taken from."""
    if state is INACTIVE:
        yield f"cache_ttl_neg {show_duration(access.freshness.ttl_neg)}"
        return
    if state.exp is None:
        yield f"no exp, cache_ttl {show_duration(access.freshness.ttl)}"
    else:
        yield f"exp in {min(state.exp, 10**12) - now:.0f} s"
    yield f"cache_ttl_max {show_duration(access.freshness.ttl_max)}"


def claims_text(claims: dict[str, Any]) -> str:
    """Claims for people; ASCII, so that no terminal obeys them."""
    return json.dumps(claims, indent=2, ensure_ascii=True, default=str)
