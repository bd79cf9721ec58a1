"""The listener that strangers may reach: bounded in connections and in time."""

import asyncio
import ssl

import pytest
import trustme

from fastgate.clock import SystemClock
from fastgate.control.events_listener import Brief, EventsListener
from fastgate.dataplane.listening import listen_on
from fastgate.model import Address
from fastgate.stats import Stats
from fastgate.tokens.notifications import Notifications
from fastgate.tokens.seen import SeenHere
from tests.support.client import RawClient, fetch


class Receiver:
    """Somebody to whom nobody may tell anything."""

    def __init__(self):
        clock = SystemClock()
        seen = SeenHere(clock.monotonic)
        self.notifications = Notifications({}, clock=clock, stats=Stats(), seen=seen, revoke=dict)


class Echo(asyncio.Protocol):
    """Says back what it hears, and notes what befalls it."""

    def __init__(self, notes):
        self.notes = notes

    def connection_made(self, transport):
        self.transport = transport
        self.notes.append("made")

    def data_received(self, data):
        self.transport.write(data)

    def eof_received(self):
        self.notes.append("eof")

    def pause_writing(self):
        self.notes.append("pause")

    def resume_writing(self):
        self.notes.append("resume")

    def connection_lost(self, _):
        self.notes.append("lost")


@pytest.fixture
def notes():
    return []


@pytest.fixture
async def serve(notes):
    """Serve echoes with these bounds; returns the port and what counts connections."""
    servers = []

    async def start(**bounds):
        brief = Brief(lambda: Echo(notes), **bounds)
        server = await asyncio.get_running_loop().create_server(brief, "127.0.0.1", 0)
        servers.append(server)
        return server.sockets[0].getsockname()[1], brief

    yield start
    for server in servers:
        server.close()


async def until(true):
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - what is asked for has no events
            await asyncio.sleep(0.001)


async def test_what_is_said_arrives(serve, notes):
    """Everything is handed on, and nothing is left when it is over."""
    port, brief = await serve()
    async with await RawClient.connect(port) as client:
        await client.send(b"hello")
        assert await client.read_exactly(5) == b"hello"
        client.half_close()
        assert await client.rest() == b""
    await until(lambda: notes[-1:] == ["lost"])
    assert notes == ["made", "eof", "lost"]
    assert not brief.open


async def test_a_slow_reader(serve, notes):
    """Back-pressure reaches the protocol inside."""
    port, _ = await serve()
    async with await RawClient.connect(port, receive_buffer=4096) as client:
        big = 8 * 1024 * 1024
        sending = asyncio.ensure_future(client.send(b"x" * big))
        await until(lambda: "pause" in notes)
        assert len(await client.read_exactly(big)) == big
        await sending
        await until(lambda: "resume" in notes)


async def test_a_connection_that_stays(serve, notes):
    """T4: its time is over, whatever happens on it; no request has to be recognised for that."""
    port, brief = await serve(max_seconds=0.05)
    async with await RawClient.connect(port) as client:
        assert await client.ended()
    assert notes == ["made", "lost"]
    assert not brief.open


async def test_more_connections_than_there_is_room_for(serve, notes):
    """The next ones are ended at once; when others go, there is room again."""
    port, brief = await serve(max_connections=2)
    held = [await RawClient.connect(port) for _ in range(2)]
    await until(lambda: len(brief.open) == 2)
    async with await RawClient.connect(port) as third:
        assert await third.ended()
    for client in held:
        await client.close()
    await until(lambda: not brief.open)
    async with await RawClient.connect(port) as client:
        await client.send(b"hello")
        assert await client.read_exactly(5) == b"hello"
    assert notes.count("made") == 3


async def test_it_listens_and_stops():
    """Only what identity providers send is answered, each on a connection of its own."""
    listener = EventsListener(Receiver())
    assert listener.address is None
    (sock,) = listen_on(Address("127.0.0.1", 0))
    await listener.start([sock], None)
    sock.close()
    port = listener.address[1]
    assert (await fetch(port, "GET", "/livez")).status == 404
    assert (await fetch(port, "POST", "/identity-providers/idp/logout", body=b"x")).status == 404
    await listener.close()
    with pytest.raises(ConnectionRefusedError):
        await RawClient.connect(port)


async def test_with_tls():
    """What is spoken, and a certificate that is renewed while nobody is refused."""
    listener = EventsListener(Receiver())
    (sock,) = listen_on(Address("127.0.0.1", 0))
    old, new = trustme.CA(), trustme.CA()

    def context(ca):
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("gateway.test").configure_cert(made)
        return made

    async def ask(ca):
        trusting = ssl.create_default_context()
        ca.configure_trust(trusting)
        port = listener.address[1]
        async with await RawClient.connect(port, tls=trusting, server_hostname="gateway.test") as client:
            return (await client.request("GET", "/livez")).status

    with sock:
        await listener.start([sock], context(old))
        assert await ask(old) == 404
        await listener.serve([sock], context(new))
        assert [await ask(new) for _ in range(4)] == [404] * 4
        with pytest.raises(ssl.SSLCertVerificationError):
            await ask(old)
        await listener.close()
