"""How many inactive answers a second the authorization server is asked to give."""

from collections.abc import Callable


class InactiveBudget:
    """A token bucket charged for every *inactive* answer to a question about an unknown token.

    While it is overdrawn, unknown tokens are refused without a question: a flood of random tokens costs the
    authorization server `rate` questions a second, plus those under way when the budget ran out. Tokens known
    to be active never ask. It is overdrawn by `burst` at most: the debt of a flood is paid in bounded time.
    """

    __slots__ = ("_at", "_burst", "_level", "_monotonic", "_rate")

    def __init__(self, rate: float, burst: float, monotonic: Callable[[], float]) -> None:
        """`rate` in answers per second, more than 0; `burst` in answers, at least 1."""
        self._rate = rate
        self._burst = max(burst, 1.0)
        self._level = self._burst
        self._monotonic = monotonic
        self._at = monotonic()

    def charge(self) -> None:
        """One inactive answer came."""
        self._refill()
        self._level = max(self._level - 1.0, -self._burst)

    def wait(self) -> float:
        """Seconds until an unknown token may be asked about again; 0.0: now."""
        self._refill()
        return max(0.0, (1.0 - self._level) / self._rate)

    def _refill(self) -> None:
        now = self._monotonic()
        self._level = min(self._burst, self._level + (now - self._at) * self._rate)
        self._at = now
