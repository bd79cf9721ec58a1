"""An echo service: says what arrived, so that one can see what the gateway forwards."""

import asyncio
from typing import Any, Final

import orjson
from aiohttp import hdrs, web

MAX_ECHO: Final = 64 * 1024
"""Octets of a body that are repeated; the length is always counted."""
MAX_LINES: Final = 10_000


def echo_application() -> web.Application:
    """Build the service: every path is echoed, three are special."""
    app = web.Application()
    app.router.add_route("*", "/status/{code:[2-5][0-9][0-9]}", _status)
    app.router.add_get("/stream/{lines:[0-9]{1,5}}", _stream)
    app.router.add_get("/sse", _events)
    app.router.add_route("*", "/{anything:.*}", _anything)
    return app


async def _anything(request: web.Request) -> web.Response:
    """Say what arrived."""
    length, start = 0, bytearray()
    async for piece in request.content.iter_any():
        length += len(piece)
        start += piece[: MAX_ECHO - len(start)]
    return _json({**_described(request), "length": length, "data": start.decode(errors="replace")})


async def _status(request: web.Request) -> web.Response:
    """Answer with the status that was asked for."""
    return web.Response(status=int(request.match_info["code"]))


async def _stream(request: web.Request) -> web.StreamResponse:
    """Send so many lines of JSON, chunk by chunk."""
    response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "application/json"})
    await response.prepare(request)
    described = _described(request)
    for number in range(min(int(request.match_info["lines"]), MAX_LINES)):
        await response.write(_dumps({"id": number, **described}))
    return response


async def _events(request: web.Request) -> web.StreamResponse:
    """Send `count` server-sent events (default: until the client goes), one every `interval` seconds."""
    try:
        count = int(request.query.get("count", "-1"))
        interval = min(max(float(request.query.get("interval", "1")), 0.0), 60.0)
    except ValueError:
        raise web.HTTPBadRequest(text="count and interval must be numbers\n") from None
    response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "text/event-stream", hdrs.CACHE_CONTROL: "no-store"})
    await response.prepare(request)
    number = 0
    while number != count:
        await response.write(f"id: {number}\ndata: event {number}\n\n".encode())
        number += 1
        if number != count:
            await asyncio.sleep(interval)
    return response


def _described(request: web.Request) -> dict[str, Any]:
    return {
        "method": request.method,
        "url": str(request.url),
        "path": request.rel_url.raw_path,
        "args": _joined(request.query.items()),
        "headers": _joined(request.headers.items()),
    }


def _joined(pairs: Any) -> dict[str, str]:
    """Pairs as a mapping; what is repeated is joined with a comma."""
    joined: dict[str, str] = {}
    for name, value in pairs:
        joined[name] = f"{joined[name]},{value}" if name in joined else value
    return joined


def _json(body: dict[str, Any]) -> web.Response:
    return web.Response(body=_dumps(body, orjson.OPT_INDENT_2), content_type="application/json")


def _dumps(body: dict[str, Any], option: int = 0) -> bytes:
    return orjson.dumps(_printable(body), option=option | orjson.OPT_APPEND_NEWLINE)


def _printable(value: Any) -> Any:
    """Escape lone surrogates, which JSON cannot carry: header octets that are not UTF-8 come as those."""
    if isinstance(value, dict):
        return {_printable(name): _printable(each) for name, each in value.items()}
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
