"""Every touch of aiohttp's non-public parts, in one place; `tests/dataplane/test_aiohttp_seam.py` guards them.

aiohttp's `RequestHandler` keeps the connection, feeds its parser, queues the messages and gives each body a stream with
flow control. We take each message from its queue at once, so that its own task per connection has nothing to do.
"""

from typing import Final

import aiohttp
from aiohttp import http_parser
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from fastgate.errors import StartError

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


def feed_head(protocol: RequestHandler, raw: bytes) -> tuple[BaseException | None, StreamReader]:
    """Feed one complete head to aiohttp's parser and take the message it made.

    Returns why the parser refused it (None: it did not), and the stream into which the body will be fed.
    """
    if protocol._parser is not None and protocol._upgraded:
        # It stopped at the end of a request that asked for an upgrade, which was ours to make or to decline.
        protocol._parser.set_upgraded(False)
        protocol._upgraded = False
    RequestHandler.data_received(protocol, raw)
    if not protocol._messages:
        return ConnectionResetError("the connection is closing"), EMPTY_PAYLOAD
    message, payload = protocol._messages.popleft()
    if isinstance(message, _ErrInfo):
        return message.exc, payload
    if protocol._parser is not None:
        protocol._parser.message_consumed()
    return None, payload


def reading_is_paused(protocol: RequestHandler) -> bool:
    """The body's buffer is full: not the client, but whoever reads the body is slow."""
    return protocol._reading_paused
