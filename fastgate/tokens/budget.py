"""How many inactive answers a second the authorization server is asked to give."""

from collections.abc import Callable
from typing import Final

SAMPLES: Final = 16
"""Answers over which the share of inactive ones is judged."""


class InactiveBudget:
    """A token bucket charged for every *inactive* answer to a question about an unknown token.

    While it is overdrawn, unknown tokens are refused without a question: a flood of random tokens costs the
    authorization server `rate` questions a second, one after the other. Questions under way count for what they will
    cost if they are like the last ones: a flood does not come in bursts, and good tokens, however many at once, cost
    nothing. Tokens known to be active never ask. It is overdrawn by `burst` at most: the debt of a flood is paid in
    bounded time.
    """

    __slots__ = ("_at", "_burst", "_let_in", "_level", "_moment", "_monotonic", "_rate", "_share", "_under_way")

    def __init__(self, rate: float, burst: float, monotonic: Callable[[], float]) -> None:
        """`rate` in answers per second, more than 0; `burst` in answers, at least 1."""
        self._rate = rate
        self._burst = max(burst, 1.0)
        self._level = self._burst
        self._monotonic = monotonic
        self._at = monotonic()
        self._under_way = 0
        self._let_in, self._moment = 0, -1.0
        self._share = 0.0
        """Of the last answers, how many were inactive."""

    def asked(self) -> None:
        """A question about an unknown token was sent."""
        self._under_way += 1

    def answered(self, *, inactive: bool | None) -> None:
        """The answer came; None: there was none."""
        self._under_way -= 1
        if inactive is None:
            return
        self._share += (inactive - self._share) / SAMPLES
        if inactive:
            self._refill()
            self._level = max(self._level - 1.0, -self._burst)

    def wait(self) -> float:
        """Seconds until an unknown token may be asked about again; 0.0: now."""
        self._refill()
        return self._short(self._under_way)

    def admit(self) -> float:
        """Do the same for one of many that come at the same moment: those before it are going to ask."""
        self._refill()
        if self._at != self._moment:
            self._let_in, self._moment = 0, self._at
        wait = self._short(self._under_way + self._let_in)
        self._let_in += wait == 0.0
        return wait

    def _short(self, expected: int) -> float:
        return max(0.0, (1.0 - self._level + expected * self._share) / self._rate)

    def _refill(self) -> None:
        now = self._monotonic()
        self._level = min(self._burst, self._level + (now - self._at) * self._rate)
        self._at = now
