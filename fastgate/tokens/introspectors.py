"""The introspectors of all identity providers, through reloads."""

import asyncio
from collections.abc import Mapping
from typing import Any

from fastgate.clock import Clock
from fastgate.errors import IntrospectionError
from fastgate.model import IdentityProvider, TokenState
from fastgate.stats import Stats
from fastgate.tokens.introspector import Introspector
from fastgate.tokens.turns import Turns


class Introspectors:
    """One introspector per identity provider; those of a former configuration are closed when idle."""

    __slots__ = ("_clock", "_closing", "_current", "_stats", "_turns")

    def __init__(self, clock: Clock, stats: Stats, turns: Turns) -> None:
        self._clock = clock
        self._stats = stats
        self._turns = turns
        self._current: dict[IdentityProvider, Introspector] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def swap(self, providers: Mapping[str, IdentityProvider]) -> None:
        """Take a new configuration: unchanged providers keep their connections, others close when idle."""
        former = self._current
        self._current = {each: former.get(each) or self._new(each) for each in providers.values()}
        for provider in former.keys() - self._current.keys():
            self._close_when_idle(former[provider])

    def refuses(self, provider: IdentityProvider, *, known: bool) -> bool:
        """Whether nothing would be sent to this provider now."""
        introspector = self._current.get(provider)
        return introspector is not None and introspector.refuses(known=known)

    def turn_away(self, provider: IdentityProvider) -> IntrospectionError | None:
        """Why an unknown token would be refused without a question to this provider, and noted; None: it would not."""
        introspector = self._current.get(provider)
        return None if introspector is None else introspector.turn_away()

    async def introspect(self, provider: IdentityProvider, token: str, *, known: bool, seconds: float) -> TokenState:
        """Ask this provider, also one of a former configuration, within so long. Raises IntrospectionError."""
        introspector = self._current.get(provider)
        if introspector is not None:
            return await introspector.introspect(token, known=known, seconds=seconds)
        # A request that was admitted before a reload: its route still trusts the old provider.
        introspector = self._new(provider)
        try:
            return await introspector.introspect(token, known=known, seconds=seconds)
        finally:
            self._close_when_idle(introspector)

    def out_of_reach(self, provider: IdentityProvider) -> bool:
        """Whether the last question to this provider failed without any answer."""
        introspector = self._current.get(provider)
        return introspector is not None and introspector.out_of_reach

    def heard(self, name: str, *, well: bool) -> None:
        """Take note that the provider of this name has answered another process of this host, or fails it."""
        for each in self._current.values():
            if each.provider.name == name:
                each.heard(well=well)

    async def meet(self) -> dict[str, IntrospectionError | None]:
        """Make first contact with every provider; what went wrong, by name."""
        introspectors = list(self._current.values())
        problems = await asyncio.gather(*(_problem(each) for each in introspectors))
        return {each.provider.name: found for each, found in zip(introspectors, problems, strict=True)}

    def problems(self) -> dict[str, str]:
        """By name, the providers whose last question failed, and why, in our own words."""
        return {each.provider.name: each.problem for each in self._current.values() if each.problem}

    def status(self) -> dict[str, Any]:
        """By name, for the status page."""
        return {each.provider.name: each.status() for each in self._current.values()}

    async def close(self) -> None:
        """Close them all, each when it is idle."""
        self.swap({})
        await asyncio.gather(*self._closing)

    def _new(self, provider: IdentityProvider) -> Introspector:
        return Introspector(provider, self._clock, self._stats, self._turns)

    def _close_when_idle(self, introspector: Introspector) -> None:
        task = asyncio.get_running_loop().create_task(introspector.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


async def _problem(introspector: Introspector) -> IntrospectionError | None:
    try:
        await introspector.meet()
    except IntrospectionError as error:
        return error
    return None
