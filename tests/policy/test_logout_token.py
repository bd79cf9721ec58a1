import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgate.model import Notice, NoticeKind, Refusal, Refused
from fastgate.policy import logout_token
from fastgate.policy.notices import LEEWAY
from fastgate.policy.signed import Signed
from tests.policy.notices import LOGOUT, NOTIFIER, NOW, claims, reason


def logout(of_type="logout+jwt", **changes):
    members = {"exp": int(NOW) + 120, "events": {LOGOUT: {}}, "sub": "alex", "sid": "s1", **changes}
    return logout_token.read(Signed("RS256", "k", of_type), claims(**members), NOTIFIER, NOW)


def test_a_logout_token():
    """It says whose session ended, and when."""
    assert logout() == Notice(
        NoticeKind.LOGOUT,
        "j1",
        keep=120.0 + LEEWAY,
        at=int(NOW),
        revocations=(("sid", "s1"), ("sub_without_sid", "alex")),
    )


@pytest.mark.parametrize(
    ("named", "revocations"),
    [
        ({"sid": ...}, (("sub", "alex"),)),
        ({"sub": ...}, (("sid", "s1"),)),
        ({"sid": ""}, (("sub", "alex"),)),
        ({}, (("sid", "s1"), ("sub_without_sid", "alex"))),
    ],
)
def test_whom_a_logout_is_about(named, revocations):
    """One session, with what may belong to it; or every session of the user (section 2.7)."""
    assert logout(**named).revocations == revocations


@pytest.mark.parametrize("typ", ["logout+jwt", "jwt", None])
def test_types_of_logout_tokens(typ):
    """Section 2.4 recommends one; servers from before that say JWT, or nothing."""
    assert isinstance(logout(typ), Notice)


def test_what_keycloak_adds():
    """Members that are not understood change nothing, such as its own `revoke_offline_access: true`."""
    assert isinstance(logout(events={LOGOUT: {}, "revoke_offline_access": True}, typ="Logout"), Notice)
    assert isinstance(logout(events={LOGOUT: {"more": 1}}), Notice)


@pytest.mark.parametrize(
    "change",
    [
        {"of_type": "at+jwt"},
        {"of_type": "secevent+jwt"},
        {"of_type": ""},
        {"nonce": "n"},
        {"nonce": None},
        {"exp": ...},
        {"sub": ..., "sid": ...},
        {"sub": "", "sid": ""},
        {"sub": None, "sid": ...},
        {"sub": 5},
        {"sid": ["s1"]},
        *({"events": value} for value in (..., None, [], LOGOUT, {}, {LOGOUT: None}, {LOGOUT: True}, {LOGOUT: []})),
        {"events": {LOGOUT + "/": {}}},
        {"events": {"https" + LOGOUT[4:]: {}}},
    ],
)
def test_what_is_no_logout_token(change):
    """An ID token, an access token, a security event, half a logout token: section 2.6, steps 4 to 6."""
    assert reason(logout(**change)) is Refused.MALFORMED


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"iss": "https://evil.test"}, Refused.WRONG_ISSUER),
        ({"aud": "other"}, Refused.WRONG_AUDIENCE),
        ({"exp": NOW - 61}, Refused.STALE),
        ({"iat": NOW - 661, "exp": NOW + 120}, Refused.STALE),
    ],
)
def test_a_logout_token_for_others_or_for_another_time(change, why):
    """Section 2.6, step 3."""
    assert reason(logout(**change)) is why


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(changes=st.dictionaries(st.sampled_from(["iss", "aud", "iat", "exp", "jti", "sub", "sid", "events"]), JSON))
def test_any_claims(changes):
    """Whatever an issuer signs is understood or refused, and a refusal repeats nothing of it."""
    said = logout(**changes)
    if isinstance(said, Refusal):
        assert said.detail.isascii()
    else:
        assert all(isinstance(value, str) and value for _, value in said.revocations)
