"""Whose turn it is to ask an identity provider that is held off from: one process of a host asks for all."""

from typing import Final, Protocol


class Turns(Protocol):
    """The turns of the processes that ask the same providers, by name. Never raises, and answers soon.

    In doubt it is everybody's turn: one question too many does less harm than a recovery that nobody notices.
    """

    @property
    def workers(self) -> int:
        """How many they are: they share what a provider may be asked in a second."""
        ...

    async def wait(self, provider: str) -> float:
        """Seconds after which to ask here again; 0.0: it is our turn, now, and nobody else's for a second."""
        ...

    def tell(self, provider: str, *, well: bool) -> None:
        """Tell the others that this provider has answered after all, or that we have begun to hold off from it."""
        ...


class _Alone:
    """Nobody else asks."""

    __slots__ = ()
    workers = 1

    async def wait(self, provider: str) -> float:  # noqa: ARG002 - whichever it is
        """Say that it is our turn."""
        return 0.0

    def tell(self, provider: str, *, well: bool) -> None:
        """Tell nobody."""


ALONE: Final = _Alone()
