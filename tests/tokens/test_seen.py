import pytest

from fastgate.tokens.seen import SeenHere


@pytest.fixture
def seen(clock):
    return SeenHere(clock.monotonic, max_entries=3)


async def test_each_is_first_once(clock, seen):
    """Until its time is over."""
    assert await seen.first("a", 10)
    clock.pass_(9)
    assert not await seen.first("a", 10)
    assert await seen.first("b", 10)
    assert await seen.first("\ud800", 10)
    clock.pass_(1)
    assert await seen.first("a", 10)


async def test_nothing_is_kept_for_ever(clock, seen):
    """What ran out makes room by itself."""
    for number in range(1000):
        assert await seen.first(str(number), 2)
        clock.pass_(1)
    assert len(seen) <= 2


async def test_more_than_there_is_room_for(seen):
    """What would be forgotten next is forgotten now."""
    for name, seconds in (("long", 100), ("short", 1), ("longer", 200), ("new", 50)):
        assert await seen.first(name, seconds)
    assert len(seen) == 3
    assert not await seen.first("long", 100)
    assert not await seen.first("longer", 100)
    assert not await seen.first("new", 100)
    assert await seen.first("short", 1)
