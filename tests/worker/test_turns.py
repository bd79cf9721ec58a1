"""Turns that the supervisor gives, over a real socket pair; and what becomes of them without it."""

import asyncio
import socket

import pytest

from fastgate.worker import turns
from fastgate.worker.channel import Channel
from fastgate.worker.turns import TurnsOfWorkers


class Supervisor:
    """The other end: it says the same to every call, or nothing."""

    def __init__(self):
        self.says = None
        self.heard = []
        self.lost = asyncio.Event()
        self.channel = Channel(self.take, self.lost.set)

    def take(self, message):
        self.heard.append((message["op"], message["provider"], message.get("well")))
        if self.says is not None:
            self.channel.answer(message, self.says)


@pytest.fixture
async def supervisor():
    return Supervisor()


@pytest.fixture
async def channel(supervisor):
    """Give the worker's end."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    made = Channel(lambda _: None, lambda: None)
    await loop.create_unix_connection(lambda: made, sock=ours)
    await loop.create_unix_connection(lambda: supervisor.channel, sock=theirs)
    yield made
    made.close()
    supervisor.channel.close()


async def test_the_supervisor_says_whose_turn_it_is(supervisor, channel):
    """Figure 16: and hears what we found out."""
    ours = TurnsOfWorkers(channel, 2)
    supervisor.says = 0.25
    assert await ours.wait("idp") == 0.25
    supervisor.says = 0
    assert await ours.wait("idp") == 0.0
    ours.tell("idp", well=True)
    ours.tell("idp", well=False)
    assert await ours.wait("other") == 0.0
    told = [("health", "idp", True), ("health", "idp", False)]
    assert supervisor.heard == [("turn", "idp", None), ("turn", "idp", None), *told, ("turn", "other", None)]


async def test_the_supervisor_does_not_answer(supervisor, channel, monkeypatch):
    """C7: then it is everybody's turn, soon."""
    monkeypatch.setattr(turns, "WITHIN", 0.05)
    assert await TurnsOfWorkers(channel, 2).wait("idp") == 0.0


async def test_the_supervisor_is_gone(supervisor, channel):
    """P2: then it is everybody's turn, while what is open is finished."""
    supervisor.channel.close()
    await supervisor.lost.wait()
    ours = TurnsOfWorkers(channel, 2)
    ours.tell("idp", well=True)
    assert await ours.wait("idp") == 0.0
    await asyncio.sleep(0)
    assert await ours.wait("idp") == 0.0
