"""Requests that other people's parsers were tested with (gunicorn's sdist), through the real gateway."""

import json
from urllib.parse import urlsplit

import pytest

from tests.support.client import Answer, RawClient
from tests.support.corpus import Case, Expected
from tests.support.gateway import Gateway
from tests.support.upstream import Conversation, Upstream, answer
from tests.support.wire import Broken

REFUSED: dict[str, str] = {}
"""Valid for gunicorn, refused here, each for a reason."""

ACCEPTED: dict[str, str] = {}
"""Invalid for gunicorn as the case configures it, forwarded here, each for a reason."""


async def ok(conversation: Conversation) -> None:
    """Answer 200 to whatever came."""
    await conversation.send(answer(200, b"ok", method=conversation.request.method))


@pytest.fixture
async def gateway(upstream):
    upstream.default = ok
    routes = [{"paths": ["/"], "auth": "none"}]
    async with Gateway({"services": [{"name": "recorder", "url": upstream.url, "routes": routes}]}) as started:
        yield started


def origin_form(target: str) -> str:
    """What the gateway makes of an absolute-form target (RFC 9112 section 3.2.2)."""
    parts = urlsplit(target)
    if not parts.netloc or target.startswith("/"):
        return target
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


async def exchange(gateway: Gateway, case: Case) -> list[Answer]:
    """Send a case, say that nothing follows, and read every answer until the gateway closes."""
    answers: list[Answer] = []
    async with await gateway.connect() as client:
        await send(client, case.to_send)
        methods = [one.method for one in case.expected]
        while True:
            try:
                answers.append(await client.answer(methods[len(answers)] if len(answers) < len(methods) else "GET"))
            except ConnectionError:
                return answers
            except Broken as broken:
                if broken.so_far:
                    raise
                return answers


async def send(client: RawClient, data: bytes) -> None:
    """Send what can be sent: a gateway that refuses early may have closed already."""
    try:
        await client.send(data)
        client.half_close()
    except (ConnectionError, OSError):
        pass


async def observe(gateway: Gateway, upstream: Upstream, case: Case) -> tuple[list[int], list[Expected], str]:
    """Send a case; return the statuses, the complete requests that reached the upstream, and what broke there."""
    upstream.requests.clear()
    upstream.broken.clear()
    try:
        statuses = [one.status for one in await exchange(gateway, case)]
        trouble = ""
    except Broken as broken:
        statuses, trouble = [], str(broken)
    reached = [Expected(one.method, one.target, one.body) for one in upstream.requests if one.complete.is_set()]
    upstream.broken.clear()
    return statuses, reached, trouble


def refused(statuses: list[int], reached: list[Expected]) -> bool:
    return not reached and len(statuses) <= 1 and all(status >= 400 for status in statuses)


async def test_valid_requests_reach_the_upstream_as_they_were_meant(gateway, upstream, corpus, note):
    """N36-N60, N71, N74, N75: the same method, target and body arrive, or the reason is written down."""
    wrong = []
    for case in corpus.valid:
        statuses, reached, trouble = await observe(gateway, upstream, case)
        meant = [Expected(one.method, origin_form(one.target), one.body) for one in case.expected]
        right = refused(statuses, reached) and statuses if case.name in REFUSED else reached == meant
        if not right or trouble:
            wrong.append((case.name, statuses, reached, trouble))
    note(f"corpus: {len(corpus.valid)} valid requests, {len(REFUSED)} of them refused for a written reason")
    assert not wrong, json.dumps([[str(part)[:300] for part in one] for one in wrong], indent=1)


async def test_invalid_requests_never_reach_the_upstream(gateway, upstream, corpus, note):
    """N36-N60: a 4xx or 5xx, the connection closed, no complete request upstream."""
    wrong = []
    for case in corpus.invalid:
        statuses, reached, trouble = await observe(gateway, upstream, case)
        right = len(reached) == 1 if case.name in ACCEPTED else refused(statuses, reached)
        if not right or trouble:
            wrong.append((case.name, statuses, reached, trouble))
    note(f"corpus: {len(corpus.invalid)} invalid requests, {len(ACCEPTED)} of them accepted for a written reason")
    assert not wrong, json.dumps([[str(part)[:300] for part in one] for one in wrong], indent=1)
