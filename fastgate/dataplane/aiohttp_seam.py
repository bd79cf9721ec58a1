"""Every touch of aiohttp's non-public parts, in one place; `tests/dataplane/test_aiohttp_seam.py` guards them.

aiohttp's `RequestHandler` keeps the connection and its server knows which are open. It would also parse what arrives,
queue messages and run a task for them; we read heads and bodies ourselves (decisions 1 and 10).
"""

from typing import Final

import aiohttp
from aiohttp import http_parser
from aiohttp.web_protocol import RequestHandler

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


def drop_parser(protocol: RequestHandler) -> None:
    """Messages are read by us: a connection needs no parser of aiohttp's, which would outweigh the rest of it."""
    protocol._parser = None
