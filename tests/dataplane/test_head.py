"""Request heads: what is taken, what is refused, with which status."""

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastgate.dataplane.head import find_head_end, parse_request_head
from fastgate.errors import HeadError
from fastgate.model import BodyKind, Limits, RequestHead

LIMITS = Limits(request_line=8000, header_field=4000, header_section=16_000, header_count=50)


def parse(raw: bytes) -> RequestHead:
    assert find_head_end(raw, LIMITS) == len(raw)
    return parse_request_head(raw, limits=LIMITS, scheme="http", peer="127.0.0.1", port=80)


def request(line: bytes = b"GET / HTTP/1.1", *fields: bytes, host: bytes | None = b"Host: a") -> bytes:
    lines = [line, *((host,) if host is not None else ()), *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def status_of(raw: bytes) -> int:
    with pytest.raises(HeadError) as caught:
        parse(raw)
    return caught.value.status


def test_a_usual_head():
    """N43, N44, N71: names keep their spelling, the target its octets."""
    head = parse(request(b"GET /a%2Fb//c;d?x=1+2& HTTP/1.1", b"X-Odd: \t v \xe4 \t"))
    assert (head.method, head.target, head.path, head.query) == ("GET", b"/a%2Fb//c;d?x=1+2&", "/a%2Fb//c;d", "x=1+2&")
    assert head.fields[1] == (b"x-odd", b"X-Odd", b"v \xe4")
    assert head.keep_alive
    assert not head.http_1_0


def test_an_empty_query_is_a_query():
    """N71: `/a?` is not `/a`."""
    assert parse(request(b"GET /a? HTTP/1.1")).query == ""
    assert parse(request(b"GET /a HTTP/1.1")).query is None


@pytest.mark.parametrize(
    "host",
    [
        None,
        b"Host:",
        b"Host: a b",
        b"Host: a/b",
        b"Host: u@a",
        b"Host: a,b",
        b"Host: a:x",
        b"Host: a:99999",
        b"Host: [::1",
        b"Host: a\\b",
        b"Host: a?b",
        b"Host: \xe4",
    ],
)
def test_a_bad_host_is_400(host):
    """N36: missing or invalid Host."""
    assert status_of(request(host=host)) == 400


@pytest.mark.parametrize("host", [b"a", b"A.b", b"a:80", b"[::1]:8080", b"1.2.3.4", b"a_b"])
def test_good_hosts_are_lowered(host):
    """N36: the authority in lower case."""
    assert parse(request(host=b"Host: " + host)).host == host.decode().lower()


@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
def test_two_hosts_are_400(version):
    """N36: also in HTTP/1.0, also when they are equal."""
    assert status_of(request(b"GET / " + version, b"Host: a")) == 400


def test_http_1_0_needs_no_host():
    """N36, N70: HTTP/1.0 without Host is served; it closes unless it asks otherwise."""
    head = parse(request(b"GET / HTTP/1.0", host=None))
    assert (head.host, head.http_1_0, head.keep_alive) == ("", True, False)
    assert parse(request(b"GET / HTTP/1.0", b"Connection: Keep-Alive")).keep_alive


@pytest.mark.parametrize(
    "field",
    [
        b"X : a",
        b" X: a",
        b"X: a\r\n b",
        b"X: a\rb",
        b"X: a\x00b",
        b"X: a\x01b",
        b"X: a\x7fb",
        b"X: a\nY: b",
        b"X",
        b": a",
        b"X\xe4: a",
        b"X(y): a",
        b"X\t: a",
        b'X"y: a',
    ],
)
def test_malformed_fields_are_400(field):
    """N37 to N43: nothing lenient about field lines."""
    assert status_of(request(b"GET / HTTP/1.1", field)) == 400


@pytest.mark.parametrize(
    "line",
    [
        b"GET  / HTTP/1.1",
        b"GET /  HTTP/1.1",
        b"GET\t/ HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b" GET / HTTP/1.1",
        b"GET /",
        b"/ HTTP/1.1",
        b"G(T / HTTP/1.1",
        b"GET / http/1.1",
        b"GET / HTTP/1,1",
        b"GET / HTTP/11",
    ],
)
def test_malformed_request_lines_are_400(line):
    """N44: a method token, two spaces, a version in capitals."""
    assert status_of(request(line)) == 400


@pytest.mark.parametrize("version", [b"HTTP/2.0", b"HTTP/0.9", b"HTTP/1.9", b"HTTP/3.0"])
def test_other_versions_are_505(version):
    """N44: HTTP/1.0 and HTTP/1.1 are what we speak."""
    assert status_of(request(b"GET / " + version)) == 505


@pytest.mark.parametrize(
    "target",
    [b"/a#b", b"/a\\b", b"/\xe4", b"a", b"a:80", b"*", b"?x", b"ftp://a/b", b"http://", b"http:///x", b"http://u@a/"],
)
def test_targets_that_are_none_are_400(target):
    """N47, N48: no fragment, no backslash, no raw octets, no autocorrection."""
    assert status_of(request(b"GET " + target + b" HTTP/1.1")) == 400


@pytest.mark.parametrize("method", [b"CONNECT", b"TRACE"])
def test_connect_and_trace_are_501(method):
    """N47: we tunnel and mirror nothing."""
    assert status_of(request(method + b" / HTTP/1.1")) == 501


def test_asterisk_is_for_options():
    """N47: `*` only with OPTIONS."""
    assert parse(request(b"OPTIONS * HTTP/1.1")).target == b"*"


@pytest.mark.parametrize(
    ("target", "host", "origin"),
    [(b"http://B:81/x?y", "b:81", b"/x?y"), (b"HTTPS://b", "b", b"/"), (b"http://b?x", "b", b"/?x")],
)
def test_the_authority_of_an_absolute_target_wins(target, host, origin):
    """N46: RFC 9112 section 3.2.2."""
    head = parse(request(b"GET " + target + b" HTTP/1.1"))
    assert (head.host, head.target) == (host, origin)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([b"Content-Length: 3", b"Transfer-Encoding: chunked"], 400),
        ([b"Content-Length: 3", b"Content-Length: 3"], 400),
        ([b"Content-Length: 3, 3"], 400),
        ([b"Content-Length: +3"], 400),
        ([b"Content-Length: -3"], 400),
        ([b"Content-Length: 0x3"], 400),
        ([b"Content-Length: 3_0"], 400),
        ([b"Content-Length: 3 0"], 400),
        ([b"Content-Length:"], 400),
        ([b"Content-Length: \xb2"], 400),
        ([b"Content-Length: 9999999999999999999"], 400),
        ([b"Transfer-Encoding: chunked, chunked"], 400),
        ([b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"], 400),
        ([b"Transfer-Encoding: chunked, gzip"], 400),
        ([b"Transfer-Encoding: gzip, chunked"], 501),
        ([b"Transfer-Encoding: xchunked"], 501),
        ([b"Transfer-Encoding: \x0bchunked"], 400),
        ([b"Transfer-Encoding: gzip"], 501),
        ([b"Transfer-Encoding: identity"], 501),
        ([b"Transfer-Encoding:"], 400),
        ([b"Transfer-Encoding: ,chunked"], 400),
        ([b"Expect: 200-maybe"], 417),
    ],
)
def test_ambiguous_framing_is_refused(fields, status):
    """N49 to N52: anything in doubt about where the body ends is refused."""
    assert status_of(request(b"POST / HTTP/1.1", *fields)) == status


@pytest.mark.parametrize("name", [b"Content-Type", b"content-range", b"User-Agent", b"Max-Forwards", b"Upgrade"])
def test_fields_that_may_stand_once(name):
    """N36, N52: which of two is meant is not ours to guess, with a body or without one."""
    assert status_of(request(b"GET / HTTP/1.1", name + b": a", name + b": b")) == 400
    assert status_of(request(b"POST / HTTP/1.1", b"Content-Length: 1", name + b": a", name + b": a")) == 400


def test_transfer_encoding_in_http_1_0_is_400():
    """N49: faulty framing."""
    assert status_of(request(b"POST / HTTP/1.0", b"Transfer-Encoding: chunked")) == 400


def test_framings():
    """N52, N75: none, a length, chunked; for every method."""
    assert parse(request(b"GET / HTTP/1.1")).framing.kind is BodyKind.NONE
    assert parse(request(b"DELETE / HTTP/1.1", b"Content-Length: 007")).framing == (BodyKind.LENGTH, 7)
    assert parse(request(b"GET / HTTP/1.1", b"transfer-encoding: Chunked")).framing.kind is BodyKind.CHUNKED


def test_limits_have_their_statuses():
    """N45: 414 for the line, 431 for fields."""
    assert status_of(request(b"GET /" + b"a" * 8000 + b" HTTP/1.1")) == 414
    assert status_of(request(b"GET / HTTP/1.1", b"X: " + b"a" * 4000)) == 431
    assert status_of(request(b"GET / HTTP/1.1", *[b"X: a"] * 50)) == 431
    with pytest.raises(HeadError) as caught:
        find_head_end(request(b"GET / HTTP/1.1", *[b"X: " + b"a" * 3000] * 9), LIMITS)
    assert caught.value.status == 431
    assert parse(request(b"GET /" + b"a" * 7900 + b" HTTP/1.1")).path


@pytest.mark.parametrize(
    ("begun", "status"),
    [
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"\x16\x03\x01\x02", 400),
        (b" GET", 400),
        (b"GET /" + b"a" * 9000, 414),
        (b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 5000, 431),
    ],
)
def test_a_hopeless_beginning_is_refused_at_once(begun, status):
    """N42, N45: it is not waited for what cannot come."""
    with pytest.raises(HeadError) as caught:
        find_head_end(begun, LIMITS)
    assert caught.value.status == status


def test_an_incomplete_head_is_waited_for():
    """N62: nothing is decided before the empty line."""
    raw = request()
    assert all(find_head_end(raw[:end], LIMITS) == -1 for end in range(1, len(raw)))


def test_a_long_line_that_is_no_field_costs_its_length():
    """C3: 200 of them are refused while one would not come back if the cost were the square of the length."""
    raw = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a" * 60_000 + b"\r\n\r\n"
    for _ in range(200):
        with pytest.raises(HeadError):
            parse_request_head(raw, limits=Limits(), scheme="http", peer="", port=0)


def test_upgrade_needs_connection_upgrade_on_1_1():
    """N86: the three conditions of an upgrade."""
    assert (
        parse(request(b"GET / HTTP/1.1", b"Upgrade: WebSocket", b"Connection: keep-alive, Upgrade")).upgrade
        == b"websocket"
    )
    assert parse(request(b"GET / HTTP/1.1", b"Upgrade: websocket")).upgrade is None
    assert parse(request(b"GET / HTTP/1.0", b"Upgrade: websocket", b"Connection: upgrade")).upgrade is None
    assert (
        parse(request(b"GET / HTTP/1.1", b"Upgrade: websocket", b"Connection: upgrade", b"Content-Length: 1")).upgrade
        is None
    )


def test_expect_is_ignored_in_http_1_0():
    """N77: RFC 9110 section 10.1.1."""
    assert parse(request(b"PUT / HTTP/1.1", b"Expect: 100-Continue", b"Content-Length: 1")).expects_continue
    assert not parse(request(b"PUT / HTTP/1.0", b"Expect: 100-continue", b"Content-Length: 1")).expects_continue


PIECES = st.sampled_from(
    [
        b"GET",
        b" ",
        b"/",
        b"a",
        b"HTTP/1.1",
        b"\r\n",
        b"Host: a",
        b"\n",
        b"\r",
        b":",
        b"Content-Length",
        b"1",
        b"Transfer-Encoding: chunked",
        b"\x00",
        b"\xff",
        b"X-A: b",
        b"Connection: close",
        b"?",
        b"%2f",
        b"\t",
    ]
)


@given(st.lists(PIECES, max_size=14).map(b"".join))
@example(b"GET / HTTP/1.1\r\nHost: a\r\n")
def test_whatever_we_take_h11_takes_too(begun):
    """N37 to N52: h11, an independent strict parser, agrees on method, target and fields of all we accept."""
    raw = begun + b"\r\n\r\n"
    raw = raw[: raw.index(b"\r\n\r\n") + 4]
    try:
        if find_head_end(raw, LIMITS) != len(raw):
            return
        head = parse_request_head(raw, limits=LIMITS, scheme="http", peer="", port=0)
    except HeadError:
        return
    oracle = h11.Connection(h11.SERVER)
    oracle.receive_data(raw)
    event = oracle.next_event()
    assert isinstance(event, h11.Request)
    assert event.method.decode() == head.method
    assert [(name, value) for name, value in event.headers] == [(name, value) for name, _, value in head.fields]
