"""What is asked of the shared tier, and what comes back. Loads no library."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from fastgate.model import IdentityProvider, Remembered, TokenState


class Question(NamedTuple):
    """A token that the memory of this worker does not know well enough."""

    provider: IdentityProvider
    key: bytes
    """Its digest."""
    usable: Callable[[Remembered], bool]
    """Whether what somebody learned earlier is good enough."""
    ask: Callable[[float], Awaitable[TokenState]]
    """Ask the authorization server, within so many seconds. Raises IntrospectionError."""
    settle: Callable[[TokenState], TokenState]
    """What a state is in the light of what was revoked until now."""
    refused: Callable[[], bool]
    """Whether asking would be refused at once, by limits of our own."""


class Learned(NamedTuple):
    """The answer to a question."""

    state: TokenState
    fetched_at: float
    """Monotonic seconds, when the authorization server was asked."""
    asked: bool
    """It was asked because of this question, by us or by somebody we waited for."""
