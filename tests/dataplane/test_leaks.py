"""Whatever ends a request, at whatever octet: nothing of it stays behind."""

import asyncio
import gc
import socket
import ssl
import tracemalloc
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
import trustme

from fastgate.dataplane.body import NOTHING
from fastgate.dataplane.download import Download
from fastgate.dataplane.exchange import Exchange
from fastgate.dataplane.server import DownstreamProtocol
from fastgate.dataplane.splice import Pump
from fastgate.dataplane.tunnel import Tunnel
from fastgate.dataplane.upload import Upload
from fastgate.model import Extraction, Limits, TokenSource
from tests.support.plane import BEARER, GOOD, Plane, access, provider, route, service
from tests.support.upstream import Upstream, chunked, early, silence

GET = b"GET /public HTTP/1.1\r\nHost: a\r\n\r\n"
TOKEN = b"Authorization: %b\r\n" % BEARER[1].encode()
CHUNKED = (
    b"POST /api/x HTTP/1.1\r\nHost: a\r\n" + TOKEN + b"Transfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n"
)
LENGTH = b"PUT /public HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789" + GET
HANDSHAKE = (
    b"GET /public/ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\noctets"
)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


KEPT = (Download, DownstreamProtocol, Exchange, Pump, Tunnel, Upload)


def alive(*kinds: type) -> int:
    gc.collect()
    return held(*kinds)


def held(*kinds: type) -> int:
    """Count those that are alive, or wait for the garbage collector."""
    return sum(isinstance(each, kinds) for each in gc.get_objects())


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class Baseline:
    """What there is while nothing is under way."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        self.tasks = len(asyncio.all_tasks())
        self.fds = descriptors()
        self.objects = alive(*KEPT)

    def quiet(self) -> bool:
        plane = self.plane
        in_use = sum(pool.open_count - pool.idle_count for up in plane.upstreams.current for pool in up.pools)
        return (
            not plane.stats.connections.total()
            and not plane.stats.requests_active.total()
            and not plane.server.connections
            and not in_use
        )

    async def is_back(self, upstream: Upstream) -> None:
        """Wait until nothing is under way any more, and find that nothing has stayed."""
        await self.plane.until(self.quiet, "an end of everything that was under way")
        for up in self.plane.upstreams.current:
            for pool in up.pools:
                pool.abort()
        await self.plane.until(lambda: descriptors() <= self.fds, "every descriptor to be closed")
        await self.plane.until(lambda: len(asyncio.all_tasks()) <= self.tasks, "every task to end")
        assert alive(*KEPT) <= self.objects
        # Who broke off an upload is noticed there when the connection ends: not before, and perhaps after all of that.
        await upstream.until(lambda: all(each.ended.is_set() for each in upstream.connections), "the upstream")
        upstream.broken.clear()


async def switch(conversation) -> None:
    await conversation.send(SWITCH)
    await conversation.reader.read()


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "fin"])
@pytest.mark.parametrize(
    ("raw", "end", "play"),
    [(CHUNKED, len(CHUNKED), None), (LENGTH, LENGTH.index(GET), None), (HANDSHAKE, 0, switch)],
    ids=["chunked", "length", "upgrade"],
)
async def test_a_client_that_leaves_at_any_octet(upstream: Upstream, plane: Plane, raw: bytes, end, play, reset):
    """C2, N55: cut anywhere, nothing stays; and what was cut short was never complete upstream."""
    before = Baseline(plane)
    for cut in range(len(raw) + 1):
        upstream.scripts.clear()
        if play is not None:
            upstream.will(play)
        client = await plane.client()
        await client.send(raw[:cut])
        if cut % 2:
            await asyncio.sleep(0)  # half of them leave a moment later
        if reset:
            client.abort()
        else:
            await client.close()
    await before.is_back(upstream)
    complete = [each for each in upstream.requests if each.complete.is_set() and each.method != "GET"]
    assert len(complete) <= len(raw) + 1 - end


@pytest.mark.parametrize("raw", [GET, CHUNKED, LENGTH, HANDSHAKE], ids=["none", "chunked", "length", "upgrade"])
async def test_a_connection_leaves_nothing_for_the_garbage_collector(upstream: Upstream, plane: Plane, raw: bytes):
    """Figure 25: clients that come and go, wherever they go, must not have it stop everything, again and again."""
    before = Baseline(plane)
    connections = held(DownstreamProtocol)
    head = raw.index(b"\r\n\r\n") + 4
    gc.disable()
    try:
        for cut in sorted({20, head, min(head + 1, len(raw)), min(head + 4, len(raw)), len(raw)}):
            asked = len(upstream.requests)
            async with await plane.client() as client:
                await client.send(raw[:cut])
                await plane.until(lambda: held(DownstreamProtocol) == connections + 1, "the connection")
                if cut == len(raw):
                    await upstream.head(asked)
            await plane.until(lambda: held(*KEPT) <= before.objects, "the connection to be forgotten")
    finally:
        gc.enable()
    await before.is_back(upstream)


async def test_a_connection_that_is_told_of_its_end_twice(upstream: Upstream, plane: Plane):
    """What no request has for a body is shared by all connections: nothing that comes late may break it."""
    async with await plane.client() as client:
        await client.send(LENGTH[: LENGTH.index(GET) - 5])
        await plane.until(lambda: plane.server.connections, "the connection")
        (connection,) = plane.server.connections
        await upstream.head(0)
        client.abort()
    await plane.until(lambda: not plane.server.connections, "its end")
    connection.eof_received()
    assert NOTHING._error is None
    async with await plane.client() as client:
        await client.send(GET)
        await upstream.until(lambda: upstream.requests[-1].method == "GET", "the next request")
    upstream.broken.clear()


@pytest.mark.parametrize("step", [0, 1, 2, 5])
async def test_a_client_that_leaves_during_the_answer(upstream: Upstream, plane: Plane, step: int):
    """C2: the upstream's connection is given up with the client's, wherever the answer was."""
    before = Baseline(plane)
    said = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"3\r\nabc\r\n", b"3\r\nd", b"ef\r\n", b"0\r\n"]
    for _ in range(10):
        upstream.will(*said[:step], silence)
        client = await plane.client()
        await client.send(GET)
        await upstream.head(len(upstream.requests))
        client.abort()
    await before.is_back(upstream)


OCTETS = b"x" * 100_000


@early
async def pour(conversation) -> None:
    await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n")
    while True:
        await conversation.send(OCTETS)


async def download(client) -> None:
    await client.send(GET)
    while await client.reader.read(65536):
        pass


async def upload(client) -> None:
    await client.send(b"PUT /public HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000000\r\n\r\n")
    while True:
        await client.send(OCTETS)


ENDS = {
    "client-resets": lambda client, *_: client.abort(),
    "client-closes": lambda client, *_: client.writer.close(),
    "upstream-resets": lambda _, got, __: got.connection.abort(),
    "upstream-closes": lambda _, got, __: got.connection.writer.close(),
    "we-let-go": lambda *them: them[2].server.connections[0].force_close(),
}


@pytest.mark.parametrize(("flow", "play"), [(download, pour), (upload, early(silence))], ids=["down", "up"])
@pytest.mark.parametrize("end", ENDS)
async def test_a_large_body_that_breaks_anywhere(upstream: Upstream, plane: Plane, flow, play, end: str):
    """C2, U2: pipes, duplicated descriptors and their owners end with the connections, whoever ended them, and when."""
    before = Baseline(plane)
    upstream.default = play
    for count in range(12):
        client = await plane.client()
        flowing = asyncio.create_task(flow(client))
        got = await upstream.head(count)
        if count:
            await plane.until(lambda: plane.plane.pumps.running == 1, "a pump")
        for _ in range(count):
            await asyncio.sleep(0)
        ENDS[end](client, got, plane)
        flowing.cancel()
        await asyncio.gather(flowing, return_exceptions=True)
        client.writer.transport.abort()
        await plane.until(before.quiet, "the end of it")
    assert plane.plane.pumps.running == 0
    assert plane.stats.splices.total() >= 11
    await before.is_back(upstream)
    upstream.broken.clear()  # an upload that ends early looks so, where it does not look like a reset (N55)


async def test_idle_connections_that_were_closed_are_not_counted(upstream: Upstream):
    """C4: the limit on connections counts those that are open, not those that were."""
    async with Plane.before(upstream.port, limits=Limits(keepalive_timeout=0.1, connections=3)) as plane:
        for _ in range(4):
            async with await plane.client() as client:
                assert (await client.request("GET", "/public")).status == 200
                assert await client.rest() == b""
            await plane.until(lambda: not plane.stats.connections.total(), "the count to fall")
        assert not plane.stats.connections_refused.total()


async def test_refused_connections_are_not_counted(upstream: Upstream):
    """C4: a connection over the limit takes nothing away from the others when it ends."""
    async with Plane.before(upstream.port, limits=Limits(connections=1)) as plane:
        async with await plane.client() as first:
            assert (await first.request("GET", "/public")).status == 200
            for _ in range(3):
                async with await plane.client() as refused:
                    await refused.send(GET * 3)
                    assert (await refused.answer()).status == 503
            assert plane.stats.connections.total() == 1
            assert (await first.request("GET", "/public")).status == 200
        await plane.until(lambda: not plane.stats.connections.total())


async def test_a_stop_in_the_middle_ends_the_upstreams_part(upstream: Upstream, plane: Plane):
    """P1: a server that stops without waiting leaves no upstream connection without an owner."""
    upstream.will(silence)
    async with await plane.client() as client:
        await client.send(GET)
        got = await upstream.head(0)
        await plane.server.shutdown(0.1)
        await upstream.until(got.connection.ended.is_set)
        assert await client.ended()


async def test_requests_that_arrive_during_a_stop(upstream: Upstream, plane: Plane, caplog):
    """P3: what comes too late is not answered, and breaks nothing."""
    upstream.will(silence)
    async with await plane.client() as busy, await plane.client() as idle:
        assert (await idle.request("GET", "/nowhere")).status == 404
        await busy.send(GET)
        await upstream.head(0)
        stopping = asyncio.create_task(plane.server.shutdown(0.3))
        await plane.until(lambda: all(each._force_close for each in plane.server.connections), "the stop to begin")
        await idle.send(GET)
        await stopping
        assert await idle.ended()
    assert not caplog.records


async def test_an_upload_when_the_drain_ends(upstream: Upstream, plane: Plane, caplog):
    """P3: an upload that flows is cut at the deadline, without noise."""

    async def send(client) -> None:
        with suppress(ConnectionError):
            while True:
                await client.send(b"x" * 10_000)

    before = Baseline(plane)
    clients = [await plane.client() for _ in range(5)]
    for client in clients:
        await client.send(b"POST /public HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000000\r\n\r\n")
    sending = [asyncio.create_task(send(client)) for client in clients]
    await upstream.head(4)
    assert await plane.server.drain(0.1) == 5
    await asyncio.gather(*sending)
    for client in clients:
        await client.close()
    await before.is_back(upstream)
    assert not caplog.records


async def test_a_tls_client_whose_records_break(upstream: Upstream, caplog):
    """C2: a connection that does not end but break is one that ended, also for an upload and for a form."""
    ca = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("gateway.test").configure_cert(server)
    trusting = ssl.create_default_context()
    ca.configure_trust(trusting)
    loop = asyncio.get_running_loop()
    async with Plane.before(upstream.port, tls=server) as plane:
        before = Baseline(plane)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = trusting.wrap_bio(incoming, outgoing, server_hostname="gateway.test")
        with socket.create_connection(("127.0.0.1", plane.port)) as sock:
            sock.setblocking(False)  # noqa: FBT003
            while tls.version() is None or outgoing.pending:
                with suppress(ssl.SSLWantReadError):
                    tls.do_handshake()
                await loop.sock_sendall(sock, outgoing.read())
                if tls.version() is None:
                    incoming.write(await loop.sock_recv(sock, 65536))
            tls.write(b"POST /public HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n123")
            await loop.sock_sendall(sock, outgoing.read())
            await upstream.head(0)
            await loop.sock_sendall(sock, b"no TLS record")
            line = await plane.line(0)
            assert (line.outcome, line.status) == ("client_gone", 0)
        await before.is_back(upstream)
    upstream.broken.clear()  # it may see the end of the upload as the end of a connection (N55)
    assert not [each for each in caplog.records if "never retrieved" in each.message]


@pytest.mark.parametrize("how", ["close", "keep-alive", "fin"])
async def test_a_farewell_nobody_reads_has_an_end(upstream: Upstream, how: str):
    """C1, C4: what is still to be written when a connection closes is not waited for without end."""
    # In chunks, because an answer of known length goes past the transport.
    upstream.will(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"x" * 8_000_000))
    limits = Limits(body_timeout=0.3, keepalive_timeout=0.2)
    async with Plane.before(upstream.port, limits=limits) as plane:
        client = await plane.client(receive_buffer=4096)
        try:
            await plane.until(lambda: len(plane.server.connections) == 1, "the connection")
            transport = plane.server.connections[0].transport
            assert transport is not None
            # So full that much is left, not so full that it counts as paused.
            transport.set_write_buffer_limits(high=1 << 30)
            option = b"Connection: close\r\n" if how == "close" else b""
            await client.send(b"GET /public HTTP/1.1\r\nHost: a\r\n%b\r\n" % option)
            if how == "fin":
                client.half_close()
            await plane.line(0)
            await plane.until(lambda: not plane.stats.connections.total(), "the connection to end")
        finally:
            client.abort()


async def test_a_connection_let_go_while_its_upload_wakes(upstream: Upstream, plane: Plane, caplog):
    """P3: between our letting go and the end of the connection the upload finds no half-open thing to wait on."""
    async with await plane.client() as client:
        await client.send(b"POST /public HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n")
        await upstream.head(0)
        (protocol,) = plane.server.connections
        protocol.data_received(b"12345")
        protocol.force_close()
        await plane.until(lambda: not plane.stats.requests_active.total(), "the end of the exchange")
        assert await client.ended()
    gc.collect()
    assert not caplog.records
    upstream.broken.clear()


async def test_a_fault_of_ours_between_two_requests(plane: Plane, monkeypatch):
    """P10: whatever is raised where nothing should be, the connection ends."""

    def fault(*_args: object) -> int:
        raise ValueError("for the test")

    client = await plane.client()
    await plane.until(lambda: len(plane.server.connections) == 1, "the connection")
    (protocol,) = plane.server.connections
    protocol.data_received(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
    monkeypatch.setattr("fastgate.dataplane.server.find_head_end", fault)
    assert (await client.answer()).status == 404
    assert await client.ended()
    await client.close()
    await plane.until(lambda: not plane.server.connections, "the end of the connection")
    gc.collect()


async def test_what_a_resting_connection_remembers(plane: Plane):
    """C3: thousands of connections may rest, each after a head as large as it may be."""
    large = b"".join(b"X-%d: %b\r\n" % (number, b"x" * 600) for number in range(100))
    async with AsyncExitStack() as stack:
        sizes = []
        for lines in (b"", large):
            gc.collect()
            tracemalloc.start()
            for _ in range(10):
                client = await stack.enter_async_context(await plane.client())
                await client.send(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n")
                assert (await client.answer()).status == 404
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
            tracemalloc.stop()
        # aiohttp's parser keeps the last head until the next one begins; we add nothing to that.
        assert sizes[1] - sizes[0] < 10 * 200_000


async def test_a_tls_handshake_nobody_answers():
    """U1, T21: 504 by the connect deadline, and nothing of the attempt stays."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        secured = {"scheme": "https", "tls": ssl.create_default_context(), "connect_timeout": 0.1}
        to = service(listener.getsockname()[1], **secured)
        async with Plane(route("/public", to, None)) as plane, Upstream() as unused:
            before = Baseline(plane)
            for _ in range(3):
                async with await plane.client() as client:
                    assert (await client.request("GET", "/public")).status == 504
            await before.is_back(unused)


async def test_a_client_that_leaves_while_its_token_is_asked_about(upstream: Upstream):
    """C2, T29: waiting for the identity provider is given up with the client; what it still says serves others."""
    asked = asyncio.Event()

    async def say_nothing(reader, writer) -> None:
        asked.set()
        with suppress(ConnectionError):
            await reader.read(-1)
        writer.close()

    idp = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    endpoint = f"http://127.0.0.1:{idp.sockets[0].getsockname()[1]}/introspect"
    needs = access(provider(endpoint, timeout=0.5, allow_http=True, failures=100))
    async with idp, Plane.before(upstream.port, needs=needs) as plane:
        before = Baseline(plane)
        for number in range(5):
            client = await plane.client()
            await client.send(b"GET /api HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer t%d\r\n\r\n" % number)
            await asked.wait()
            client.abort()
        await plane.until(before.quiet, "the end of the exchanges")
        assert {line.outcome for line in plane.lines} == {"client_gone"}
        await plane.until(lambda: len(asyncio.all_tasks()) <= before.tasks, "every question to end")
    assert upstream.octets == b""


async def test_a_client_that_leaves_within_its_form(upstream: Upstream):
    """C2, N55: also where the body is read before anything is decided."""
    needs = access(provider(), extraction=Extraction(frozenset({TokenSource.BODY})), hide_credentials=True)
    raw = (
        b"POST /api HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\nExpect: 100-continue\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n5\r\na=b&c\r\n%x\r\n=&access_token=%b\r\n0\r\n\r\n"
        % (15 + len(GOOD), GOOD.encode())
    )
    async with Plane.before(upstream.port, needs=needs) as plane:
        before = Baseline(plane)
        for cut in range(len(raw) + 1):
            client = await plane.client()
            await client.send(raw[:cut])
            if cut % 2:
                await asyncio.sleep(0)
            if cut % 3:
                client.abort()
            else:
                await client.close()
        await before.is_back(upstream)
        async with await plane.client() as client:
            await client.send(raw)
            got = await client.answer()
            assert (got.status, len(got.interim)) == (200, 1)
        assert upstream.requests[-1].body == b"a=b&c="
