import asyncio

import pytest

from fastgate.errors import Cannot, IntrospectionError
from fastgate.tokens.lanes import Lanes
from tests.tokens.parts import turns


class Load:
    """Tasks that hold slots until they are let go."""

    def __init__(self, lanes):
        self.lanes = lanes
        self.go = asyncio.Event()
        self.tasks = []
        self.most = 0

    def hold(self, count, *, known=False):
        self.tasks += [asyncio.ensure_future(self._one(known=known)) for _ in range(count)]

    async def _one(self, *, known):
        async with self.lanes.slot(known=known):
            self.most = max(self.most, self.lanes.under_way)
            await self.go.wait()

    async def finish(self):
        self.go.set()
        return await asyncio.gather(*self.tasks, return_exceptions=True)


async def test_no_more_than_the_limit_is_under_way():
    """T4, I1: the limit holds, the others wait, and all are served."""
    load = Load(lanes := Lanes(4))
    load.hold(20)
    await turns()
    assert (lanes.under_way, lanes.waiting) == (4, 16)
    assert await load.finish() == [None] * 20
    assert load.most == 4
    assert (lanes.under_way, lanes.waiting) == (0, 0)


async def test_the_queue_is_bounded():
    """T4, I11: who finds the queue full is told at once."""
    load = Load(lanes := Lanes(2))
    load.hold(2 + 2 * 16 + 1)
    await turns()
    assert lanes.waiting == 2 * 16
    (error,) = [each for each in await load.finish() if each is not None]
    assert (error.kind, error.retry_after) == (Cannot.OVERLOADED, 1.0)


async def test_unknown_tokens_leave_slots_and_a_queue_to_known_ones():
    """T25, I11: a flood of unknown tokens does not keep the refresh of a good one waiting."""
    load = Load(lanes := Lanes(16))
    load.hold(1000)
    await turns()
    assert lanes.under_way == 14
    load.hold(2, known=True)
    await turns()
    assert lanes.under_way == 16
    load.hold(1, known=True)
    await turns()
    outcomes = await load.finish()
    assert outcomes[-3:] == [None] * 3
    assert sum(isinstance(each, IntrospectionError) for each in outcomes) == 1000 - 14 - 16 * 16


@pytest.mark.parametrize("known", [True, False])
async def test_who_gives_up_waiting_leaves_nothing_behind(known):
    """T4: a cancelled waiter holds no slot and no place."""
    load = Load(lanes := Lanes(1))
    load.hold(1, known=known)
    await turns()
    load.hold(3, known=known)
    await turns()
    for task in load.tasks[1:]:
        task.cancel()
    await turns()
    assert (lanes.under_way, lanes.waiting) == (1, 0)
    await load.finish()
    async with asyncio.timeout(10), lanes.slot(known=known):
        assert lanes.under_way == 1


async def test_one_slot_is_for_everybody():
    """T4: with a single slot there is nothing to keep back."""
    lanes = Lanes(1)
    async with lanes.slot(known=False):
        assert lanes.under_way == 1
