"""Requests that other people's parsers were tested with (gunicorn's sdist), through the real gateway."""

import json
from urllib.parse import urlsplit

import pytest

from tests.support.client import Answer, RawClient
from tests.support.corpus import Case, Expected
from tests.support.gateway import Gateway
from tests.support.upstream import Conversation, Upstream, answer
from tests.support.wire import Broken

_CODING = "a coding besides chunked is not implemented (RFC 9112 section 6.1), and never guessed at"
_FOLD = "folded lines are refused (N38)"
_METHOD = "only methods the parser knows are forwarded; others are 501 (RFC 9110 section 9.1)"
_PROXY = "the PROXY protocol is not spoken, so its line is no request line"
_HOST = "`=` in a host name: no host that a route can name (N36), although the URI grammar has it"
REFUSED = {
    "002": _HOST,
    "003": _HOST,
    "005": "a fragment is not part of a request-target (N48)",
    "025": _CODING,
    "025_line": _CODING,
    "028": "white space before the colon (N37); gunicorn takes it only with strip_header_spaces",
    "029": _CODING,
    "030": _CODING,
    "031": _METHOD,
    "031compat": _METHOD,
    "031compat2": _METHOD,
    "099": "its body is shorter than its Content-Length: never complete (N55)",
    "compat_obs_fold": _FOLD,
    "compat_obs_fold_huge": _FOLD,
    "pp_01": _PROXY,
    "pp_02": _PROXY,
    "pp_04": _PROXY,
    "pp_05": _PROXY,
    "rfc9112_smuggle_gzip_chunked_01": _CODING,
    "rfc9112_smuggle_te_identity_chunked_01": _CODING,
    "rfc9112_target_absolute_userinfo_01": "userinfo in an authority is refused (N36, RFC 9110 section 4.2.4)",
    "rfc9112_target_asterisk_options_01": "`*` belongs to no route: 404",
    "rfc9112_target_authority_connect_01": "CONNECT is for proxies: 501 (N47)",
    "rfc9112_target_authority_ipv6_01": "CONNECT is for proxies: 501 (N47)",
}
"""Valid for gunicorn, refused here, each for a reason."""

_LIMIT = "a limit of gunicorn's, or one the case lowers; ours is 16 KiB a line, 64 KiB and 128 lines a section"
_UNDERSCORE = "names outside [A-Za-z0-9-] are dropped (N66), so that the upstream never sees the ambiguity"
_TRAILER = "framing and Host in trailers are dropped (N54), the body is whole"
ACCEPTED = {
    "006": _LIMIT,
    "007": _LIMIT,
    "008": _LIMIT,
    "009": _LIMIT,
    "010": _LIMIT,
    "017": _LIMIT,
    "limit_header_default_01": _LIMIT,
    "019": "X-Forwarded-* of a client is replaced by ours, whatever it says (N65)",
    "040": _UNDERSCORE,
    "chunked_07": _UNDERSCORE,
    "rfc9110_trailer_forbidden_cl_01": _TRAILER,
    "rfc9110_trailer_forbidden_host_01": _TRAILER,
    "rfc9110_trailer_forbidden_te_01": _TRAILER,
}
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


def harmless(upstream: Upstream) -> bool:
    """One request arrived; what made it invalid did not: no odd names, no trailers, no word of the client's as ours."""
    if len(upstream.requests) != 1:
        return False
    (one,) = upstream.requests
    names = [name.decode().lower() for name, _ in one.fields]
    odd = [name for name in names if "_" in name or name == "x-forwarded-ssl"]
    return not odd and not one.trailers and one.header("x-forwarded-proto") == "http"


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
        right = harmless(upstream) if case.name in ACCEPTED else refused(statuses, reached)
        if not right or trouble:
            wrong.append((case.name, statuses, reached, trouble))
    note(f"corpus: {len(corpus.invalid)} invalid requests, {len(ACCEPTED)} of them accepted for a written reason")
    assert not wrong, json.dumps([[str(part)[:300] for part in one] for one in wrong], indent=1)
