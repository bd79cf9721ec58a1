import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgate.errors import Cannot, IntrospectionError
from fastgate.model import Refusal, Refused
from fastgate.policy.signed import ALGORITHMS, MAX_HEADER, Signed, candidates, names_one_of, read_header, read_key_set


def b64(octets):
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def compact(header, payload=b"{}", signature="c2ln"):
    octets = header if isinstance(header, bytes) else json.dumps(header).encode()
    return f"{b64(octets)}.{b64(payload)}.{signature}"


def rsa(bits=2048, **changes):
    members = {"kty": "RSA", "kid": "a", "n": b64((1 << (bits - 1)).to_bytes(bits // 8)), "e": "AQAB", **changes}
    return {name: value for name, value in members.items() if value is not ...}


def ec(**changes):
    return {"kty": "EC", "kid": "e", "crv": "P-256", "x": "eA", "y": "eQ", **changes}


def key_set(*keys):
    return json.dumps({"keys": keys}).encode()


# --- the header -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "typ"),
    [
        ({}, None),
        ({"typ": "logout+jwt"}, "logout+jwt"),
        ({"typ": "application/LOGOUT+jwt"}, "logout+jwt"),
        ({"typ": "JWT"}, "jwt"),
    ],
)
def test_a_header(header, typ):
    """What it claims is read; the type is a media type whose "application/" may be left out (RFC 7515 4.1.9)."""
    assert read_header(compact({"alg": "RS256", "kid": "a", **header})) == Signed("RS256", "a", typ)


def test_keys_in_the_header_are_not_looked_at():
    """Whoever forged the token wrote them, too."""
    header = {"alg": "RS256", "jku": "https://evil.test/", "jwk": rsa(), "x5u": "https://evil.test/", "x5c": ["MII"]}
    assert read_header(compact(header)) == Signed("RS256", None, None)


@pytest.mark.parametrize("alg", ["none", "None", "HS256", "HS512", "RSA1_5", "ES256K", "rs256", ""])
def test_a_signature_that_anybody_could_make(alg):
    """No algorithm but those that only the holder of a private key can use: none, and no MAC with a public key."""
    said = read_header(compact({"alg": alg}, signature="" if alg == "none" else "c2ln"))
    assert isinstance(said, Refusal)
    assert said.reason is Refused.FORGED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.b",
        "a.b.c.d.e",
        "a..c",
        "a.b.c\n",
        "a b.b.c",
        "é.b.c",
        "a.b.c",
        compact(b""),
        compact(b"[]"),
        compact(b'"x"'),
        compact(b"\xff"),
        compact(b'{"alg":"none","alg":"RS256"}'),
        compact({}),
        compact({"alg": None}),
        compact({"alg": ["RS256"]}),
        compact({"alg": "RS256", "kid": 5}),
        compact({"alg": "RS256", "typ": ["JWT"]}),
        compact({"alg": "RS256", "crit": ["b64"], "b64": False}),
        compact({"alg": "RS256", "crit": []}),
        compact({"alg": "RS256", "x": "x" * MAX_HEADER}),
    ],
)
def test_what_is_no_signed_token(text):
    """Refused before any key is looked for; an extension that is demanded is not understood."""
    said = read_header(text)
    assert isinstance(said, Refusal)
    assert said.reason is Refused.MALFORMED


@given(text=st.text() | st.from_regex(r"\A[A-Za-z0-9_-]{1,9}\.[A-Za-z0-9_-]{1,9}\.[A-Za-z0-9_-]{0,9}\Z"))
def test_any_text(text):
    """A refusal in our own words, never a crash."""
    said = read_header(text)
    assert isinstance(said, Refusal)
    assert len(text) < 20 or text not in said.detail


# --- the keys ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [
        rsa(),
        rsa(use="sig"),
        rsa(key_ops=["verify"]),
        rsa(kid=...),
        rsa(4096, alg="PS512"),
        ec(),
        {"kty": "OKP", "crv": "Ed25519", "x": "eA"},
    ],
)
def test_a_key_that_verifies_signatures(key):
    """Kept as it is."""
    assert read_key_set(key_set(key)) == (key,)


@pytest.mark.parametrize(
    "key",
    [
        rsa(use="enc"),
        rsa(use=None),
        rsa(key_ops=["encrypt"]),
        rsa(key_ops="verify"),
        rsa(1024),
        rsa(2040),
        rsa(n=...),
        rsa(n=5),
        rsa(n="A"),
        rsa(n=["A" * 400]),
        {"kty": "oct", "k": "c2VjcmV0"},
        {"kty": "AKP"},
        {"kty": None},
        {"kty": ["RSA"]},
        {},
        "key",
        None,
    ],
)
def test_a_key_that_does_not(key):
    """For encryption, too short, symmetric, of a kind we do not know: left out, the others count (RFC 7517 5)."""
    assert read_key_set(key_set(key, ec())) == (ec(),)
    with pytest.raises(IntrospectionError) as caught:
        read_key_set(key_set(key))
    assert caught.value.kind is Cannot.MALFORMED


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"keys": {}}', b'{"keys": null}', b'{"keys": []}'])
def test_what_is_no_key_set(body):
    """Unusable: whether anything is genuine cannot be known from it."""
    with pytest.raises(IntrospectionError) as caught:
        read_key_set(body)
    assert caught.value.kind is Cannot.MALFORMED


@pytest.mark.parametrize(
    ("alg", "key", "fits"),
    [
        ("RS256", rsa(), True),
        ("PS384", rsa(), True),
        ("RS256", rsa(alg="RS256"), True),
        ("RS512", rsa(alg="RS256"), False),
        ("PS256", rsa(alg="RS256"), False),
        ("ES256", rsa(), False),
        ("ES256", ec(), True),
        ("ES384", ec(), False),
        ("RS256", ec(), False),
        ("EdDSA", {"kty": "OKP", "crv": "Ed448"}, True),
        ("Ed25519", {"kty": "OKP", "crv": "Ed448"}, False),
        ("EdDSA", {"kty": "OKP", "crv": "X25519"}, False),
        ("EdDSA", {"kty": "OKP"}, False),
        ("ES256", ec(crv=["P-256"]), False),
        ("RS256", rsa(alg=["RS256"]), False),
    ],
)
def test_which_key_fits_which_algorithm(alg, key, fits):
    """A key verifies what it is meant for; the token alone does not choose (RFC 8725 section 3.1)."""
    assert candidates([key], Signed(alg, None, None)) == ([key] if fits else [])


def test_which_key_a_token_names():
    """The one of that name; one without a name may be it; without a name in the token all that fit are tried."""
    first, second, nameless = rsa(), rsa(kid="b"), rsa(kid=...)
    keys = [first, second, nameless]
    assert candidates(keys, Signed("RS256", "b", None)) == [second, nameless]
    assert candidates(keys, Signed("RS256", None, None)) == keys
    assert candidates([first, second], Signed("RS256", "c", None)) == []


@pytest.mark.parametrize(("kid", "named"), [("a", True), ("b", False), (None, False)])
def test_whether_a_newer_key_set_could_tell(kid, named):
    """Not when the key it names is here already."""
    assert names_one_of([rsa(), rsa(kid=...)], Signed("RS256", kid, None)) is named


def test_every_algorithm_is_asymmetric():
    """The list holds no way to sign with what everybody knows."""
    assert {kind for kind, _ in ALGORITHMS.values()} == {"RSA", "EC", "OKP"}
