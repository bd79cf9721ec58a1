"""How long what the authorization server said may be remembered (RFC 7662 section 4)."""

from typing import Final

from fastgate.model import INACTIVE, Freshness, Remembered, TokenState

AHEAD_SHARE: Final = 5
"""At most one in so many parts of the time that an answer is remembered may be spent on asking again."""


def fresh_until(remembered: Remembered, freshness: Freshness) -> float:
    """Tell until when an answer may be used without asking again, in monotonic seconds (RFC 7662 section 4).

    `exp` is not looked at: it is a matter of the wall clock.
    """
    return remembered.fetched_at + _bound(remembered.state, freshness)


def ask_ahead(remembered: Remembered, freshness: Freshness, ahead: float, spread: float) -> float:
    """Tell from when on a token in use is asked about again, in monotonic seconds (RFC 7662 section 4).

    `ahead` is in seconds before the end, less for what is remembered for a short time only; `spread`, from 0 to 1,
    takes away up to half of it.
    """
    bound = _bound(remembered.state, freshness)
    return remembered.fetched_at + bound - min(ahead, bound / AHEAD_SHARE) * (1.0 - spread / 2.0)


def is_fresh(state: TokenState, age: float, freshness: Freshness) -> bool:
    """Tell whether an answer that is `age` seconds old may still be used (RFC 7662 section 4).

    `age` counts monotonic seconds since the question was sent. `exp` is not looked at: `verification` does so
    on every request, by the wall clock.
    """
    return 0.0 <= age < _bound(state, freshness)


def lifetime(state: TokenState, freshness: Freshness, now: float) -> float:
    """Count the seconds a new answer may be remembered, never past `exp`; 0: not at all (RFC 7662 section 4).

    `now` is wall time in seconds since the epoch.
    """
    bound = max(0.0, _bound(state, freshness))
    # Compared before subtracting: `exp` may be an integer too large for a float.
    if state is INACTIVE or state.exp is None or state.exp >= now + bound:
        return bound
    return max(0.0, state.exp - now)


def _bound(state: TokenState, freshness: Freshness) -> float:
    if state is INACTIVE:
        return freshness.ttl_neg
    if state.exp is None:
        return min(freshness.ttl, freshness.ttl_max)
    return freshness.ttl_max
