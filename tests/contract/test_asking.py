"""How the identity provider is asked, and what becomes of a request when it does not tell."""

import asyncio
import base64
import json
import ssl

import pytest
import trustme

from tests.contract.parts import READER, SECRET, StillClock, config, provider, route
from tests.support.idp import Idp, drip, flood, says
from tests.support.upstream import CLOSE, RESET, Upstream, answer, chunked, silence

NOW = 1_700_000_000
JWT = ".".join(
    base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
    for part in ({"alg": "none"}, {"iss": "http://127.0.0.1:9", "active": True}, {})
)


def said(question):
    return dict(question.form)


# --- the question -------------------------------------------------------------------------------------------------


async def test_the_question(lane, idp, upstream):
    """N13, N14, N30: one POST with the token in the form; our credentials, nothing of the client's."""
    secret = "s:3+ %é&=ü"
    idp.credentials = ("gate way:é", secret)
    settings = provider(
        idp,
        client_id="gate way:é",
        client_secret=secret,
        introspection_headers={"X-Tenant": "blue"},
        introspection_post_args={"resource": "https://api.example/ä"},
    )
    async with lane(config(idp, upstream, identity_providers={"idp": settings})) as gateway:
        mine = (("Cookie", "sid=client"), ("X-Tenant", "client"), ("User-Agent", "client"), ("X-Trace", "client"))
        assert (await gateway.get("/api?q=client", *mine, token="good")).status == 200
    (question,) = idp.questions
    assert question.form == [
        ("token", "good"),
        ("token_type_hint", "access_token"),
        ("resource", "https://api.example/ä"),
    ]
    request = question.request
    assert (request.method, request.target) == ("POST", "/introspect")
    assert request.header("content-type") == "application/x-www-form-urlencoded"
    assert request.header("x-tenant") == "blue"
    assert request.header("accept") == "application/json"
    assert b"client" not in request.raw_head
    assert b"good" not in request.raw_head


@pytest.mark.parametrize(
    ("method", "form"),
    [
        ("client_secret_basic", {}),
        ("client_secret_post", {"client_id": "gateway", "client_secret": SECRET}),
        ("none", {"client_id": "gateway"}),
    ],
)
async def test_one_way_to_authenticate(lane, idp, upstream, method, form):
    """N14: exactly one, as configured."""
    secret = None if method == "none" else SECRET
    settings = provider(idp, client_auth=method, client_secret=secret, introspection_hint="")
    settings["introspection_hint"] = None
    async with lane(config(idp, upstream, identity_providers={"idp": settings})) as gateway:
        assert (await gateway.get("/api", token="good")).status == 200
    (question,) = idp.questions
    assert said(question) == {"token": "good", **form}
    assert (question.request.header("authorization") is not None) == (method == "client_secret_basic")


async def test_a_token_that_names_its_own_server(lane, idp, upstream):
    """N28, T8: what a token or an answer says is never an address; a JWT is an opaque string like any other."""
    idp.tokens[JWT] = {**READER, "iss": "http://127.0.0.1:9", "introspection_endpoint": "http://127.0.0.1:9"}
    async with lane(config(idp, upstream)) as gateway:
        assert (await gateway.get("/api", token=JWT)).status == 200
        assert (await gateway.get("/api", token=JWT + "x")).status == 401
    assert [question.token for question in idp.questions] == [JWT, JWT + "x"]
    assert idp.discoveries == []


# --- answers that are none ----------------------------------------------------------------------------------------

REFLECTED = "<script>tell-me</script>"
NO_ANSWERS = [
    says({"active": "true"}),
    says({"active": "false"}),
    says({"active": 1}),
    says({"active": None}),
    says({"sub": "alex"}),
    says({}),
    says([]),
    says([{"active": True}]),
    says("active"),
    says(b"true"),
    says(b""),
    says(b'{"active":true,"active":false}'),
    says(b'{"active":true,"exp":NaN}'),
    says(b'{"active":true} x'),
    says(b'{"active":true'),
    says(b'\xef\xbb\xbf{"active":true}'),
    says(b'{"active":true,"sub":"\xff"}'),
    says(b'{"active":true,"deep":' + b"[" * 30_000 + b"]" * 30_000 + b"}"),
    says(b'{"active":true,"long":"' + b"x" * 70_000 + b'"}'),
    says({"active": True}, content_type="text/html"),
    says({"active": True}, content_type="application/jwt"),
    says({"active": True}, content_type="application/token-introspection+jwt"),
    says({"active": True}, 201),
    says({"active": True}, 204),
    says({"active": True}, 302, ("Location", "/introspect")),
    says({"active": True}, 400),
    says({"active": True}, 404),
    says({"active": True}, 500),
    says({"error": REFLECTED}, 401),
    says({"error": REFLECTED}, 403),
    says(REFLECTED.encode(), 502, content_type="text/html"),
    says({"active": True, "exp": "1800000000"}),
    says({"active": True, "exp": -1}),
    says({"active": True, "exp": True}),
    says({"active": True}, 200, ("Content-Encoding", "gzip")),
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"SSH-2.0-OpenSSH_9\r\n\r\n",
]


async def test_nothing_but_an_answer_is_an_answer(lane, idp, upstream):
    """N9, N16, N17, N21, N27, T10, T11, T18, T23, T39: 503, nothing forwarded, reflected or remembered."""
    async with lane(config(idp, upstream)) as gateway:
        for steps in [*((octets,) for octets in NO_ANSWERS), (flood,), (RESET,), (CLOSE,), (b"HTTP/1.1 200", CLOSE)]:
            idp.will(*steps)
            got = await gateway.get("/api", token="good")
            assert got.status == 503, steps
            assert got.header("retry-after")
            assert got.header("www-authenticate") is None
            assert json.loads(got.body) == {"message": "Service Unavailable"}
            assert b"tell-me" not in got.message.raw_head
        idp.broken.clear()
        assert upstream.requests == []
        status = await gateway.status()
        assert status["cache"]["memory"]["active"] == status["cache"]["memory"]["inactive"] == 0
        assert status["identity_providers"]["idp"]["reachable"] is False
        assert "tell-me" not in json.dumps(status)
        assert await gateway.metric("fastgate_introspections_total", outcome="rejected") == 2
        assert (await gateway.get("/api", token="good")).status == 200
        assert (await gateway.status())["identity_providers"]["idp"]["problem"] is None


async def test_a_redirect_is_not_followed(lane, idp, upstream):
    """N15: our credentials and the token go where we were told to send them, nowhere else."""
    async with Upstream(default=silence) as elsewhere, lane(config(idp, upstream)) as gateway:
        for status in (301, 302, 303, 307, 308):
            idp.will(says(b"", status, ("Location", elsewhere.url + "/introspect")))
            assert (await gateway.get("/api", token="good")).status == 503
        assert elsewhere.connections == []


@pytest.mark.parametrize("play", [silence, drip], ids=lambda play: play.__name__)
async def test_an_identity_provider_that_hangs(lane, idp, upstream, play):
    """N85, T4: one deadline for everything; no pile-up; remembered tokens never notice."""
    idp.tokens["known"] = dict(READER)
    settings = provider(idp, timeout="300ms")
    async with lane(config(idp, upstream, identity_providers={"idp": settings})) as gateway:
        idp.will(idp.truth)
        assert (await gateway.get("/api", token="known")).status == 200
        for _ in range(60):
            idp.will(play)
        unknown = [gateway.get("/api", token=f"unknown-{number}") for number in range(30)]
        hits = [gateway.get("/api", token="known") for _ in range(10)]
        assert {got.status for got in await asyncio.gather(*unknown)} == {503}
        assert {got.status for got in await asyncio.gather(*hits)} == {200}
        status = await gateway.status()
        assert status["flights"] == 0
        assert status["identity_providers"]["idp"]["under_way"] == 0
        # Who comes after the first ones have failed is not asked about any more.
        timed_out = await gateway.metric("fastgate_introspections_total", outcome="timeout")
        held_off = await gateway.metric("fastgate_introspections_total", outcome="held_off")
        assert 30 <= timed_out + held_off <= 32  # a probe of ours may have failed by now
        assert timed_out >= 5


async def test_a_pause_that_was_asked_for(lane, idp, upstream):
    """N85: the identity provider's Retry-After is passed on, and kept; remembered tokens go on."""
    clock = StillClock(NOW)
    idp.tokens["known"] = dict(READER)
    async with lane(config(idp, upstream), clock=clock) as gateway:
        assert (await gateway.get("/api", token="known")).status == 200
        idp.will(says(b"", 429, ("Retry-After", "7")))
        for _ in range(3):
            got = await gateway.get("/api", token="good")
            assert (got.status, got.header("retry-after")) == (503, "7")
        assert (await gateway.get("/api", token="known")).status == 200
        assert len(idp.questions) == 2
        clock.pass_(8)
        assert (await gateway.get("/api", token="good")).status == 200


async def test_a_kept_alive_connection_that_died(lane, idp, upstream):
    """T4: the identity provider may close between two questions; nobody notices."""
    idp.tokens["other"] = dict(READER)
    idp.will(idp.truth, CLOSE)
    async with lane(config(idp, upstream)) as gateway:
        assert (await gateway.get("/api", token="good")).status == 200
        await idp.until(lambda: any(each.ended.is_set() for each in idp.connections))
        assert (await gateway.get("/api", token="other")).status == 200
        idp.will(RESET)
        assert (await gateway.get("/api", token="bad")).status == 401


async def test_any_well_formed_answer(lane, idp, upstream):
    """N16, N27: charset, chunked coding, unknown members and a close after it are all in order."""
    body = json.dumps({"active": True, **READER, "x": [{"y": None}] * 50}).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: Application/JSON; charset=utf-8\r\n"
    idp.will(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body[:9], body[9:]))
    idp.will(head + b"\r\n" + body, CLOSE)
    async with lane(config(idp, upstream)) as gateway:
        assert (await gateway.get("/api", token="one")).status == 200
        assert (await gateway.get("/api", token="two")).status == 200


# --- discovery ----------------------------------------------------------------------------------------------------


def discovered(idp, **changes):
    return {"idp": provider(idp, introspection_endpoint=None, issuer=idp.issuer, **changes)}


async def test_the_endpoint_is_discovered(lane, upstream):
    """N29: from the metadata of exactly this issuer, with the client authentication they offer."""
    async with Idp(issuer_path="/realms/a") as idp:
        idp.tokens["good"] = {**READER, "iss": idp.issuer}
        idp.metadata["introspection_endpoint_auth_methods_supported"] = ["client_secret_post"]
        async with lane(config(idp, upstream, identity_providers=discovered(idp))) as gateway:
            await gateway.ready()
            assert (await gateway.get("/api", token="good")).status == 200
        assert idp.discoveries == ["/realms/a/.well-known/openid-configuration"]
        assert said(idp.questions[0])["client_secret"] == SECRET


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"issuer": "http://127.0.0.1:9"},
        {"issuer": "trailing slash"},
        {"issuer": ["list"]},
        {"introspection_endpoint": None},
        {"introspection_endpoint": "/introspect"},
        {"introspection_endpoint": "http://idp.example/introspect"},
        {"introspection_endpoint": "ftp://127.0.0.1/introspect"},
        {"introspection_endpoint": "https://user:password@127.0.0.1/introspect"},
    ],
    ids=str,
)
async def test_metadata_that_cannot_be_used(lane, idp, upstream, metadata):
    """N15, N29, T20: closed, 503, unready; and as soon as the metadata are right, 200."""
    if metadata == {"issuer": "trailing slash"}:
        metadata = {"issuer": idp.issuer + "/"}
    idp.metadata = metadata
    clock = StillClock(NOW)
    async with lane(config(idp, upstream, identity_providers=discovered(idp)), clock=clock) as gateway:
        got = await gateway.get("/api", token="good")
        assert (got.status, got.header("www-authenticate")) == (503, None)
        status, body = await gateway.readiness()
        assert (status, body["reasons"]) == (503, ["identity provider idp has not answered yet"])
        assert (await gateway.get("/public")).status == 200
        idp.metadata = {}
        clock.pass_(2)
        assert (await gateway.get("/api", token="good")).status == 200


@pytest.mark.parametrize(
    "found", [answer(301, b"", ("Location", "/introspect")), says(b"x" * 300_000)], ids=["redirect", "huge"]
)
async def test_metadata_that_lead_away(lane, idp, upstream, found):
    """N15, N29: no redirect is followed, nothing of any size is read."""
    for _ in range(8):
        idp.will_discover(says(b"x" * 300_000) if found == "huge" else answer(301, b"", ("Location", "/introspect")))
    async with lane(config(idp, upstream, identity_providers=discovered(idp))) as gateway:
        assert (await gateway.get("/api", token="good")).status == 503
    assert idp.questions == []


# --- TLS ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def secure(authority):
    """Give the server side of TLS for 127.0.0.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.mark.parametrize(
    ("settings", "status"), [({"ca_file": "ca.pem"}, 200), ({}, 503), ({"ssl_verify": False}, 200)], ids=str
)
async def test_tls_to_the_identity_provider(lane, upstream, authority, secure, settings, status):
    """N15, T21: verified unless told otherwise; what does not verify gets neither token nor credentials."""
    async with Idp(tls=secure) as idp:
        idp.tokens["good"] = dict(READER)
        gateway = lane(config(idp, upstream, identity_providers={"idp": provider(idp, **settings)}))
        (gateway.folder / "ca.pem").write_bytes(authority.cert_pem.bytes())
        async with gateway:
            assert (await gateway.get("/api", token="good")).status == status
        assert len(idp.questions) == (status == 200)
        idp.broken.clear()


@pytest.mark.parametrize(
    ("settings", "status"), [({"ca_file": "ca.pem"}, 200), ({}, 502), ({"verify": False}, 200)], ids=str
)
async def test_tls_to_the_upstream(lane, idp, authority, secure, settings, status):
    """T21: verified unless told otherwise; what does not verify gets no request."""
    async with Upstream(tls=secure) as upstream:
        wanted = config(idp, upstream, route("/api"))
        wanted["services"][0]["tls"] = settings
        gateway = lane(wanted)
        (gateway.folder / "ca.pem").write_bytes(authority.cert_pem.bytes())
        async with gateway:
            got = await gateway.get("/api", token="good")
        assert got.status == status
        assert len(upstream.requests) == (status == 200)
        upstream.broken.clear()
