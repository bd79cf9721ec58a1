"""What an upstream's answer looks like to the client (RFC 9110 section 7.6, RFC 9112 section 6)."""

from collections.abc import Iterable, Mapping
from typing import Final

from fastgate.model import AnswerHead, BodyKind, Field, Framing, RequestHead
from fastgate.policy.field_names import HOP_BY_HOP, nominated, passes_as_trailer

# An Enum's attribute costs fifteen times a global's in Python 3.11, and these are read on every request.
_NONE: Final = BodyKind.NONE
_LENGTH: Final = BodyKind.LENGTH
_CHUNKED: Final = BodyKind.CHUNKED
_UNTIL_CLOSE: Final = BodyKind.UNTIL_CLOSE
_NOTED: Final = HOP_BY_HOP | {b"content-length", b"date", b"cache-control"}
_SUCCESS: Final = 2
_SWITCHING: Final = 101
_NO_CONTENT: Final = 204
_NOT_MODIFIED: Final = 304


def answer_head(
    answer: AnswerHead,
    head: RequestHead,
    framing: Framing,
    *,
    keep_alive: bool,
    date: bytes,
    private: bool,
) -> bytes:
    """Write the head of the answer for the client, blank line included (RFC 9110 section 7.6.1).

    Hop-by-hop fields are left out, everything else passes as it came; the framing is ours. `date` is an IMF-fixdate
    for answers that have none. `private` marks a 2xx answer for caches that many share (RFC 6750 section 2.3).
    """
    status = answer.status
    describes = framing.kind is _NONE and (head.method == "HEAD" or status == _NOT_MODIFIED)
    out = [b"HTTP/1.1 %d %b\r\n" % (status, answer.reason)]
    noted: dict[bytes, bytes] = {}
    for name, raw, value in answer.fields:
        if name not in _NOTED:
            out.append(b"%b: %b\r\n" % (raw, value))
            continue
        if name not in HOP_BY_HOP and (name != b"content-length" or (describes and name not in noted)):
            out.append(b"%b: %b\r\n" % (raw, value))
        noted[name] = b"%b, %b" % (noted[name], value) if name in noted else value
    removed = nominated(noted.get(b"connection", b""))
    if removed:
        out = [line for line in out if line.partition(b":")[0].lower() not in removed]
    out.append(_framing(status, head.method, framing))
    if b"date" not in noted or b"date" in removed:
        out.append(b"Date: %b\r\n" % date)
    if private and status // 100 == _SUCCESS and not _is_private(noted.get(b"cache-control", b"")):
        out.append(b"Cache-Control: private\r\n")
    out.append(_connection(status, noted, keep_alive=keep_alive, http_1_0=head.http_1_0))
    return b"".join(out)


def informational(answer: AnswerHead) -> bytes:
    """Write the head of a 1xx answer for the client, blank line included (RFC 9110 section 15.2)."""
    removed = nominated(b",".join(value for name, _, value in answer.fields if name == b"connection"))
    lines = [
        b"%b: %b\r\n" % (raw, value)
        for name, raw, value in answer.fields
        if name not in HOP_BY_HOP and name != b"content-length" and name not in removed
    ]
    return b"HTTP/1.1 %d %b\r\n%b\r\n" % (answer.status, answer.reason, b"".join(lines))


def trailers(fields: Iterable[Field], protected: frozenset[bytes] = frozenset()) -> bytes:
    """Write the trailer fields that may follow a body, without the blank line (RFC 9110 section 6.5.1).

    Left out is what would frame, route, authenticate or identify; `protected` is `Forwarding.protected`.
    """
    return b"".join(b"%b: %b\r\n" % (raw, value) for name, raw, value in fields if passes_as_trailer(name, protected))


def _is_private(value: bytes) -> bool:
    directives = {part.partition(b"=")[0].strip() for part in value.lower().split(b",")}
    return not directives.isdisjoint((b"private", b"no-store"))


def _connection(status: int, noted: Mapping[bytes, bytes], *, keep_alive: bool, http_1_0: bool) -> bytes:
    """Write what becomes of the connection (RFC 9112 section 9.3, RFC 9110 section 7.8), and the blank line."""
    if status == _SWITCHING:
        return b"Connection: upgrade\r\nUpgrade: %b\r\n\r\n" % noted.get(b"upgrade", b"")
    if not keep_alive:
        return b"Connection: close\r\n\r\n"
    return b"Connection: keep-alive\r\n\r\n" if http_1_0 else b"\r\n"


def _framing(status: int, method: str, framing: Framing) -> bytes:
    """Write exactly one framing, or none where there is no body by definition (RFC 9112 section 6.3)."""
    if framing.kind is _LENGTH:
        return b"Content-Length: %d\r\n" % framing.length
    if framing.kind is _CHUNKED:
        return b"Transfer-Encoding: chunked\r\n"
    bodiless = method == "HEAD" or status in {_NO_CONTENT, _NOT_MODIFIED} or status < 200  # noqa: PLR2004
    return b"" if bodiless or framing.kind is _UNTIL_CLOSE else b"Content-Length: 0\r\n"
