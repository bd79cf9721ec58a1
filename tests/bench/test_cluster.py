"""The bench's clusters: a step from its beginning to its end, and clients that would notice if something were wrong."""

import argparse
import asyncio
import sys

import pytest

from bench.clients import Clients, Person, share
from bench.cluster import STEPS
from bench.verdicts import at_most
from tests.support.gateway import ROOT
from tests.support.process import Process, answers, free_port


@pytest.fixture
def witness():
    port = free_port()
    process = Process("witness", [sys.executable, "-m", "bench.stubs.witness", str(port)], cwd=ROOT)
    process.wait_until(lambda: answers(port))
    yield port
    process.kill()


async def test_a_step():
    """Figure 13: two hosts ask once; what a step has shown is judged."""
    lines = await STEPS["cold"](argparse.Namespace(times=1))
    assert [line.met for line in lines] == ["yes", "yes", "yes"]


@pytest.mark.parametrize(
    ("person", "good"),
    [(Person(None, "-"), True), (Person(None, "alex"), False), (Person(None, "-", 401), False)],
    ids=["as due", "somebody else", "not refused"],
)
async def test_answers_are_judged(witness, person, good):
    """Figure 2: an answer that is another's is noticed, and one that should have been a refusal."""
    async with Clients([witness], lambda: person, connections=2) as clients:
        await clients.asked(20)
    assert bool(clients.wrong) is not good
    assert clients.lost == []
    assert clients.statuses.keys() == {200}


async def test_what_breaks_is_counted(witness):
    """Nothing is lost without a trace."""

    async def count(port):
        async with Clients([port], lambda: Person(None, "-"), connections=2, leaving=0.5) as clients:
            await clients.asked(20)
        return clients

    assert (await count(free_port())).refused >= 20
    assert (await count(witness)).left > 0
    silent = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with silent:
        assert (await count(silent.sockets[0].getsockname()[1])).lost


def test_figures_are_judged():
    """A limit that is met, one that is not, and the share of values below one of them."""
    assert [at_most("x", value, 2).met for value in (2, 2.1)] == ["yes", "NO"]
    assert [share([1.0, 2.0, 3.0, 4.0], part) for part in (0.0, 0.5, 0.99, 1.0)] == [1.0, 3.0, 4.0, 4.0]
    assert share([], 0.5) == 0.0
