from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from fastgate.policy.digest import KEY_SIZE, derive_key, token_key
from tests.policy.values import IDP


def test_the_token_does_not_show():
    """N26: what is remembered is a digest of 32 octets."""
    key = token_key(IDP, "secret-token")
    assert len(key) == 32
    assert b"secret" not in key
    assert key == token_key(IDP, "secret-token")


def test_one_token_at_two_providers():
    """N25, T2: another key makes another digest."""
    other = replace(IDP, digest_key=derive_key("secret", "other"))
    assert token_key(IDP, "tok") != token_key(other, "tok")


def test_any_octets_of_a_revoked_token():
    """T16: NUL, format marks and lone surrogates are digested like anything else."""
    keys = {token_key(IDP, token) for token in ("", "\0", "%s", "a\r\nb", "\ud800", "é")}
    assert len(keys) == 6


def test_a_key_fits_the_digest():
    """N26: as long as BLAKE2b takes, and the same every time."""
    assert len(derive_key("s", "a")) == KEY_SIZE
    assert derive_key("s", "a") == derive_key("s", "a")


parts = st.lists(st.text(alphabet="ab", max_size=3), max_size=3)


@given(one=parts, other=parts, secret=st.text(max_size=3))
def test_parts_that_read_alike_when_joined(one, other, secret):
    """N25, T6: no two different lists of parts give one key; neither do two secrets."""
    assert (derive_key(secret, *one) == derive_key(secret, *other)) == (one == other)
    assert derive_key(secret + "x", *one) != derive_key(secret, *one)
