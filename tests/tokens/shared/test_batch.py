"""What is wanted at once is done together."""

import asyncio
import re

import pytest

from fastgate.tokens.shared.batch import MOST, Batch
from fastgate.tokens.shared.faults import RedisError
from fastgate.tokens.shared.scripts import LOOK, Script


def scripts(redis):
    """Count the scripts that a server has run."""
    found = re.search(rb"cmdstat_evalsha:calls=(\d+)", redis.call("INFO", "commandstats"))
    return int(found[1]) if found else 0


@pytest.fixture
async def one(redis, worker):
    """Give a worker that has run the script once."""
    started = await worker(redis)
    await started.shared._states._looking.run(("none",))
    return started


@pytest.mark.parametrize(("together", "operations"), [(True, 3), (False, 2 * MOST + 1)], ids=["server", "cluster"])
async def test_many_at_once(redis, one, together, operations):
    """Figure 14: one operation for as many as come; for each of them where keys are on several servers."""
    looks = Batch(one.shared._states._line, LOOK, together=together)
    redis.call("SET", "k7", b"seven")
    redis.call("HSET", "k8", "f", "v")
    before = scripts(redis)
    answers = await asyncio.gather(*(looks.run((f"k{number}",)) for number in range(2 * MOST + 1)))
    assert scripts(redis) - before == operations
    assert answers.pop(7) == [b"seven", -1]
    assert answers.pop(7)[0].startswith(b"WRONGTYPE")
    assert set(answers) == {None}


async def test_one_that_leaves(one):
    """R10: the others get their own answers, and what it wanted goes nowhere."""
    looks = one.shared._states._looking
    staying, leaving = (asyncio.ensure_future(looks.run((key,))) for key in ("a", "b"))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying is None
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert one.up


async def test_a_fault(redis, one):
    """R1: everybody who waits learns of it, within the deadline of one operation."""
    looks = one.shared._states._looking
    redis.suspend()
    try:
        failed = await asyncio.gather(*(looks.run((f"k{number}",)) for number in range(10)), return_exceptions=True)
    finally:
        redis.resume()
    assert {type(each) for each in failed} == {RedisError}
    assert len({id(each) for each in failed}) == 10
    await looks.close()


async def test_one_that_waits_for_others(redis, one):
    """Figure 14: what comes within a while goes together, at once when there are enough; the end waits for nobody."""
    line = one.shared._states._line
    batch = Batch(line, LOOK, together=True, patience=60.0)
    before = scripts(redis)
    assert set(await asyncio.gather(*(batch.run((f"k{number}",)) for number in range(MOST)))) == {None}
    assert scripts(redis) - before == 1
    late = asyncio.ensure_future(batch.run(("late",)))
    await asyncio.sleep(0)
    await batch.close()
    assert await late is None
    assert scripts(redis) - before == 2
    soon = Batch(line, LOOK, together=True, patience=0.001)
    assert await soon.run(("soon",)) is None


async def test_claims_and_answers_of_one_turn(redis, idp, worker):
    """Figure 13: tokens that come together are claimed together, and land together; each its own."""
    idp.tokens |= {f"t{number}": {"sub": f"user-{number}"} for number in range(10)}
    one = await worker(redis)
    before = scripts(redis)
    states = await asyncio.gather(*(one.get(f"t{number}") for number in range(10)))
    await one.landed()
    assert [state.claims["sub"] for state in states] == [f"user-{number}" for number in range(10)]
    assert 2 <= scripts(redis) - before < 20
    assert one.count("leases", "owner") == 10
    assert redis.keys("*:lease:*") == []
    assert len(redis.keys("*:state:*")) == 10


async def test_answers_that_are_not_for_all(one):
    """R7: something that calls itself Redis says too little: nobody waits for ever, nobody gets another's answer."""
    batch = Batch(one.shared._states._line, Script("return {}"), together=True)
    failed = await asyncio.gather(*(batch.run((f"k{number}",)) for number in range(3)), return_exceptions=True)
    assert [str(each.fault) for each in failed] == ["protocol"] * 3
