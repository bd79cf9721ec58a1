import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgate.model import Notice, NoticeKind, Refusal, Refused
from fastgate.policy import security_event
from fastgate.policy.notices import LEEWAY
from fastgate.policy.signed import Signed
from tests.policy.notices import CAEP, ISSUER, LOGOUT, NOTIFIER, NOW, RISC, SSF, claims, reason

ALEX = {"format": "iss_sub", "iss": ISSUER, "sub": "alex"}
SESSION = {"format": "opaque", "id": "s1"}


def event(name=CAEP + "session-revoked", body=None, of_type="secevent+jwt", **changes):
    members = {"events": {name: {} if body is None else body}, "sub_id": ALEX, **changes}
    return security_event.read(Signed("RS256", "k", of_type), claims(**members), NOTIFIER, NOW)


def test_a_security_event():
    """A session of somebody was revoked; one that could not be delivered for days still counts."""
    assert event(iat=NOW - 86_400) == Notice(
        NoticeKind.SESSION_REVOKED,
        "j1",
        keep=6 * 86_400.0 + LEEWAY,
        at=int(NOW) - 86_400,
        revocations=(("sub", "alex"),),
    )


@pytest.mark.parametrize(
    ("sub_id", "of_session", "of_user"),
    [
        (ALEX, [("sub", "alex")], [("sub", "alex")]),
        (SESSION, [("sid", "s1"), ("sub", "s1")], [("sub", "s1")]),
        (
            {"format": "complex", "session": SESSION, "user": ALEX, "tenant": {"format": "opaque", "id": "t"}},
            [("sid", "s1"), ("sub_without_sid", "alex")],
            [("sub", "alex")],
        ),
        ({"format": "complex", "session": SESSION}, [("sid", "s1")], [("sid", "s1")]),
        ({"format": "complex", "user": ALEX, "device": SESSION}, [("sub", "alex")], [("sub", "alex")]),
        (
            {"format": "complex", "user": ALEX, "session": {"format": "jwt_id", "iss": ISSUER, "jti": "x"}},
            [("sub", "alex")],
            [("sub", "alex")],
        ),
        (
            {"format": "aliases", "identifiers": [{"format": "email", "email": "a@b"}, 5, ALEX]},
            [("sub", "alex")],
            [("sub", "alex")],
        ),
    ],
)
def test_whom_an_event_is_about(sub_id, of_session, of_user):
    """As tokens name them; where a session cannot be told apart, every session of its user."""
    assert list(event(sub_id=sub_id).revocations) == of_session
    for name in (CAEP + "credential-change", RISC + "account-disabled", RISC + "account-purged"):
        assert list(event(name, sub_id=sub_id).revocations) == of_user


@pytest.mark.parametrize(
    "sub_id",
    [
        ...,
        None,
        "alex",
        [ALEX],
        {},
        {"format": "iss_sub", "iss": "https://other.test", "sub": "alex"},
        {"format": "iss_sub", "iss": ISSUER},
        {"format": "iss_sub", "iss": ISSUER, "sub": ""},
        {"format": "iss_sub", "iss": [ISSUER], "sub": "alex"},
        {"format": "opaque"},
        {"format": "opaque", "id": 5},
        {"format": "opaque", "id": ""},
        {"format": "email", "email": "alex@example.test"},
        {"format": "complex"},
        {"format": "complex", "user": "alex"},
        {"format": "complex", "tenant": SESSION},
        {"format": "complex", "session": {"format": "iss_sub", "iss": ISSUER, "sub": "x"}},
        {"format": "aliases", "identifiers": []},
        {"format": "aliases", "identifiers": "alex"},
        {"format": "aliases", "identifiers": [{"format": "aliases", "identifiers": [ALEX]}]},
    ],
)
@pytest.mark.parametrize("name", [CAEP + "session-revoked", CAEP + "credential-change"])
def test_an_event_about_nobody_we_know(name, sub_id):
    """Refused, not acknowledged: the transmitter shall not believe that it was acted on."""
    assert reason(event(name, sub_id=sub_id)) is Refused.UNKNOWN_SUBJECT


@pytest.mark.parametrize(
    ("body", "toe", "at"),
    [
        ({"event_timestamp": NOW - 30}, ..., NOW - 30),
        ({"event_timestamp": NOW - 30}, NOW - 20, NOW - 30),
        ({}, NOW - 20, NOW - 20),
        ({}, ..., NOW),
        ({"event_timestamp": (NOW - 30) * 1000}, ..., NOW),
        ({"event_timestamp": (NOW - 30) * 1000}, NOW - 20, NOW - 20),
        ({"event_timestamp": "now"}, ..., NOW),
        ({"event_timestamp": 0}, ..., NOW),
        ({}, NOW + 3600, NOW),
    ],
)
def test_when_an_event_happened(body, toe, at):
    """What was issued since is not concerned; a time that cannot be true is not believed."""
    assert event(body=body, toe=toe).at == int(at)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (SSF + "verification", NoticeKind.VERIFICATION),
        (SSF + "stream-updated", NoticeKind.STREAM_UPDATED),
        (CAEP + "assurance-level-change", NoticeKind.SECURITY_EVENT),
        (RISC + "account-enabled", NoticeKind.SECURITY_EVENT),
        (LOGOUT, NoticeKind.SECURITY_EVENT),
    ],
)
def test_events_that_revoke_nothing(name, kind):
    """Acknowledged, whomever they are about."""
    said = event(name, sub_id={"format": "opaque", "id": "stream"})
    assert (said.kind, said.revocations, said.at) == (kind, (), int(NOW))


def test_several_events_in_one_token():
    """The one that revokes counts, at the latest time that any of them states."""
    events = {
        SSF + "verification": {},
        CAEP + "session-revoked": {"event_timestamp": NOW - 50},
        CAEP + "credential-change": {"event_timestamp": NOW - 40},
        "https://example.test/unknown": [],
    }
    said = event(events=events)
    assert said.kind is NoticeKind.SESSION_REVOKED
    assert said.revocations == (("sub", "alex"),)
    assert said.at == int(NOW) - 40


@pytest.mark.parametrize(
    "change",
    [
        {"of_type": None},
        {"of_type": "jwt"},
        {"of_type": "logout+jwt"},
        {"exp": NOW + 60},
        {"exp": None},
        {"sub": "alex"},
        *({"events": value} for value in (..., None, [], {}, "x")),
        {"events": {CAEP + "session-revoked": None}},
        {"events": {SSF + "verification": "x"}},
        {"jti": ...},
    ],
)
def test_what_is_no_security_event(change):
    """SSF 1.0 section 4.1: a type of its own, neither `exp` nor `sub`, so that it is never taken for another token."""
    assert reason(event(**change)) is Refused.MALFORMED


def test_a_security_event_of_another_issuer():
    """RFC 8417 section 2.2: its `iss` is the one that was agreed on."""
    assert reason(event(iss="https://other.test")) is Refused.WRONG_ISSUER


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FORMATS = st.sampled_from(["iss_sub", "opaque", "complex", "aliases", "email"])
SUBJECT = st.fixed_dictionaries(
    {"format": FORMATS}, optional={"iss": st.just(ISSUER), "sub": JSON, "id": JSON, "user": JSON, "identifiers": JSON}
)


@given(
    changes=st.dictionaries(st.sampled_from(["iss", "aud", "iat", "jti", "events", "toe"]), JSON),
    name=st.sampled_from([CAEP + "session-revoked", CAEP + "credential-change", SSF + "verification"]),
    body=JSON,
    sub_id=JSON | SUBJECT,
)
def test_any_claims(changes, name, body, sub_id):
    """Whatever an issuer signs is understood or refused, and a refusal repeats nothing of it."""
    said = event(**{"events": {name: body}, "sub_id": sub_id, **changes})
    if isinstance(said, Refusal):
        assert said.detail.isascii()
    else:
        assert all(isinstance(value, str) and value for _, value in said.revocations)
