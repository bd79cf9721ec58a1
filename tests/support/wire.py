"""Strict HTTP/1.1 reading over asyncio streams, shared by the raw client and the recording upstream.

Strict on purpose: what a lenient peer would forgive (bare LF, a missing terminator, a wrong length) is what
the tests are looking for, so it raises `Broken` with everything read so far.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*((?:[^\x00-\x08\x0a-\x1f\x7f]*[^\x00-\x20\x7f])?)[ \t]*")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})((?:[ \t]*;[^\r\n]*)?)\r\n")
_BLOCK = 256 * 1024


class Broken(Exception):  # noqa: N818 - reads as a statement about the message
    """The peer's message breaks RFC 9112, or ended before its framing said so."""

    def __init__(self, why: str, so_far: bytes | bytearray) -> None:
        super().__init__(f"{why}; read so far: {bytes(so_far[-300:])!r}")
        self.why = why
        self.so_far = bytes(so_far)


@dataclass(slots=True)
class Message:
    """The head of a request or an answer, byte for byte, and its body once it was read."""

    start: bytes
    """The start line without CRLF."""
    fields: list[tuple[bytes, bytes]]
    """(name, value) as received, in order."""
    raw_head: bytes
    """Every octet from the start line to the blank line."""
    body: bytes = b""
    """Decoded: without chunk framing."""
    raw_body: bytes = b""
    """Every octet of the body as framed."""
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        """Every value of this header, in order; the name in any spelling."""
        wanted = name.lower().encode()
        return [value.decode("latin-1") for key, value in self.fields if key.lower() == wanted]

    def one(self, name: str) -> str | None:
        """Return the value of a header that may occur once at most."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} occurs {len(values)} times: {values}"
        return values[0] if values else None


def parse_head(raw: bytes) -> Message:
    """Split a head that ends in a blank line; raises Broken for what RFC 9112 section 5 does not allow."""
    lines = raw[: -len(b"\r\n\r\n")].split(b"\r\n")
    fields = []
    for line in lines[1:]:
        match = _FIELD.fullmatch(line)
        if match is None:
            raise Broken(f"bad field line {line!r}", raw)
        fields.append((match[1], match[2]))
    if b"\n" in lines[0] or b"\r" in lines[0]:
        raise Broken("bare CR or LF in the start line", raw)
    return Message(lines[0], fields, raw)


async def read_head(reader: asyncio.StreamReader) -> bytes | None:
    """Read one head with its blank line; None when the peer ended cleanly before its first octet."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            return None
        raise Broken("ended inside a head", error.partial) from None
    except asyncio.LimitOverrunError:
        raise Broken("head over the reader's limit", b"") from None


async def read_blocks(reader: asyncio.StreamReader, length: int) -> AsyncIterator[bytes]:
    """Yield exactly `length` octets as they arrive."""
    left = length
    while left:
        block = await reader.read(min(left, _BLOCK))
        if not block:
            raise Broken(f"ended {left} octets before its length", b"")
        left -= len(block)
        yield block


async def read_length(reader: asyncio.StreamReader, message: Message, length: int) -> None:
    """Read a body of `length` octets into the message."""
    body = bytearray()
    try:
        async for block in read_blocks(reader, length):
            body += block
    except Broken as error:
        raise Broken(error.why, bytes(body)) from None
    finally:
        message.body = message.raw_body = bytes(body)


async def read_chunked(reader: asyncio.StreamReader, message: Message) -> None:
    """Read a chunked body and its trailers into the message (RFC 9112 section 7.1)."""
    raw, body = bytearray(), bytearray()
    try:
        while (size := await _chunk_size(reader, raw)) > 0:
            async for block in read_blocks(reader, size):
                raw += block
                body += block
            if await _line(reader, raw) != b"\r\n":
                raise Broken("chunk data does not end where its size says", raw)
        while (got := await _line(reader, raw)) != b"\r\n":
            match = _FIELD.fullmatch(got[:-2])
            if match is None:
                raise Broken(f"bad trailer {got!r}", raw)
            message.trailers.append((match[1], match[2]))
    finally:
        message.body, message.raw_body = bytes(body), bytes(raw)


async def _chunk_size(reader: asyncio.StreamReader, raw: bytearray) -> int:
    match = _CHUNK_SIZE.fullmatch(await _line(reader, raw))
    if match is None:
        raise Broken("bad chunk size line", raw)
    return int(match[1], 16)


async def _line(reader: asyncio.StreamReader, raw: bytearray) -> bytes:
    try:
        got = await reader.readuntil(b"\r\n")
    except asyncio.IncompleteReadError as error:
        raw += error.partial
        raise Broken("ended inside chunk framing", raw) from None
    raw += got
    return got


def framing_of(message: Message) -> int | str | None:
    """Say what the head states about its body: octets, "chunked" or None. Ambiguity raises Broken."""
    lengths, codings = message.all("content-length"), message.all("transfer-encoding")
    if lengths and codings:
        raise Broken("both Content-Length and Transfer-Encoding", message.raw_head)
    if len(lengths) > 1 or len(codings) > 1:
        raise Broken("framing stated twice", message.raw_head)
    if codings:
        if codings[0].lower() != "chunked":
            raise Broken(f"unknown coding {codings[0]!r}", message.raw_head)
        return "chunked"
    if lengths:
        if not re.fullmatch(r"[0-9]{1,18}", lengths[0]):
            raise Broken(f"bad Content-Length {lengths[0]!r}", message.raw_head)
        return int(lengths[0])
    return None
