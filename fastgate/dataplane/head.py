"""From the octets of a request head to a `RequestHead`, or the status it is refused with (RFC 9112, strictly).

A reader of our own, because a gateway may not be laxer than any upstream behind it, and because it keeps what others
drop (the target as sent, the exact request line).
"""

import re
from functools import lru_cache
from typing import Final, NamedTuple

from fastgate.errors import HeadError
from fastgate.model import NO_BODY, BodyKind, Field, Framing, Limits, RequestHead

TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
FIELD: Final = re.compile(rb"(" + TOKEN + rb"):([\t\x20-\x7e\x80-\xff]*)\r\n")
"""A field line (RFC 9112 section 5): no space before the colon, no folding, no control characters."""
_FIELDS: Final = re.compile(rb"(?<=\n)" + FIELD.pattern)
"""The same, tried only where a line begins: a long line that is no field costs its length, not its square."""
_LINE: Final = re.compile(rb"(" + TOKEN + rb") ([\x21\x22\x24-\x5b\x5d-\x7e]+) HTTP/1\.([01])")
"""No raw octet outside ASCII, no space, fragment or backslash in the target (RFC 9112 section 3.2)."""
_OTHER_VERSION: Final = re.compile(rb"\S+ \S+ HTTP/(?!1\.[01])\d\.\d")
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_AUTHORITY: Final = re.compile(r"(?:[a-z0-9._~%\-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?")
_ABSOLUTE: Final = re.compile(r"https?://([^/?#]*)(.*)", re.IGNORECASE)
_METHODS: Final = frozenset(
    (
        *("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PURGE", "PUT", "SEARCH"),
        # WebDAV and its kin
        *("ACL", "BIND", "CHECKOUT", "COPY", "LINK", "LOCK", "MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL", "MOVE"),
        *("PROPFIND", "PROPPATCH", "REBIND", "REPORT", "UNBIND", "UNLINK", "UNLOCK"),
    )
)
"""Methods that are served: not CONNECT and TRACE."""
_MAX_PORT: Final = 65535
_LENGTH_DIGITS: Final = 18
"""Keeps a length far below 2**63 for whoever reads it next."""
_MEMORABLE: Final = 4096
"""Octets of a header section worth keeping while a connection rests: ten thousand of them may."""


def find_head_end(buffer: bytes | bytearray, limits: Limits, seen: int = 0) -> int:
    """Where the head in `buffer` ends, -1 while it is incomplete; raises HeadError when it can never be one.

    `seen` octets were looked at before: they are not searched again, so that a head that drips in costs no square.
    """
    start = max(0, seen - 3)
    end = buffer.find(b"\r\n\r\n", start)
    if end >= 0 and end + 4 <= limits.header_section + limits.request_line:
        return end + 4
    if end < 0:
        _refuse_hopeless(buffer, limits, start)
        return -1
    raise HeadError(431, "header section too large")


def _refuse_hopeless(buffer: bytes | bytearray, limits: Limits, start: int) -> None:
    if _BARE_LF.search(buffer, start):
        raise HeadError(400, "bare LF as line end")
    if buffer and buffer[0] <= 0x20:  # noqa: PLR2004 - white space or a TLS handshake, never a method
        raise HeadError(400, "not a request line")
    line_end = buffer.find(b"\r\n")
    if (len(buffer) if line_end < 0 else line_end) > limits.request_line:
        raise HeadError(414, "request line too long")
    if len(buffer) > limits.header_section + limits.request_line:
        raise HeadError(431, "header section too large")


class _Section(NamedTuple):
    """What a header section says, whatever request line stands before it."""

    fields: tuple[Field, ...]
    host: bytes | None
    framing: Framing
    keep_alive: bool
    upgrade: bytes | None
    expects_continue: bool


class HeadParser:
    """Parses the heads of one connection; remembers the last header section, because clients repeat theirs."""

    __slots__ = ("_limits", "_octets", "_peer", "_port", "_scheme", "_section", "_version")

    def __init__(self, limits: Limits, *, scheme: str, peer: str, port: int) -> None:
        self._limits = limits
        self._scheme = scheme
        self._peer = peer
        self._port = port
        self._octets = b""
        self._version = b""
        self._section: _Section | None = None

    def parse(self, raw: bytes) -> RequestHead:
        """Parse one complete head, its final empty line included. Raises HeadError with the status it deserves."""
        line_end = raw.index(b"\r\n")
        line = _LINE.fullmatch(raw, 0, line_end)
        if line_end > self._limits.request_line:
            raise HeadError(414, "request line too long")
        if line is None:
            raise _refuse_line(raw, line_end)
        octets, version = raw[line_end:], line[3]
        section = self._section
        if section is None or octets != self._octets or version != self._version:
            section = _parse_section(raw, line_end + 2, self._limits, http_1_0=version == b"0")
            if len(octets) <= _MEMORABLE:
                self._octets, self._version, self._section = octets, version, section
        fields, host, framing, keep_alive, upgrade, expects_continue = section
        method, http_1_0 = line[1].decode("ascii"), version == b"0"
        authority, target = _resolve_target(method, line[2].decode("ascii"), host, http_1_0=http_1_0)
        path, mark, query = target.partition("?")
        return RequestHead(
            method,
            target.encode("ascii"),
            path,
            query if mark else None,
            http_1_0,
            authority,
            fields,
            framing,
            keep_alive,
            upgrade,
            expects_continue,
            self._scheme,
            self._peer,
            self._port,
        )


def parse_request_head(raw: bytes, *, limits: Limits, scheme: str, peer: str, port: int) -> RequestHead:
    """Parse a head that stands alone. Raises HeadError."""
    return HeadParser(limits, scheme=scheme, peer=peer, port=port).parse(raw)


def _refuse_line(raw: bytes, line_end: int) -> HeadError:
    if _OTHER_VERSION.fullmatch(raw, 0, line_end):
        return HeadError(505, "not HTTP/1.0 or HTTP/1.1")
    return HeadError(400, "malformed request line")


def _parse_section(raw: bytes, start: int, limits: Limits, *, http_1_0: bool) -> _Section:
    fields = parse_fields(raw, start, len(raw) - 2, limits)
    one = _single_values(fields)
    options = [token.strip().lower() for token in one.get(b"connection", b"").split(b",")]
    framing = request_framing(one, http_1_0=http_1_0)
    upgrading = b"upgrade" in options and not http_1_0 and framing.kind is BodyKind.NONE
    return _Section(
        fields=fields,
        host=one.get(b"host"),
        framing=framing,
        keep_alive=b"close" not in options and (not http_1_0 or b"keep-alive" in options),
        upgrade=one.get(b"upgrade", b"").lower() or None if upgrading else None,
        expects_continue=_expects_continue(one.get(b"expect"), http_1_0=http_1_0),
    )


def parse_fields(raw: bytes, start: int, end: int, limits: Limits) -> tuple[Field, ...]:
    """Every field line of a section between two offsets; raises HeadError 400 or 431."""
    lines, fields = split_fields(raw, start, end)
    if fields is None:
        raise HeadError(400, "malformed header field")
    if len(lines) > limits.header_count:
        raise HeadError(431, "too many header fields")
    if end - start > limits.header_field:
        # Only a section this large can hold a line that is too long.
        for name, value in lines:
            if len(name) + len(value) > limits.header_field:
                raise HeadError(431, "header field too large")
        if end - start > limits.header_section:
            raise HeadError(431, "header section too large")
    return fields


def split_fields(raw: bytes, start: int, end: int) -> tuple[list[tuple[bytes, bytes]], tuple[Field, ...] | None]:
    """Split a section into its lines and their fields; None when not every octet belongs to a well-formed line."""
    lines = _FIELDS.findall(raw, start, end)
    taken = 0
    fields = []
    for name, value in lines:
        taken += len(name) + len(value) + 3
        fields.append((name.lower(), name, value.strip(b" \t")))
    return lines, tuple(fields) if taken == end - start else None


_ONCE: Final = frozenset(
    (
        *(b"content-length", b"expect", b"host", b"transfer-encoding", b"upgrade"),
        # Two of these say two things about one message, and servers differ in which they hear.
        *(b"content-location", b"content-range", b"content-type", b"etag", b"max-forwards", b"server", b"user-agent"),
    )
)
_WANTED: Final = _ONCE | {b"connection"}


def _single_values(fields: tuple[Field, ...]) -> dict[bytes, bytes]:
    """Collect the fields that frame and steer a message; a second line of one that may stand once is refused."""
    one: dict[bytes, bytes] = {}
    for key, _, value in fields:
        if key in _WANTED:
            if key not in one:
                one[key] = value
            elif key in _ONCE:
                raise HeadError(400, f"repeated {key.decode('ascii')}")
            else:
                one[key] += b"," + value
    return one


def _resolve_target(method: str, target: str, host: bytes | None, *, http_1_0: bool) -> tuple[str, str]:
    """Return (authority, origin-form target). An absolute-form target's authority wins (RFC 9112 section 3.2.2)."""
    if method not in _METHODS:
        raise HeadError(501, "method not served")
    authority = _authority(host, required=not http_1_0)
    if target[0] == "/":
        return authority, target
    if target == "*":
        if method != "OPTIONS":
            raise HeadError(400, "asterisk-form is for OPTIONS")
        return authority, target
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise HeadError(400, "target is neither origin-form nor absolute-form")
    authority = _authority(absolute[1].encode("ascii"), required=True)
    rest = absolute[2]
    if rest.startswith("/"):
        return authority, rest
    if not rest and method == "OPTIONS":
        return authority, "*"
    return authority, "/" + rest


@lru_cache(maxsize=1024)
def _authority(value: bytes | None, *, required: bool) -> str:
    if value is None and not required:
        return ""
    text = "" if value is None else value.decode("latin-1").lower()
    match = _AUTHORITY.fullmatch(text)
    if match is None or (match[1] is not None and int(match[1]) > _MAX_PORT):
        raise HeadError(400, "missing or invalid Host")
    return text


def request_framing(one: dict[bytes, bytes], *, http_1_0: bool) -> Framing:
    """How long the request's body is (RFC 9112 section 6.3); anything in doubt is refused."""
    coding = one.get(b"transfer-encoding")
    length = one.get(b"content-length")
    if coding is not None:
        if length is not None:
            raise HeadError(400, "Content-Length and Transfer-Encoding")
        if http_1_0:
            raise HeadError(400, "Transfer-Encoding in HTTP/1.0")
        codings = [each.strip() for each in coding.lower().split(b",")]
        if codings == [b"chunked"]:
            return Framing(BodyKind.CHUNKED)
        if b"" in codings or b"chunked" in codings[:-1]:
            raise HeadError(400, "chunked is not the last transfer coding, or not named once")
        raise HeadError(501, "unknown transfer coding")
    if length is not None:
        if not length.isdigit() or len(length) > _LENGTH_DIGITS:
            raise HeadError(400, "invalid Content-Length")
        return Framing(BodyKind.LENGTH, int(length))
    return NO_BODY


def _expects_continue(value: bytes | None, *, http_1_0: bool) -> bool:
    """RFC 9110 section 10.1.1: the expectation is ignored in HTTP/1.0, an unknown one fails."""
    if value is None or http_1_0:
        return False
    if value.lower() != b"100-continue":
        raise HeadError(417, "unknown expectation")
    return True
