"""Every touch of aiohttp's non-public parts, in one place; `tests/dataplane/test_aiohttp_seam.py` guards them.

aiohttp's `RequestHandler` feeds its parser, queues the messages, gives each body a stream with flow control, and runs
one task per connection: `start`. Ours waits for those messages with `next_message`.
"""

from contextlib import suppress
from typing import Final

import aiohttp
from aiohttp import http_parser
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from fastgate.errors import HeadError, StartError

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


async def next_message(protocol: RequestHandler) -> StreamReader:
    """Wait for the parser's next message and take it from the queue; returns its body."""
    if not protocol._messages:
        protocol._waiter = protocol._loop.create_future()
        try:
            await protocol._waiter
        finally:
            protocol._waiter = None
    _, payload = protocol._messages.popleft()
    if protocol._parser is not None:
        protocol._parser.message_consumed()
        if protocol._upgraded:
            # The parser has stopped at an upgrade that is ours to make or to decline.
            protocol._parser.set_upgraded(False)
            protocol._upgraded = False
    return payload


def queue_refusal(protocol: RequestHandler, error: HeadError) -> None:
    """Queue a message that stands for a refused head, so that its answer waits for those before it."""
    protocol._messages.append((_ErrInfo(status=error.status, exc=error, message=error.detail), EMPTY_PAYLOAD))
    waiter = protocol._waiter
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


def newest_message(protocol: RequestHandler) -> tuple[BaseException | None, StreamReader]:
    """Why aiohttp's parser refused the head it was just fed (None: it did not), and the body of the message."""
    if not protocol._messages:
        return ConnectionResetError("the connection is closing"), EMPTY_PAYLOAD
    message, payload = protocol._messages[-1]
    return (message.exc if isinstance(message, _ErrInfo) else None), payload


async def drained(protocol: RequestHandler) -> None:
    """Wait until the client has taken what was written, or is lost."""
    with suppress(ConnectionError):
        await protocol._drain_helper()


def reading_is_paused(protocol: RequestHandler) -> bool:
    """The body's buffer is full: not the client, but whoever reads the body is slow."""
    return protocol._reading_paused
