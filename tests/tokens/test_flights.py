import asyncio
import contextvars
import gc
import weakref
from contextlib import suppress

import pytest

from fastgate.errors import Cannot, IntrospectionError
from fastgate.stats import Stats
from fastgate.tokens.flight import Flights
from tests.tokens.parts import turns


class Load:
    """A load that runs when it is let go, and counts how often it was started."""

    def __init__(self, outcome="answer"):
        self.started = 0
        self.go = asyncio.Event()
        self.outcome = outcome

    async def __call__(self):
        self.started += 1
        await self.go.wait()
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


def waiters(flights, load, count, key="k"):
    return [asyncio.ensure_future(flights.join(key, load)) for _ in range(count)]


async def test_fifty_waiters_one_load():
    """T28, I10: one load serves everybody who came while it was under way."""
    stats = Stats()
    flights = Flights(stats.flights)
    load = Load()
    tasks = waiters(flights, load, 50)
    await turns()
    assert len(flights) == 1
    load.go.set()
    assert await asyncio.gather(*tasks) == ["answer"] * 50
    assert load.started == 1
    assert len(flights) == 0
    assert stats.flights.values == {("started",): 1, ("joined",): 49}


async def test_the_first_waiter_leaves_and_the_others_are_served():
    """T29, I14: a flight belongs to nobody's request."""
    flights = Flights()
    load = Load()
    first, *others = waiters(flights, load, 10)
    await turns()
    first.cancel()
    await turns()
    assert first.cancelled()
    load.go.set()
    assert await asyncio.gather(*others) == ["answer"] * 9
    assert load.started == 1


async def test_every_waiter_leaves_and_the_load_still_lands():
    """T29, I14: what was asked is learned though nobody waits for it."""
    flights = Flights()
    landed = asyncio.Event()
    go = asyncio.Event()

    async def load():
        await go.wait()
        landed.set()

    tasks = waiters(flights, load, 3)
    await turns()
    for task in tasks:
        task.cancel()
    await turns()
    go.set()
    await asyncio.wait_for(landed.wait(), 10)
    await turns()
    assert len(flights) == 0


async def test_an_error_goes_to_its_own_waiters_and_the_next_one_starts_anew():
    """T30, I15: no failure is remembered."""
    flights = Flights()
    failing = Load(IntrospectionError(Cannot.UNAVAILABLE, "gone"))
    tasks = waiters(flights, failing, 5)
    await turns()
    failing.go.set()
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert {error.kind for error in errors} == {Cannot.UNAVAILABLE}
    good = Load("fresh")
    good.go.set()
    assert await flights.join("k", good) == "fresh"


async def test_a_failure_leaves_nothing_for_the_garbage_collector():
    """Figure 25: a flood of failures must not have it stop everything, again and again."""
    flights = Flights()
    load = Load(IntrospectionError(Cannot.TIMEOUT, "slow"))
    failed = weakref.ref(load.outcome)

    async def wait():
        with suppress(IntrospectionError):
            await flights.join("k", load)

    tasks = [asyncio.ensure_future(wait()) for _ in range(3)]
    await turns()
    gc.collect()
    gc.disable()
    try:
        load.go.set()
        await asyncio.gather(*tasks)
        await turns()
        del load.outcome
        assert failed() is None
    finally:
        gc.enable()


async def test_a_waiter_that_is_woken_by_an_error_can_start_the_next_load_at_once():
    """I15: the key is free before any waiter runs."""
    flights = Flights()
    failing = Load(IntrospectionError(Cannot.TIMEOUT, "slow"))
    good = Load("second")
    failing.go.set()
    good.go.set()

    async def twice():
        try:
            return await flights.join("k", failing)
        except IntrospectionError:
            return await flights.join("k", good)

    assert await asyncio.gather(twice(), twice()) == ["second", "second"]
    assert (failing.started, good.started) == (1, 1)


async def test_an_error_that_nobody_waits_for_warns_nobody():
    """T30: an unobserved failure is not a warning at shutdown."""
    complaints = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    flights = Flights()
    load = Load(RuntimeError("a bug"))
    (task,) = waiters(flights, load, 1)
    await turns()
    task.cancel()
    load.go.set()
    await turns()
    del task, load
    gc.collect()
    await turns()
    assert complaints == []


async def test_a_shared_error_does_not_grow_with_its_waiters():
    """T30: a thousand waiters raise one error, and its traceback stays short."""
    flights = Flights()
    load = Load(IntrospectionError(Cannot.UNAVAILABLE, "gone"))
    tasks = waiters(flights, load, 1000)
    await turns()
    load.go.set()
    error = (await asyncio.gather(*tasks, return_exceptions=True))[-1]
    depth, trace = 0, error.__traceback__
    while trace is not None:
        depth, trace = depth + 1, trace.tb_next
    assert depth < 10


async def test_different_keys_fly_apart():
    """T2: one key's load is never another key's answer."""
    flights = Flights()
    loads = {key: Load(key) for key in "abc"}
    for load in loads.values():
        load.go.set()
    assert await asyncio.gather(*(flights.join(key, load) for key, load in loads.items())) == ["a", "b", "c"]


async def test_nothing_of_the_first_request_reaches_the_load():
    """T22: context variables of whoever came first are not seen by what is done for all."""
    request = contextvars.ContextVar("request", default="nobody")
    flights = Flights()
    seen = []

    async def load():
        seen.append(request.get())

    async def ask():
        request.set("alex")
        await flights.join("k", load)

    await asyncio.gather(ask())
    assert seen == ["nobody"]


async def test_closing_ends_every_load_and_tells_the_waiters():
    """T30: on shutdown a waiter gets an error, not a cancellation that is not its own."""
    flights = Flights()
    never = Load()
    tasks = waiters(flights, never, 3)
    await turns()
    await flights.close()
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert [error.kind for error in errors] == [Cannot.UNAVAILABLE] * 3
    assert len(flights) == 0
    with pytest.raises(IntrospectionError, match="stopping"):
        await flights.join("k", never)


async def test_closing_before_a_load_took_its_first_step():
    """T30: also a load that never ran tells its waiters."""
    flights = Flights()
    never = Load()
    flight = flights.start("k", never)
    await flights.close()
    with pytest.raises(IntrospectionError):
        await flight
    assert never.started == 0


async def test_starting_without_waiting_does_not_start_a_second_load():
    """I10: a background load and a waiting request are one flight."""
    flights = Flights()
    load = Load()
    flights.start("k", load)
    flights.start("k", load)
    load.go.set()
    assert await flights.join("k", load) == "answer"
    assert load.started == 1
