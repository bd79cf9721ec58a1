"""What a client connection may do: pipeline, half-close, stall, break, come in numbers."""

import asyncio
import ssl
from contextlib import suppress

import pytest
import trustme

from fastgate.model import Limits
from tests.support.client import RawClient
from tests.support.plane import BEARER, Plane
from tests.support.upstream import Upstream, answer, echo

GET = b"GET /public HTTP/1.1\r\nHost: a\r\n\r\n"


async def test_pipelined_requests_are_answered_in_order(client: RawClient, upstream: Upstream):
    """N57: three requests in one segment, three answers in their order."""
    for text in (b"one", b"two", b"three"):
        upstream.will(answer(200, text))
    await client.send(GET * 3)
    assert [(await client.answer()).body for _ in range(3)] == [b"one", b"two", b"three"]


async def test_many_pipelined_requests_are_bounded(client: RawClient, upstream: Upstream, plane: Plane):
    """N57, C3: ten thousand pipelined requests wait in the socket, not in memory."""
    release = asyncio.Event()
    upstream.will(release, answer(200, b"first"))
    sending = asyncio.create_task(client.send(GET * 10_000))
    await upstream.head(0)
    protocol = plane.server.connections[0]
    await asyncio.sleep(0.2)
    assert len(protocol._inbox) < 600_000
    release.set()
    for _ in range(10_000):
        assert (await client.answer()).status == 200
    await sending


async def test_nothing_after_connection_close_is_processed(client: RawClient, upstream: Upstream):
    """N58: the request behind `Connection: close` is not acted on."""
    await client.send(
        b"GET /public/1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /public/2 HTTP/1.1\r\nHost: a\r\n\r\n"
    )
    got = await client.answer()
    assert got.status == 200
    assert got.header("connection") == "close"
    assert await client.rest() == b""
    assert len(upstream.requests) == 1


async def test_an_early_refusal_does_not_desync(client: RawClient, upstream: Upstream):
    """N56: the body of a refused request is not taken for the next request."""
    smuggled = b"GET /public HTTP/1.1\r\nHost: a\r\n\r\n"
    await client.send(b"POST /api HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(smuggled) + smuggled + GET)
    assert (await client.answer()).status == 401
    assert (await client.answer()).status == 200
    assert len(upstream.requests) == 1


async def test_an_early_refusal_within_a_long_body_closes(client: RawClient, upstream: Upstream):
    """N56, N59: the answer arrives although the body was not read; then the connection ends."""
    await client.send(b"POST /api HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 100_000)
    got = await client.answer()
    assert got.status == 401
    assert got.header("connection") == "close"
    assert await client.ended()
    assert upstream.requests == []


async def test_a_half_closed_client_gets_its_answer(client: RawClient, upstream: Upstream):
    """N61: FIN after the request is not a farewell."""
    release = asyncio.Event()
    upstream.will(release, answer(200, b"late"))
    await client.send(GET)
    client.half_close()
    await upstream.head(0)
    release.set()
    assert (await client.answer()).body == b"late"
    assert await client.rest() == b""


async def test_a_half_closed_client_gets_all_its_pipelined_answers(client: RawClient):
    """N57, N61: as with `printf ... | nc`."""
    await client.send(GET * 3)
    client.half_close()
    assert [(await client.answer()).status for _ in range(3)] == [200, 200, 200]
    assert await client.rest() == b""


async def test_a_body_that_ends_early_is_never_complete_upstream(client: RawClient, upstream: Upstream, plane: Plane):
    """N55: the upstream sees its connection break, not a whole request."""
    await client.send(b"POST /public HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
    got = await upstream.head(0)
    client.half_close()
    assert (await client.answer()).status == 400
    await upstream.until(got.connection.ended.is_set)
    assert not got.complete.is_set()
    upstream.broken.clear()
    assert (await plane.line(0)).reason == "request_body"


async def test_a_broken_chunk_is_never_complete_upstream(client: RawClient, upstream: Upstream):
    """N53, N55: 400, the upstream connection closed."""
    await client.send(b"POST /public HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    got = await upstream.head(0)
    await client.send(b"XYZ\r\n")
    assert (await client.answer()).status == 400
    await upstream.until(got.connection.ended.is_set)
    assert not got.complete.is_set()
    upstream.broken.clear()


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET /\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"FOO /public HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n", 414),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 17_000 + b"\r\n\r\n", 431),
    ],
)  # fmt: skip
async def test_malformed_requests_are_refused_and_parted_from(
    client: RawClient, upstream: Upstream, raw: bytes, status: int
):
    """N36 to N59: the status arrives, then the connection ends; nothing reaches the upstream."""
    await client.send(raw + b"leftover" * 1000)
    got = await client.answer()
    assert got.status == status
    assert got.header("connection") == "close"
    assert await client.ended()
    assert upstream.octets == b""


async def test_a_refusal_waits_for_the_answers_before_it(client: RawClient, upstream: Upstream):
    """N57: a malformed request behind a good one does not overtake its answer."""
    await client.send(GET + b"BROKEN\r\n\r\n")
    assert (await client.answer()).status == 200
    assert (await client.answer()).status == 400
    assert await client.ended()


async def test_one_empty_line_before_a_request_is_tolerated(client: RawClient):
    """N60: but not two."""
    await client.send(b"\r\n" + GET)
    assert (await client.answer()).status == 200
    await client.send(b"\r\n\r\n" + GET)
    assert (await client.answer()).status == 400


async def test_octets_one_by_one(client: RawClient, upstream: Upstream):
    """N62: nothing depends on how TCP cuts the octets."""
    raw = (
        b"POST /api HTTP/1.1\r\nHost: a\r\nAuthorization: %b\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        % BEARER[1].encode()
    )
    for octet in raw:
        await client.send(bytes([octet]))
        await asyncio.sleep(0)
    assert (await client.answer()).status == 200
    assert (await upstream.request(0)).body == b"abc"


async def test_a_slow_head_is_408(upstream: Upstream):
    """C1: the deadline of a head is absolute; dripping does not move it."""
    async with Plane.before(upstream.port, limits=Limits(header_timeout=0.3)) as plane, await plane.client() as client:
        await client.send(b"GET / HT")
        await asyncio.sleep(0.2)
        await client.send(b"TP/1.1\r\n")
        got = await client.answer()
        assert got.status == 408
        assert await client.ended()


async def test_a_stalled_body_is_408(upstream: Upstream):
    """C1: a body that stops coming ends the request; the upstream never takes it for whole."""
    async with Plane.before(upstream.port, limits=Limits(body_timeout=0.2)) as plane, await plane.client() as client:
        await client.send(b"POST /public HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n123")
        assert (await client.answer()).status == 408
        got = await upstream.head(0)
        await upstream.until(got.connection.ended.is_set)
        assert not got.complete.is_set()
        upstream.broken.clear()


@pytest.mark.parametrize("length", [1000, 3_000_000], ids=["relayed", "spliced"])
async def test_a_body_that_drips(upstream: Upstream, length: int):
    """C1, figure 23: an octet now and then keeps no connection open, unless that is wanted."""
    head = b"POST /public HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % length

    async def drip(client):
        with suppress(ConnectionError):
            while True:
                await client.send(b"x")
                await asyncio.sleep(0.02)

    for rate, patient in ((1000, False), (0, True)):
        limits = Limits(body_timeout=0.3, body_rate=rate)
        async with Plane.before(upstream.port, limits=limits) as plane, await plane.client() as client:
            await client.send(head)
            dripping = asyncio.ensure_future(drip(client))
            line = asyncio.ensure_future(plane.line(0))
            await asyncio.wait([line], timeout=1.5 if patient else None)
            assert line.done() is not patient
            if not patient:
                assert line.result().reason == "body_timeout"
            for task in (dripping, line):
                task.cancel()
            await asyncio.gather(dripping, line, return_exceptions=True)
            client.abort()
    await upstream.until(lambda: all(each.ended.is_set() for each in upstream.connections))
    upstream.broken.clear()


async def test_an_idle_connection_is_closed(upstream: Upstream):
    """C1: keep-alive has an end."""
    async with (
        Plane.before(upstream.port, limits=Limits(keepalive_timeout=0.2)) as plane,
        await plane.client() as client,
    ):
        await client.send(GET)
        assert (await client.answer()).status == 200
        assert await client.rest() == b""


async def test_a_client_that_reads_nothing_is_cut(upstream: Upstream):
    """C1: slow read; the upstream connection is freed."""

    async def flood(conversation):
        await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        while True:
            await conversation.send(b"x" * 65536)

    upstream.will(flood)
    async with Plane.before(upstream.port, limits=Limits(body_timeout=0.3)) as plane:
        client = await plane.client(receive_buffer=4096)
        await client.send(GET)
        line = await plane.line(0)
        assert line.outcome == "client_gone"
        await upstream.until(upstream.connections[0].ended.is_set)
        client.abort()


async def test_too_many_connections_are_told_503(upstream: Upstream):
    """C4: over the limit a connection is answered and closed; the others go on."""
    async with Plane.before(upstream.port, limits=Limits(connections=2)) as plane:
        clients = [await plane.client() for _ in range(2)]
        for each in clients:
            assert (await each.request("GET", "/public")).status == 200
        async with await plane.client() as third:
            got = await third.answer()
            assert got.status == 503
            assert got.header("retry-after")
        assert (await clients[0].request("GET", "/public")).status == 200
        await clients[1].close()
        await plane.until(lambda: plane.stats.connections.total() == 1)
        async with await plane.client() as fourth:
            assert (await fourth.request("GET", "/public")).status == 200
        await clients[0].close()


async def test_http_1_0_clients(client: RawClient, upstream: Upstream):
    """N70: we speak HTTP/1.1, HTTP/1.0 clients get no chunks; keep-alive only when they ask."""

    async def chunky(conversation):
        await conversation.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")

    await client.send(b"GET /public HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
    got = await client.answer()
    assert got.header("connection") == "keep-alive"
    upstream.will(chunky)
    await client.send(b"GET /public HTTP/1.0\r\nHost: a\r\n\r\n")
    got = await client.answer()
    assert got.until_close
    assert got.body == b"abc"
    assert b"HTTP/1.1" in (await upstream.request(1)).raw_head


async def test_a_drained_gateway_finishes_and_closes(client: RawClient, upstream: Upstream, plane: Plane):
    """P3: what is under way is answered with `Connection: close`; idle connections end."""
    async with await plane.client() as idle:
        assert (await idle.request("GET", "/public")).status == 200
        release = asyncio.Event()
        upstream.will(release, echo)
        await client.send(GET)
        await upstream.head(1)
        draining = asyncio.create_task(plane.server.drain(10))
        assert await idle.rest() == b""
        release.set()
        got = await client.answer()
        assert got.status == 200
        assert got.header("connection") == "close"
        assert await client.rest() == b""
        assert await draining == 0


async def test_tls_clients(upstream: Upstream):
    """X-Forwarded-Proto says https when the client came by TLS."""
    ca = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("gateway.test").configure_cert(server)
    trusting = ssl.create_default_context()
    ca.configure_trust(trusting)
    async with (
        Plane.before(upstream.port, tls=server) as plane,
        await plane.client(tls=trusting, server_hostname="gateway.test") as client,
    ):
        body = b"y" * 300_000
        assert (await client.request("POST", "/api", BEARER, body=body)).status == 200
        assert (await client.request("GET", "/api", BEARER)).status == 200
        request = await upstream.request(0)
        assert request.header("x-forwarded-proto") == "https"
        assert request.body == body
