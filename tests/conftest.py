"""What every test has: the checkout on the path, and the real parts as fixtures, each started when first asked for.

A real part that cannot be had here skips the tests that need it and says why; with FASTGATE_PARTS=required, as
`make test` sets it, that is an error instead.
"""

import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import structlog

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
pytest.register_assert_rewrite("tests.support")

from tests.support.cache import Missing  # noqa: E402 - the path is set just above
from tests.support.corpus import Corpus  # noqa: E402
from tests.support.httpbin import Httpbin  # noqa: E402
from tests.support.keycloak import Keycloak  # noqa: E402
from tests.support.loop import Loop  # noqa: E402
from tests.support.oidc_provider import OidcProvider  # noqa: E402
from tests.support.upstream import Upstream  # noqa: E402

Part = TypeVar("Part")
NOTES = pytest.StashKey[list[str]]()


def pytest_asyncio_loop_factories(config, item):
    """Run on asyncio's own loop, where a room says nothing else."""
    return {"asyncio": Loop}


def real(start: Callable[[], Part]) -> Part:
    """Start a real part, or say in one sentence why it cannot be had."""
    try:
        return start()
    except Missing as missing:
        if os.environ.get("FASTGATE_PARTS") == "required":
            pytest.fail(f"a real part is missing: {missing}", pytrace=False)
        pytest.skip(f"a real part is missing: {missing}")


@pytest.fixture(scope="session")
def part() -> Callable[[Callable[[], Part]], Part]:
    """Give a way to get a real part that has no fixture of its own."""
    return real


@pytest.fixture(autouse=True)
def _event_log() -> Iterator[None]:
    """Leave nothing of how a command has configured the event log of this process."""
    yield
    structlog.reset_defaults()


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    """Give a recording, scriptable upstream; fails the test when it was sent broken requests."""
    async with Upstream() as started:
        yield started


@pytest.fixture(scope="session")
def httpbin() -> Iterator[Httpbin]:
    """Give PyPI's httpbin."""
    started = Httpbin()
    yield started
    started.stop()


@pytest.fixture(scope="session")
def oidc_provider() -> Iterator[OidcProvider]:
    """Give npm's oidc-provider; a test that stops it starts it again."""
    started = real(OidcProvider)
    yield started
    started.stop()


@pytest.fixture(scope="session")
def keycloak() -> Iterator[Keycloak]:
    """Give a Keycloak from Maven Central; a test that stops it starts it again."""
    started = real(Keycloak)
    yield started
    started.stop()


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    """Give the requests of gunicorn's own test-suite."""
    return real(Corpus)


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Give a way to say something in the closing lines of the run, such as how many cases were tried."""
    notes = request.config.stash.setdefault(NOTES, [])
    return notes.append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what the tests noted."""
    for line in config.stash.get(NOTES, []):
        terminalreporter.write_line(f"NOTE {line}")
