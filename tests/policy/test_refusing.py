import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgate.model import Forwarding
from fastgate.policy.forwarding import refuse
from tests.policy.values import CHUNKED, head, length

TERMS = Forwarding(via=b"Gate-1", protected=frozenset({b"x-auth-subject"}))
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="


def status(request, terms=TERMS):
    """The status of the refusal, None without one."""
    refusal = refuse(request, terms)
    return None if refusal is None else refusal.status


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"close",
        b"keep-alive",
        b"Keep-Alive, Upgrade",
        b"close, TE",
        b"Upgrade, HTTP2-Settings",
        b"x-hop-by-hop",
        b"transfer-encoding",
        b",, ,",
    ],
)
def test_a_connection_field(value):
    """N63: options and fields for this connection only are fine."""
    assert status(head("/", (b"Connection", value))) is None


@pytest.mark.parametrize(
    "name",
    [
        b"Authorization",
        b"authorization",
        b"Host",
        b"Cookie",
        b"Content-Length",
        b"Content-Type",
        b"Accept",
        b"Via",
        b"Expect",
        b"X-Forwarded-For",
        b"X-Real-IP",
        b"Forwarded",
        b"X-User",
        b"X-Consumer-Id",
        b"X-Auth-Subject",
    ],
)
@pytest.mark.parametrize("pattern", [b"%b", b"close, %b", b"%b ,keep-alive", b"te,\t%b"])
def test_connection_names_what_is_for_the_whole_way(name, pattern):
    """N64, T32: 400 for nominating what is end-to-end, or what only we set."""
    assert status(head("/", (b"Connection", b"close"), (b"Connection", pattern % name))) == 400


@pytest.mark.parametrize(
    "value",
    [b"1.1 gate-1", b"1.1 a, 1.0 GATE-1 (comment)", b"HTTP/1.1 gate-1,1.1 b", b"1.1\tgate-1"],
)
def test_a_loop(value):
    """N68: 508 when we have already forwarded it."""
    assert status(head("/", (b"Via", b"1.1 x"), (b"Via", value))) == 508


@pytest.mark.parametrize("value", [b"", b"1.1 gate-10", b"1.1 a (gate-1)", b"gate-1", b"1.1 gate-1:80", b", ,"])
def test_other_gateways(value):
    """N68: their names are not ours."""
    assert status(head("/", (b"Via", value))) is None


@pytest.mark.parametrize(
    ("method", "value", "expected"),
    [
        ("OPTIONS", b"0", 200),
        ("OPTIONS", b"000", 200),
        ("OPTIONS", b"1", None),
        ("OPTIONS", b"10", None),
        ("OPTIONS", b"", None),
        ("OPTIONS", b"x", None),
        ("GET", b"0", None),
    ],
)
def test_max_forwards(method, value, expected):
    """N69: OPTIONS that may go no further is answered by us."""
    assert status(head("/", (b"Max-Forwards", value), method=method)) == expected


def handshake(*fields, **changes):
    return head("/", *fields, **{"upgrade": b"websocket", **changes})


def test_a_websocket_handshake():
    """N86: passes."""
    assert status(handshake((b"Sec-WebSocket-Version", b"13"), (b"Sec-WebSocket-Key", KEY))) is None


@pytest.mark.parametrize("versions", [[], [b"8"], [b"13, 8"], [b"13", b"13"], [b"013"]])
def test_another_websocket_version(versions):
    """N87: 426 that names the version."""
    fields = [(b"Sec-WebSocket-Version", version) for version in versions]
    refusal = refuse(handshake((b"Sec-WebSocket-Key", KEY), *fields), TERMS)
    assert refusal.status == 426
    assert dict(refusal.fields)[b"Sec-WebSocket-Version"] == b"13"
    assert dict(refusal.fields)[b"Upgrade"] == b"websocket"


@pytest.mark.parametrize("keys", [[], [b""], [KEY[:-1]], [KEY + b"="], [KEY, KEY], [b"!" * 22 + b"=="]])
def test_a_broken_websocket_key(keys):
    """N87: 400."""
    fields = [(b"Sec-WebSocket-Key", key) for key in keys]
    assert status(handshake((b"Sec-WebSocket-Version", b"13"), *fields)) == 400


@pytest.mark.parametrize("changes", [{"method": "POST"}, {"framing": length(5)}, {"framing": CHUNKED}])
def test_a_websocket_handshake_with_a_body_or_another_method(changes):
    """N86: 400; what follows the head must not be read as a request by one of us only."""
    assert status(handshake((b"Sec-WebSocket-Version", b"13"), (b"Sec-WebSocket-Key", KEY), **changes)) == 400


@pytest.mark.parametrize("upgrade", [None, b"h2c", b"websocket, h2c"])
def test_another_upgrade(upgrade):
    """N87: not a handshake; the field is stripped by forwarding."""
    assert status(head("/", upgrade=upgrade)) is None


@given(
    fields=st.lists(
        st.tuples(
            st.sampled_from([b"Connection", b"Via", b"Max-Forwards", b"Sec-WebSocket-Key"]), st.binary(max_size=12)
        ),
        max_size=4,
    ),
    upgrade=st.sampled_from([None, b"websocket"]),
    method=st.sampled_from(["GET", "OPTIONS"]),
)
def test_any_request(fields, upgrade, method):
    """N64, N68, N69, N87: never a crash; one of the five answers or none."""
    assert status(head("/", *fields, upgrade=upgrade, method=method)) in {None, 200, 400, 426, 508}
