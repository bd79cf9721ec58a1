"""The chunked coding as a pure state machine (RFC 9112 section 7.1), strict in both directions."""

import re
from typing import Final

from fastgate.dataplane.head import FIELD
from fastgate.model import Field

_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[\t ]*;[\t\x20-\x7e\x80-\xff]*)?")
_MAX_LINE: Final = 4096
"""Octets of one chunk-size line, extensions included."""
_MAX_EXTENSIONS: Final = 16 * 1024
"""Octets of all chunk extensions of a body."""
_MAX_TRAILERS: Final = 16 * 1024
_MAX_TRAILER_COUNT: Final = 64


class FramingError(ValueError):
    """The octets cannot be a chunked body."""


class ChunkedDecoder:
    """Takes octets as they come; gives the body's octets and, once complete, the trailers and what is left over."""

    __slots__ = ("_expect", "_extensions", "_left", "_line", "_trailer_size", "complete", "trailers")

    def __init__(self) -> None:
        self.complete = False
        self.trailers: tuple[Field, ...] = ()
        self._expect = self._size_line
        self._left = 0
        """Octets of the current chunk still to come, its CRLF included."""
        self._line = b""
        """A line that has begun but not ended."""
        self._extensions = 0
        self._trailer_size = 0

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return (body octets, octets after the end of the body). Raises FramingError."""
        body: list[bytes] = []
        position = 0
        size = len(data)
        while position < size and not self.complete:
            position = self._take_chunk(data, position, body) if self._left else self._take_line(data, position)
        return b"".join(body) if len(body) != 1 else body[0], data[position:]

    def _take_chunk(self, data: bytes, position: int, body: list[bytes]) -> int:
        payload = min(self._left - 2, len(data) - position)
        if payload > 0:
            body.append(data[position : position + payload])
            self._left -= payload
            position += payload
        while self._left <= 2 and self._left and position < len(data):  # noqa: PLR2004 - the CRLF of the chunk
            if data[position] != (0x0D if self._left == 2 else 0x0A):  # noqa: PLR2004
                raise FramingError("chunk data does not end with CRLF")
            self._left -= 1
            position += 1
        return position

    def _take_line(self, data: bytes, position: int) -> int:
        end = data.find(b"\n", position)
        line = self._line + (data[position:] if end < 0 else data[position : end + 1])
        if len(line) > _MAX_LINE:
            raise FramingError("chunk-size or trailer line too long")
        if end < 0:
            self._line = line
            return len(data)
        if not line.endswith(b"\r\n"):
            raise FramingError("bare LF in the chunked coding")
        self._line = b""
        self._expect(line)
        return end + 1

    def _size_line(self, line: bytes) -> None:
        match = _SIZE.fullmatch(line, 0, len(line) - 2)
        if match is None:
            raise FramingError("invalid chunk size")
        self._extensions += len(line) - 2 - match.end(1)
        if self._extensions > _MAX_EXTENSIONS:
            raise FramingError("too many chunk extensions")
        chunk = int(match[1], 16)
        if chunk:
            self._left = chunk + 2
        else:
            self._expect = self._trailer_line

    def _trailer_line(self, line: bytes) -> None:
        if line == b"\r\n":
            self.complete = True
            return
        match = FIELD.fullmatch(line)
        self._trailer_size += len(line)
        if match is None:
            raise FramingError("malformed trailer field")
        if self._trailer_size > _MAX_TRAILERS or len(self.trailers) >= _MAX_TRAILER_COUNT:
            raise FramingError("too many trailer fields")
        self.trailers += ((match[1].lower(), match[1], match[2].strip(b" \t")),)


def chunk(data: bytes) -> bytes:
    """One chunk holding `data`, which may not be empty: an empty chunk would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def last_chunk(trailers: bytes = b"") -> bytes:
    """The end of a chunked body; `trailers` are complete field lines."""
    return b"0\r\n%b\r\n" % trailers
