"""The lane under contract, and what stands around the gateway."""

import pytest
import uvloop

from tests.contract.parts import READER, Lane
from tests.support.idp import Idp


def pytest_asyncio_loop_factories(config, item):
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(params=["general", "express"])
def lane(request):
    """Give the maker of gateways with this lane."""
    return Lane(request.param)


@pytest.fixture
async def idp():
    """Give an identity provider that knows one active token, `good`."""
    async with Idp() as started:
        started.tokens["good"] = dict(READER)
        yield started
