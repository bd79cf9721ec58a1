import json

import pytest

from fastgate.policy.signed import ALGORITHMS, Signed, candidates, read_header, read_key_set
from fastgate.tokens.signature import payload
from tests.support.signer import Signer, mac, sign


def verified(token, *keys):
    """Do what a source does with a token and a key set."""
    signed = read_header(token)
    assert isinstance(signed, Signed), signed
    return payload(token, candidates(read_key_set(json.dumps({"keys": keys}).encode()), signed))


@pytest.mark.parametrize("alg", sorted(ALGORITHMS))
def test_every_algorithm(alg):
    """RFC 7518, RFC 8037 and RFC 9864: what the key signed is genuine, what another key signed is not."""
    signer = Signer(alg)
    assert verified(signer.sign({"a": 1}), signer.public) == b'{"a":1}'
    other = {**Signer(alg, "other").public, "kid": "k1"}
    assert verified(signer.sign({"a": 1}), other) is None


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_changed_octet(part):
    """In header, payload or signature."""
    signer = Signer()
    parts = signer.sign({"a": 1, "b": "x" * 30}, typ="logout+jwt").split(".")
    middle = len(parts[part]) // 2
    parts[part] = parts[part][:middle] + ("A" if parts[part][middle] != "A" else "B") + parts[part][middle + 1 :]
    token = ".".join(parts)
    assert not isinstance(read_header(token), Signed) or verified(token, signer.public) is None


def test_a_public_key_used_as_a_secret():
    """RFC 8725 section 2.1: HS256 with what everybody can read is refused by its name."""
    token = mac(Signer(), b'{"a":1}')
    assert not isinstance(read_header(token), Signed)
    assert payload(token, [Signer().public]) is None


def test_no_signature():
    """`none`, in a token that a library would take."""
    token = sign(None, b'{"a":1}', alg="none")
    assert not isinstance(read_header(token), Signed)
    assert payload(token, [Signer().public]) is None


def test_a_signature_of_another_algorithm_by_the_same_key():
    """RFC 8725 section 3.1: a key that says what it is for is used for nothing else."""
    signer = Signer("RS256")
    token = sign(signer.key, b"{}", alg="PS256", kid="k1")
    assert verified(token, signer.public) is None
    assert verified(token, {**signer.public, "alg": "PS256"}) == b"{}"


def test_keys_that_cannot_be_used():
    """A broken key beside the right one hides nothing, and nothing breaks."""
    signer = Signer("ES256")
    broken = [
        {"kty": "EC", "kid": "k1", "crv": "P-256"},
        {"kty": "EC", "kid": "k1", "crv": "P-256", "x": 5, "y": None},
        {"kty": "EC", "kid": "k1", "crv": "P-256", "x": "AAAA", "y": "AAAA"},
        {"kty": "EC", "kid": "k1", "crv": "P-256", "x": "é", "y": "="},
    ]
    token = signer.sign({"a": 1})
    assert verified(token, *broken) is None
    assert verified(token, *broken, signer.public) == b'{"a":1}'


def test_without_a_name_of_the_key():
    """All that fit are tried."""
    signer = Signer("ES256", "b")
    others = [Signer("ES256", "a").public, Signer().public]
    assert verified(signer.sign({"a": 1}, kid=...), *others, signer.public) == b'{"a":1}'
    assert verified(signer.sign({"a": 1}, kid=...), *others) is None


def test_headers_that_are_not_understood():
    """RFC 7515 section 4: they are ignored, unless they are critical."""
    signer = Signer("ES256")
    assert verified(signer.sign({"a": 1}, **{"x-own": {"b": 2}, "cty": "x"}), signer.public) == b'{"a":1}'
    assert payload(signer.sign({"a": 1}, b64=True), [signer.public]) == b'{"a":1}'
