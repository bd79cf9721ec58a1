from urllib.parse import unquote

import h11
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgate.model import ClaimHeader
from fastgate.policy.identity import MAX_VALUE, identity

SUBJECT = ClaimHeader(b"X-Subject", ("sub",))


def written(value):
    """The value written for a claim, or None."""
    fields = identity((SUBJECT,), {"sub": value})
    assert len(fields) <= 1
    return fields[0][1] if fields else None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("alex", b"alex"),
        ("a b", b"a b"),
        ("!~/?=&\"'", b"!~/?=&\"'"),
        (7, b"7"),
        (1.5, b"1.5"),
        (True, b"true"),
        (False, b"false"),
        (["a", "b"], b'["a","b"]'),
        ({"a": [1, None]}, b'{"a":[1,null]}'),
        ([], b"[]"),
    ],
)
def test_a_claim_as_text(value, text):
    """N67, T17: a string is itself, everything else compact JSON."""
    assert written(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a\r\nX-Admin: 1", b"a%0D%0AX-Admin: 1"),
        ("a\0b", b"a%00b"),
        ("a\tb\x7f", b"a%09b%7F"),
        ("é", b"%C3%A9"),
        ("ÿ\u20ac", b"%C3%BF%E2%82%AC"),
        ("100%", b"100%25"),
        ("%41", b"%2541"),
        (" alex ", b"%20alex%20"),
        ("  ", b"%20%20"),
        ("\ud800", b"%ED%A0%80"),
        (["é\n"], b'["%C3%A9\\n"]'),
    ],
)
def test_a_claim_that_could_end_the_line(value, text):
    """N67, T17: percent-encoded as UTF-8, in one field; one decoding gives it back."""
    assert written(value) == text


@pytest.mark.parametrize("value", [None, "", float, {1: 2}, 2**70, ["\udc00"]])
def test_a_claim_that_is_not_written(value):
    """T17: null, nothing, and what is not JSON make no field."""
    assert written(value) is None


def test_an_absent_claim():
    """T26: no field of ours; the client's own is removed by forwarding."""
    assert identity((SUBJECT,), {}) == ()


@pytest.mark.parametrize(
    ("value", "octets"),
    [("a" * MAX_VALUE, MAX_VALUE), ("a" * (MAX_VALUE + 1), None), ("é" * (MAX_VALUE // 6 + 1), None)],
)
def test_a_long_claim(value, octets):
    """T17: as long as the bound, encoded, or not at all."""
    text = written(value)
    assert (None if text is None else len(text)) == octets


def test_a_claim_inside_another():
    """N67: the path is followed."""
    headers = (ClaimHeader(b"X-Org", ("org", "name")),)
    assert identity(headers, {"org": {"name": "acme"}}) == ((b"X-Org", b"acme"),)


def test_two_claims_for_one_header():
    """N67, T17: one field, of the first claim that is there."""
    headers = (
        ClaimHeader(b"X-User", ("username",)),
        ClaimHeader(b"x-user", ("sub",)),
        ClaimHeader(b"X-Client", ("client_id",)),
    )
    claims = {"sub": "1", "client_id": "c"}
    assert identity(headers, claims) == ((b"x-user", b"1"), (b"X-Client", b"c"))
    assert identity(headers, {**claims, "username": "alex"})[0] == (b"X-User", b"alex")


claims = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(value=claims)
def test_any_claim(value):
    """N67, T17: one clean line, which percent-decodes to the claim."""
    text = written(value)
    if text is None:
        assert value is None or value == "" or len(orjson.dumps(value)) * 3 > MAX_VALUE
        return
    head = b"GET / HTTP/1.1\r\nHost: x\r\nX-Subject: %b\r\n\r\n" % text
    server = h11.Connection(h11.SERVER)
    server.receive_data(head)
    assert list(server.next_event().headers) == [(b"host", b"x"), (b"x-subject", text)]
    decoded = unquote(text.decode("ascii"), errors="strict")
    assert decoded == (value if isinstance(value, str) else orjson.dumps(value).decode())
