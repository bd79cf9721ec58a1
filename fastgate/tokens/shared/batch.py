"""Batches: what is wanted of a script within one turn of the loop, or a little longer, goes in one operation."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from fastgate.tokens.shared.faults import Fault, RedisError
from fastgate.tokens.shared.line import Line
from fastgate.tokens.shared.scripts import Script

MOST: Final = 64
"""In one operation: Redis does nothing else meanwhile."""

Word = bytes | str | int


class _Wanted(NamedTuple):
    keys: Sequence[str]
    arguments: Sequence[Word]
    then: Callable[[Any], None]
    """Told what the script says of these keys, or a RedisError. Never raises."""


class Batch:
    """Calls of one script that does its work for each of many.

    An operation costs this process twenty times what one more key in it does.
    """

    __slots__ = ("_line", "_most", "_patience", "_script", "_under_way", "_urgent", "_wanted")

    def __init__(
        self, line: Line, script: Script, *, together: bool, patience: float = 0.0, urgent: bool = False
    ) -> None:
        """`together`: one operation may touch several keys, as all of them are on one server.

        `patience` in seconds: how long others that may come are waited for. `urgent`: see `Line`.
        """
        self._line = line
        self._script = script
        self._most = MOST if together else 1
        self._patience = patience if together else 0.0
        self._urgent = urgent
        self._wanted: list[_Wanted] = []
        self._under_way: set[asyncio.Task[None]] = set()

    async def run(self, keys: Sequence[str], arguments: Sequence[Word] = ()) -> Any:
        """Return what the script says of these keys. Raises RedisError."""
        answer = asyncio.get_running_loop().create_future()
        self.call(keys, arguments, partial(_answer, answer))
        return await answer

    def call(self, keys: Sequence[str], arguments: Sequence[Word], then: Callable[[Any], None]) -> None:
        """Do the same for one who does not wait: `then` is told, in a later turn, and must not raise."""
        self._wanted.append(_Wanted(keys, arguments, then))
        number = len(self._wanted)
        if number == 1:
            loop = asyncio.get_running_loop()
            if self._patience:
                loop.call_later(self._patience, self._begin)
            else:
                loop.call_soon(self._begin)
        elif number == self._most and self._patience:
            self._begin()

    async def close(self) -> None:
        """Finish what is under way: each operation has its deadline."""
        self._begin()
        await asyncio.gather(*self._under_way)

    def _begin(self) -> None:
        wanted, self._wanted = self._wanted, []
        for at in range(0, len(wanted), self._most):
            task = asyncio.get_running_loop().create_task(self._run(wanted[at : at + self._most]))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _run(self, wanted: Sequence[_Wanted]) -> None:
        """One operation, which belongs to nobody who waits: each of them may leave."""
        keys = [key for each in wanted for key in each.keys]
        arguments = [word for each in wanted for word in each.arguments]
        fault = Fault.BYPASSED  # where this task is cancelled
        answers: Sequence[Any] | None = None
        try:
            said = await self._line.script(self._script, keys, arguments, urgent=self._urgent)
        except RedisError as error:
            fault = error.fault
        else:
            if len(said) == len(wanted):
                answers = said
            else:
                fault = Fault.PROTOCOL
        finally:
            for at, each in enumerate(wanted):
                each.then(RedisError(fault) if answers is None else answers[at])


def _answer(waiting: asyncio.Future[Any], said: Any) -> None:
    if waiting.done():
        return  # he left
    if isinstance(said, RedisError):
        waiting.set_exception(said)
    else:
        waiting.set_result(said)
