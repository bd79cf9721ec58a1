from dataclasses import replace
from ipaddress import ip_network

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgate.model import NO_BODY, Extraction, Forwarding, TokenSource
from fastgate.policy.forwarding import hide_form_token, upstream_request
from tests.policy.values import BEARER, CHUNKED, SERVICE, access, forward, head, length, route

PLAIN = Forwarding()
PUBLIC = forward(source=None)
PERMITTED = forward()
PROVENANCE = {b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port", b"x-real-ip", b"via"}


def sent(request, onward=PUBLIC, terms=PLAIN, framing=NO_BODY):
    """What an upstream reads: h11's view of the head, names in lower case, values as octets."""
    octets = upstream_request(request, onward, terms, framing)
    assert octets.endswith(b"\r\n\r\n")
    assert octets.count(b"\r\n\r\n") == 1
    server = h11.Connection(h11.SERVER)
    server.receive_data(octets)
    event = server.next_event()
    assert isinstance(event, h11.Request)
    return event


def passed(request, onward=PUBLIC, terms=PLAIN, framing=NO_BODY):
    """The fields of the forwarded head without Host and what says how the request came."""
    return [
        (name, value)
        for name, value in sent(request, onward, terms, framing).headers
        if name != b"host" and name not in PROVENANCE
    ]


def values(name, request, onward=PUBLIC, terms=PLAIN, framing=NO_BODY):
    return [value for key, value in sent(request, onward, terms, framing).headers if key == name]


# --- request line and Host ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    ["/", "/a/b?c=d", "/a%2Fb", "/a%2fb", "/%2e", "//a//", "/a;b=c", "/a+b", "/a?", "/a??b", "/?a=%zz&&b", "*"],
)
def test_the_target(target):
    """N71: forwarded byte for byte."""
    assert sent(head(target, method="OPTIONS")).target == target.encode()


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "QUERY", "M-SEARCH"])
def test_the_method(method):
    """N71: whatever it is."""
    assert sent(head(method=method)).method == method.encode()


@pytest.mark.parametrize("http_1_0", [True, False])
def test_the_version(http_1_0):
    """N70: our own, whatever the client speaks."""
    assert sent(head(http_1_0=http_1_0)).http_version == b"1.1"


@pytest.mark.parametrize(
    ("host", "preserve", "expected"),
    [
        ("gate.test:8000", False, b"up.test:8080"),
        ("gate.test:8000", True, b"gate.test:8000"),
        ("", True, b"up.test:8080"),
    ],
)
def test_the_host(host, preserve, expected):
    """N46: one Host, of the service or regenerated from the client's authority."""
    request = head("/", (b"Host", b"evil.test"), host=host)
    assert values(b"host", request, forward(source=None, preserve_host=preserve)) == [expected]


@pytest.mark.parametrize(
    ("base", "strip", "target", "expected"),
    [
        ("", False, "/t/req?a", "/t/req?a"),
        ("", True, "/t/req?a=b", "/req?a=b"),
        ("", True, "/t", "/"),
        ("", True, "/t?", "/?"),
        ("", True, "/t/", "/"),
        ("/s", False, "/t/req", "/s/t/req"),
        ("/s", True, "/t/req", "/s/req"),
        ("/s", True, "/t", "/s"),
        ("/s", True, "/t/", "/s/"),
        ("/s", True, "/t%2Fx", "/s/t%2Fx"),
        ("/s", True, "/t//x;y/%2e?", "/s//x;y/%2e?"),
        ("/s", True, "*", "*"),
    ],
)
def test_the_path_of_the_service(base, strip, target, expected):
    """N71, N72: joined with exactly one slash, the route's prefix gone where it is asked for, the rest untouched."""
    onward = forward(source=None)
    stripped = route("t", "/t", public=True, strip_path=strip, service=replace(SERVICE, path=base))
    request = head(target, method="OPTIONS")
    assert sent(request, onward._replace(route=stripped)).target == expected.encode()


@pytest.mark.parametrize(
    ("patterns", "paths", "target", "expected"),
    [
        ((r"/v\d+",), (), "/v12/x", "/x"),
        ((r"/v\d+/",), (), "/v12/x", "/x"),
        ((), ("/t/",), "/t/x", "/x"),
        ((), ("/",), "/t/x", "/t/x"),
        ((), (), "/t/x", "/t/x"),
    ],
)
def test_what_strip_path_takes(patterns, paths, target, expected):
    """N71: the whole match of a pattern, or the prefix; what is left begins with a slash."""
    stripped = route("t", *paths, patterns=patterns, public=True, strip_path=True)
    assert sent(head(target), PUBLIC._replace(route=stripped)).target == expected.encode()


def test_a_prefix_that_takes_the_slash():
    """N71: the service's path and the rest are still joined by one."""
    stripped = route("t", "/t/", public=True, strip_path=True, service=replace(SERVICE, path="/s"))
    assert sent(head("/t/x"), PUBLIC._replace(route=stripped)).target == b"/s/x"


# --- what is removed ------------------------------------------------------------------------------------------


def test_ordinary_fields():
    """N73: order, case of names, repetition and obs-text survive; unknown fields pass."""
    request = head(
        "/",
        (b"X-b", b"1"),
        (b"Accept", b"a"),
        (b"x-A", b"\xe9\xff"),
        (b"ACCEPT", b"b"),
        (b"Cookie", b"a=1; b=2"),
        (b"X-Empty", b""),
        (b"If-None-Match", b'"x"'),
    )
    octets = upstream_request(request, PUBLIC, PLAIN, NO_BODY)
    lines = octets.split(b"\r\n")[2:9]
    assert lines == [
        b"X-b: 1",
        b"Accept: a",
        b"x-A: \xe9\xff",
        b"ACCEPT: b",
        b"Cookie: a=1; b=2",
        b"X-Empty: ",
        b'If-None-Match: "x"',
    ]


@pytest.mark.parametrize(
    "name",
    [
        b"Connection",
        b"Keep-Alive",
        b"Proxy-Connection",
        b"TE",
        b"Transfer-Encoding",
        b"Upgrade",
        b"HTTP2-Settings",
        b"Trailer",
        b"Proxy-Authenticate",
        b"Proxy-Authorization",
        b"Content-Length",
        b"Expect",
    ],
)
def test_hop_by_hop_fields(name):
    """N63, N74: not forwarded; framing and expectations are ours."""
    assert passed(head("/", (name, b"5"), (b"X-A", b"1"))) == [(b"x-a", b"1")]


@pytest.mark.parametrize("connection", [(b"x-hop",), (b"close, X-Hop",), (b"keep-alive", b" x-hop ,,close")])
def test_a_field_for_this_connection_only(connection):
    """N63: what Connection names is removed, wherever it stands."""
    options = [(b"Connection", value) for value in connection]
    request = head("/", (b"X-Hop", b"1"), *options, (b"x-hop", b"2"), (b"X-Hopper", b"3"))
    assert passed(request) == [(b"x-hopper", b"3")]


def test_connection_names_what_is_ours():
    """N64, T32: it takes nothing away that we set or that is for the whole way."""
    names = b"x-user, x-subject, authorization, x-forwarded-for, x-real-ip, via, host, accept, content-length"
    request = head("/", (b"Connection", names), BEARER, (b"Accept", b"a"))
    onward = forward(identity=((b"X-Subject", b"alex"),))
    assert passed(request, onward, framing=length(3)) == [
        (b"authorization", b"Bearer tok"),
        (b"accept", b"a"),
        (b"content-length", b"3"),
        (b"x-subject", b"alex"),
    ]
    assert {name for name, _ in sent(request, onward).headers} >= {*PROVENANCE, b"host"}


SPOOFED = [
    b"Forwarded",
    b"X-Forwarded",
    b"X-Forwarded-Prefix",
    b"X-Forwarded-User",
    b"X-Forwarded-Client-Cert",
    b"X-User",
    b"X-User-Id",
    b"X-UserInfo",
    b"X-Scope",
    b"X-Scopes",
    b"X-Client-Id",
    b"X-Consumer-Username",
    b"X-Credential-Identifier",
    b"X-Anonymous-Consumer",
    b"X-Authenticated-Groups",
    b"X-Access-Token",
    b"X-ID-Token",
    b"Remote-User",
    b"X-Remote-User",
    b"Client-Cert",
    b"Client-Cert-Chain",
    b"X-Client-Cert",
    b"X-SSL-Client-Verify",
    b"X-Original-URL",
    b"X-Rewrite-URL",
    b"X-HTTP-Method-Override",
    b"X-HTTP-Method",
    b"X-Method-Override",
    b"X-Auth-Subject",
    b"Proxy",
]


def spellings(name):
    """The ways in which upstreams take one name for another."""
    return [
        name,
        name.lower(),
        name.upper(),
        name.swapcase(),
        name.replace(b"-", b"_"),
        name.replace(b"-", b"."),
        name.replace(b"-", b"_", 1),
        name + b"_",
    ]


@pytest.mark.parametrize("onward", [PUBLIC, PERMITTED], ids=["public", "protected"])
@pytest.mark.parametrize("name", SPOOFED)
def test_a_spoofed_identity(name, onward):
    """N65, T9, T33: removed on every route, in every spelling, however often."""
    terms = Forwarding(protected=frozenset({b"x-auth-subject"}))
    copies = [(spelling, b"admin") for spelling in spellings(name)]
    assert passed(head("/", *copies, (b"X-Kept", b"1"), *copies), onward, terms) == [(b"x-kept", b"1")]


@pytest.mark.parametrize("name", [b"X_Trace", b"x.trace", b"X-Trace!", b"X'Y", b"_", b"x-" + b"a" * 70 + b"_"])
def test_a_name_with_other_characters(name):
    """N66: dropped, however long it is."""
    assert passed(head("/", (name, b"1"), (b"X-" + b"a" * 70, b"2"))) == [(b"x-" + b"a" * 70, b"2")]


@pytest.mark.parametrize("name", [b"Accept-Language", b"Cookie", b"Authorization", b"X-Anything"])
def test_a_mapped_claim_is_missing(name):
    """T26: the client's copy of a header that any route maps is removed all the same."""
    terms = Forwarding(protected=frozenset({name.lower()}))
    assert passed(head("/", (name, b"evil")), PERMITTED, terms) == []


def test_a_mapped_claim():
    """N64, N65, N67: ours stands alone, whatever the client sent."""
    onward = forward(identity=((b"X-Subject", b"alex"), (b"X-Org", b"acme")))
    terms = Forwarding(protected=frozenset({b"x-subject", b"x-org"}))
    request = head("/", (b"X-Subject", b"root"), (b"x_subject", b"root"), (b"X-SUBJECT", b"root"))
    assert passed(request, onward, terms) == [(b"x-subject", b"alex"), (b"x-org", b"acme")]


# --- the access token -----------------------------------------------------------------------------------------

HIDING = access(hide_credentials=True, extraction=Extraction(frozenset(TokenSource), cookie_name="at"))
SHOWING = access(extraction=HIDING.extraction)


@pytest.mark.parametrize("value", [b"Bearer tok", b"bEARER   tok", b"Basic YTpi", b"DPoP x", b"anything"])
def test_authorization_on_a_public_route(value):
    """N11: byte for byte."""
    assert passed(head("/", (b"authoriZation", value))) == [(b"authorization", value)]


@pytest.mark.parametrize(("required", "expected"), [(SHOWING, [b"bEARER   tok"]), (HIDING, [])])
def test_a_token_from_the_header(required, expected):
    """N11: byte for byte, or removed where the route hides it."""
    request = head("/", (b"Authorization", b"bEARER   tok"))
    assert values(b"authorization", request, forward(access=required)) == expected


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/x?access_token=tok", "/x"),
        ("/x?a=%2F&access_token=tok&b", "/x?a=%2F&b"),
        ("/x?access%5Ftoken=tok&a", "/x?a"),
        ("/x?a=access_token&&access_token", "/x?a=access_token&"),
    ],
)
def test_a_token_from_the_query(target, expected):
    """N4: the parameter never goes upstream, everything else in the query does."""
    for required in (SHOWING, HIDING):
        assert sent(head(target), forward(source=TokenSource.QUERY, access=required)).target == expected.encode()


def test_a_token_from_the_query_goes_on_in_the_header():
    """N4: the upstream gets it where it is safer; one Authorization, unless the route hides it."""
    request = head("/?access_token=tok", (b"Authorization", b"Basic YTpi"))
    shown = values(b"authorization", request, forward(source=TokenSource.QUERY, access=SHOWING))
    hidden = values(b"authorization", request, forward(source=TokenSource.QUERY, access=HIDING))
    assert (shown, hidden) == ([b"Bearer tok"], [b"Basic YTpi"])


@pytest.mark.parametrize("target", ["/?access_token=x", "/?"])
def test_a_parameter_that_is_no_token(target):
    """N71: it passes where the token was found elsewhere."""
    assert sent(head(target), PERMITTED).target == target.encode()


def test_a_query_that_went_away():
    """N4: no query is made where there is none."""
    assert sent(head("/x"), forward(source=TokenSource.QUERY)).target == b"/x"


@pytest.mark.parametrize(
    ("cookie", "expected"),
    [
        (b"at=tok", []),
        (b"a=1; at=tok; b=2", [b"a=1; b=2"]),
        (b"at=tok; a=1", [b"a=1"]),
        (b"a=1;at=tok", [b"a=1"]),
        (b"AT=1; xat=2", [b"AT=1; xat=2"]),
    ],
)
def test_a_token_from_a_cookie(cookie, expected):
    """N12: the cookie as it came, or without the token where the route hides it."""
    request = head("/", (b"Cookie", cookie))
    assert values(b"cookie", request, forward(source=TokenSource.COOKIE, access=SHOWING)) == [cookie]
    assert values(b"cookie", request, forward(source=TokenSource.COOKIE, access=HIDING)) == expected


def test_cookies_beside_a_token_from_elsewhere():
    """N73: untouched, hidden credentials or not, on public routes too."""
    request = head("/", (b"Cookie", b"at=x"))
    assert values(b"cookie", request, forward(access=HIDING)) == [b"at=x"]
    assert values(b"cookie", request) == [b"at=x"]


@pytest.mark.parametrize("source", [TokenSource.COOKIE, TokenSource.BODY])
@pytest.mark.parametrize("required", [SHOWING, HIDING])
@pytest.mark.parametrize(
    ("value", "kept"),
    [(b"Bearer other", False), (b"dpop x", False), (b"Bearer", False), (b"Basic YTpi", True), (b"Bearerish x", True)],
)
def test_a_second_token_that_nobody_verified(source, required, value, kept):
    """N11: it does not reach an upstream that trusts us; other credentials are not ours to judge."""
    request = head("/", (b"Authorization", value))
    expected = [value] if kept else []
    assert values(b"authorization", request, forward(source=source, access=required)) == expected


@pytest.mark.parametrize(
    ("form", "rest"),
    [
        (b"access_token=tok", b""),
        (b"a=%2F+b&access_token=tok&c", b"a=%2F+b&c"),
        (b"access%5Ftoken=x&a=\xff", b"a=\xff"),
        (b"a=access_token", b"a=access_token"),
        (b"", b""),
    ],
)
def test_a_token_hidden_from_a_form(form, rest):
    """N5: only the parameter goes."""
    assert hide_form_token(form) == rest


# --- what is added --------------------------------------------------------------------------------------------


def test_how_the_request_came():
    """N64, N65: said by us; nobody else's word counts."""
    lies = [(name, b"lie") for name in sorted(PROVENANCE - {b"via"})]
    request = head("/", *lies, scheme="https", peer="192.0.2.7", port=8443, host="gate.test:8443")
    fields = dict(sent(request).headers)
    assert fields[b"x-forwarded-for"] == b"192.0.2.7"
    assert fields[b"x-forwarded-proto"] == b"https"
    assert fields[b"x-forwarded-host"] == b"gate.test:8443"
    assert fields[b"x-forwarded-port"] == b"8443"
    assert fields[b"x-real-ip"] == b"192.0.2.7"
    assert all(len(values(name, request)) == 1 for name in PROVENANCE)


TRUSTING = Forwarding(trusted=(ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")))
WORD = (
    (b"X-Forwarded-For", b"203.0.113.9"),
    (b"X-Forwarded-For", b"198.51.100.4"),
    (b"X-Forwarded-Proto", b"https"),
    (b"X-Forwarded-Host", b"shop.test"),
    (b"X-Forwarded-Port", b"443"),
    (b"X-Real-IP", b"203.0.113.9"),
    (b"Forwarded", b"for=evil"),
)


@pytest.mark.parametrize("peer", ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8::1"])
def test_a_trusted_peer(peer):
    """N65: its word is kept and its list continued; Forwarded is not passed on."""
    fields = dict(sent(head("/", *WORD, peer=peer), terms=TRUSTING).headers)
    assert fields[b"x-forwarded-for"] == b"203.0.113.9, 198.51.100.4, " + peer.encode()
    assert fields[b"x-forwarded-proto"] == b"https"
    assert fields[b"x-forwarded-host"] == b"shop.test"
    assert fields[b"x-forwarded-port"] == b"443"
    assert fields[b"x-real-ip"] == b"203.0.113.9"
    assert b"forwarded" not in fields


@pytest.mark.parametrize("peer", ["192.0.2.7", "::1", "::ffff:192.0.2.7", "", "unix", "10.0.0.1.evil"])
def test_a_peer_that_is_not_trusted(peer):
    """N65: nothing of what it says is kept."""
    fields = dict(sent(head("/", *WORD, peer=peer), terms=TRUSTING).headers)
    assert fields[b"x-forwarded-for"] == peer.encode()
    assert fields[b"x-forwarded-proto"] == b"http"
    assert fields[b"x-real-ip"] == peer.encode()


def test_a_trusted_peer_that_says_little():
    """N65: what it does not say, we do."""
    fields = dict(sent(head("/", (b"X-Forwarded-Proto", b"https"), peer="10.0.0.1"), terms=TRUSTING).headers)
    assert fields[b"x-forwarded-for"] == b"10.0.0.1"
    assert fields[b"x-forwarded-proto"] == b"https"
    assert fields[b"x-forwarded-host"] == b"gate.test"


@pytest.mark.parametrize(("http_1_0", "ours"), [(False, b"1.1 fastgate"), (True, b"1.0 fastgate")])
def test_via(http_1_0, ours):
    """N68: appended, with the version in which the request came."""
    request = head("/", (b"Via", b"1.1 a, 1.1 b"), (b"Via", b"1.1 c"), http_1_0=http_1_0)
    assert values(b"via", request) == [b"1.1 a, 1.1 b", b"1.1 c", ours]


@pytest.mark.parametrize(
    ("method", "value", "expected"),
    [
        ("OPTIONS", b"3", b"2"),
        ("OPTIONS", b"1", b"0"),
        ("OPTIONS", b"0", b"0"),
        ("OPTIONS", b"-1", b"-1"),
        ("OPTIONS", b"9" * 5000, b"9" * 5000),
        ("GET", b"3", b"3"),
    ],
)
def test_max_forwards(method, value, expected):
    """N69: counted down where it counts, otherwise passed on."""
    assert values(b"max-forwards", head("/", (b"Max-Forwards", value), method=method)) == [expected]


@pytest.mark.parametrize(
    ("method", "framing", "expected"),
    [
        ("POST", length(5), [(b"content-length", b"5")]),
        ("GET", length(5), [(b"content-length", b"5")]),
        ("DELETE", length(0), [(b"content-length", b"0")]),
        ("POST", CHUNKED, [(b"transfer-encoding", b"chunked")]),
        ("HEAD", CHUNKED, [(b"transfer-encoding", b"chunked")]),
        ("GET", NO_BODY, []),
        ("DELETE", NO_BODY, []),
        ("POST", NO_BODY, [(b"content-length", b"0")]),
        ("PUT", NO_BODY, [(b"content-length", b"0")]),
    ],
)
def test_the_framing(method, framing, expected):
    """N51, N74, N75: exactly one, ours, whatever the client's fields say and the method is."""
    request = head("/", (b"Content-Length", b"99"), (b"Transfer-Encoding", b"chunked"), method=method)
    assert passed(request, framing=framing) == expected


@pytest.mark.parametrize("expects", [True, False])
def test_an_expectation(expects):
    """N77: forwarded when the client may still wait for it."""
    request = head("/", (b"Expect", b"100-Continue"), method="POST", expects_continue=expects)
    assert values(b"expect", request, framing=length(3)) == ([b"100-continue"] if expects else [])


def test_a_websocket():
    """N86: Upgrade goes on with the connection option that belongs to it."""
    request = head(
        "/", (b"Upgrade", b"WebSocket"), (b"Connection", b"Upgrade"), (b"Sec-WebSocket-Key", b"x"), upgrade=b"websocket"
    )
    assert passed(request) == [
        (b"sec-websocket-key", b"x"),
        (b"connection", b"upgrade"),
        (b"upgrade", b"websocket"),
    ]


@pytest.mark.parametrize(
    ("upgrade", "http_1_0"),
    [(b"h2c", False), (b"websocket, h2c", False), (b"tls/1.0", False), (None, False), (b"websocket", True)],
)
def test_another_upgrade(upgrade, http_1_0):
    """N63, N87: stripped."""
    request = head(
        "/",
        (b"Upgrade", upgrade or b"x"),
        (b"Connection", b"Upgrade, HTTP2-Settings"),
        (b"HTTP2-Settings", b"AAMAAABkAAQAAP__"),
        upgrade=upgrade,
        http_1_0=http_1_0,
    )
    assert passed(request) == []


# --- any request ----------------------------------------------------------------------------------------------

TCHAR = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
KNOWN = [
    b"Accept",
    b"Authorization",
    b"Connection",
    b"Content-Length",
    b"Cookie",
    b"Expect",
    b"Host",
    b"Keep-Alive",
    b"Max-Forwards",
    b"TE",
    b"Transfer-Encoding",
    b"Upgrade",
    b"Via",
    b"X-Forwarded-For",
    b"X-Real-IP",
    b"x-user",
    b"X_User",
    b"X-Subject",
    b"X-Trace",
]
names = st.sampled_from(KNOWN) | st.text(alphabet=TCHAR, min_size=1, max_size=8).map(str.encode)
octets = st.binary(max_size=12).map(lambda value: bytes(c for c in value if c >= 0x20 and c != 0x7F).strip(b" "))
lists = st.lists(st.sampled_from([b"close", b"X-Trace", b"authorization", b"x-subject", b"host"]), max_size=3).map(
    b", ".join
)
pairs = st.lists(st.tuples(names, octets | lists), max_size=8)
sources = st.sampled_from([None, *TokenSource])


@given(
    pairs=pairs,
    source=sources,
    hide=st.booleans(),
    framing=st.sampled_from([NO_BODY, CHUNKED, length(0), length(7)]),
    method=st.sampled_from(["GET", "POST", "OPTIONS"]),
    upgrade=st.sampled_from([None, b"websocket", b"h2c"]),
    expects=st.booleans(),
    trusted=st.booleans(),
)
def test_any_request(pairs, source, hide, framing, method, upgrade, expects, trusted):
    """N11, N63-N75, T9, T32, T33: one well-formed head, one framing, one Host, our identity alone, order kept."""
    identity = ((b"X-Subject", b"alex"),) if source else ()
    terms = Forwarding(trusted=(ip_network("192.0.2.0/24"),) if trusted else (), protected=frozenset({b"x-subject"}))
    request = head(
        "/a?access_token=tok&b", *pairs, method=method, upgrade=upgrade, expects_continue=expects, framing=framing
    )
    onward = forward(
        source=source, identity=identity, access=None if source is None else replace(HIDING, hide_credentials=hide)
    )
    event = sent(request, onward, terms, framing)
    fields = list(event.headers)
    got = [name for name, _ in fields]
    assert got.count(b"host") == got.count(b"x-real-ip") == got.count(b"x-forwarded-for") == 1
    assert got.count(b"content-length") + got.count(b"transfer-encoding") <= 1
    assert [value for name, value in fields if name == b"x-subject"] == [value for _, value in identity]
    assert not {b"keep-alive", b"te", b"x-user", b"x_user", b"proxy"} & set(got)
    assert (b"upgrade" in got) == (upgrade == b"websocket")
    assert (b"connection" in got) == (upgrade == b"websocket")
    assert (b"access_token" in event.target) == (source is not TokenSource.QUERY)
    theirs = [(name.lower(), value) for name, value in pairs if name.lower() in {b"accept", b"x-trace"}]
    ours = [(name, value) for name, value in fields if name in {b"accept", b"x-trace"}]
    nominated = b"x-trace" in b",".join(value for name, value in pairs if name == b"Connection").lower()
    assert ours == [pair for pair in theirs if pair[0] == b"accept" or not nominated]
