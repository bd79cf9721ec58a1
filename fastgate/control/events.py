"""What identity providers tell of their own accord: back-channel logout and security events, over HTTP.

`POST /identity-providers/NAME/logout` (OpenID Connect Back-Channel Logout 1.0 section 2.5) and
`POST /identity-providers/NAME/events` (RFC 8935). The signature of what comes is its only credential, so that these
paths need no admin token; nothing else is served on the listener that is for them alone.
"""

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from math import ceil
from typing import Final, Protocol

from aiohttp import hdrs, web

from fastgate.control.answers import json_answer, safely
from fastgate.errors import FastgateError, IntrospectionError
from fastgate.model import Notice, Refusal, Refused
from fastgate.policy.parameters import values
from fastgate.tokens.notice_source import MAX_TOKEN, Channel, NoticeSource
from fastgate.tokens.notifications import Notifications

PREFIX: Final = "/identity-providers/"
MAX_BODY: Final = MAX_TOKEN
"""Octets."""
BODY_SECONDS: Final = 10.0
RETRY_SECONDS: Final = 5
"""What those who could not be helped now are told to wait."""

FORM: Final = "application/x-www-form-urlencoded"
SECURITY_EVENT: Final = "application/secevent+jwt"

ERRORS: Final = {
    Refused.FORGED: "invalid_key",
    Refused.WRONG_ISSUER: "invalid_issuer",
    Refused.WRONG_AUDIENCE: "invalid_audience",
    Refused.UNAUTHORIZED: "authentication_failed",
}
"""The error codes of RFC 8935 section 2.4; for everything else `invalid_request`."""


class Receiver(Protocol):
    """Who has the sources; `app.App`."""

    @property
    def notifications(self) -> Notifications:
        """Who may tell of logouts and security events."""
        ...


def events_application(receiver: Receiver) -> web.Application:
    """Build the application of the listener for identity providers; run it behind no other middleware."""
    app = web.Application(middlewares=[safely], client_max_size=MAX_BODY)
    add_event_routes(app.router, receiver)
    return app


def add_event_routes(router: web.UrlDispatcher, receiver: Receiver) -> None:
    """Serve both paths for every identity provider that the configuration in force lets send something."""
    router.add_post(PREFIX + "{name}/logout", _on(receiver, "logout", _logout))
    router.add_post(PREFIX + "{name}/events", _on(receiver, "events", _security_event))


def _on(
    receiver: Receiver, channel: Channel, answer: Callable[[web.Request, NoticeSource], Awaitable[web.Response]]
) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Find the source; whoever cannot be helped now is told to come again."""

    async def bound(request: web.Request) -> web.Response:
        source = receiver.notifications.source(request.match_info["name"], channel)
        if source is None:
            raise web.HTTPNotFound
        try:
            response = await answer(request, source)
        except IntrospectionError as error:
            response = _later("the keys of the issuer cannot be had now", error.retry_after)
        except FastgateError as error:
            response = _later(str(error), None)
        # A connection that the sender keeps could close just when it sends the next one, which few send again.
        response.force_close()
        return response

    return bound


async def _logout(request: web.Request, source: NoticeSource) -> web.Response:
    """Answer as OpenID Connect Back-Channel Logout 1.0 section 2.8 wants it."""
    form = await _body(request, FORM)
    taken = await _take(source, form if isinstance(form, Refusal) else _logout_token(form))
    if isinstance(taken, Refusal):
        return json_answer(400, {"error": "invalid_request", "error_description": taken.detail})
    return web.Response(status=200)


async def _security_event(request: web.Request, source: NoticeSource) -> web.Response:
    """Answer as RFC 8935 sections 2.2 to 2.4 want it."""
    if _authorized(request, source.notifier.authorization):
        token = await _body(request, SECURITY_EVENT)
    else:
        token = Refusal(Refused.UNAUTHORIZED, "the Authorization that was agreed on is missing or wrong")
    taken = await _take(source, token)
    # One that was received before is answered as if it had not been (section 2).
    if isinstance(taken, Refusal) and taken.reason is not Refused.REPLAYED:
        said = {"err": ERRORS.get(taken.reason, "invalid_request"), "description": taken.detail}
        return json_answer(400, said, {hdrs.CONTENT_LANGUAGE: "en"})
    return web.Response(status=202)


async def _take(source: NoticeSource, token: str | Refusal) -> Notice | Refusal:
    return source.refuse(token) if isinstance(token, Refusal) else await source.take(token)


async def _body(request: web.Request, content_type: str) -> str | Refusal:
    """Read a body of bounded size in bounded time."""
    if request.content_type != content_type:
        return Refusal(Refused.MALFORMED, f"Content-Type must be {content_type}")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return (await request.read()).decode("ascii").strip()
    except web.HTTPRequestEntityTooLarge:
        return Refusal(Refused.MALFORMED, f"the body is larger than {MAX_BODY} octets")
    except TimeoutError:
        return Refusal(Refused.MALFORMED, f"the body did not come within {BODY_SECONDS:g} s")
    except UnicodeDecodeError:
        return Refusal(Refused.MALFORMED, "the body is not ASCII")


def _logout_token(form: str) -> str | Refusal:
    """Find the one token; whatever else the form holds is ignored (section 2.5)."""
    tokens = values(form, "logout_token", form=True)
    return tokens[0] if len(tokens) == 1 else Refusal(Refused.MALFORMED, "the form must have one logout_token")


def _authorized(request: web.Request, expected: str | None) -> bool:
    """Whether the sender showed what was agreed on (RFC 8935 section 2.1), compared in constant time."""
    if expected is None:
        return True
    sent = request.headers.getall(hdrs.AUTHORIZATION, [])
    return len(sent) == 1 and hmac.compare_digest(sent[0].encode(errors="replace"), expected.encode())


def _later(why: str, seconds: float | None) -> web.Response:
    wait = RETRY_SECONDS if seconds is None else max(1, ceil(seconds))
    return json_answer(
        503, {"error": "temporarily_unavailable", "error_description": why}, {hdrs.RETRY_AFTER: str(wait)}
    )
