"""What we answer ourselves: one table from denials, errors and refusals to HTTP (RFC 9110 section 15)."""

import re
from collections.abc import Mapping
from functools import lru_cache
from math import ceil
from typing import Final
from urllib.parse import quote

import orjson

from fastgate.errors import Cannot, ForwardError, HeadError, IntrospectionError, Side, Stage
from fastgate.model import DenialReason, Reply

PHRASES: Final[Mapping[int, str]] = {
    200: "OK",
    302: "Found",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    411: "Length Required",
    413: "Content Too Large",
    414: "URI Too Long",
    417: "Expectation Failed",
    426: "Upgrade Required",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
    508: "Loop Detected",
}
"""Reason phrases of the statuses we send; the standard library's change between versions."""

RETRY_AFTER: Final = 1.0
"""Seconds a client is asked to wait when nobody said how long."""
RETRY_AFTER_MAX: Final = 3600.0

_STATUS_LINES: Final = {status: f"HTTP/1.1 {status} {phrase}\r\n".encode("ascii") for status, phrase in PHRASES.items()}

_UPSTREAM: Final[Mapping[Stage, tuple[int, str]]] = {
    Stage.SELECT: (503, "The upstream server is currently unavailable"),
    Stage.CONNECT: (502, "The upstream server could not be reached"),
    Stage.CONNECT_TIMEOUT: (504, "The upstream server is timing out"),
    Stage.SEND: (502, "An invalid response was received from the upstream server"),
    Stage.HEAD_TIMEOUT: (504, "The upstream server is timing out"),
    Stage.HEAD: (502, "An invalid response was received from the upstream server"),
    Stage.BODY: (502, "An invalid response was received from the upstream server"),
    Stage.BODY_TIMEOUT: (504, "The upstream server is timing out"),
    Stage.REQUEST_BODY: (400, "Bad Request"),
}

_FORBIDDING: Final = frozenset(
    (DenialReason.SCOPE, DenialReason.ROLE, DenialReason.GROUP, DenialReason.FORBIDDEN_CLAIM)
)

_UNQUOTABLE: Final = re.compile(r"[^\x20-\x7e]")
_SCOPE_TOKEN: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")


def reply(
    status: int,
    *,
    reason: str,
    fields: tuple[tuple[bytes, bytes], ...] = (),
    message: str | None = None,
    route: str = "",
) -> Reply:
    """Make an answer with a JSON body that no cache may store (RFC 9111 section 5.2.2.5).

    `message` defaults to the reason phrase of `status`; `reason` is for the log and never sent.
    """
    body = orjson.dumps({"message": PHRASES.get(status, "Error") if message is None else message})
    ours = ((b"Content-Type", b"application/json"), (b"Cache-Control", b"no-store"))
    return Reply(status, ours + fields, body, reason, route)


def denials(
    realm: str,
    *,
    required_scope: str | None = None,
    unauthorized_message: str = "Unauthorized",
    forbidden_message: str = "Forbidden",
    unauthorized_redirect: str | None = None,
    forbidden_redirect: str | None = None,
    expose_error_code: bool = True,
    route: str = "",
) -> Mapping[DenialReason, Reply]:
    """Make the answer to every denial of one route (RFC 6750 section 3).

    All reasons of a class get the same bytes: telling "expired" from "revoked" would be an oracle.
    `required_scope` is the space-separated list of words the route asks for; a redirect URI replaces 401 or
    403 by 302.
    """

    def answer(reason: DenialReason) -> Reply:
        status, error, message, redirect = 401, "invalid_token", unauthorized_message, unauthorized_redirect
        if reason is DenialReason.NO_CREDENTIALS:
            error = ""
        elif reason is DenialReason.MALFORMED_CREDENTIALS:
            status, error, message, redirect = 400, "invalid_request", PHRASES[400], None
        elif reason in _FORBIDDING:
            status, error = 403, "insufficient_scope"
            message, redirect = forbidden_message, forbidden_redirect
        if redirect:
            return reply(302, reason=reason, fields=(_location(redirect),), message=message, route=route)
        challenge = _challenge(realm, error if expose_error_code else "", required_scope)
        return reply(status, reason=reason, fields=(challenge,), message=message, route=route)

    return {reason: answer(reason) for reason in DenialReason}


def introspection_failed(error: IntrospectionError, route: str = "") -> Reply:
    """Say that we do not know: 503 with Retry-After, and no challenge (RFC 9110 section 15.6.4)."""
    wait = RETRY_AFTER if error.retry_after is None else error.retry_after
    return _not_known(error.kind, _whole_seconds(wait), route)


@lru_cache(maxsize=1024)
def _not_known(kind: Cannot, wait: int, route: str) -> Reply:
    """Make it once: in a flood of invented tokens thousands get the same answer within a second."""
    return reply(503, reason=kind, fields=_retry_after(wait), route=route)


def forward_failed(error: ForwardError, route: str = "") -> Reply:
    """Say that forwarding failed before an answer began (RFC 9110 sections 15.6.3 to 15.6.5)."""
    if error.side is Side.DOWNSTREAM:
        status = 408 if error.stage is Stage.BODY_TIMEOUT else 400
        return reply(status, reason=error.stage, route=route)
    status, message = _UPSTREAM[error.stage]
    fields = _retry_after(_whole_seconds(RETRY_AFTER)) if error.stage is Stage.SELECT else ()
    return reply(status, reason=error.stage, fields=fields, message=message, route=route)


def head_refused(error: HeadError) -> Reply:
    """Say that the request's head is not acceptable (RFC 9112 sections 2 to 6)."""
    return reply(error.status, reason="request_head")


def outcome(reply: Reply) -> str:
    """Tell what an answer of ours makes of a request, for the access log: 5xx is not its fault, we could not know."""
    return "failed" if reply.status >= 500 else "refused"  # noqa: PLR2004


def render(
    reply: Reply,
    *,
    date: bytes,
    keep_alive: bool,
    method: str,
    http_1_0: bool = False,
) -> bytes:
    """Write a whole HTTP/1.1 message, self-delimited by Content-Length (RFC 9112 sections 4 and 6.2).

    `date` is an IMF-fixdate. The answer to HEAD has the fields of the answer to GET and no body.
    """
    status, fields, body, _, _ = reply
    options = []
    if not keep_alive:
        options.append(b"close")
    elif http_1_0:
        options.append(b"keep-alive")
    if status == 426:  # noqa: PLR2004 - the one status that must carry Upgrade (RFC 9110 section 15.5.22)
        options.append(b"upgrade")
    parts = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
    parts += [b"%b: %b\r\n" % field for field in fields]
    parts.append(b"Content-Length: %d\r\nDate: %b\r\n" % (len(body), date))
    if options:
        parts.append(b"Connection: %b\r\n" % b", ".join(options))
    parts.append(b"\r\n")
    if method != "HEAD":
        parts.append(body)
    return b"".join(parts)


def _whole_seconds(wait: float) -> int:
    # max() first: it also turns a NaN into the floor.
    return ceil(min(RETRY_AFTER_MAX, max(RETRY_AFTER, wait)))


def _retry_after(seconds: int) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"Retry-After", b"%d" % seconds),)


def _challenge(realm: str, error: str, required_scope: str | None) -> tuple[bytes, bytes]:
    """Write a Bearer challenge in which no value can end its quotes (RFC 6750 section 3)."""
    quoted = _UNQUOTABLE.sub("", realm).replace("\\", "\\\\").replace('"', '\\"')
    challenge = f'Bearer realm="{quoted}"'
    if error:
        challenge += f', error="{error}"'
    if error == "insufficient_scope":
        words = [word for word in (required_scope or "").split() if _SCOPE_TOKEN.fullmatch(word)]
        if words:
            challenge += f', scope="{" ".join(words)}"'
    return b"WWW-Authenticate", challenge.encode("ascii")


def _location(uri: str) -> tuple[bytes, bytes]:
    """Write a Location no character of which can end the line (RFC 9110 section 10.2.2)."""
    return b"Location", quote(uri, safe="!#$%&'()*+,/:;=?@[]~").encode("ascii")
