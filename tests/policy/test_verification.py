from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgate.model import (
    INACTIVE,
    AccessPolicy,
    AccessToken,
    ActiveToken,
    ClaimHeader,
    Denial,
    DenialReason,
    Permit,
    Requirement,
    TokenSource,
)
from fastgate.policy.verification import checks, verify
from tests.policy.values import access

NOW = 1000.0
TOKEN = AccessToken("tok-en", TokenSource.HEADER)
READ = Requirement(DenialReason.SCOPE, ("scope",), (frozenset({"read"}),))
API = Requirement(DenialReason.AUDIENCE, ("aud",), (frozenset({"api"}),))
ROLE = Requirement(DenialReason.ROLE, ("realm_access", "roles"), (frozenset({"admin"}),))
GROUP = Requirement(DenialReason.GROUP, ("groups",), (frozenset({"staff"}),))


def decide(state, now=NOW, headers=(), **policy):
    """The reason of the denial, or the permit; `checks` has to agree every time."""
    required = access(policy=AccessPolicy(**policy), headers=headers)
    decision = verify(state, TOKEN, required, now)
    listed = checks(state, required, now)
    assert all(check.ok for check in listed) == isinstance(decision, Permit)
    assert not any("tok-en" in check.detail for check in listed)
    return decision.reason if isinstance(decision, Denial) else decision


def active(claims=None, **facts):
    return ActiveToken({"active": True, **(claims or {})}, **facts)


def test_an_active_token_and_nothing_required():
    """N16: a permit holds the token and the state it was given for."""
    state = active()
    assert decide(state) == Permit(TOKEN, state, ())


def test_an_inactive_token():
    """N18: refused, and there is nothing else to look at."""
    assert decide(INACTIVE, requirements=(READ,)) is DenialReason.INACTIVE
    assert [check.name for check in checks(INACTIVE, access(), NOW)] == ["active"]


@pytest.mark.parametrize(
    ("exp", "leeway", "passes"),
    [
        (1001, 0.0, True),
        (1000, 0.0, False),
        (999, 0.0, False),
        (996, 5.0, True),
        (995, 5.0, False),
        (0, 0.0, False),
        (2**63, 0.0, True),
        (10**400, 0.0, True),
        (None, 0.0, True),
    ],
)
def test_an_expired_token(exp, leeway, passes):
    """N19, T10, T14: exp is compared on every verification; the second itself is too late."""
    decision = decide(active(exp=exp), leeway=leeway)
    assert isinstance(decision, Permit) if passes else decision is DenialReason.EXPIRED


@pytest.mark.parametrize("fact", ["nbf", "iat"])
@pytest.mark.parametrize(
    ("at", "leeway", "passes"),
    [(1000, 0.0, True), (1001, 0.0, False), (1005, 5.0, True), (1006, 5.0, False), (10**400, 5.0, False)],
)
def test_a_token_of_the_future(fact, at, leeway, passes):
    """N21: refused beyond the leeway."""
    decision = decide(active(**{fact: at}), leeway=leeway)
    assert isinstance(decision, Permit) if passes else decision is DenialReason.NOT_YET_VALID


@pytest.mark.parametrize(
    ("iss", "issuers", "required", "passes"),
    [
        ("https://a", {"https://a"}, False, True),
        ("https://a", {"https://b", "https://a"}, True, True),
        ("https://a/", {"https://a"}, False, False),
        ("https://b", {"https://a"}, True, False),
        (None, {"https://a"}, False, True),
        (None, {"https://a"}, True, False),
        (None, set(), True, False),
        ("https://x", set(), False, True),
    ],
)
def test_the_issuer(iss, issuers, required, passes):
    """N22: compared character by character; absent only where the route allows it."""
    decision = decide(active(iss=iss), issuers=frozenset(issuers), issuer_required=required)
    assert isinstance(decision, Permit) if passes else decision is DenialReason.ISSUER


def test_a_bound_token():
    """N31, T15: what we cannot enforce is refused, on every verification."""
    assert decide(active(bound=True)) is DenialReason.BINDING


@pytest.mark.parametrize(
    ("scope", "passes"),
    [
        ("read", True),
        ("write read", True),
        ("a  read ", True),
        (["write", "read"], True),
        ("readonly", False),
        ("Read", False),
        ("read,write", False),
        ("read\twrite", False),
        ("", False),
        ([], False),
        (["read write"], False),
        (["read", 1], False),
        (["read", None], False),
        ({"read": True}, False),
        (None, False),
        (True, False),
        (1, False),
    ],
)
def test_a_required_scope(scope, passes):
    """N23: whole words with their case; a claim of another shape satisfies nothing."""
    decision = decide(active({"scope": scope}), requirements=(READ,))
    assert isinstance(decision, Permit) if passes else decision is DenialReason.SCOPE


def test_a_required_claim_is_absent():
    """T19: refused."""
    assert decide(active(), requirements=(READ,)) is DenialReason.SCOPE


@pytest.mark.parametrize(
    ("scope", "passes"), [("profile email", True), ("email profile x", True), ("admin", True), ("profile", False)]
)
def test_alternatives(scope, passes):
    """N23: (profile and email) or admin."""
    required = Requirement(DenialReason.SCOPE, ("scope",), (frozenset({"profile", "email"}), frozenset({"admin"})))
    assert isinstance(decide(active({"scope": scope}), requirements=(required,)), Permit) is passes


@pytest.mark.parametrize("alternatives", [(), (frozenset(),)])
def test_an_alternative_without_words(alternatives):
    """T19: nobody passes, rather than everybody."""
    required = Requirement(DenialReason.SCOPE, ("scope",), alternatives)
    assert decide(active({"scope": "read"}), requirements=(required,)) is DenialReason.SCOPE


@pytest.mark.parametrize(
    ("aud", "passes"), [("api", True), (["x", "api"], True), ("api x", False), ("apis", False), (None, False)]
)
def test_the_audience(aud, passes):
    """N22: a string is one audience, an array several."""
    decision = decide(active({"aud": aud}), requirements=(API,))
    assert isinstance(decision, Permit) if passes else decision is DenialReason.AUDIENCE


@pytest.mark.parametrize(
    ("claims", "passes"),
    [
        ({"realm_access": {"roles": ["user", "admin"]}}, True),
        ({"realm_access": {"roles": "user admin"}}, True),
        ({"realm_access": ["roles", "admin"]}, False),
        ({"realm_access": "admin"}, False),
        ({"realm_access": None}, False),
        ({"realm_access.roles": ["admin"]}, False),
        ({"roles": ["admin"]}, False),
    ],
)
def test_a_claim_inside_another(claims, passes):
    """T19: the path is followed through objects and nothing else."""
    decision = decide(active(claims), requirements=(ROLE,))
    assert isinstance(decision, Permit) if passes else decision is DenialReason.ROLE


def test_a_path_that_leads_nowhere():
    """T19: no path is no claim."""
    nowhere = Requirement(DenialReason.GROUP, (), (frozenset({"staff"}),))
    assert decide(active({"groups": "staff"}), requirements=(nowhere,)) is DenialReason.GROUP


@pytest.mark.parametrize("value", [True, False, None, "", {}])
def test_a_forbidden_claim(value):
    """N9: its presence is enough, whatever it holds."""
    state = active({"act": {"sub": value}})
    assert decide(state, claims_forbidden=(("act", "sub"),)) is DenialReason.FORBIDDEN_CLAIM
    assert isinstance(decide(state, claims_forbidden=(("act", "iss"), ("x",))), Permit)


def test_the_first_reason():
    """N9: of many things wrong the first in a fixed order is the reason, however the policy lists them."""
    wrong = {"exp": 1, "nbf": 2000, "iat": 2000, "iss": "x", "bound": True}
    claims = {"bad": 1}
    policy = {
        "issuers": frozenset({"https://a"}),
        "requirements": (GROUP, ROLE, READ, API),
        "claims_forbidden": (("bad",),),
    }
    reasons = [DenialReason.EXPIRED, DenialReason.NOT_YET_VALID, DenialReason.NOT_YET_VALID]
    reasons += [DenialReason.ISSUER, DenialReason.BINDING]
    cures = [{"exp": None}, {"nbf": None}, {"iat": None}, {"iss": None}, {"bound": False}]
    state = active(claims, **wrong)
    for reason, cure in zip(reasons, cures, strict=True):
        assert decide(state, **policy) is reason
        state = replace(state, **cure)
    medicine = [
        (DenialReason.AUDIENCE, {"aud": "api"}),
        (DenialReason.SCOPE, {"scope": "read"}),
        (DenialReason.ROLE, {"realm_access": {"roles": ["admin"]}}),
        (DenialReason.GROUP, {"groups": ["staff"]}),
    ]
    for reason, more in medicine:
        assert decide(state, **policy) is reason
        state = replace(state, claims={**state.claims, **more})
    assert decide(state, **policy) is DenialReason.FORBIDDEN_CLAIM
    assert isinstance(
        decide(replace(state, claims={**state.claims, "bad": 1}), **{**policy, "claims_forbidden": ()}), Permit
    )


def test_one_state_on_two_routes():
    """N24, T1: each route decides for itself about the same remembered state."""
    state = active({"scope": "read", "aud": "api"}, iss="https://a")
    other = Requirement(DenialReason.SCOPE, ("scope",), (frozenset({"write"}),))
    assert isinstance(decide(state, requirements=(READ, API)), Permit)
    assert decide(state, requirements=(other,)) is DenialReason.SCOPE
    assert decide(state, issuers=frozenset({"https://b"})) is DenialReason.ISSUER


def test_a_permit_carries_identity():
    """N67: the claims the route maps go with the permit."""
    permit = decide(active({"sub": "alex"}), headers=(ClaimHeader(b"X-Subject", ("sub",)),))
    assert permit.fields == ((b"X-Subject", b"alex"),)


def test_what_people_are_told():
    """N24: every check with what was compared, in the order of verification."""
    required = access(
        policy=AccessPolicy(
            issuers=frozenset({"https://a"}), leeway=5.0, requirements=(READ, API), claims_forbidden=(("act", "sub"),)
        )
    )
    state = active({"scope": "write x"}, exp=1100, iss="https://b", bound=True)
    listed = checks(state, required, NOW)
    assert [(check.name, check.ok) for check in listed] == [
        ("active", True),
        ("exp", True),
        ("nbf", True),
        ("iat", True),
        ("iss", False),
        ("binding", False),
        ("audience", False),
        ("scope", False),
        ("forbidden_claim", True),
    ]
    details = {check.name: check.detail for check in listed}
    assert details["exp"] == "exp 1100, now 1000, leeway 5 s"
    assert details["nbf"] == "no nbf"
    assert details["iss"] == "iss https://b, accepted https://a"
    assert details["audience"] == "aud has nothing, needs api"
    assert details["scope"] == "scope has write x, needs read"
    assert details["forbidden_claim"] == "act.sub must be absent"


def test_what_people_are_told_when_little_is_there():
    """N24: absent facts and empty requirements have words of their own."""
    nobody = Requirement(DenialReason.SCOPE, ("scope",), ())
    listed = checks(active(), access(policy=AccessPolicy(requirements=(nobody,))), NOW)
    details = {check.name: check.detail for check in listed}
    assert details["iss"] == "no iss, accepted any"
    assert details["binding"] == "a plain bearer token"
    assert details["scope"] == "scope has nothing, needs what nobody has"


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["roles", "x"]), inner, max_size=2),
    max_leaves=5,
)


@given(claims=st.dictionaries(st.sampled_from(["scope", "aud", "realm_access", "groups", "sub"]), anything))
def test_any_claims(claims):
    """N23, T19: never a crash, and a permit only to who has every word."""
    decision = decide(
        active(claims), requirements=(READ, API, ROLE, GROUP), headers=(ClaimHeader(b"X-Subject", ("sub",)),)
    )
    assert not isinstance(decision, Permit) or {"scope", "aud", "realm_access", "groups"} <= claims.keys()
