"""Clients and upstreams that mean harm, or do it without meaning to: memory, time and connections stay bounded."""

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trustme

from fastgate.dataplane.server import DownstreamProtocol
from fastgate.model import Limits
from tests.support.client import RawClient
from tests.support.plane import BEARER, Plane, route, service
from tests.support.upstream import CLOSE, Upstream, answer, early
from tests.support.wire import Broken

GET = b"GET /public HTTP/1.1\r\nHost: a\r\n\r\n"
BOUND = 1 << 20
"""Octets that one connection may hold in memory: generous, and far below what these tests send."""


def protocol_of(plane: Plane) -> DownstreamProtocol:
    (protocol,) = plane.server.connections
    return protocol


async def most_buffered(protocol: DownstreamProtocol, seconds: float = 0.4) -> int:
    """Watch how much waits for a client for a while."""
    most = 0
    for _ in range(int(seconds / 0.02)):
        if protocol.transport is not None:
            most = max(most, protocol.transport.get_write_buffer_size())
        await asyncio.sleep(0.02)
    return most


def tls_pair() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The contexts of an upstream named upstream.test and of who trusts it."""
    ca = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("upstream.test").configure_cert(server)
    trusting = ssl.create_default_context()
    ca.configure_trust(trusting)
    return server, trusting


@asynccontextmanager
async def lazy(plane: Plane) -> AsyncIterator[RawClient]:
    """A client that is read from only when the test does so; whatever happens, it leaves at once."""
    client = await plane.client(receive_buffer=4096)
    try:
        yield client
    finally:
        client.writer.transport.abort()


async def full_for_good(transport: asyncio.Transport) -> None:
    """Wait until nothing more can be sent to a peer that reads nothing."""
    before = 0
    while not before or before != transport.get_write_buffer_size():
        before = transport.get_write_buffer_size()
        await asyncio.sleep(0.1)


async def taken_for_good(plane: Plane) -> None:
    """Wait until the upstream takes nothing more of an upload."""
    before = 0
    while not before or before != protocol_of(plane)._body.taken:
        before = protocol_of(plane)._body.taken if plane.server.connections else 0
        await asyncio.sleep(0.1)


ENDLESS = {
    "length": b"POST /public HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n" + b"x" * 50_000_000,
    "chunked": b"POST /public HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2FAF080\r\n" + b"x" * 50_000_000,
}
"""An upload that no buffer holds; the larger part of the first goes from socket to socket."""


async def flood(conversation) -> None:
    """Answer with 50 MB, as fast as they are taken."""
    await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n")
    for _ in range(1000):
        await conversation.send(b"x" * 50_000)


# --- memory -----------------------------------------------------------------------------------------------------


async def test_answers_nobody_reads_are_not_piled_up(plane: Plane):
    """N57, C3: a client that pipelines and does not read is read no further."""
    count = 20_000
    async with lazy(plane) as client:
        client.writer.write(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n" * count)
        await plane.until(lambda: plane.server.connections and protocol_of(plane).writing_paused, "a full buffer")
        assert await most_buffered(protocol_of(plane)) < BOUND
        assert plane.stats.requests.total() < count
        for _ in range(count):
            assert (await client.answer()).status == 404


async def test_the_next_answer_waits_for_the_one_before(plane: Plane, upstream: Upstream):
    """N57, U5: a pause that the first of two pipelined answers left behind holds for the second too."""
    upstream.will(answer(200, b"y" * 4_000_000))
    upstream.will(flood)
    async with lazy(plane) as client:
        await client.send(GET * 2)
        got = 0
        while not plane.lines:
            got += len(await client.reader.read(65536))
        assert await most_buffered(protocol_of(plane)) < BOUND
        while got < 54_000_000:
            got += len(await client.reader.read(65536))


# --- connections to the upstream ----------------------------------------------------------------------------------


async def test_a_pause_at_the_last_chunk_stays_with_its_client(plane: Plane, upstream: Upstream):
    """T5: a slow client never leaves a resting upstream connection paused behind."""
    last = asyncio.Event()
    size = 8_000_000
    upstream.will(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (size, b"z" * size), last, b"0\r\n\r\n"
    )
    async with lazy(plane) as client:
        await client.send(GET)
        await upstream.head(0)
        transport = protocol_of(plane).transport
        assert transport is not None
        transport.set_write_buffer_limits(high=2 * size)
        (pool,) = plane.upstreams.current[0].pools
        await plane.until(lambda: plane.server.connections[0].exchange._sent == size, "the whole body")
        # The next octet fills the buffer.
        transport.set_write_buffer_limits(high=transport.get_write_buffer_size())
        last.set()
        await plane.until(lambda: pool.idle_count == 1, "the upstream's connection to rest")
        async with await plane.client() as second:
            assert (await second.request("GET", "/public")).status == 200
        assert len(upstream.connections) == 1
        assert len((await client.answer()).body) == size


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"], ids=["fin", "octets"])
async def test_an_upstream_that_speaks_first(upstream: Upstream, said: bytes):
    """U1, N82: a connection that ended, or was spoken on, before anything was sent is none; the next target is."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def speak() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    connection.sendall(said)
                    connection.shutdown(socket.SHUT_WR)
                    kept.append(connection)

        async def hold_up() -> None:
            # A loop so slow that what the upstream says first has always arrived when it looks.
            while True:
                time.sleep(0.01)  # noqa: ASYNC251
                await asyncio.sleep(0)

        kept: list[socket.socket] = []
        threading.Thread(target=speak, daemon=True).start()
        slow = asyncio.create_task(hold_up())
        port = listener.getsockname()[1]
        async with Plane.before(port, upstream.port) as plane, await plane.client() as client:
            for _ in range(4):
                got = await client.request("POST", "/public", body=b"x")
                assert got.status == 200
                assert b"poison" not in got.body
        slow.cancel()
        listener.shutdown(socket.SHUT_RDWR)
        for connection in kept:
            connection.close()


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive, close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
    ids=["close-and-keep-alive", "length-of-nothing", "chunks-of-nothing"],
)
async def test_an_answer_that_leaves_doubt(plane: Plane, upstream: Upstream, said: bytes):
    """N79, N82: what contradicts itself about its end costs the upstream's connection, not the next request."""
    upstream.will(said)
    async with await plane.client() as client:
        assert (await client.request("GET", "/public")).status in {200, 204}
        assert (await client.request("GET", "/public")).status == 200
    assert len(upstream.connections) == 2


async def test_close_is_close(plane: Plane):
    """N58: also beside keep-alive and in HTTP/1.0 (RFC 9112 section 9.3)."""
    async with await plane.client() as client:
        await client.send(b"GET /public HTTP/1.0\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n")
        got = await client.answer()
        assert (got.status, got.header("connection")) == (200, "close")
        assert await client.rest() == b""


# --- the client's connection ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("behind", [b"", GET], ids=["alone", "pipelined"])
@pytest.mark.parametrize("coding", ["length", "chunked"])
async def test_a_large_body_that_is_refused_unread(plane: Plane, coding: str, behind: bytes):
    """N56: the answer says `close` when the connection closes, and keeps it usable when it does not."""
    body = b"x" * 250_000
    for _ in range(5):
        async with await plane.client() as client:
            if coding == "length":
                framed = b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            else:
                framed = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
            await plane.until(lambda: len(plane.server.connections) == 1, "the connection")
            # In one read, as a busy loop may find it.
            protocol_of(plane).data_received(b"POST /api HTTP/1.1\r\nHost: a\r\n" + framed + behind)
            got = await client.answer()
            assert got.status == 401
            if got.header("connection") is None:
                if behind:
                    assert (await client.answer()).status == 200
                assert (await client.request("GET", "/public")).status == 200
            else:
                assert await client.ended()


async def test_a_pipelined_body_that_had_ended_early(plane: Plane, upstream: Upstream):
    """N55, N61: the client's FIN came long before its turn; it is not waited for the rest."""
    release = asyncio.Event()
    upstream.will(release, answer(200, b"first"))
    async with await plane.client() as client:
        await client.send(GET + b"POST /public HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
        client.half_close()
        await upstream.head(0)
        await plane.until(lambda: protocol_of(plane).client_eof, "the FIN")
        release.set()
        assert (await client.answer()).body == b"first"
        assert (await client.answer()).status == 400
        assert await client.rest() == b""
    upstream.broken.clear()


async def test_a_pipelined_head_that_had_ended_early(plane: Plane, upstream: Upstream):
    """N61: half a head and FIN is a farewell, also behind another request."""
    release = asyncio.Event()
    upstream.will(release, answer(200, b"first"))
    async with await plane.client() as client:
        await client.send(GET + b"GET /publ")
        client.half_close()
        await upstream.head(0)
        await plane.until(lambda: protocol_of(plane).client_eof, "the FIN")
        release.set()
        assert (await client.answer()).body == b"first"
        assert await client.rest() == b""


async def test_time_in_which_nobody_took_the_body_is_not_the_clients(plane: Plane, upstream: Upstream):
    """C1, U4: the clock of a body begins anew when a slow upstream lets it flow again."""
    async with await plane.client() as client:
        await client.send(b"POST /public HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n1")
        await upstream.head(0)
        protocol = protocol_of(plane)
        protocol._deadline.clear()
        protocol.pause_body()
        protocol.resume_body()
        assert protocol._deadline._at is not None
        await client.send(b"2")
        assert (await client.answer()).status == 200


async def test_an_empty_line_is_no_beginning(upstream: Upstream):
    """N60: the CRLF some clients send behind a body does not start the clock of a head."""
    async with Plane.before(upstream.port, limits=Limits(header_timeout=0.1)) as plane, await plane.client() as client:
        for cut in (b"\r\n", b"\r"):
            await client.send(b"POST /public HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok" + cut)
            assert (await client.answer()).status == 200
            await asyncio.sleep(0.2)
            await client.send(b"\r\n"[len(cut) :])
        assert (await client.request("GET", "/public")).status == 200
        assert plane.stats.heads_refused.total() == 0
        await client.send(b"\r\n")
        assert await plane.server.drain(5) == 0


# --- tunnels -------------------------------------------------------------------------------------------------------

HANDSHAKE = (
    b"GET /public/ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


@pytest.mark.parametrize("protocol", [b"websocket", b"WebSocket", b"tcp", b"h2c", b"websocket, h2c"])
@pytest.mark.parametrize(
    "framing", [b"Content-Length: 2\r\n\r\nok", b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"]
)
async def test_an_upgrade_with_a_body_is_an_ordinary_request(client: RawClient, protocol: bytes, framing: bytes):
    """N86: it is answered, and so is the request behind it."""
    asks = b"POST /public HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: %b\r\n" % protocol
    await client.send((asks + framing) * 2 + GET)
    assert [(await client.answer()).status for _ in range(3)] == [200, 200, 200]
    await client.send(asks + b"\r\n" + GET)
    assert [(await client.answer()).status for _ in range(2)][1] == 200


async def test_the_last_octets_of_a_tunnel_arrive(plane: Plane, upstream: Upstream):
    """U10: the upstream has said all it will, and still gets everything the client sends before its own end."""
    size = 30_000_000
    take = asyncio.Event()
    counted = asyncio.get_running_loop().create_future()

    async def play(conversation) -> None:
        await conversation.send(SWITCH + b"done")
        conversation.writer.write_eof()
        await take.wait()
        counted.set_result(len(await conversation.reader.read(-1)))

    upstream.will(play)
    async with await plane.client() as client:
        await client.send(HANDSHAKE)
        assert (await client.answer_head()).status == 101
        assert await client.rest() == b"done"
        (pool,) = plane.upstreams.current[0].pools
        (connection,) = pool._open
        # Never paused, so that much is still to be written when the client's end is read.
        connection._transport.set_write_buffer_limits(high=1 << 30)
        await client.send(b"x" * size)
        client.half_close()
        await plane.line(0)
        take.set()
        async with asyncio.timeout(20):
            assert await counted == size


async def test_an_end_that_is_read_twice_is_one(plane: Plane, upstream: Upstream):
    """U10, N61: a client that had half-closed before the switch still hears the upstream out."""
    release, more = asyncio.Event(), asyncio.Event()

    async def play(conversation) -> None:
        await release.wait()
        await conversation.send(SWITCH)
        got = len(await conversation.reader.read(-1))
        await conversation.send(b"%d" % got)
        await more.wait()
        await conversation.send(b" goodbye")

    upstream.will(play)
    early_octets = b"x" * 60_000
    async with await plane.client() as client:
        await client.send(HANDSHAKE + early_octets)
        client.half_close()
        await upstream.head(0)
        await plane.until(lambda: protocol_of(plane).client_eof, "the FIN")
        (pool,) = plane.upstreams.current[0].pools
        (connection,) = pool._open
        # Full at once, so that the client's side is paused and resumed after its end was read.
        connection._transport.set_write_buffer_limits(high=0)
        connection.peer_socket().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        release.set()
        assert (await client.answer_head()).status == 101
        assert await client.read_exactly(5) == b"60000"
        more.set()
        assert await client.rest() == b" goodbye"


async def test_a_stream_whose_token_lives_long(plane: Plane, upstream: Upstream, monkeypatch):
    """N88: a timer that cannot reach to the token's end is no end of the stream."""
    monkeypatch.setattr("fastgate.dataplane.exchange._DAY", 0.01)
    more = asyncio.Event()
    upstream.will(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nfirst ", more, b"last", CLOSE)
    async with await plane.client() as client:
        await client.send(b"GET /api HTTP/1.1\r\nHost: a\r\nAuthorization: %b\r\n\r\n" % BEARER[1].encode())
        got = await client.answer_head()
        await asyncio.sleep(0.1)
        more.set()
        await client.read_body(got)
        assert got.body == b"first last"


async def test_a_drain_ends_tunnels(plane: Plane, upstream: Upstream):
    """P3: at the deadline, on both sides."""

    async def play(conversation) -> None:
        await conversation.send(SWITCH)
        await conversation.reader.read(-1)

    upstream.will(play)
    async with await plane.client() as client:
        await client.send(HANDSHAKE)
        assert (await client.answer_head()).status == 101
        assert await plane.server.drain(0.1) == 1
        assert await client.ended()
        await upstream.until(upstream.connections[0].ended.is_set)


@pytest.mark.parametrize("side", ["client", "upstream"])
async def test_a_tunnel_with_one_side_stalled(upstream: Upstream, side: str):
    """U10, C1: who takes nothing for the time of a stalled write loses the tunnel; memory stays bounded."""

    async def pour(conversation) -> None:
        await conversation.send(SWITCH)
        while side == "client":
            await conversation.send(b"x" * 65536)
        await conversation.ended.wait()

    upstream.will(pour)
    limits = Limits(body_timeout=0.5)
    async with Plane.before(upstream.port, limits=limits, write_timeout=0.5) as plane, lazy(plane) as client:
        await client.send(HANDSHAKE)
        assert (await client.answer_head()).status == 101
        if side == "upstream":
            client.writer.write(b"x" * 50_000_000)
        assert await most_buffered(protocol_of(plane)) < BOUND
        line = await plane.line(0)
        assert line.status == 101
        await plane.until(lambda: not plane.stats.connections.total(), "the client's end of it")


async def test_a_tunnel_to_an_upstream_that_cannot_be_half_closed():
    """U10: TLS knows no half-close; when the client says no more the tunnel ends instead of staying for ever."""
    server, context = tls_pair()
    async with Upstream(tls=server) as up:
        received = asyncio.get_running_loop().create_future()

        async def play(conversation) -> None:
            await conversation.send(SWITCH)
            received.set_result(await conversation.reader.read(-1))

        up.will(play)
        to = service(up.port, scheme="https", tls=context, server_name="upstream.test")
        async with Plane(route("/public", to, None)) as plane, await plane.client() as client:
            await client.send(HANDSHAKE)
            assert (await client.answer_head()).status == 101
            await client.send(b"x" * 100_000)
            client.half_close()
            assert await client.rest() == b""
            assert len(await received) == 100_000


# --- the end of an answer ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("notify", [True, False], ids=["close_notify", "without"])
async def test_an_answer_until_close_over_tls(notify: bool):  # noqa: FBT001
    """N81: over TLS only close_notify ends an answer; a FIN that anybody can send does not (RFC 9112 section 9.8)."""
    server, context = tls_pair()

    async def play(conversation) -> None:
        await conversation.send(b"HTTP/1.1 200 OK\r\n\r\nhalf of it")
        if notify:
            await conversation.close()
        else:
            conversation.writer.transport.abort()

    async with Upstream(tls=server) as up:
        up.will(play)
        to = service(up.port, scheme="https", tls=context, server_name="upstream.test")
        async with Plane(route("/public", to, None)) as plane, await plane.client() as client:
            if notify:
                assert (await client.request("GET", "/public")).body == b"half of it"
            else:
                with pytest.raises((Broken, ConnectionError)):
                    await client.request("GET", "/public")


@pytest.mark.parametrize("framing", ENDLESS)
async def test_an_answer_until_close_that_ends_before_the_upload(plane: Plane, upstream: Upstream, framing: str):
    """U6: the upstream said its answer and its end, and takes nothing more: the answer is whole."""

    @early
    async def play(conversation) -> None:
        conversation.writer.transport.pause_reading()
        await taken_for_good(plane)
        await conversation.send(b"HTTP/1.1 413 Too Large\r\n\r\ntoo large")
        conversation.writer.write_eof()
        await asyncio.Event().wait()

    upstream.will(play)
    async with await plane.client() as client:
        client.writer.write(ENDLESS[framing])
        async with asyncio.timeout(10):
            got = await client.answer()
        assert (got.status, got.body) == (413, b"too large")
        client.abort()
    upstream.broken.clear()


@pytest.mark.parametrize("framing", ENDLESS)
async def test_an_end_before_the_answer_while_uploading(plane: Plane, upstream: Upstream, framing: str):
    """U2, U3: the upstream hung up and takes nothing more: 502 at once, not when a deadline comes."""

    @early
    async def play(conversation) -> None:
        conversation.writer.transport.pause_reading()
        await taken_for_good(plane)
        conversation.writer.write_eof()
        await asyncio.Event().wait()

    upstream.will(play)
    async with await plane.client() as client:
        client.writer.write(ENDLESS[framing])
        async with asyncio.timeout(10):
            assert (await client.answer()).status == 502
        client.abort()
    upstream.broken.clear()


@pytest.mark.parametrize("framing", ["length", "chunked", "until-close"])
@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
async def test_a_slow_client_gets_all_of_an_answer_that_ended_long_ago(secure: bool, framing: str):  # noqa: FBT001
    """U5: the upstream closes behind its answer while the client still reads the beginning."""
    size = 700_000
    server, context = tls_pair()
    body = b"z" * size
    head = {
        "length": b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (size, body),
        "chunked": b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (size, body),
        "until-close": b"\r\n" + body,
    }[framing]

    def serve() -> None:
        connection, _ = listener.accept()
        if secure:
            connection = server.wrap_socket(connection, server_side=True)
        connection.recv(65536)
        said = b"HTTP/1.1 200 OK\r\n" + head
        connection.sendall(said[:300_000])
        full.wait()
        connection.sendall(said[300_000:])
        if secure:
            # As most servers do: say close_notify, and do not wait for the other's.
            connection.setblocking(False)  # noqa: FBT003
            with suppress(ssl.SSLWantReadError):
                connection.unwrap()
        connection.close()
        closed.set()

    full, closed = threading.Event(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        secured = {"scheme": "https", "tls": context, "server_name": "upstream.test"} if secure else {}
        to = service(listener.getsockname()[1], **secured)
        async with Plane(route("/public", to, None)) as plane, lazy(plane) as client:
            await plane.until(lambda: len(plane.server.connections) == 1, "the connection")
            transport = protocol_of(plane).transport
            assert transport is not None
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            client.writer.transport.pause_reading()
            await client.send(GET)
            await full_for_good(transport)
            full.set()
            await plane.until(closed.is_set, "the upstream's end")
            await asyncio.sleep(0.1)
            client.writer.transport.resume_reading()
            assert len((await client.answer()).body) == size


# --- CPU -----------------------------------------------------------------------------------------------------------


async def test_a_large_head_octet_by_octet(plane: Plane):
    """C3: a head that drips in is searched once, not once for every octet (minutes against a second)."""
    lines = b"".join(b"X-%d: %b\r\n" % (number, b"x" * 1000) for number in range(55))
    head = b"GET /nowhere HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n"
    async with await plane.client() as client:
        await plane.until(lambda: len(plane.server.connections) == 1, "the connection")
        protocol = protocol_of(plane)
        began = time.process_time()
        for octet in head:
            protocol.data_received(bytes((octet,)))
        assert time.process_time() - began < 5
        assert (await client.answer()).status == 404


async def test_many_pipelined_requests_in_one_read(plane: Plane):
    """C3: what waits in the inbox is not copied without bound for every request taken from it."""
    count = 7000
    async with await plane.client() as client:
        await plane.until(lambda: len(plane.server.connections) == 1, "the connection")
        began = time.process_time()
        protocol_of(plane).data_received(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n" * count)
        for _ in range(count):
            assert (await client.answer()).status == 404
        assert time.process_time() - began < 10


@pytest.mark.parametrize(
    "field",
    [
        b"Connection: " + b",".join(b"x%d" % number for number in range(2500)),
        b"Cookie: " + b"; ".join(b"a%d=b" % number for number in range(1600)),
        b"Via: " + b",".join(b"1.1 p%d" % number for number in range(1500)),
        b"Range: bytes=" + b",".join(b"%d-" % number for number in range(2500)),
        b"Accept: " + b"*/*;q=0.1," * 1500,
    ],
    ids=lambda field: field.partition(b":")[0].decode(),
)
async def test_a_field_with_thousands_of_members(plane: Plane, field: bytes):
    """C3: costs what its octets cost."""
    raw = b"GET /api HTTP/1.1\r\nHost: a\r\nAuthorization: %b\r\n%b\r\n\r\n" % (BEARER[1].encode(), field)
    async with await plane.client() as client:
        began = time.process_time()
        for number in range(20):
            # A field of its own makes each head a new one.
            await client.send(raw[:-2] + b"X-Number: %d\r\n\r\n" % number)
            assert (await client.answer()).status in {200, 400}
        assert time.process_time() - began < 5
