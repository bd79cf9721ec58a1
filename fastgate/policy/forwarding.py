"""What a request looks like when it goes on (RFC 9110 section 7.6).

The other direction is in `answering`, what is not forwarded at all in `refusing`; both are offered here too.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Any, Final

from fastgate.model import BodyKind, Forward, Forwarding, Framing, RequestHead, TokenSource
from fastgate.policy import parameters
from fastgate.policy.answering import answer_head, informational, trailers
from fastgate.policy.bearer import PARAMETER
from fastgate.policy.field_names import END_TO_END, HOP_BY_HOP, KEPT_FROM_TRUSTED, REWRITTEN, nominated, passes
from fastgate.policy.refusing import WEBSOCKET, refuse
from fastgate.policy.routing import matched_length

__all__ = [
    "answer_head",
    "closing",
    "hide_form_token",
    "informational",
    "is_trusted",
    "opening",
    "refuse",
    "trailers",
    "upstream_request",
]

# An Enum's attribute costs fifteen times a global's in Python 3.11, and these are read on every request.
_CHUNKED: Final = BodyKind.CHUNKED
_LENGTH: Final = BodyKind.LENGTH
_IN_QUERY: Final = TokenSource.QUERY
_IN_HEADER: Final = TokenSource.HEADER
_TOKEN_SCHEME: Final = re.compile(rb"(?:bearer|dpop)(?![!#$%&'*+.^_`|~0-9a-z-])", re.IGNORECASE)
_FRAMED_METHODS: Final = frozenset(("POST", "PUT", "PATCH"))
_Said = Sequence[tuple[bytes, bytes]]
"""Names and values of KEPT_FROM_TRUSTED, in order."""
_COUNT: Final = re.compile(rb"[0-9]{1,9}")


def upstream_request(head: RequestHead, forward: Forward, forwarding: Forwarding, framing: Framing) -> bytes:
    """Write the head of the forwarded request, blank line included (RFC 9110 section 7.6, RFC 9112 section 3).

    Hop-by-hop fields and every client copy of what only we may say are left out, then ours are added: nothing a
    client nominates in Connection can take them away. `framing` is what the body will have upstream. The order
    of the client's fields is kept.
    """
    lines, said = _client_fields(head, forward, forwarding)
    return b"".join((opening(head, forward), *lines, closing(head, forward, forwarding, framing, said)))


def opening(head: RequestHead, forward: Forward) -> bytes:
    """Write the request line and Host of the forwarded request."""
    route = forward.route
    host = head.host if route.preserve_host and head.host else route.service.authority
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (head.method.encode(), _target(head, forward), host.encode())


def closing(head: RequestHead, forward: Forward, forwarding: Forwarding, framing: Framing, said: _Said = ()) -> bytes:
    """Write what follows the client's fields: how the request came, its framing, who it is from, the blank line.

    `said` are the client's own fields of KEPT_FROM_TRUSTED, in order.
    """
    permit = forward.permit
    out = [_provenance(head, forwarding, said), _framing(head, framing)]
    if permit is not None:
        if permit.token.source is _IN_QUERY and not _hides(forward):
            out.append(b"Authorization: Bearer %b\r\n" % permit.token.value.encode())
        out += [b"%b: %b\r\n" % field for field in permit.fields]
    out.append(b"\r\n")
    return b"".join(out)


def hide_form_token(form: bytes) -> bytes:
    """Take the access token out of an urlencoded body; everything else stays as it came (RFC 6750 section 2.2)."""
    return parameters.without(form.decode("latin-1"), PARAMETER).encode("latin-1")


def _client_fields(head: RequestHead, forward: Forward, forwarding: Forwarding) -> tuple[list[bytes], _Said]:
    """Write the client's fields that go on, and collect what it said about itself."""
    configured = forwarding.protected
    lines: list[bytes] = []
    options = b""
    said: list[tuple[bytes, bytes]] = []
    for name, raw, value in head.fields:
        if name in END_TO_END and name not in configured:
            lines.append(b"%b: %b\r\n" % (raw, value))
        elif name in HOP_BY_HOP:
            if name == b"connection":
                options = b"%b,%b" % (options, value) if options else value
        elif name in KEPT_FROM_TRUSTED:
            said.append((name, value))
        elif name in REWRITTEN and name not in configured:
            lines.append(_rewrite(raw, name, value, head, forward))
        elif passes(name, configured):
            lines.append(b"%b: %b\r\n" % (raw, value))
    # What is for the whole way stays, whatever Connection says: `refuse` has an answer to such a request.
    removed = nominated(options) - END_TO_END - REWRITTEN
    if removed:
        lines = [line for line in lines if line.partition(b":")[0].lower() not in removed]
    return lines, said


def _framing(head: RequestHead, framing: Framing) -> bytes:
    """Write what concerns this connection: exactly one framing, an upgrade, an expectation (RFC 9112 section 6)."""
    if framing.kind is _LENGTH:
        line = b"Content-Length: %d\r\n" % framing.length
    elif framing.kind is _CHUNKED:
        line = b"Transfer-Encoding: chunked\r\n"
    else:
        line = b"Content-Length: 0\r\n" if head.method in _FRAMED_METHODS else b""
    if head.expects_continue:
        line += b"Expect: 100-continue\r\n"
    if head.upgrade == WEBSOCKET and not head.http_1_0:
        line += b"Connection: upgrade\r\nUpgrade: websocket\r\n"
    return line


def _hides(forward: Forward) -> bool:
    access = forward.route.access
    return access is not None and access.hide_credentials


def _target(head: RequestHead, forward: Forward) -> bytes:
    """Write the request-target; what is not removed on purpose stays byte for byte (RFC 9110 section 7.7)."""
    route, permit = forward.route, forward.permit
    cut_token = permit is not None and permit.token.source is _IN_QUERY
    base = route.service.path
    if not (route.strip_path or base or cut_token) or head.target == b"*":
        return head.target
    path, query = head.path, head.query
    if route.strip_path:
        path = path[matched_length(route.match, path) :]
        if not path.startswith("/") and (path or not base):
            path = "/" + path
    if cut_token and query is not None:
        query = parameters.without(query, PARAMETER) or None
    target = base + path if query is None else f"{base}{path}?{query}"
    return target.encode()


def _rewrite(raw: bytes, name: bytes, value: bytes, head: RequestHead, forward: Forward) -> bytes:
    """Write a field of REWRITTEN, or nothing."""
    passing: bytes | None = None
    if name == b"authorization":
        passing = value if _authorization_passes(value, forward) else None
    elif name == b"cookie":
        passing = _cookie(value, forward)
    elif name == b"max-forwards":
        counts = head.method == "OPTIONS" and _COUNT.fullmatch(value)
        passing = b"%d" % max(0, int(value) - 1) if counts else value
    return b"" if passing is None else b"%b: %b\r\n" % (raw, passing)


def _authorization_passes(value: bytes, forward: Forward) -> bool:
    """Keep Authorization byte for byte or not at all (RFC 9110 section 11.6.2).

    When the verified token stood elsewhere, a second, unverified one must not reach an upstream that trusts us.
    """
    permit = forward.permit
    if permit is None:
        return True
    source = permit.token.source
    if source is _IN_HEADER:
        return not _hides(forward)
    if source is _IN_QUERY and not _hides(forward):
        return False
    return _TOKEN_SCHEME.match(value) is None


def _cookie(value: bytes, forward: Forward) -> bytes | None:
    """Keep Cookie, without the access token where the route hides it (RFC 6265 section 4.2)."""
    access, permit = forward.route.access, forward.permit
    if permit is None or access is None or permit.token.source is not TokenSource.COOKIE:
        return value
    if not access.hide_credentials:
        return value
    name = access.extraction.cookie_name.encode()
    pairs = [pair for pair in value.split(b";") if pair.strip().partition(b"=")[0] != name]
    return b";".join(pairs).strip() or None


def _provenance(head: RequestHead, forwarding: Forwarding, said: _Said) -> bytes:
    """Write how the request came: X-Forwarded-*, X-Real-IP and Via (RFC 9110 section 7.6.3).

    What a trusted peer said is believed, and its list of addresses continued; anybody else's word is dropped.
    """
    peer = head.peer.encode()
    host = head.host.encode()
    scheme = head.scheme.encode()
    came_from, real = peer, peer
    port = b"%d" % head.port
    if said and is_trusted(forwarding.trusted, head.peer):
        kept = {name: b", ".join(value for key, value in said if key == name) for name, _ in said}
        before = kept.get(b"x-forwarded-for")
        came_from = peer if before is None else b"%b, %b" % (before, peer)
        scheme = kept.get(b"x-forwarded-proto", scheme)
        host = kept.get(b"x-forwarded-host", host)
        port = kept.get(b"x-forwarded-port", port)
        real = kept.get(b"x-real-ip", peer)
    return (
        b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\nX-Forwarded-Port: %b\r\n"
        b"X-Real-IP: %b\r\nVia: %b %b\r\n"
        % (came_from, scheme, host, port, real, b"1.0" if head.http_1_0 else b"1.1", forwarding.via)
    )


@lru_cache(maxsize=1024)
def is_trusted(networks: tuple[Any, ...], peer: str) -> bool:
    """Tell whether a peer's word about where a request came from is believed."""
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks)
