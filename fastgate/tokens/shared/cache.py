"""The shared tier as an aiocache cache: its interface, our serializer, our line to Redis."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from aiocache.base import BaseCache

from fastgate.errors import FastgateError
from fastgate.tokens.shared.batch import Batch
from fastgate.tokens.shared.line import Line
from fastgate.tokens.shared.scripts import LAND, LOOK
from fastgate.tokens.shared.states import Found, StateSerializer, Unusable

PATIENCE: Final = 0.005
"""Seconds that looking for a state waits for others: only tokens that nobody may be asked about are looked for."""


class Landing(NamedTuple):
    """The terms on which something is written: only while a lease is in force, and who is told."""

    lease: str
    """Its key."""
    claim: bytes
    """How it begins while it is in force: the fencing token."""
    message: bytes
    """For those who wait; the value follows it."""
    channel: str
    """How the channels of those who wait begin."""
    waiter_size: int
    """Octets that stand in the lease for each of them, and end the name of the channel."""


class LeaseLostError(FastgateError):
    """Somebody else took over: nothing was written."""


class RedisStates(BaseCache):  # type: ignore[misc]  # aiocache has no types
    """Token states by key.

    `set` takes a `Landing` as aiocache's compare-and-set token. It has no timeout of its own: a deadline around
    the line's deadline would only blur whose it was.
    """

    NAME = "fastgate"

    def __init__(self, line: Line, serializer: StateSerializer, *, together: bool) -> None:
        """`together`: see `Batch`."""
        super().__init__(serializer=serializer, timeout=None)
        self._line = line
        self._looking = Batch(line, LOOK, together=together, patience=PATIENCE)
        self._landing = Batch(line, LAND, together=together, urgent=True)

    def glance(self, key: str, then: Callable[[Any], None]) -> None:
        """Look for a state without waiting: `then` is told what LOOK says, or a RedisError. It must not raise."""
        self._looking.call((key,), (), then)

    async def land(self, key: str, terms: Landing, value: bytes, how: str) -> None:
        """Write, then end the lease and tell. `how` is the milliseconds that `value` is kept; or drop, or keep.

        With drop, what is there is forgotten, with keep it is left: `value` goes to those who wait only.
        Raises LeaseLostError, and RedisError (those who wait are told all the same when only writing was refused).
        """
        arguments = (terms.claim, how, value, terms.message, terms.waiter_size, terms.channel)
        outcome, *error = await self._landing.run((key, terms.lease), arguments)
        if outcome == b"lost":
            raise LeaseLostError("somebody else took over")
        if outcome == b"refused":
            raise self._line.refused(error[0])

    async def _get(self, key: str, encoding: str | None = None, _conn: Any = None) -> Found | None:
        del encoding, _conn
        answer = await self._looking.run((key,))
        if answer is None:
            return None
        if len(answer) == 1:
            raise Unusable("other_type")
        return found(key, *answer)

    async def _set(
        self, key: str, value: bytes, ttl: float | None = None, _cas_token: Landing | None = None, _conn: Any = None
    ) -> bool:
        del _conn
        if _cas_token is None:
            raise ValueError("a state is written by who holds its lease")
        milliseconds = int((ttl or 0.0) * 1000)
        await self.land(key, _cas_token, value, str(milliseconds) if milliseconds > 0 else "drop")
        return True

    async def _add(self, key: str, value: bytes, ttl: float | None = None, _conn: Any = None) -> bool:
        """As aiocache has it: ValueError when the key is there already."""
        del _conn
        milliseconds = max(1, int((ttl or 0.0) * 1000))
        if not await self._line.run(lambda client: client.set(key, value, nx=True, px=milliseconds)):
            raise ValueError("the key is there already")
        return True

    async def _raw(self, command: str, *args: Any, encoding: str | None = None, _conn: Any = None) -> Any:
        del encoding, _conn
        return await self._line.run(lambda client: client.execute_command(command.upper(), *args))

    async def _close(self, *_: Any, **__: Any) -> None:
        """Finish what is under way; the line belongs to the session."""
        await self._looking.close()
        await self._landing.close()


def found(key: str, value: bytes, left: int) -> Found:
    """What a script says of a value, and of the milliseconds that are left of it."""
    return Found(key, value, left / 1000 if left >= 0 else None)
