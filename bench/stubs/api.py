"""The API behind the gateway under load, in httpbin's words: `python -m bench.stubs.api PORT`.

GET /bytes/N sends N octets, GET /stream-bytes/N?chunk_size=M the same in chunks; /anything repeats a text body as
`data`.
"""

import sys

from aiohttp import web

PATTERN = bytes(range(256)) * 4096
"""A megabyte: the most that is sent."""


async def _bytes(request: web.Request) -> web.Response:
    return web.Response(body=PATTERN[: int(request.match_info["octets"])])


async def _stream(request: web.Request) -> web.StreamResponse:
    octets, size = int(request.match_info["octets"]), int(request.query.get("chunk_size", "10240"))
    answer = web.StreamResponse()
    answer.enable_chunked_encoding()
    await answer.prepare(request)
    for start in range(0, octets, size):
        await answer.write(PATTERN[start : min(start + size, octets)])
    await answer.write_eof()
    return answer


async def _anything(request: web.Request) -> web.Response:
    return web.json_response({"method": request.method, "data": await request.text()})


def application() -> web.Application:
    """Make the server."""
    app = web.Application()
    app.router.add_get(r"/bytes/{octets:\d+}", _bytes)
    app.router.add_get(r"/stream-bytes/{octets:\d+}", _stream)
    app.router.add_route("*", "/anything{rest:.*}", _anything)
    return app


if __name__ == "__main__":
    web.run_app(application(), host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
