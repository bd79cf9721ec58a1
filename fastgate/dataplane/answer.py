"""From the octets of an answer's head to an `AnswerHead`, strictly (RFC 9112 sections 4, 5 and 6.3)."""

import re
from functools import lru_cache
from typing import Final

from fastgate.dataplane.head import split_fields
from fastgate.dataplane.memo import LONGEST
from fastgate.errors import ForwardError, Side, Stage
from fastgate.model import NO_BODY, AnswerHead, BodyKind, Field, Framing

# An Enum's attribute costs fifteen times a global's in Python 3.11, and these are read on every request.
_CHUNKED: Final = BodyKind.CHUNKED
_LENGTH: Final = BodyKind.LENGTH
_UNTIL_CLOSE: Final = BodyKind.UNTIL_CLOSE
MAX_HEAD: Final = 64 * 1024
MAX_FIELDS: Final = 256
_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?")
_LENGTH_DIGITS: Final = 18
_SPACE_BEFORE_COLON: Final = re.compile(rb"(?<=\r\n)([^\s:]+)[\t ]+:")
_SWITCHING: Final = 101
_NO_CONTENT: Final = 204
_BODILESS: Final = frozenset({_NO_CONTENT, 304})


def malformed(detail: str) -> ForwardError:
    """The upstream broke HTTP: the client gets 502 and the connection is not used again."""
    return ForwardError(Side.UPSTREAM, Stage.HEAD, detail)


def parse_answer_head(raw: bytes, method: str) -> AnswerHead:
    """Parse one complete answer head to a request with `method`. Raises ForwardError(upstream, head)."""
    return _remembered(raw, method) if len(raw) <= LONGEST else _parse(raw, method)


@lru_cache(maxsize=1024)
def _remembered(raw: bytes, method: str) -> AnswerHead:
    """Parse a head; those of the same resource are the same within a second."""
    return _parse(raw, method)


def _parse(raw: bytes, method: str) -> AnswerHead:
    line_end = raw.index(b"\r\n")
    line = _LINE.fullmatch(raw, 0, line_end)
    if line is None:
        raise malformed("malformed status line")
    fields = _fields(raw, line_end + 2, len(raw) - 2)
    status = int(line[2])
    one: dict[bytes, bytes] = {}
    for key, _, value in fields:
        if key in _WANTED:
            if key not in one:
                one[key] = value
            elif key == b"connection":
                one[key] += b"," + value
            elif key != b"upgrade" and one[key] != value:
                raise malformed(f"conflicting {key.decode('ascii')}")
            elif key == b"transfer-encoding":
                raise malformed("repeated transfer-encoding")
    connection = one.get(b"connection")
    options = [token.strip() for token in connection.lower().split(b",")] if connection else ()
    http_1_0 = line[1] == b"0"
    framing = _framing(status, method, one, http_1_0=http_1_0)
    kept = b"close" not in options and (not http_1_0 or b"keep-alive" in options)
    if status == _NO_CONTENT and (b"transfer-encoding" in one or one.get(b"content-length", b"0") != b"0"):
        kept = False  # it may send what it announced, and it must not: RFC 9112 section 6.3 says that nobody reads it
    return AnswerHead(
        status,
        line[3] or b"",
        fields,
        framing,
        kept and framing.kind is not _UNTIL_CLOSE,
        one.get(b"upgrade", b"").lower() if status == _SWITCHING and b"upgrade" in options else None,
    )


_WANTED: Final = frozenset({b"connection", b"content-length", b"transfer-encoding", b"upgrade"})


def _fields(raw: bytes, start: int, end: int) -> tuple[Field, ...]:
    lines, fields = split_fields(raw, start, end)
    if fields is None:
        # RFC 9112 section 5.1: a proxy removes white space before the colon of an answer; all else is malformed.
        mended = _SPACE_BEFORE_COLON.sub(rb"\1:", raw[start - 2 : end])
        lines, fields = split_fields(mended, 2, len(mended))
        if fields is None:
            raise malformed("malformed header field")
    if len(lines) > MAX_FIELDS:
        raise malformed("too many header fields")
    return fields


def _framing(status: int, method: str, one: dict[bytes, bytes], *, http_1_0: bool) -> Framing:
    """RFC 9112 section 6.3, in its order; both length fields at once are an attack, not a message."""
    coding = one.get(b"transfer-encoding")
    length = one.get(b"content-length")
    if length is not None and (not length.isdigit() or len(length) > _LENGTH_DIGITS):
        raise malformed("invalid Content-Length")
    if coding is not None and (length is not None or http_1_0):
        raise malformed("Transfer-Encoding beside Content-Length or in HTTP/1.0")
    if method == "HEAD" or status < 200 or status in _BODILESS:  # noqa: PLR2004 - 1xx
        return NO_BODY
    if coding is not None:
        if coding.lower() != b"chunked":
            raise malformed("unknown transfer coding")
        return Framing(_CHUNKED)
    if length is not None:
        return Framing(_LENGTH, int(length))
    return Framing(_UNTIL_CLOSE)
