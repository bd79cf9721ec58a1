"""What answers of the control listeners look like."""

from typing import Any

import orjson
import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

log = structlog.get_logger("fastgate.control")


@web.middleware
async def safely(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every answer is JSON and stays out of caches; what breaks here breaks one answer."""
    try:
        response = await handler(request)
    except web.HTTPException as error:
        allow = {"Allow": error.headers[hdrs.ALLOW]} if hdrs.ALLOW in error.headers else {}
        response = json_answer(error.status, {"message": error.reason}, allow)
    except Exception as error:
        log.exception("admin request failed", route=pattern(request), error=type(error).__name__)
        response = json_answer(500, {"message": "this failed; the event log says why"})
    response.headers[hdrs.CACHE_CONTROL] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def pattern(request: web.Request) -> str:
    """Name the route by its pattern: the path itself is the peer's text."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else ""


def json_answer(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> web.Response:
    """Answer with a JSON object."""
    return web.Response(
        status=status,
        body=orjson.dumps(body, default=str, option=orjson.OPT_APPEND_NEWLINE),
        content_type="application/json",
        headers=headers,
    )
