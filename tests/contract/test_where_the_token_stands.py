"""Where a token may stand, what is no token, and what becomes of it on the way upstream."""

import json
from urllib.parse import parse_qsl

import pytest

from tests.contract.parts import bearer, config, route
from tests.support.upstream import answer

FORM = ("Content-Type", "application/x-www-form-urlencoded")


def takes(*sources, **auth):
    return route("/api", {"bearer_token_param_type": list(sources), **auth})


# --- the header ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["Bearer good", "bearer good", "BEARER   good"])
async def test_the_header(lane, idp, upstream, value):
    """N1: the scheme in any case, one or more spaces; forwarded byte for byte."""
    async with lane(config(idp, upstream)) as gateway:
        assert (await gateway.get("/api", ("Authorization", value))).status == 200
    assert upstream.requests[0].header("authorization") == value


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([], 401),
        (["Authorization: Basic Z29vZDpnb29k"], 401),
        (["Authorization: Digest username=good"], 401),
        (["Authorization: DPoP good"], 401),
        (["Authorization: Bearer"], 400),
        (["Authorization: Bearer "], 400),
        (["Authorization: Bearer good good"], 400),
        (["Authorization: Bearer good,good"], 400),
        (["Authorization: Bearer good, Basic x"], 400),
        (["Authorization: Bearer\tgood"], 400),
        (["Authorization: Bearer go\xf6d"], 400),
        (['Authorization: Bearer "good"'], 400),
        (["Authorization: Bearer go%6fd"], 400),
        (["Authorization: Bearer =good"], 400),
        (["Authorization:"], 400),
        (["Authorization: Bearer good", "Authorization: Bearer good"], 400),
        (["Authorization: Bearer good", "authorization: Basic x"], 400),
        (["Authorization: Bearer " + "x" * 8193], 400),
        (["Cookie: access_token=good"], 401),
    ],
    ids=lambda value: " + ".join(value)[:48] if isinstance(value, list) else None,
)
async def test_what_is_no_token(lane, idp, upstream, lines, status):
    """N2, N3, N6, N7, N8, N10, N12, T31, T35, T36: answered with its challenge, before anybody is asked."""
    async with lane(config(idp, upstream)) as gateway, await gateway.connect() as client:
        head = "\r\n".join(["GET /api HTTP/1.1", "Host: a", *lines, "", ""])
        await client.send(head.encode("latin-1"))
        got = await client.answer()
    assert got.status == status
    error = ', error="invalid_request"' if status == 400 else ""
    assert got.header("www-authenticate") == f'Bearer realm="127.0.0.1"{error}'
    assert got.header("cache-control") == "no-store"
    assert json.loads(got.body) == {"message": "Unauthorized" if status == 401 else "Bad Request"}
    assert (idp.questions, upstream.requests) == ([], [])


async def test_the_longest_token(lane, idp, upstream):
    """N6, T36: `max_token_length` octets pass, one more is refused before it is hashed or asked about."""
    idp.tokens["x" * 100] = {}
    async with lane(config(idp, upstream, takes("header", max_token_length=100))) as gateway:
        assert (await gateway.get("/api", token="x" * 100)).status == 200
        assert (await gateway.get("/api", token="x" * 101)).status == 400
        assert await gateway.introspections() == 1


@pytest.mark.parametrize("token", ["%s%n", "a~b", "x/y+z==", "..", "-", "{0}"])
async def test_any_character_of_a_token(lane, idp, upstream, token):
    """N2, N13, T16, T36: percent-encoded exactly once for the identity provider, or refused before."""
    idp.tokens[token] = {}
    usable = not set(token) & set("%{}")
    async with lane(config(idp, upstream, takes("header"))) as gateway:
        assert (await gateway.get("/api", token=token)).status == (200 if usable else 400)
    assert [question.token for question in idp.questions] == ([token] if usable else [])


# --- the query ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hide", [False, True])
async def test_the_query(lane, idp, upstream, hide):
    """N4: only where asked for; the parameter goes, the answer is private, the log does not know."""
    upstream.will(answer(200, b"mine"))
    async with lane(config(idp, upstream, takes("query", hide_credentials=hide))) as gateway:
        got = await gateway.get("/api/x?a=%2F&access_token=good&b")
    assert (got.status, got.body, got.header("cache-control")) == (200, b"mine", "private")
    received = upstream.requests[0]
    assert received.target == "/api/x?a=%2F&b"
    assert received.header("authorization") == (None if hide else "Bearer good")


async def test_the_query_when_it_was_not_asked_for(lane, idp, upstream):
    """N4: off by default: not looked at, and passed on as any other parameter."""
    async with lane(config(idp, upstream)) as gateway:
        assert (await gateway.get("/api?access_token=good")).status == 401
        assert (await gateway.get("/api?access_token=other", token="good")).status == 200
        assert (await gateway.get("/public?access_token=other")).header("cache-control") is None
    assert [got.target for got in upstream.requests] == ["/api?access_token=other", "/public?access_token=other"]


@pytest.mark.parametrize(
    ("target", "fields", "status"),
    [
        ("/api?access_token=good&access_token=good", (), 400),
        ("/api?access_token=", (), 400),
        ("/api?access_token", (), 400),
        ("/api?access_token=go%20od", (), 400),
        ("/api?access%5Ftoken=good&access_token=good", (), 400),
        ("/api?access_token=good", (bearer("good"),), 400),
        ("/api?access_token=good", (("Cookie", "sid=1; access_token=good"),), 400),
        ("/api?ACCESS_TOKEN=good", (), 401),
        ("/api?a=1", (), 401),
    ],
)
async def test_the_query_when_it_is_unclear(lane, idp, upstream, target, fields, status):
    """N3, N4: exactly one token, not empty, by exactly one method."""
    async with lane(config(idp, upstream, takes("header", "query", "cookie"))) as gateway:
        assert (await gateway.get(target, *fields)).status == status
    assert (idp.questions, upstream.requests) == ([], [])


async def test_only_success_is_private(lane, idp, upstream):
    """N4: 2xx is made private, once; what the upstream says about caching else is its own."""
    upstream.will(answer(404, b"", ("Cache-Control", "max-age=5")))
    upstream.will(answer(200, b"", ("Cache-Control", "private, max-age=5")))
    async with lane(config(idp, upstream, takes("query"))) as gateway:
        assert (await gateway.get("/api?access_token=good")).all("cache-control") == ["max-age=5"]
        assert (await gateway.get("/api?access_token=good")).all("cache-control") == ["private, max-age=5"]


# --- the cookie ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("hide", "cookie"), [(False, "a=1; session=good; b=2"), (True, "a=1; b=2")])
async def test_the_cookie(lane, idp, upstream, hide, cookie):
    """N12: only where asked for, by its name; passed as it came, or taken out and the others left."""
    auth = {"bearer_token_cookie_name": "session", "hide_credentials": hide}
    async with lane(config(idp, upstream, takes("cookie", **auth))) as gateway:
        assert (await gateway.get("/api", ("Cookie", "a=1; session=good; b=2"))).status == 200
        assert (await gateway.get("/api", ("Cookie", "session=good; session=good"))).status == 400
        assert (await gateway.get("/api", ("Cookie", "access_token=good"))).status == 401
        # A token that nobody verified must not ride along to an upstream that trusts us.
        assert (await gateway.get("/api", ("Cookie", "session=good"), token="unverified")).status == 200
    first, last = upstream.requests
    assert first.header("cookie") == cookie
    assert last.header("authorization") is None


# --- the form -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hide", "expected"), [(False, b"a=1+%2F&access_token=good&b=%C3%A9"), (True, b"a=1+%2F&b=%C3%A9")]
)
@pytest.mark.parametrize("chunked", [False, True])
async def test_the_form(lane, idp, upstream, hide, expected, chunked):
    """N5, N74: forwarded intact, or without the token when hidden, with a length that is true."""
    form = b"a=1+%2F&access_token=good&b=%C3%A9"
    async with (
        lane(config(idp, upstream, takes("body", hide_credentials=hide))) as gateway,
        await gateway.connect() as client,
    ):
        head = b"POST /api HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        if chunked:
            await client.send(head + b"Transfer-Encoding: chunked\r\n\r\n")
            for octet in form:
                await client.send(b"1\r\n%c\r\n" % octet)
            await client.send(b"0\r\n\r\n")
        else:
            await client.send(head + b"Content-Length: %d\r\n\r\n" % len(form) + form)
        assert (await client.answer()).status == 200
        # The connection is in step for the next request.
        assert (await client.request("POST", "/api", FORM, body=form)).status == 200
    for got in upstream.requests:
        assert got.body == expected
        assert got.header("content-length") == str(len(expected))
        assert got.header("transfer-encoding") is None
    assert len(idp.questions) == 1


@pytest.mark.parametrize(
    ("method", "fields", "body", "status"),
    [
        ("POST", (FORM,), b"a=1", 401),
        ("POST", (FORM,), b"", 401),
        ("POST", (("Content-Type", "text/plain"),), b"access_token=good", 401),
        ("POST", (("Content-Type", "multipart/form-data; boundary=x"),), b"access_token=good", 401),
        ("POST", (FORM, ("Content-Encoding", "gzip")), b"access_token=good", 401),
        ("GET", (FORM,), b"access_token=good", 401),
        ("POST", (FORM,), b"access_token=", 400),
        ("POST", (FORM,), b"access_token=good&access_token=good", 400),
        ("POST", (FORM, bearer("good")), b"access_token=good", 400),
        ("POST", (FORM,), b"access_token=bad", 401),
        ("POST", (FORM,), b"a=" + b"x" * 65536, 413),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_the_form_when_it_is_unclear(lane, idp, upstream, method, fields, body, status):
    """N3, N5: an urlencoded form of bounded size, never a GET; the connection stays in step or ends."""
    async with (
        lane(config(idp, upstream, takes("header", "body"), route("/public", "none"))) as gateway,
        await gateway.connect() as client,
    ):
        got = await client.request(method, "/api", *fields, body=body)
        assert got.status == status
        if got.header("connection") == "close":
            assert await client.ended()
        else:
            assert (await client.request("GET", "/public")).status == 200
    assert [got.target for got in upstream.requests] in ([], ["/public"])
    assert [question.token for question in idp.questions] == (["bad"] if body == b"access_token=bad" else [])


async def test_a_form_behind_an_expectation(lane, idp, upstream):
    """N5, N77: the body is needed to authenticate, so it is asked for; upstream nothing is left to expect."""
    async with lane(config(idp, upstream, takes("body"))) as gateway, await gateway.connect() as client:
        lines = ("POST /api HTTP/1.1", "Host: a", ": ".join(FORM), "Content-Length: 17", "Expect: 100-continue")
        await client.send("\r\n".join([*lines, "", ""]).encode())
        assert (await client.head()).start == b"HTTP/1.1 100 Continue"
        await client.send(b"access_token=good")
        got = await client.answer()
        assert (got.status, got.interim) == (200, [])
    assert upstream.requests[0].header("expect") is None
    assert parse_qsl(upstream.requests[0].body.decode()) == [("access_token", "good")]


async def test_a_form_that_ends_early(lane, idp, upstream):
    """N5, N55: half a form is no form: nobody is asked, nothing is forwarded."""
    async with lane(config(idp, upstream, takes("body"))) as gateway, await gateway.connect() as client:
        lines = ("POST /api HTTP/1.1", "Host: a", ": ".join(FORM), "Content-Length: 100")
        await client.send("\r\n".join([*lines, "", "access_token=good"]).encode())
        client.half_close()
        assert (await client.answer()).status == 400
        assert await client.ended()
    assert (idp.questions, upstream.requests) == ([], [])


async def test_a_form_that_stalls(lane, idp, upstream):
    """N5, N55: 408, as for any body that stops coming; nobody is asked."""
    wanted = config(idp, upstream, takes("body"), limits={"body_timeout": "200ms"})
    async with lane(wanted) as gateway, await gateway.connect() as client:
        lines = ("POST /api HTTP/1.1", "Host: a", ": ".join(FORM), "Content-Length: 100")
        await client.send("\r\n".join([*lines, "", "access_token=good"]).encode())
        assert (await client.answer()).status == 408
        assert await client.ended()
    assert (idp.questions, upstream.requests) == ([], [])


# --- what a request without a token may not do ------------------------------------------------------------------


async def test_whether_a_route_is_public_is_told_by_the_request_line(lane, idp, upstream):
    """N72, T34: no header makes a protected path public, nor another one's token a public path protected."""
    routes = (route("/api"), route("/api/open", "none"))
    async with lane(config(idp, upstream, *routes)) as gateway:
        tricks = (
            ("X-Original-URL", "/api/open"),
            ("X-Rewrite-URL", "/api/open"),
            ("X-Forwarded-Prefix", "/api/open"),
            ("X-HTTP-Method-Override", "OPTIONS"),
            ("Content-Type", "application/grpc"),
            ("Upgrade", "h2c"),
        )
        for trick in tricks:
            assert (await gateway.get("/api", trick)).status == 401
            assert (await gateway.get("/api/open", trick, token="bad")).status == 200
        for method in ("OPTIONS", "HEAD", "POST"):
            async with await gateway.connect() as client:
                assert (await client.request(method, "/api")).status == 401
        async with await gateway.connect() as client:
            await client.send(b"GET http://gateway.test/api HTTP/1.1\r\nHost: open.test\r\n\r\n")
            assert (await client.answer()).status == 401
    assert idp.questions == []
    assert {got.target for got in upstream.requests} == {"/api/open"}


async def test_an_early_refusal_leaves_the_connection_in_step(lane, idp, upstream):
    """N56, N57: a refused body is read away; what comes behind it is the next request and nothing else."""
    smuggled = b"GET /public/smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    async with lane(config(idp, upstream)) as gateway, await gateway.connect() as client:
        head = b"POST /api HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(smuggled)
        await client.send(head + smuggled + b"GET /public/real HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.answer()).status == 401
        assert (await client.answer()).status == 200
    assert [got.target for got in upstream.requests] == ["/public/real"]
