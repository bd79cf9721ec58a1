"""The operators' listener: health, metrics, status, revocation, reload. Never on the public port."""

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Protocol

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from fastgate.control.answers import json_answer, pattern, safely
from fastgate.control.events import PREFIX, add_event_routes
from fastgate.control.metrics import CONTENT_TYPE, Processes, exposition
from fastgate.control.revocation import MAX_BODY, RevocationError, parse_revocation
from fastgate.errors import ConfigError, FastgateError
from fastgate.stats import Counter, Stats
from fastgate.tokens.notifications import Notifications


class Operations(Protocol):
    """What an operator can see and steer: one worker (`app.App`), or all of them (`supervisor.operations`)."""

    @property
    def stats(self) -> Stats:
        """Everything that is counted."""
        ...

    @property
    def notifications(self) -> Notifications:
        """Who may tell of logouts and security events."""
        ...

    @property
    def admin_token(self) -> str | None:
        """The bearer token that requests must carry; None: everybody who reaches the listener may."""
        ...

    async def refresh(self) -> None:
        """Learn what the others know, as far as they answer soon: what is said below is then of this moment."""
        ...

    def gauges(self) -> Iterable[Counter]:
        """Read what is measured when asked (kind "gauge"), such as the entries of the memory tier."""
        ...

    def processes(self) -> Processes:
        """Name the processes that the gateway consists of."""
        ...

    def readiness(self) -> list[str]:
        """Say why the gateway should get no requests now; empty: it should."""
        ...

    def missing(self) -> list[str]:
        """Say what is not as it should be although requests may come."""
        ...

    def status(self) -> dict[str, Any]:
        """Describe the gateway in values that JSON knows."""
        ...

    async def revoke(
        self,
        *,
        token: str | None = None,
        sub: str | None = None,
        sid: str | None = None,
        client_id: str | None = None,
        all: bool = False,  # noqa: A002  # the word of the API
    ) -> int:
        """Forget and refuse what is named, in every worker; exactly one argument is given.

        Returns how many token states went, in all workers together: one token that two of them knew is two. For a
        token it is 1, known or not. Raises FastgateError when no more can be noted.
        """
        ...

    async def told(self) -> bool | None:
        """Whether every revocation has reached what all workers and hosts share; None when nothing is shared."""
        ...

    async def reload(self) -> dict[str, Any]:
        """Take a new configuration whole or not at all; raises ConfigError with every problem."""
        ...


def admin_application(operations: Operations) -> web.Application:
    """Build the application; run it on the admin address, behind no other middleware."""
    app = web.Application(middlewares=[safely, _guard(operations)], client_max_size=MAX_BODY)
    app.router.add_get("/livez", _livez)
    app.router.add_get("/readyz", _on(operations, _readyz))
    app.router.add_get("/metrics", _on(operations, _metrics))
    app.router.add_get("/status", _on(operations, _status))
    app.router.add_post("/tokens/revoke", _on(operations, _revoke))
    app.router.add_post("/config/reload", _on(operations, _reload))
    add_event_routes(app.router, operations)
    return app


# --- what is asked ------------------------------------------------------------------------------------------


async def _livez(_request: web.Request) -> web.Response:
    return json_answer(200, {"status": "alive"})


async def _readyz(_request: web.Request, operations: Operations) -> web.Response:
    await operations.refresh()
    reasons = operations.readiness()
    if reasons:
        return json_answer(503, {"status": "unready", "reasons": reasons})
    missing = operations.missing()
    return json_answer(200, {"status": "ready"} | ({"missing": missing} if missing else {}))


async def _metrics(_request: web.Request, operations: Operations) -> web.Response:
    await operations.refresh()
    gauges = tuple(operations.gauges())
    body = await asyncio.to_thread(exposition, operations.stats, gauges, operations.processes())
    return web.Response(body=body, headers={hdrs.CONTENT_TYPE: CONTENT_TYPE})


async def _status(_request: web.Request, operations: Operations) -> web.Response:
    await operations.refresh()
    return json_answer(200, operations.status())


async def _revoke(request: web.Request, operations: Operations) -> web.Response:
    # A web page can make a browser send a form or plain text here, but not JSON without asking first (CORS).
    if request.content_type != "application/json":
        return json_answer(415, {"message": "Content-Type must be application/json"})
    try:
        body = await request.read()
    except web.HTTPRequestEntityTooLarge:
        return json_answer(400, {"message": f"body is larger than {MAX_BODY} octets"})
    try:
        named = parse_revocation(body)
    except RevocationError as problem:
        return json_answer(400, {"message": str(problem)})
    try:
        revoked = await operations.revoke(**named)
    except FastgateError as error:
        return json_answer(503, {"message": str(error)})
    told = await operations.told()
    return json_answer(200, {"revoked": revoked} if told is None else {"revoked": revoked, "shared": told})


async def _reload(_request: web.Request, operations: Operations) -> web.Response:
    try:
        return json_answer(200, await operations.reload())
    except ConfigError as error:
        problems = [{"path": p.path, "line": p.line, "message": p.message} for p in error.problems]
        return json_answer(422, {"message": "nothing was changed", "file": error.file, "problems": problems})
    except FastgateError as error:
        return json_answer(422, {"message": "nothing was changed", "problems": [{"message": str(error)}]})


# --- who may ask, and what answers look like ----------------------------------------------------------------


def _guard(operations: Operations) -> Middleware:
    """Let health probes pass, and what proves itself by a signature; all else needs the admin token if there is one."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        is_open = request.path in OPEN or pattern(request).startswith(PREFIX)
        if not is_open and not _authorized(request, operations.admin_token):
            return json_answer(
                401,
                {"message": "this needs the admin token: Authorization: Bearer ..."},
                {hdrs.WWW_AUTHENTICATE: 'Bearer realm="fastgate admin"'},
            )
        # A page whose name was rebound to our address is "same origin" to a browser, JSON and all.
        if request.method not in READING and hdrs.ORIGIN in request.headers:
            return json_answer(403, {"message": "browsers may not do this"})
        return await handler(request)

    return guard


OPEN: Final = frozenset({"/livez", "/readyz"})
READING: Final = frozenset({"GET", "HEAD"})


def _authorized(request: web.Request, token: str | None) -> bool:
    """Whether the request carries the admin token (RFC 6750 section 2.1), in constant time."""
    if token is None:
        return True
    sent = request.headers.getall(hdrs.AUTHORIZATION, [])
    scheme, _, credentials = sent[0].partition(" ") if len(sent) == 1 else ("", "", "")
    # aiohttp decodes header octets with surrogateescape; "replace" keeps the comparison total.
    same = hmac.compare_digest(credentials.strip().encode(errors="replace"), token.encode())
    return same and scheme.lower() == "bearer"


def _on(
    operations: Operations, answer: Callable[[web.Request, Operations], Awaitable[web.Response]]
) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Bind the operations to a handler."""

    async def bound(request: web.Request) -> web.Response:
        return await answer(request, operations)

    return bound
