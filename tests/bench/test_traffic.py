"""What the bench sends: real requests, of the shapes that the cases promise."""

import json
from collections import Counter

import h11
import pytest

from bench import traffic
from bench.settings import SCOPE
from bench.stubs import idp

COMPOSED = {
    "same": traffic.same,
    "inactive": traffic.inactive,
    "varied": traffic.varied,
    "post": traffic.post,
    "one token": traffic.one_token,
    "cold": traffic.cold,
}


def read(octets: bytes) -> tuple[h11.Request, bytes]:
    """The request in these octets, and its body; nothing may follow."""
    reader, body = h11.Connection(h11.SERVER), b""
    reader.receive_data(octets)
    head = reader.next_event()
    assert isinstance(head, h11.Request)
    while isinstance(event := reader.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert reader.trailing_data == (b"", False)
    return head, body


@pytest.mark.parametrize("compose", COMPOSED.values(), ids=COMPOSED)
def test_every_request_is_one(compose):
    """wrk's script separates them by zero octets, so there is none in them."""
    for request in compose()[:200]:
        head, _ = read(request)
        assert dict(head.headers)[b"authorization"].startswith(b"Bearer ")
        assert b"\0" not in request


def test_varied_requests_have_ten_fields_of_which_three_are_new():
    seen = [read(request)[0].headers for request in traffic.varied()]
    assert {len(fields) for fields in seen} == {10}
    values = [dict(fields) for fields in seen]
    changing = [name for name in values[0] if len({fields[name] for fields in values}) > 1]
    assert changing == [b"traceparent", b"tracestate", b"x-request-id"]
    assert len({fields[b"x-request-id"] for fields in values}) == len(seen)


def test_the_post_is_a_kibibyte_of_json():
    head, body = read(traffic.post()[0])
    assert (head.method, len(body)) == (b"POST", 1024)
    json.loads(body)


def test_tokens_are_drawn_by_zipf_and_as_long_as_the_one_token():
    drawn = Counter(traffic.zipf())
    assert sum(drawn.values()) == traffic.DRAWN
    (first, often), (_, half) = drawn.most_common(2)
    assert first == traffic.one_token()[0]
    assert 0.9 < often / (2 * half) < 1.1
    assert len(drawn) > traffic.TOKENS / 2
    assert {len(request) for request in drawn} == {len(traffic.same()[0])}


def test_the_provider_knows_the_tokens_for_what_they_are():
    assert idp.claims(traffic.INACTIVE) == {"active": False}
    assert SCOPE not in idp.claims(traffic.NARROW)["scope"].split()
    for token in (traffic.TOKEN, traffic.known(1), traffic.slow_token(400, 1)):
        assert SCOPE in idp.claims(token)["scope"].split()
