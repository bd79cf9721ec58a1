import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgate.model import INACTIVE, ActiveToken, Freshness, Remembered
from fastgate.policy.freshness import ask_ahead, fresh_until, is_fresh, lifetime

NOW = 1_700_000_000.0


def active(exp=None):
    return ActiveToken({"active": True}, exp=exp)


@pytest.mark.parametrize(
    ("exp", "freshness", "seconds"),
    [
        (NOW + 60, Freshness(ttl_max=300.0), 60.0),
        (NOW + 600, Freshness(ttl_max=300.0), 300.0),
        (None, Freshness(ttl=3600.0, ttl_max=300.0), 300.0),
        (None, Freshness(ttl=30.0, ttl_max=300.0), 30.0),
        (NOW - 1, Freshness(), 0.0),
        (0, Freshness(), 0.0),
        (2**63, Freshness(ttl_max=300.0), 300.0),
        (10**400, Freshness(ttl_max=300.0), 300.0),
    ],
)
def test_how_long_an_active_token_is_remembered(exp, freshness, seconds):
    """N19, N20, T10: never past exp, never longer than the maximum, bounded without exp."""
    assert lifetime(active(int(exp) if exp is not None else None), freshness, NOW) == seconds


def test_how_long_an_inactive_token_is_remembered():
    """N18: by a time of its own."""
    assert lifetime(INACTIVE, Freshness(ttl_neg=5.0), NOW) == 5.0


@pytest.mark.parametrize("state", [active(), active(2**40), INACTIVE])
def test_zero_means_not_at_all(state):
    """T27: a time to live of 0 (or less) is never "forever"."""
    for nothing in (0.0, -1.0):
        freshness = Freshness(ttl=nothing, ttl_max=nothing, ttl_neg=nothing)
        assert lifetime(state, freshness, NOW) == 0.0
        assert not is_fresh(state, 0.0, freshness)


def test_the_route_asks_for_fresher_facts():
    """T3: one remembered answer is fresh for one route and not for another, and stays what it is."""
    state = active(2**40)
    assert is_fresh(state, 60.0, Freshness(ttl_max=300.0))
    assert not is_fresh(state, 60.0, Freshness(ttl_max=30.0))
    assert is_fresh(state, 60.0, Freshness(ttl_max=300.0))


def test_the_first_and_the_last_moment():
    """N20: the end of the time is outside it, its beginning is not."""
    assert is_fresh(INACTIVE, 0.0, Freshness(ttl_neg=5.0))
    assert is_fresh(INACTIVE, 4.999, Freshness(ttl_neg=5.0))
    assert not is_fresh(INACTIVE, 5.0, Freshness(ttl_neg=5.0))


def test_an_age_that_cannot_be():
    """N20: a clock gone backwards makes nothing fresh."""
    assert not is_fresh(INACTIVE, -0.001, Freshness())
    assert not is_fresh(INACTIVE, float("nan"), Freshness())


seconds = st.floats(min_value=-10.0, max_value=1e6)
times = st.none() | st.integers(min_value=0, max_value=2**64)
states = st.one_of(st.just(INACTIVE), st.builds(active, times))
freshnesses = st.builds(Freshness, seconds, seconds, seconds)


@given(state=states, freshness=freshnesses, now=st.floats(min_value=0.0, max_value=1e10))
def test_any_lifetime(state, freshness, now):
    """N19, N20, T10: never below zero, never beyond a bound that applies."""
    found = lifetime(state, freshness, now)
    assert found >= 0.0
    if state is INACTIVE:
        assert found == max(0.0, freshness.ttl_neg)
        return
    assert found <= max(0.0, freshness.ttl_max)
    if state.exp is None:
        assert found <= max(0.0, freshness.ttl)
    elif found:
        assert found <= state.exp - now


@given(state=states, freshness=freshnesses, age=st.floats(min_value=0.0, max_value=1e7))
def test_any_age(state, freshness, age):
    """T3, T27: what is fresh now was fresh before, and would still be with more patience."""
    if is_fresh(state, age, freshness):
        assert is_fresh(state, age / 2, freshness)
        patient = Freshness(freshness.ttl + 1, freshness.ttl_max + 1, freshness.ttl_neg + 1)
        assert is_fresh(state, age, patient)


@given(st.floats(0, 1e6), st.floats(1, 1e5), st.floats(0.1, 1e4), st.floats(0, 1))
def test_when_a_token_in_use_is_asked_about_ahead(fetched_at, ttl_max, ahead, spread):
    """Figure 15: in the last fifth of its time at most, before its end, and not all at the same moment."""
    remembered = Remembered(active(), fetched_at)
    freshness = Freshness(ttl=1e9, ttl_max=ttl_max)
    end = fresh_until(remembered, freshness)
    window = min(ahead, ttl_max / 5)
    moment = ask_ahead(remembered, freshness, ahead, spread)
    assert moment == pytest.approx(end - window * (1.0 - spread / 2.0))
    assert moment < end
