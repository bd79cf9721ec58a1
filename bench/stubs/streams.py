"""An origin for large bodies and events: `python -m bench.stubs.streams PORT`.

GET /down/MEGABYTES (?chunked) sends that much of a fixed pattern; PUT /up answers the digest and the size of what it
got; GET /events/COUNT sends server-sent events, each saying when it was sent; GET / answers at once.
"""

import asyncio
import hashlib
import random
import sys
import time
from collections.abc import Iterator
from functools import cache
from itertools import repeat

from aiohttp import web

BLOCK = random.Random(85).randbytes(1_000_000)
"""A megabyte that does not compress."""
EVENT_PAUSE = 0.02


def blocks(megabytes: int) -> Iterator[bytes]:
    """The pattern, a megabyte at a time."""
    return repeat(BLOCK, megabytes)


@cache
def digest(megabytes: int) -> str:
    """SHA-256 of that much of the pattern."""
    whole = hashlib.sha256()
    for _ in range(megabytes):
        whole.update(BLOCK)
    return whole.hexdigest()


async def _down(request: web.Request) -> web.StreamResponse:
    megabytes = int(request.match_info["megabytes"])
    answer = web.StreamResponse()
    if "chunked" not in request.query:
        answer.content_length = megabytes * len(BLOCK)
    await answer.prepare(request)
    for block in blocks(megabytes):
        await answer.write(block)
    await answer.write_eof()
    return answer


async def _up(request: web.Request) -> web.Response:
    whole, octets = hashlib.sha256(), 0
    async for piece in request.content.iter_any():
        whole.update(piece)
        octets += len(piece)
    return web.json_response({"sha256": whole.hexdigest(), "octets": octets})


async def _events(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    await answer.prepare(request)
    for _ in range(int(request.match_info["count"])):
        await asyncio.sleep(EVENT_PAUSE)
        await answer.write(b"data: %d\n\n" % time.monotonic_ns())
    await answer.write_eof()
    return answer


async def _root(_: web.Request) -> web.Response:
    return web.Response(text="here")


def application() -> web.Application:
    """Make the server."""
    app = web.Application()
    app.add_routes(
        [
            web.get("/", _root),
            web.get("/down/{megabytes}", _down),
            web.put("/up", _up),
            web.get("/events/{count}", _events),
        ],
    )
    return app


if __name__ == "__main__":
    port = int(sys.argv[1])
    web.run_app(application(), host="127.0.0.1", port=port, access_log=None, print=None, shutdown_timeout=0.1)
