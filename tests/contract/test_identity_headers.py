"""Only the gateway says who a request is from and how it came: every spelling, every route, every way in."""

import asyncio

import pytest

from tests.contract.parts import bearer, config, route, service
from tests.support.upstream import answer

IDENTITY = {
    "scopes_required": ["read"],
    "upstream_headers": [{"header": "X-Auth-Subject", "path": ["sub"]}, {"header": "X-Team", "path": ["team", "name"]}],
}
SPOOFED = (
    "X-Auth-Subject: root",
    "x-AUTH-subject: root",
    "X_Auth_Subject: root",
    "X.Auth.Subject: root",
    "X-Auth_Subject: root",
    "X-Team: root",
    "X-Forwarded-For: 203.0.113.9",
    "X-Forwarded-Proto: gopher",
    "X-Forwarded-Host: root.example",
    "X-Forwarded-Port: 1",
    "X-Forwarded-Prefix: /root",
    "X_Forwarded_For: 203.0.113.9",
    "Forwarded: for=203.0.113.9",
    "X-Real-IP: 203.0.113.9",
    "X-User: root",
    "X-User-Id: root",
    "X-Scope: root",
    "X-Client-Id: root",
    "X-Consumer-Username: root",
    "X-Credential-Sub: root",
    "X-Anonymous-Consumer: true",
    "X-Userinfo: root",
    "X-Access-Token: root",
    "X-Id-Token: root",
    "X-Client-Cert: root",
    "Client-Cert: :cm9vdA==:",
    "Client-Cert-Chain: :cm9vdA==:",
    "X-SSL-Client-Verify: SUCCESS",
    "X-Original-URL: /root",
    "X-Rewrite-URL: /root",
    "X-HTTP-Method-Override: DELETE",
    "X-Method-Override: DELETE",
    "Remote-User: root",
    "Proxy: http://root.example",
)
OURS = {"x-auth-subject", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-real-ip"}


@pytest.fixture
def two(idp, upstream):
    """Configure one public and one protected route; the protected one writes identity headers."""
    return config(idp, upstream, route("/public", "none"), route("/api", IDENTITY))


def raw(method, target, *lines, body=b""):
    head = "\r\n".join([f"{method} {target} HTTP/1.1", "Host: gateway.test", *lines, "", ""])
    return head.encode("latin-1") + body


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "POST", "DELETE"])
@pytest.mark.parametrize("target", ["/public", "/api"])
async def test_no_spelling_of_a_clients_claim_passes(lane, two, upstream, method, target):
    """N65, N66, T9, T26, T33: on every route and method; also of a mapped claim that the token lacks."""
    async with lane(two) as gateway, await gateway.connect() as client:
        lines = ["Authorization: Bearer good", *SPOOFED, "Content-Length: 0", "X-Kept: yes"]
        await client.send(raw(method, target, *lines))
        assert (await client.answer()).status == 200
        got = await upstream.request()
    said = [(name.decode().lower(), value.decode()) for name, value in got.fields]
    assert not [name for name, value in said if "root" in value or "203.0.113" in value or value in {"gopher", "1"}]
    assert not [name for name, _ in said if "_" in name or "." in name or "override" in name or "ssl" in name]
    names = [name for name, _ in said]
    assert len(names) == len(set(names))
    assert OURS - set(names) == (set() if target == "/api" else {"x-auth-subject"})
    assert got.header("x-auth-subject") == ("alex" if target == "/api" else None)
    assert got.header("x-team") is None
    assert got.header("x-kept") == "yes"


async def test_no_trailer_says_who_somebody_is(lane, two, upstream):
    """N54, N65, T33: a client's trailer is no way in for an identity header, nor is it merged into the head."""
    async with lane(two) as gateway, await gateway.connect() as client:
        trailers = "X-Auth-Subject: root\r\nX_Team: root\r\nX-Forwarded-For: 203.0.113.9\r\nX-Sum: 1\r\n"
        body = f"3\r\nabc\r\n0\r\n{trailers}\r\n".encode()
        lines = ("Authorization: Bearer good", "Transfer-Encoding: chunked", "Trailer: X-Auth-Subject")
        await client.send(raw("POST", "/api", *lines, body=body))
        assert (await client.answer()).status == 200
        got = await upstream.request()
    assert got.trailers == [(b"X-Sum", b"1")]
    assert got.header("x-auth-subject") == "alex"
    assert got.header("x-sum") is None


@pytest.mark.parametrize(
    "nominated", ["X-Auth-Subject", "x-forwarded-for", "Authorization", "Host", "X-User", "close, X_Team, content-type"]
)
@pytest.mark.parametrize("target", ["/public", "/api"])
async def test_connection_removes_nothing_of_ours(lane, two, upstream, nominated, target):
    """N63, N64, T32: nominating a field of the whole way is 400; nothing is forwarded."""
    async with lane(two) as gateway:
        got = await gateway.get(target, ("Connection", nominated), token="good")
        assert got.status == 400
    assert upstream.requests == []


async def test_connection_removes_what_is_the_clients_to_remove(lane, two, upstream):
    """N63: the nominated field and the hop-by-hop ones end here, those behind them pass."""
    async with lane(two) as gateway, await gateway.connect() as client:
        lines = ("Authorization: Bearer good", "Connection: X-Hop, keep-alive", "X-Hop: 1", "Keep-Alive: timeout=5")
        more = ("TE: trailers", "Proxy-Authorization: Basic cm9vdDo=", "Proxy-Connection: close", "X-Kept: yes")
        await client.send(raw("GET", "/api", *lines, *more))
        assert (await client.answer()).status == 200
        got = await upstream.request()
    gone = ("connection", "x-hop", "keep-alive", "te", "proxy-authorization", "proxy-connection", "transfer-encoding")
    assert [name for name in gone if got.header(name) is not None] == []
    assert got.header("x-kept") == "yes"
    assert got.header("x-forwarded-for") == "127.0.0.1"


@pytest.mark.parametrize(
    ("bad", "status"), [("X-User : root", 400), (" X-User: root", 400), ("X-Ok: 1\r\n X-User: root", 400)]
)
async def test_names_that_somebody_could_mend(lane, two, upstream, bad, status):
    """N37, N38, T33: white space around a name is refused, never repaired into a protected name."""
    async with lane(two) as gateway, await gateway.connect() as client:
        await client.send(raw("GET", "/public", bad))
        assert (await client.answer()).status == status
    assert upstream.connections == []


@pytest.mark.parametrize(
    ("claim", "header"),
    [
        ("alex", "alex"),
        ("a\r\nX-Admin: 1", "a%0D%0AX-Admin: 1"),
        ("nul\0", "nul%00"),
        ("Zoë ☃", "Zo%C3%AB %E2%98%83"),
        ("100%", "100%25"),
        (["a", "b"], '["a","b"]'),
        ({"k": [1]}, '{"k":[1]}'),
        (True, "true"),
        (7, "7"),
        ("", None),
        (None, None),
        ("x" * 9000, None),
    ],
    ids=str,
)
async def test_a_claim_of_any_kind_is_one_header_or_none(lane, two, idp, upstream, claim, header):
    """N67, T17: one line, percent-encoded where it must be, or nothing; never two headers."""
    idp.tokens["odd"] = {"scope": "read", "sub": claim}
    async with lane(two) as gateway:
        assert (await gateway.get("/api", ("X-Auth-Subject", "root"), token="odd")).status == 200
        got = await upstream.request()
    assert got.header("x-auth-subject") == header
    assert got.header("x-admin") is None


async def test_a_nested_claim(lane, two, idp, upstream):
    """A path names a claim inside a claim."""
    idp.tokens["member"] = {"scope": "read", "sub": "kim", "team": {"name": "blue"}}
    async with lane(two) as gateway:
        assert (await gateway.get("/api", token="member")).status == 200
        assert (await upstream.request()).header("x-team") == "blue"


@pytest.mark.parametrize(
    ("trusted", "forwarded", "proto", "host", "real"),
    [
        (["127.0.0.0/8"], "203.0.113.9, 127.0.0.1", "https", "shop.example", "203.0.113.9"),
        (["10.0.0.0/8"], "127.0.0.1", "http", "gateway.test", "127.0.0.1"),
        ([], "127.0.0.1", "http", "gateway.test", "127.0.0.1"),
    ],
)
@pytest.mark.parametrize("target", ["/public", "/api"])
async def test_a_trusted_peers_word_is_continued(lane, two, upstream, trusted, forwarded, proto, host, real, target):
    """N65: X-Forwarded-* of `trusted_addresses` are kept and extended, everybody else's replaced."""
    said = (
        ("X-Forwarded-For", "203.0.113.9"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "shop.example"),
        ("X-Real-IP", "203.0.113.9"),
        ("Forwarded", "for=203.0.113.9"),
    )
    async with lane(two | {"trusted_addresses": trusted}) as gateway:
        assert (await gateway.get(target, *said, token="good")).status == 200
        got = await upstream.request()
    assert got.header("x-forwarded-for") == forwarded
    assert got.header("x-forwarded-proto") == proto
    assert got.header("x-forwarded-host") == host
    assert got.header("x-real-ip") == real
    assert got.header("forwarded") is None


@pytest.mark.parametrize(("hide", "token"), [(False, "Bearer good"), (True, None)])
async def test_the_token_goes_on_as_it_came_or_not_at_all(lane, idp, upstream, hide, token):
    """N11: byte-identical, or removed by `hide_credentials`; a public route never touches it."""
    routes = (route("/api", {"hide_credentials": hide}), route("/public", "none"))
    async with lane(config(idp, upstream, *routes)) as gateway:
        assert (await gateway.get("/api", token="good")).status == 200
        odd = ("Authorization", "bEaReR   whatever,  it=is")
        assert (await gateway.get("/public", odd)).status == 200
    assert upstream.requests[0].header("authorization") == token
    assert upstream.requests[1].header("authorization") == odd[1]


async def test_the_upstreams_challenge_passes(lane, two, upstream):
    """N11: a 401 of the upstream's is the upstream's."""
    challenge = 'Basic realm="inner", Bearer error="invalid_token"'
    upstream.will(answer(401, b"no", ("WWW-Authenticate", challenge)))
    async with lane(two) as gateway:
        got = await gateway.get("/api", token="good")
    assert (got.status, got.body, got.header("www-authenticate")) == (401, b"no", challenge)


async def test_two_requests_at_once_keep_their_own_identity(lane, idp, upstream):
    """T22: nothing of one request reaches another one, on connections that both use."""
    for number in range(20):
        idp.tokens[f"t{number}"] = {"sub": f"user-{number}", "scope": "read"}
    async with lane(config(idp, upstream, route("/api", IDENTITY))) as gateway:

        async def ask(number):
            async with await gateway.connect() as client:
                for _ in range(3):
                    fields = (bearer(f"t{number}"), ("X-Mine", str(number)), ("X-Auth-Subject", "root"))
                    got = await client.request("GET", f"/api/{number}", *fields)
                    assert got.status == 200

        await asyncio.gather(*map(ask, range(20)))
    assert len(upstream.requests) == 60
    for got in upstream.requests:
        number = got.target.rpartition("/")[2]
        assert got.header("x-auth-subject") == f"user-{number}"
        assert got.header("authorization") == f"Bearer t{number}"
        assert got.header("x-mine") == number


async def test_nothing_is_forwarded_where_there_is_no_route(lane, two, upstream):
    """N90, T9: 404 and 405 are answered here, and repeat nothing of the request."""
    async with lane(two | {"services": [service(upstream, route("/api", methods=["GET"]))]}) as gateway:
        missing = await gateway.get("/root", *[tuple(line.split(": ")) for line in SPOOFED], token="good")
        wrong = await gateway.request("POST", "/api", ("X-User", "root"), token="good", body=b"root")
    assert (missing.status, wrong.status, wrong.header("allow")) == (404, 405, "GET")
    for got in (missing, wrong):
        assert b"root" not in got.message.raw_head + got.body
        assert got.header("cache-control") == "no-store"
    assert upstream.requests == []
