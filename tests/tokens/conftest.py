"""A clock, an identity provider, and the room under test."""

import pytest

from fastgate.stats import Stats
from fastgate.tokens.introspector import Introspector
from fastgate.tokens.turns import ALONE
from tests.support.idp import Idp
from tests.tokens.parts import FakeClock, World


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def stats():
    return Stats()


@pytest.fixture
async def idp():
    async with Idp() as started:
        yield started


@pytest.fixture
async def world(clock, stats):
    made = World(clock, stats)
    yield made
    if made.tokens is not None:
        await made.tokens.close()


@pytest.fixture
async def introspector_of(clock, stats):
    """Make introspectors that are closed at the end."""
    made = []

    def make(provider, turns=ALONE):
        made.append(Introspector(provider, clock, stats, turns))
        return made[-1]

    yield make
    for each in made:
        await each.close()
