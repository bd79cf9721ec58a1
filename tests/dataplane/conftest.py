"""The data plane is tested on the loop it runs on."""

import pytest
import uvloop

from tests.support.plane import Plane
from tests.support.upstream import Upstream


def pytest_asyncio_loop_factories(config, item):
    return {"uvloop": uvloop.new_event_loop}


def pytest_generate_tests(metafunc):
    """Whatever has a gateway runs on both lanes."""
    if "plane" in metafunc.fixturenames or hasattr(metafunc.module, "Plane"):
        if "lane" not in metafunc.fixturenames:
            metafunc.fixturenames.insert(0, "lane")
        metafunc.parametrize("lane", getattr(metafunc.module, "LANES", ("general", "express")), indirect=True)


@pytest.fixture
def lane(request, monkeypatch):
    """The lane of every gateway of the test; the express lane leaves to the general one what is unusual."""
    monkeypatch.setattr(Plane, "express_lane", request.param == "express")
    return request.param


@pytest.fixture
async def upstream():
    """A recording upstream; what it finds broken fails the test."""
    async with Upstream() as up:
        yield up


@pytest.fixture
async def plane(upstream, lane):
    """The gateway before it: /public is public, /api needs a token."""
    async with Plane.before(upstream.port) as gateway:
        yield gateway


@pytest.fixture
async def client(plane):
    """One connection to the gateway."""
    async with await plane.client() as connection:
        yield connection
