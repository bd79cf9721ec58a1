"""The line to Redis: whose answer is whose, whatever is cancelled; deadlines that blame nobody for our own stalls."""

import asyncio
import random
import time

import pytest

from fastgate.stats import Stats
from fastgate.tokens.shared import line as lines
from fastgate.tokens.shared.clients import Ways
from fastgate.tokens.shared.deadline import Deadline
from fastgate.tokens.shared.faults import Fault, RedisError, fault_of, fault_of_text
from fastgate.tokens.shared.line import Line
from fastgate.tokens.shared.scripts import Script
from tests.support.chaos import Chaos


@pytest.fixture
async def line_to():
    """Open lines that are closed at the end."""
    ways = []

    async def open_(settings, stats=None):
        way = await Ways(settings).open()
        ways.append(way)
        line = Line(settings.timeout, stats or Stats())
        line.open(way.client)
        return line

    yield open_
    for way in ways:
        await way.close()


@pytest.mark.parametrize("latency", [0.0, 0.002])
async def test_a_storm_of_cancellations(redis, line_to, latency):
    """R10, T22: of thousands of commands, half of them cancelled at any point, none gets another one's answer."""
    chance = random.Random(7)
    names = [f"name-{number}" for number in range(500)]
    redis.call("MSET", *(word for name in names for word in (name, f"value of {name}")))
    async with Chaos(redis.port) as way:
        way.latency = latency
        line = await line_to(redis.settings(timeout=5.0, addresses=(("127.0.0.1", way.port),)))
        read = Script("return redis.call('GET', KEYS[1])")

        async def ask(name):
            if chance.random() < 0.5:
                return await line.run(lambda client: client.get(name))
            return await line.script(read, [name], [])

        async def storm(turns):
            for _ in range(turns):
                name = chance.choice(names)
                task = asyncio.ensure_future(ask(name))
                if chance.random() < 0.5:
                    for _ in range(chance.randrange(12)):
                        await asyncio.sleep(chance.choice([0, 0, 0.0005, latency]))
                    task.cancel()
                try:
                    answer = await task
                except asyncio.CancelledError:
                    continue
                answers.append(answer == f"value of {name}".encode())

        answers = []
        await asyncio.gather(*(storm(60) for _ in range(40)))
        assert all(answers)
        assert len(answers) > 1000
        assert line._slots._value == line._size  # every slot was given back


async def test_more_connections_as_they_are_needed(redis, line_to, monkeypatch):
    """R3: from a few to a bound, one after the other."""
    monkeypatch.setattr(lines, "GROW_SECONDS", 0.0)
    async with Chaos(redis.port) as way:
        line = await line_to(redis.settings(timeout=5.0, addresses=(("127.0.0.1", way.port),)))
        assert line._size == lines.SLOTS_FIRST
        way.latency = 0.01
        async with asyncio.timeout(30):
            while line._size < lines.SLOTS_MAX:
                await asyncio.gather(*(line.run(lambda client: client.ping()) for _ in range(60)))
        await asyncio.gather(*(line.run(lambda client: client.ping()) for _ in range(60)))
        assert line._size == lines.SLOTS_MAX
        assert way.accepted <= lines.SLOTS_MAX + 1


async def test_too_much_is_under_way(redis, line_to):
    """R3: what finds no connection in time is given up, and does not blame Redis."""
    stats = Stats()
    line = await line_to(redis.settings(timeout=0.2), stats)

    async def hold(_):
        await asyncio.sleep(0.15)

    holding = [asyncio.ensure_future(line.run(hold)) for _ in range(lines.SLOTS_FIRST)]
    await asyncio.sleep(0)
    line._grow_at = float("inf")
    late = [asyncio.ensure_future(line.run(hold)) for _ in range(3 * lines.SLOTS_FIRST)]
    await asyncio.gather(*holding)
    outcomes = await asyncio.gather(*late, return_exceptions=True)
    assert any(isinstance(each, RedisError) and each.fault is Fault.BYPASSED for each in outcomes)
    assert stats.redis_errors.total("bypassed") >= 1


async def test_one_fault_closes_it(own_redis, line_to):
    """R1, R2: whatever comes after the first is not tried."""
    stats = Stats()
    line = await line_to(own_redis.settings(timeout=0.1), stats)
    assert await line.run(lambda client: client.ping())
    own_redis.kill()
    for expected in (Fault.CONNECTION, Fault.BYPASSED):
        with pytest.raises(RedisError) as caught:
            await line.run(lambda client: client.ping())
        assert caught.value.fault is expected
    assert line.broken.is_set()
    assert stats.redis_errors.values == {("connection",): 1}
    assert repr(line) == "<Line closed>"


async def test_an_error_that_says_nothing_about_redis(redis, line_to):
    """R7: a command that is refused does not close it."""
    line = await line_to(redis.settings())
    redis.call("LPUSH", "list", "x")
    with pytest.raises(RedisError) as caught:
        await line.run(lambda client: client.get("list"))
    assert caught.value.fault is Fault.REFUSED
    assert await line.run(lambda client: client.ping())


async def test_a_library_that_breaks(redis, line_to):
    """R10: a fault of the client library is taken for a broken connection, not for an answer."""
    line = await line_to(redis.settings())

    async def breaks(_):
        raise AttributeError("'NoneType' object has no attribute 'read'")

    with pytest.raises(RedisError) as caught:
        await line.run(breaks)
    assert caught.value.fault is Fault.PROTOCOL
    assert line.broken.is_set()


async def test_scripts_are_sent_once(redis, line_to):
    """R9: and again when Redis has forgotten them."""
    line = await line_to(redis.settings())
    script = Script("return ARGV[1]")
    redis.call("CONFIG", "RESETSTAT")
    for _ in range(2):
        redis.call("SCRIPT", "FLUSH")
        assert [await line.script(script, [], [word]) for word in "ab"] == [b"a", b"b"]
    assert b"cmdstat_eval:calls=2" in redis.call("INFO", "commandstats")


# --- deadlines -----------------------------------------------------------------------------------------------------


async def test_a_deadline():
    """R2: it ends what takes too long, with an error that is its own."""
    with pytest.raises(TimeoutError):
        async with Deadline(0.02):
            await asyncio.sleep(30)
    async with Deadline(30):
        await asyncio.sleep(0)
    with pytest.raises(KeyError):
        async with Deadline(30):
            raise KeyError


async def test_the_loop_stands_still_past_a_deadline():
    """R2: what has arrived meanwhile is read, and Redis is not blamed."""
    loop = asyncio.get_running_loop()
    answer = loop.create_future()
    async with Deadline(0.02):
        loop.call_soon(time.sleep, 0.1)
        loop.call_later(0.025, answer.set_result, "in time")
        assert await answer == "in time"
    with pytest.raises(TimeoutError):  # noqa: PT012 - a block is what this is about
        async with Deadline(0.02):
            for _ in range(100):
                time.sleep(0.03)  # noqa: ASYNC251 - a loop that stays behind gets no endless grace
                await asyncio.sleep(0)
            await asyncio.sleep(30)


async def test_a_deadline_around_what_is_cancelled_from_outside():
    """R10: a cancellation stays one."""

    async def wait():
        async with Deadline(30):
            await asyncio.sleep(30)

    task = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# --- what went wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", Fault.OUT_OF_MEMORY),
        ("READONLY You can't write against a read only replica.", Fault.READ_ONLY),
        ("NOPERM this user has no permissions", Fault.PERMISSION),
        ("LOADING Redis is loading the dataset in memory", Fault.LOADING),
        ("MISCONF Redis is configured to save RDB snapshots", Fault.REFUSED),
        ("WRONGTYPE Operation against a key", Fault.REFUSED),
        ("NOAUTH Authentication required.", Fault.AUTH),
        ("CLUSTERDOWN Hash slot not served", Fault.CLUSTER),
        ("MASTERDOWN Link with MASTER is down", Fault.CLUSTER),
    ],
)
def test_what_redis_says_is_wrong(text, fault):
    """R4 to R6: in a few words of ours."""
    assert fault_of_text(text) is fault


def test_what_the_system_says_is_wrong():
    """R1, R2: whatever was raised."""
    assert fault_of(ConnectionRefusedError()) is Fault.CONNECTION
    assert fault_of(TimeoutError()) is Fault.TIMEOUT
    assert fault_of(OSError("no route")) is Fault.CONNECTION
    assert fault_of(RuntimeError("secret")) is Fault.PROTOCOL
    assert "secret" not in str(RedisError(fault_of(RuntimeError("secret"))))
