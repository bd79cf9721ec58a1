"""Messages between processes, over a real socket pair."""

import asyncio
import socket

import pytest

from fastgate.model import Mark
from fastgate.worker.channel import MAX_MESSAGE, Channel, GoneError, RefusedError, SilentError


class End:
    """One end, and what came to it."""

    def __init__(self):
        self.messages = []
        self.lost = asyncio.Event()
        self.channel = Channel(self.take, self.lost.set)

    def take(self, message):
        self.messages.append(message)
        if message["op"] == "double":
            self.channel.answer(message, message["value"] * 2)
        elif message["op"] == "refuse":
            self.channel.refuse(message, "no", [1])


@pytest.fixture
async def ends():
    """Two connected ends."""
    loop = asyncio.get_running_loop()
    made = End(), End()
    for end, sock in zip(made, socket.socketpair(), strict=True):
        await loop.create_unix_connection(lambda end=end: end.channel, sock=sock)
    yield made
    for end in made:
        end.channel.close()


async def test_calls_and_words(ends):
    """A call has an answer, a refusal or none; a word wants none; all of them arrive in order."""
    one, other = ends
    assert one.channel.tell("word", text="\u00e4")
    assert await one.channel.call("double", within=30, value="x" * 300_000) == "x" * 600_000
    with pytest.raises(RefusedError, match="no") as refused:
        await one.channel.call("refuse", within=30)
    assert refused.value.detail == [1]
    assert [message["op"] for message in other.messages] == ["word", "double", "refuse"]
    assert await other.channel.call("double", within=30, value=[Mark("sub", "a", 1, 2.0)]) == [["sub", "a", 1, 2.0]] * 2


async def test_nobody_answers(ends):
    """A deadline, and what comes after it is nobody's."""
    one, other = ends
    with pytest.raises(SilentError, match="no answer to wait within"):
        await one.channel.call("wait", within=0.01)
    other.channel.answer(other.messages[0], "late")
    assert await one.channel.call("double", within=30, value=1) == 2


async def test_the_peer_is_gone(ends):
    """Whoever waits for it learns so at once, and so does who asks later."""
    one, other = ends
    waiting = asyncio.create_task(one.channel.call("wait", within=30))
    while not other.messages:  # noqa: ASYNC110 - it does not tell
        await asyncio.sleep(0)
    other.channel.close()
    with pytest.raises(GoneError):
        await waiting
    await one.lost.wait()
    assert not one.channel.open
    assert not one.channel.tell("word")
    with pytest.raises(GoneError):
        await one.channel.call("double", within=30, value=1)


async def test_a_peer_that_does_not_read(ends):
    """Words are left out before they fill the memory."""
    one, _ = ends
    sock = one.channel._transport
    assert any(not one.channel.tell("word", text="x" * 100_000) for _ in range(50))
    assert sock.get_write_buffer_size() < 1_000_000


async def test_octets_that_are_no_message():
    """A length beyond anything that is ever sent ends the channel."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)
    end = End()
    ours, theirs = socket.socketpair()
    await loop.create_unix_connection(lambda: end.channel, sock=ours)
    with theirs:
        theirs.sendall((MAX_MESSAGE + 1).to_bytes(4, "big"))
        async with asyncio.timeout(30):
            await end.lost.wait()
