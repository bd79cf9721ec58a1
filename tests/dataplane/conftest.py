"""The data plane is tested on the loop it runs on."""

import pytest
import uvloop

from tests.support.plane import Plane
from tests.support.upstream import Upstream


def pytest_asyncio_loop_factories(config, item):
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def upstream():
    """A recording upstream; what it finds broken fails the test."""
    async with Upstream() as up:
        yield up


@pytest.fixture
async def plane(upstream):
    """The gateway before it: /public is public, /api needs a token."""
    async with Plane.before(upstream.port) as gateway:
        yield gateway


@pytest.fixture
async def client(plane):
    """One connection to the gateway."""
    async with await plane.client() as connection:
        yield connection
