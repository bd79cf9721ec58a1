"""Every touch of aiohttp's non-public parts, in one place; `tests/dataplane/test_aiohttp_seam.py` guards them.

aiohttp's `RequestHandler` runs one task per connection: it takes parsed messages from a queue, asks a handler for an
answer and then `prepare`s and writes it. We keep that life cycle and give it two small objects of our own, because
our answers are written straight to the transport.
"""

from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import aiohttp
from aiohttp import http_parser, web
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from fastgate.errors import HeadError, StartError

if TYPE_CHECKING:
    from aiohttp.http import RawRequestMessage

SUPPORTED: Final = ((3, 14, 2), (3, 15))
"""aiohttp versions this module was written for: from the first, before the second."""


def check_aiohttp() -> None:
    """Refuse to start on an aiohttp this module does not know, or on its pure-Python parser. Raises StartError."""
    version = tuple(int(part) for part in aiohttp.__version__.split(".")[:3] if part.isdigit())
    if not SUPPORTED[0] <= version < SUPPORTED[1]:
        raise StartError(
            f"aiohttp {aiohttp.__version__} is not supported: install one with `pip install 'aiohttp>=3.14.2,<3.15'`"
        )
    if not _parser_is_compiled():
        raise StartError(
            "aiohttp runs on its pure-Python parser: unset AIOHTTP_NO_EXTENSIONS and reinstall aiohttp from a wheel"
        )


def _parser_is_compiled() -> bool:
    # aiohttp exports the C class under the public name when its extension was imported.
    return http_parser.HttpRequestParser is not http_parser.HttpRequestParserPy


class Turn:
    """What `RequestHandler.start` needs of the request it made through `request_factory`."""

    __slots__ = ("_task", "payload")

    def __init__(self, payload: StreamReader) -> None:
        self.payload = payload
        self._task: Any = None

    def _finish(self) -> None:
        """aiohttp releases uploaded files here; there are none."""

    def _cancel(self, exc: BaseException) -> None:
        """The connection is lost: whoever reads the body is told."""
        if isinstance(exc, Exception) and not isinstance(exc, ConnectionError):
            exc = ConnectionResetError(f"the connection broke: {type(exc).__name__}")
        self.payload.set_exception(exc)


class Writes(Protocol):
    """Who has the last word on an answer that is already on its way."""

    async def finish_answer(self, *, keep_alive: bool, linger: bool) -> None:
        """The answer was written completely."""


class Answered:
    """What `RequestHandler` needs of a response; ours is already written when it asks."""

    __slots__ = ("_linger", "_writes", "keep_alive")

    def __init__(self, writes: Writes, *, keep_alive: bool, linger: bool = False) -> None:
        self._writes = writes
        self._linger = linger
        self.keep_alive = keep_alive

    async def prepare(self, request: object) -> None:
        """Nothing: the head is written."""

    async def write_eof(self) -> None:
        """Let the connection take the next request, or part kindly."""
        await self._writes.finish_answer(keep_alive=self.keep_alive, linger=self._linger)

    def as_response(self) -> web.StreamResponse:
        """Ourselves, under the type aiohttp's signatures name."""
        return cast("web.StreamResponse", self)


def queue_refusal(protocol: RequestHandler, error: HeadError) -> None:
    """Have `protocol.handle_error` called with `error`, after the answers that are due before it."""
    protocol._messages.append((_ErrInfo(status=error.status, exc=error, message=error.detail), EMPTY_PAYLOAD))
    waiter = protocol._waiter
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


def newest_message(protocol: RequestHandler) -> "tuple[RawRequestMessage | None, StreamReader]":
    """The message aiohttp's parser queued last; None instead of it when the octets were refused, or came too late."""
    message, payload = protocol._messages[-1] if protocol._messages else (None, EMPTY_PAYLOAD)
    return (None if isinstance(message, _ErrInfo) else message), payload


async def drained(protocol: RequestHandler) -> None:
    """Wait until the client has taken what was written. Raises ConnectionError when it is lost."""
    await protocol._drain_helper()


def reading_is_paused(protocol: RequestHandler) -> bool:
    """The body's buffer is full: not the client, but whoever reads the body is slow."""
    return protocol._reading_paused
