"""Looking for states: those that are wanted in one turn of the loop are asked for together."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from fastgate.tokens.shared.faults import RedisError
from fastgate.tokens.shared.line import Line
from fastgate.tokens.shared.scripts import LOOK

MOST: Final = 64
"""In one operation: Redis does nothing else meanwhile."""


class _Wanted(NamedTuple):
    key: str
    answer: asyncio.Future[Any]


class Looks:
    """Under a flood of tokens that nobody knows an operation for each would cost more than everything else."""

    __slots__ = ("_asking", "_line", "_most", "_wanted")

    def __init__(self, line: Line, *, together: bool) -> None:
        """`together`: one operation may touch several keys, as all of them are on one server."""
        self._line = line
        self._most = MOST if together else 1
        self._wanted: list[_Wanted] = []
        self._asking: set[asyncio.Task[None]] = set()

    async def look(self, key: str) -> Any:
        """Return what LOOK says of a key. Raises RedisError."""
        loop = asyncio.get_running_loop()
        if not self._wanted:
            loop.call_soon(self._ask)
        answer = loop.create_future()
        self._wanted.append(_Wanted(key, answer))
        return await answer

    async def close(self) -> None:
        """Finish what is under way: each operation has its deadline."""
        await asyncio.gather(*self._asking)

    def _ask(self) -> None:
        wanted, self._wanted = self._wanted, []
        for at in range(0, len(wanted), self._most):
            task = asyncio.get_running_loop().create_task(self._ask_about(wanted[at : at + self._most]))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _ask_about(self, wanted: Sequence[_Wanted]) -> None:
        """One operation, which belongs to nobody who waits: each of them may leave."""
        try:
            answers = await self._line.script(LOOK, [each.key for each in wanted], [])
        except RedisError as error:
            for each in wanted:
                if not each.answer.done():
                    each.answer.set_exception(RedisError(error.fault))
        else:
            for each, answer in zip(wanted, answers, strict=True):
                if not each.answer.done():
                    each.answer.set_result(answer)
        finally:
            for each in wanted:
                each.answer.cancel()
