"""Sealed for one place by one of us, and for nobody else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgate.model import Mark
from fastgate.tokens.shared.sealed_marks import Sealed, open_, pack, seal, unpack
from fastgate.tokens.shared.sealing import KEYS_MAX, MARK_SIZE, Keyring, Unopened
from fastgate.tokens.shared.wakeups import MESSAGE_MAX, RECENT_MAX, Wakeups

ONE, TWO, THREE = "one-secret-of-many", "two-secrets-of-many", "three-secrets-of-many"


def reason(keyring, *what):
    with pytest.raises(Unopened) as caught:
        keyring.open(*what)
    return caught.value.reason


@given(st.binary(max_size=4), st.binary(max_size=40), st.binary(max_size=200))
def test_what_is_sealed_opens_in_its_place_only(purpose, name, plain):
    """N26, T38: purpose and name are part of it, and cannot be mistaken for each other."""
    keyring = Keyring([ONE])
    sealed = keyring.seal(purpose, name, plain)
    assert keyring.open(purpose, name, sealed) == plain
    assert keyring.seal(purpose, name, plain) == sealed
    assert Keyring([ONE]).open(purpose, name, sealed) == plain
    assert reason(keyring, purpose + b"x", name, sealed) == "forged"
    assert reason(keyring, purpose, name + b"x", sealed) == "forged"
    assert reason(keyring, b"x" + purpose, name, sealed) == "forged"
    if name:
        assert reason(keyring, purpose + name[:1], name[1:], sealed) == "forged"
    assert plain not in sealed[MARK_SIZE:] or len(plain) < 3


def test_no_two_places_have_the_same_key():
    """N26: the same content looks different everywhere, and no nonce is used for two contents."""
    keyring = Keyring([ONE])
    seals = [keyring.seal(b"p", f"{place}".encode(), f"{text}".encode()) for place in range(50) for text in range(50)]
    assert len({sealed[MARK_SIZE:] for sealed in seals}) == 2500
    assert len({sealed[:MARK_SIZE] for sealed in seals}) == 2500


def test_several_secrets():
    """N26: the first one seals, all of them open; one that nobody has is said to be missing."""
    old, both, new = Keyring([ONE]), Keyring([TWO, ONE]), Keyring([TWO])
    assert both.open(b"p", b"n", old.seal(b"p", b"n", b"x")) == b"x"
    assert new.open(b"p", b"n", both.seal(b"p", b"n", b"x")) == b"x"
    assert reason(old, b"p", b"n", both.seal(b"p", b"n", b"x")) == "key"
    assert reason(old, b"p", b"n", b"") == reason(old, b"p", b"n", b"f0" + bytes(60)) == "version"
    assert both.fingerprint_keys == (*new.fingerprint_keys, *old.fingerprint_keys)
    assert both.stamped(old.stamp(b"p", b"n"), b"p", b"n")
    assert not old.stamped(both.stamp(b"p", b"n"), b"p", b"n")
    assert not old.stamped(old.stamp(b"p", b"n", b"x"), b"p", b"n", b"y")
    assert not old.stamped(b"", b"p", b"n")


def test_two_secrets_whose_keys_have_the_same_id():
    """N26: four octets may be the same by chance: the next key is tried."""
    both = Keyring([ONE, TWO])
    both._keys[0] = both._keys[0]._replace(id=both._keys[1].id)
    assert both.open(b"p", b"n", Keyring([TWO]).seal(b"p", b"n", b"x")) == b"x"


def test_secrets_that_change():
    """P5: the former ones still open, up to a number of them."""
    keyring = Keyring([ONE])
    sealed = keyring.seal(b"p", b"n", b"x")
    assert not keyring.take([ONE])
    assert not keyring.take([])
    assert keyring.take([TWO, THREE])
    assert keyring.open(b"p", b"n", sealed) == b"x"
    assert reason(Keyring([ONE]), b"p", b"n", keyring.seal(b"p", b"n", b"x")) == "key"
    for number in range(2 * KEYS_MAX):
        keyring.take([f"secret number {number}"])
    assert len(keyring.fingerprint_keys) == KEYS_MAX
    assert reason(keyring, b"p", b"n", sealed) == "key"


def test_nothing_to_derive_from():
    """N26: no key is a bad key."""
    with pytest.raises(ValueError, match="nothing to derive"):
        Keyring([])


def test_its_repr_holds_no_key():
    """T12: neither does that of what is raised."""
    keyring = Keyring([ONE])
    assert repr(keyring) == "<Keyring of 1>"
    assert ONE not in repr(keyring._keys)


# --- revocations ---------------------------------------------------------------------------------------------------

MARKS = st.one_of(
    st.builds(Mark, st.sampled_from(["sub", "sid", "client_id"]), st.text(), st.integers(0, 2**40), st.floats(0, 1e18)),
    st.builds(Mark, st.just("token"), st.binary(min_size=32, max_size=32).map(bytes.hex), st.just(1), st.just(2.5)),
)


@given(st.lists(MARKS, max_size=5))
def test_revocations_travel(marks):
    """T24: whatever they say arrives as it was, also several in one message."""
    keyring = Keyring([ONE])
    sealed = [seal(keyring, mark) for mark in marks]
    assert [open_(keyring, each) for each in unpack(pack(sealed))] == marks


def test_a_message_that_was_cut():
    """T38: what is whole is read, the rest is nothing."""
    packed = pack([Sealed(b"i" * 16, b"one"), Sealed(b"j" * 16, b"two")])
    for end in range(len(packed)):
        assert list(unpack(packed[:end])) == [Sealed(b"i" * 16, b"one")] * (end >= 23)


# --- messages ------------------------------------------------------------------------------------------------------


async def test_messages_that_nobody_waits_for():
    """T25, I10: a few are kept for whoever comes a moment later, whatever their number and size."""
    wakeups = Wakeups()
    for number in range(2 * RECENT_MAX):
        wakeups.received(number.to_bytes(16, "big") + b"body")
    wakeups.received(b"x" * MESSAGE_MAX + b"y")
    assert len(wakeups._recent) == RECENT_MAX
    last = (2 * RECENT_MAX - 1).to_bytes(16, "big")
    assert await wakeups.expect(last) == b"body"
    waiting = wakeups.expect(last)
    assert wakeups.expect(last) is waiting
    assert len(wakeups) == 1
    wakeups.received(last + b"again")
    assert waiting.result() == b"again"
    wakeups.forget(last)
    assert len(wakeups) == 0
