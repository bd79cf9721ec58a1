"""What stands around the gateway."""

import pytest
import uvloop

from tests.contract.parts import READER
from tests.support.idp import Idp
from tests.support.ledger import Repeater


def pytest_asyncio_loop_factories(config, item):
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def idp():
    """Give an identity provider that knows one active token, `good`."""
    async with Idp() as started:
        started.tokens["good"] = dict(READER)
        yield started


@pytest.fixture
async def repeater():
    """Give an upstream for a load."""
    async with Repeater() as started:
        yield started
