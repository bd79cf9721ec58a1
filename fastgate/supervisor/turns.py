"""Whose turn it is to ask an identity provider that is held off from: one question a second, of whichever worker."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from fastgate.clock import SystemClock
from fastgate.supervisor.member import Member
from fastgate.tokens.breaker import PROBE_SECONDS

PRECEDENCE: Final = 0.05
"""Seconds for which a turn is kept for the worker that has waited longest: it may be gone, or hang."""
FORGOTTEN: Final = 60.0
"""Seconds after which nothing is known any more of turns that nobody asked for."""


@dataclass
class _Turn:
    due: float
    """Monotonic seconds: when somebody may ask next."""
    waiting: dict[Member, None] = field(default_factory=dict)
    """Who wants to, by how long ago it first said so."""


class TurnsOfFleet:
    """The turns of all workers, by the provider's name.

    A turn that was given is over after a second, whatever its worker made of it. They take turns in fact: one whose
    questions alone fail (out of descriptors, say) does not keep those from asking that would be answered.
    """

    def __init__(
        self, told: Callable[[], Iterable[Member]], monotonic: Callable[[], float] = SystemClock.monotonic
    ) -> None:
        """`told` are the workers that have begun."""
        self._told = told
        self._monotonic = monotonic
        self._turns: dict[str, _Turn] = {}

    def wait(self, member: Member, provider: str) -> float:
        """Seconds after which this worker should ask again; 0.0: it is its turn, from now on."""
        now = self._monotonic()
        turn = self._turns.get(provider)
        if turn is None:
            self._turns = {name: each for name, each in self._turns.items() if now < each.due + FORGOTTEN}
            turn = self._turns[provider] = _Turn(now)
        turn.waiting.setdefault(member)
        if now < turn.due:
            return turn.due - now
        first = next(iter(turn.waiting))
        if member is not first and now < turn.due + PRECEDENCE:
            return turn.due + PRECEDENCE - now
        for each in (first, member):
            turn.waiting.pop(each, None)
        turn.due = now + PROBE_SECONDS
        return 0.0

    def tell(self, member: Member, provider: str, *, well: bool) -> None:
        """Tell every worker but this one, which was answered, or has begun to hold off."""
        if well and provider in self._turns:
            self._turns[provider].waiting.clear()
        for other in self._told():
            if other is not member:
                other.health(provider, well=well)
