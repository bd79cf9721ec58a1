import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgate.model import NO_BODY
from fastgate.policy.forwarding import answer_head, informational, trailers
from tests.policy.values import CHUNKED, UNTIL_CLOSE, answer, fields, head, length

DATE = b"Sun, 22 Nov 2026 09:00:00 GMT"
DATED = (b"Date", b"Sat, 21 Nov 2026 09:00:00 GMT")


def octets(found, request=None, framing=None, *, keep_alive=True, private=False):
    return answer_head(
        found,
        request or head(),
        found.framing if framing is None else framing,
        keep_alive=keep_alive,
        date=DATE,
        private=private,
    )


def received(found, request=None, framing=None, **options):
    """What a client reads: h11's view of the head."""
    request = request or head()
    client = h11.Connection(h11.CLIENT)
    upgrade = [("Upgrade", "websocket"), ("Connection", "upgrade")] if found.status == 101 else []
    client.send(h11.Request(method=request.method, target="/", headers=[("Host", "x"), *upgrade]))
    client.send(h11.EndOfMessage())
    written = octets(found, request, framing, **options)
    assert written.count(b"\r\n\r\n") == 1
    client.receive_data(written)
    return client.next_event()


def got(found, request=None, framing=None, **options):
    """The fields a client reads, without Date."""
    return [(name, value) for name, value in received(found, request, framing, **options).headers if name != b"date"]


@pytest.mark.parametrize(
    ("status", "reason", "line"),
    [
        (200, b"OK", b"HTTP/1.1 200 OK\r\n"),
        (404, b"", b"HTTP/1.1 404 \r\n"),
        (299, b"caf\xe9", b"HTTP/1.1 299 caf\xe9\r\n"),
        (599, b"So what", b"HTTP/1.1 599 So what\r\n"),
    ],
)
def test_the_status_line(status, reason, line):
    """N70, N73: our version, their status and words."""
    assert octets(answer(status, reason=reason)).startswith(line)
    assert octets(answer(status, reason=reason), head(http_1_0=True)).startswith(line)


def test_ordinary_fields():
    """N11, N73, N83, N89: untouched, in order, never joined."""
    pairs = [
        (b"Server", b"origin/1"),
        (b"Set-Cookie", b"a=1"),
        (b"X-b", b"\xe9"),
        (b"set-cookie", b"b=2"),
        (b"WWW-Authenticate", b'Bearer realm="x", error="invalid_token"'),
        (b"Cache-Control", b"public, max-age=60"),
        (b"Vary", b"Accept"),
        (b"Via", b"1.1 origin"),
        (b"Content-Encoding", b"gzip"),
        (b"X_odd.name", b"1"),
    ]
    lines = octets(answer(200, *pairs, framing=CHUNKED)).split(b"\r\n")
    assert lines[1:11] == [b"%b: %b" % pair for pair in pairs]


@pytest.mark.parametrize(
    "name",
    [
        b"Connection",
        b"Keep-Alive",
        b"Proxy-Connection",
        b"TE",
        b"Transfer-Encoding",
        b"Upgrade",
        b"Trailer",
        b"Proxy-Authenticate",
    ],
)
def test_hop_by_hop_fields(name):
    """N63: not passed on."""
    assert got(answer(200, (name, b"5"), (b"X-A", b"1"), framing=length(2))) == [
        (b"x-a", b"1"),
        (b"content-length", b"2"),
    ]


@pytest.mark.parametrize("connection", [b"X-Hop", b"keep-alive, x-hop", b"close ,X-HOP"])
def test_a_field_for_this_connection_only(connection):
    """N63: whatever the upstream's Connection names is removed, before or after it."""
    found = answer(204, (b"X-Hop", b"1"), (b"Connection", connection), (b"x-hop", b"2"), (b"X-Hopper", b"3"))
    assert got(found) == [(b"x-hopper", b"3")]


def test_an_upstream_that_nominates_date_and_caching():
    """N63, N84: removed as it says; the Date is then ours."""
    found = answer(204, DATED, (b"Cache-Control", b"private"), (b"Connection", b"Date, cache-control"))
    assert received(found).headers.raw_items() == [(b"Date", DATE)]


def test_the_date():
    """N84: added when there is none, left alone otherwise."""
    assert dict(received(answer(204)).headers)[b"date"] == DATE
    assert dict(received(answer(204, DATED)).headers)[b"date"] == DATED[1]


@pytest.mark.parametrize(
    ("status", "method", "framing", "expected"),
    [
        (200, "GET", length(5), [(b"content-length", b"5")]),
        (200, "GET", CHUNKED, [(b"transfer-encoding", b"chunked")]),
        (200, "GET", UNTIL_CLOSE, []),
        (200, "GET", NO_BODY, [(b"content-length", b"0")]),
        (205, "GET", NO_BODY, [(b"content-length", b"0")]),
        (200, "HEAD", NO_BODY, [(b"content-length", b"99")]),
        (304, "GET", NO_BODY, [(b"content-length", b"99")]),
        (204, "GET", NO_BODY, []),
    ],
)
def test_the_framing(status, method, framing, expected):
    """N74, N79: ours alone; only HEAD and 304 keep a length, which describes what is not there."""
    found = answer(status, (b"Content-Length", b"99"), (b"Transfer-Encoding", b"chunked"), (b"Content-Length", b"99"))
    assert got(found, head(method=method), framing) == expected
    lengths = octets(found, head(method=method), framing).count(b"Content-Length")
    assert lengths == [name for name, _ in expected].count(b"content-length")


def test_a_head_answer_with_a_length():
    """N79: it passes."""
    found = answer(200, (b"Content-Length", b"99"))
    assert got(found, head(method="HEAD")) == [(b"content-length", b"99")]


def test_a_head_answer_without_a_length():
    """N79: none is made up."""
    assert got(answer(200), head(method="HEAD")) == []


@pytest.mark.parametrize(
    ("keep_alive", "http_1_0", "expected"),
    [
        (True, False, []),
        (False, False, [(b"connection", b"close")]),
        (True, True, [(b"connection", b"keep-alive")]),
        (False, True, [(b"connection", b"close")]),
    ],
)
def test_what_becomes_of_the_connection(keep_alive, http_1_0, expected):
    """N58, N63: ours to say, whatever the upstream says about its own."""
    found = answer(204, (b"Connection", b"keep-alive"), (b"Connection", b"close"))
    assert got(found, head(http_1_0=http_1_0), keep_alive=keep_alive) == expected


@pytest.mark.parametrize("keep_alive", [True, False])
def test_switching_protocols(keep_alive):
    """N86: 101 with Upgrade and the connection option, and no framing."""
    found = answer(
        101,
        (b"Upgrade", b"WebSocket"),
        (b"Connection", b"Upgrade"),
        (b"Sec-WebSocket-Accept", b"x"),
        (b"Content-Length", b"5"),
        reason=b"Switching Protocols",
        upgrade=b"websocket",
    )
    event = received(found, keep_alive=keep_alive)
    assert event.status_code == 101
    assert [pair for pair in event.headers if pair[0] != b"date"] == [
        (b"sec-websocket-accept", b"x"),
        (b"connection", b"upgrade"),
        (b"upgrade", b"WebSocket"),
    ]


@pytest.mark.parametrize(
    ("status", "controls", "added"),
    [
        (200, [], True),
        (206, [b"max-age=60"], True),
        (200, [b"public", b"max-age=5"], True),
        (200, [b'no-cache="private"'], True),
        (200, [b"Private"], False),
        (200, [b"max-age=1, no-store"], False),
        (200, [b'private="set-cookie"'], False),
        (200, [b"public", b"no-store"], False),
        (302, [], False),
        (401, [], False),
    ],
)
def test_a_private_answer(status, controls, added):
    """N4: a 2xx to a token in the query is marked for shared caches, and never loosened."""
    found = answer(status, *[(b"Cache-Control", control) for control in controls], framing=length(1))
    expected = [*controls, b"private"] if added else controls
    assert [value for name, value in got(found, private=True) if name == b"cache-control"] == expected
    assert [value for name, value in got(found) if name == b"cache-control"] == controls


def test_early_hints():
    """N78, N79: passed on without framing and hop-by-hop fields."""
    found = answer(
        103,
        (b"Link", b"</a.css>; rel=preload"),
        (b"Content-Length", b"5"),
        (b"Transfer-Encoding", b"chunked"),
        (b"Connection", b"x-hop"),
        (b"X-Hop", b"1"),
        (b"Link", b"</b.js>"),
        reason=b"Early Hints",
    )
    assert informational(found) == (b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nLink: </b.js>\r\n\r\n")


def test_a_bare_100():
    """N77: a head and nothing else."""
    assert informational(answer(100, reason=b"Continue")) == b"HTTP/1.1 100 Continue\r\n\r\n"


def test_trailers():
    """N54: what describes the body passes, in order."""
    found = fields((b"Grpc-Status", b"0"), (b"Digest", b"x"), (b"grpc-message", b"\xe9"))
    assert trailers(found) == b"Grpc-Status: 0\r\nDigest: x\r\ngrpc-message: \xe9\r\n"
    assert trailers(()) == b""


@pytest.mark.parametrize(
    "name",
    [
        b"Content-Length",
        b"Transfer-Encoding",
        b"Trailer",
        b"Host",
        b"Authorization",
        b"Cookie",
        b"Set-Cookie",
        b"WWW-Authenticate",
        b"Content-Type",
        b"Cache-Control",
        b"Connection",
        b"Expect",
        b"Max-Forwards",
        b"Location",
        b"Via",
        b"X-Forwarded-For",
        b"X-Real-IP",
        b"X-User",
        b"X_User",
        b"X-Auth-Subject",
    ],
)
def test_trailers_that_would_mean_too_much(name):
    """N54, N65, T33: framing, routing, authentication and identity are dropped, in every spelling."""
    found = fields((name, b"1"), (name.upper(), b"1"), (b"X-Kept", b"1"))
    assert trailers(found, frozenset({b"x-auth-subject"})) == b"X-Kept: 1\r\n"


NAMES = [
    b"Connection",
    b"Content-Length",
    b"Date",
    b"Keep-Alive",
    b"Set-Cookie",
    b"Upgrade",
    b"X-Hop",
    b"Cache-Control",
]
values = st.sampled_from([b"1", b"close", b"x-hop", b"keep-alive, x-hop", b"public", b"set-cookie"])
pairs = st.lists(st.tuples(st.sampled_from(NAMES), values), max_size=8)


@given(
    status=st.sampled_from([200, 204, 304, 404]),
    pairs=pairs,
    method=st.sampled_from(["GET", "HEAD"]),
    framing=st.sampled_from([length(3), CHUNKED, UNTIL_CLOSE]),
    keep_alive=st.booleans(),
    http_1_0=st.booleans(),
    private=st.booleans(),
)
def test_any_answer(status, pairs, method, framing, keep_alive, http_1_0, private):
    """N63, N73, N74, N79, N84: one well-formed head, one framing, a Date, nothing of the other connection."""
    pairs = [(name, b"3" if name == b"Content-Length" else value) for name, value in pairs]
    bodiless = method == "HEAD" or status in {204, 304}
    found = answer(status, *pairs, framing=NO_BODY if bodiless else framing)
    event = received(found, head(method=method, http_1_0=http_1_0), keep_alive=keep_alive, private=private)
    names = [name for name, _ in event.headers]
    assert event.status_code == status
    assert names.count(b"date") >= 1
    assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1
    assert names.count(b"connection") == (not keep_alive or http_1_0)
    assert not {b"keep-alive", b"upgrade"} & set(names)
    nominated = b",".join(value for name, value in pairs if name == b"Connection")
    cookies = [value for name, value in pairs if name == b"Set-Cookie"]
    expected = [] if b"set-cookie" in nominated else cookies
    assert [value for name, value in event.headers if name == b"set-cookie"] == expected
    assert (b"x-hop" in names) == (b"X-Hop" in dict(pairs) and b"x-hop" not in nominated)
