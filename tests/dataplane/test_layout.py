"""A layout is a strict subset of what the parser accepts, and writes what the policy writes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgate.dataplane import layout
from fastgate.dataplane.head import parse_request_head
from fastgate.model import Forwarding, Limits
from tests.support.plane import access, provider, route, service, snapshot

NEEDS = access(provider())
SNAPSHOT = snapshot((route("/", service(9), NEEDS),), forwarding=Forwarding(protected=frozenset({b"x-auth-subject"})))


def head(*lines, line="GET /a HTTP/1.1", host="Host: gateway.test"):
    return "\r\n".join([line, host, *lines, "", ""]).encode("latin-1")


def parsed(raw):
    return parse_request_head(raw, limits=Limits(), scheme="http", peer="192.0.2.1", port=80)


def learned(raw, *, hides=False, wanted=frozenset()):
    return layout.learn(raw, parsed(raw).fields, SNAPSHOT, wanted, hides=hides)


def test_what_decides_is_found_and_what_goes_on_is_kept():
    """N69, N73: lines go on in their order; those of this connection, Host and the length do not."""
    raw = head(
        *(
            "Accept: a",
            "Authorization: Bearer t",
            "Connection: keep-alive",
            "X-Auth-Subject: root",
            "Content-Length: 3",
        ),
        *("X-Other: o", "Keep-Alive: 5", "Cookie: c"),
    )
    shape = learned(raw)
    groups = shape.pattern.fullmatch(raw).groups()
    assert shape.gist(groups) == (b"GET /a", b"gateway.test", b"Bearer t")
    assert groups[shape.length] == b"3"
    kept = (b"Accept: a\r\nAuthorization: Bearer t\r\n", b"X-Other: o\r\n", b"Cookie: c\r\n")
    assert shape.lines(groups) == kept
    assert not shape.said


def test_a_hidden_token_stays_here():
    """N11: where a route hides credentials, the line of the token is found but does not go on."""
    raw = head("Authorization: Bearer t", "Accept: a")
    shape = learned(raw, hides=True)
    groups = shape.pattern.fullmatch(raw).groups()
    assert shape.gist(groups)[2] == b"Bearer t"
    assert shape.lines(groups) == (b"Accept: a\r\n",)


def test_a_head_without_anything_to_keep():
    raw = head()
    shape = learned(raw)
    groups = shape.pattern.fullmatch(raw).groups()
    assert shape.gist(groups) == (b"GET /a", b"gateway.test")
    assert shape.lines(groups) == ()
    assert shape.length == -1


def test_what_a_client_says_of_its_way_is_left_out_and_marked():
    """N65: whether to believe it is not a matter of layout."""
    raw = head("X-Forwarded-For: 10.0.0.1", "Accept: a")
    shape = learned(raw)
    assert shape.said
    assert shape.lines(shape.pattern.fullmatch(raw).groups()) == (b"Accept: a\r\n",)


@pytest.mark.parametrize(
    "line",
    [
        *("Via: 1.1 other", "Max-Forwards: 3", "Expect: 100-continue", "Upgrade: h2c", "Connection: close"),
        *("Connection: keep-alive, x", "X-Tight:v", "X-Space:  v", "X-End: v ", "X-Tenant: a"),
    ],
)
def test_a_head_that_has_no_layout(line):
    """N63, N64, N68, N69: what steers, what is to be mended, what routes are chosen by."""
    assert learned(head(line), wanted=frozenset({b"x-tenant"})) is None


@pytest.mark.parametrize("hides", [False, True])
def test_a_head_with_two_tokens_has_no_layout(hides):
    """N3: a gist holds one, and would not tell the head from that with this one alone."""
    assert learned(head("Authorization: Bearer a", "X-Id: 1", "authorization: Bearer b"), hides=hides) is None


@pytest.mark.parametrize(
    "other",
    [
        head("Accept: a ", "X-Id: 1"),
        head("Accept: ", "X-Id: 1"),
        head("Accept: a\r", "X-Id: 1"),
        head("Accept: \x01", "X-Id: 1"),
        head("Accept:  a", "X-Id: 1"),
        head("accept: a", "X-Id: 1"),
        head("X-Id: 1", "Accept: a"),
        head("Accept: a", "X-Id: 1", "X-Id: 2"),
        head("Accept: a\nX-Evil: b", "X-Id: 1"),
        head("Accept: a", "X-Id: 1", line="GET  /a HTTP/1.1"),
        head("Accept: a", "X-Id: 1", line="GET /a HTTP/1.0"),
        head("Accept: a", "X-Id: 1", line="GET /a#b HTTP/1.1"),
        head("Accept: a", "X-Id: 1", line="GET a HTTP/1.1"),
        head("Accept: a", "X-Id: 1")[:-2],
        head("Accept: a", "X-Id: 1") + b"x",
    ],
)
def test_a_head_that_is_not_of_this_layout(other):
    """N36-N48: anything but other values is read the usual way."""
    assert learned(head("Accept: b", "X-Id: 2")).pattern.fullmatch(other) is None


@given(st.binary(max_size=12), st.integers(0, 60), st.integers(0, 8))
def test_what_matches_is_what_the_parser_accepts(octets, place, length):
    """N37-N43: whatever is put into a head, a layout takes nothing that the parser refuses."""
    raw = head("Authorization: Bearer token", "Accept: a/b", "Content-Length: 12")
    shape = learned(raw)
    changed = raw[:place] + octets + raw[place + length :]
    match = shape.pattern.fullmatch(changed)
    if match is None:
        return
    groups = match.groups()
    line, host, authorization = shape.gist(groups)
    if (line, host) != (b"GET /a", b"gateway.test"):
        return  # the parser reads these before anything is known of them
    again = parsed(changed)
    found = {name: value for name, _, value in again.fields}
    assert (found[b"host"], found[b"authorization"]) == (host, authorization)
    assert int(groups[shape.length]) == again.framing.length
