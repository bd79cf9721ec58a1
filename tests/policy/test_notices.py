import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgate.model import Refused
from fastgate.policy.notices import LEEWAY, Standing, seconds, standing
from tests.policy.notices import ISSUER, NOTIFIER, NOW, claims, reason


def stands(max_age=600.0, **changes):
    return standing(claims(**changes), NOTIFIER, NOW, max_age)


@pytest.mark.parametrize("aud", ["gate", ["gate"], ["other", "app"]])
def test_for_us_and_for_now(aud):
    """One of the audiences suffices; the identifier must be recognised for as long as the token would be taken."""
    assert stands(aud=aud) == Standing("j1", NOW, 600.0 + LEEWAY)
    assert stands(aud=aud, exp=NOW + 120) == Standing("j1", NOW, 120.0 + LEEWAY)


@pytest.mark.parametrize("aud", [..., None, "", "gate app", "other", [], ["gate", 5], {"gate": 1}, 5])
def test_for_somebody_else(aud):
    """An audience is compared whole; a token without one is for nobody."""
    assert reason(stands(aud=aud)) is Refused.WRONG_AUDIENCE


@pytest.mark.parametrize("iss", [..., None, ISSUER + "/", ISSUER.upper(), "https://evil.test", [ISSUER]])
def test_from_somebody_else(iss):
    """The issuer is compared code point by code point."""
    assert reason(stands(iss=iss)) is Refused.WRONG_ISSUER


@pytest.mark.parametrize(
    "change",
    [
        *({"iat": value} for value in (..., None, "1700000000", True, 0, -5, float("nan"), float("inf"), [1])),
        *({"jti": value} for value in (..., None, "", 5, ["j"])),
        *({"exp": value} for value in (None, "1700000000", True, 0, -5, [1])),
    ],
)
def test_times_and_names_that_are_none(change):
    """Whatever cannot be read as what it is for makes the token unusable."""
    assert reason(stands(**change)) is Refused.MALFORMED


@pytest.mark.parametrize(
    ("change", "fresh"),
    [
        ({"iat": NOW - 600 - LEEWAY + 1}, True),
        ({"iat": NOW - 600 - LEEWAY}, False),
        ({"iat": NOW + LEEWAY}, True),
        ({"iat": NOW + LEEWAY + 1}, False),
        ({"exp": NOW - LEEWAY + 1}, True),
        ({"exp": NOW - LEEWAY}, False),
        ({"exp": NOW + 10**9}, True),
        ({"exp": NOW + 10**9, "iat": NOW - 700}, False),
        ({"iat": NOW + 0.5}, True),
        ({"iat": 1e300}, False),
    ],
)
def test_too_early_and_too_late(change, fresh):
    """Our own bound holds, however far away `exp` is; clocks may differ by the leeway."""
    said = stands(**change)
    assert isinstance(said, Standing) if fresh else reason(said) is Refused.STALE


@pytest.mark.parametrize("age", [0, 1, 599, 659, -60])
def test_an_identifier_is_kept_until_its_token_is_stale(age):
    """No moment at which a token is taken again because it was forgotten."""
    said = stands(iat=NOW - age)
    assert isinstance(said, Standing)
    later = NOW + said.keep
    assert reason(standing(claims(iat=NOW - age), NOTIFIER, later, 600.0)) is Refused.STALE


@given(value=st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers()))
def test_any_time(value):
    """A positive finite number, or none."""
    read = seconds(value)
    assert read is None or (0 < read == float(value))
