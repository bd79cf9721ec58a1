"""Large bodies of known length: from socket to socket where both are plain, and nobody can tell but by the cost."""

import asyncio
import hashlib
import random
import ssl

import pytest
import trustme

from fastgate.dataplane.server import DownstreamProtocol
from fastgate.dataplane.upload import Upload
from fastgate.model import Limits
from tests.support.client import RawClient
from tests.support.plane import Plane, route, service
from tests.support.upstream import CLOSE, RESET, Conversation, Upstream, answer, early, silence
from tests.support.wire import Broken, read_blocks

MEGABYTE = random.Random(2).randbytes(1_000_000)
SIZE = 30
"""Megabytes: more than the kernel's buffers and the pipe hold together."""
DIGEST = hashlib.sha256(MEGABYTE * SIZE).hexdigest()
GET = b"GET /public HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (SIZE * len(MEGABYTE))
PUT = b"PUT /public HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (SIZE * len(MEGABYTE))


@pytest.fixture
async def upstream():
    """Hashes bodies instead of keeping them."""
    async with Upstream(keep_bodies=False) as up:
        yield up


async def large(conversation: Conversation) -> None:
    """Answer with 30 MB."""
    await conversation.send(HEAD)
    for _ in range(SIZE):
        await conversation.send(MEGABYTE)


async def send(client: RawClient, megabytes: int = SIZE) -> None:
    """Send octets of a body."""
    for _ in range(megabytes):
        client.writer.write(MEGABYTE)
        await client.writer.drain()


async def received(client: RawClient, size: int = SIZE * len(MEGABYTE)) -> str:
    """Read a body without keeping it; returns its digest."""
    digest = hashlib.sha256()
    async for block in read_blocks(client.reader, size):
        digest.update(block)
    return digest.hexdigest()


async def answered(client: RawClient) -> str:
    """Read the answer that `large` gives; returns the digest of its body."""
    await client.answer_head()
    return await received(client)


async def give_up(sending: asyncio.Task[None]) -> None:
    """Send no more to a gateway that has ended, whatever it makes of that."""
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)


def protocol_of(plane: Plane) -> DownstreamProtocol:
    (protocol,) = plane.server.connections
    return protocol


async def under_way(plane: Plane, count: int = 1) -> None:
    """Wait until a pump runs."""
    await plane.until(lambda: plane.plane.pumps.running == count, f"{count} pumps")


async def stalled(plane: Plane) -> None:
    """Wait until an answer goes no further, because its client reads nothing."""
    await under_way(plane)
    await plane.until(lambda: protocol_of(plane).writing_paused, "a client that takes nothing")


# --- whole ---------------------------------------------------------------------------------------------------------


async def test_a_large_answer(client: RawClient, upstream: Upstream, plane: Plane):
    """Octet by octet the same, counted in the access log, and both connections are used again."""
    upstream.will(large)
    await client.send(GET)
    got = await client.answer_head()
    assert got.header("content-length") == str(SIZE * len(MEGABYTE))
    assert await received(client) == DIGEST
    line = await plane.line(0)
    assert (line.outcome, line.sent, line.received) == ("forwarded", SIZE * len(MEGABYTE), 0)
    assert (await client.request("GET", "/public")).status == 200
    assert len(upstream.connections) == 1
    assert (plane.stats.splices.total(), plane.plane.pumps.running) == (1, 0)


async def test_a_large_upload(client: RawClient, upstream: Upstream, plane: Plane):
    """N57, N74: the same the other way round; the request behind it is another one."""
    sending = asyncio.create_task(client.send(PUT + MEGABYTE * SIZE + GET))
    assert (await client.answer()).status == 200
    await sending
    got = await upstream.request(0)
    assert got.body.decode() == DIGEST
    assert got.header("content-length") == str(SIZE * len(MEGABYTE))
    line = await plane.line(0)
    assert (line.outcome, line.received) == ("forwarded", SIZE * len(MEGABYTE))
    assert (await client.answer()).status == 200
    assert [each.method for each in upstream.requests] == ["PUT", "GET"]
    assert len(upstream.connections) == 1
    assert (plane.stats.splices.total(), plane.plane.pumps.running) == (1, 0)


async def test_both_ways_at_once(client: RawClient, upstream: Upstream, plane: Plane):
    """An upstream that answers with what it is just being sent: neither pump disturbs the other."""

    @early
    async def echo(conversation: Conversation) -> None:
        await conversation.send(HEAD)
        async for block in read_blocks(conversation.reader, SIZE * len(MEGABYTE)):
            await conversation.send(block)
        conversation.request.complete.set()

    upstream.will(echo)
    await client.send(PUT)
    sending = asyncio.create_task(send(client))
    assert await answered(client) == DIGEST
    await sending
    assert plane.stats.splices.total() == 2


@pytest.mark.parametrize("extra", [b"", b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"])
async def test_octets_behind_a_large_answer_poison_nobody(
    client: RawClient, upstream: Upstream, plane: Plane, extra: bytes
):
    """N82: the connection is not used again; without them it is."""

    async def play(conversation: Conversation) -> None:
        await conversation.send(HEAD + MEGABYTE * SIZE + extra)

    upstream.will(play)
    await client.send(GET)
    assert await answered(client) == DIGEST
    assert (await client.request("GET", "/public")).status == 200
    assert len(upstream.connections) == (2 if extra else 1)
    assert plane.stats.splices.total() == 1


@pytest.mark.parametrize("cut", [0, 1, 100, 1_000_000, len(MEGABYTE) * SIZE - 1])
async def test_wherever_the_first_octets_were_cut(client: RawClient, upstream: Upstream, plane: Plane, cut: int):
    """N62: what came with the head, before the pump, within it or behind it."""
    body = MEGABYTE * SIZE
    release = asyncio.Event()
    upstream.will(HEAD + body[:cut], release, body[cut:])
    await client.send(GET)
    await client.answer_head()
    begun = await client.read_exactly(cut)
    release.set()
    rest = hashlib.sha256(begun)
    async for block in read_blocks(client.reader, len(body) - cut):
        rest.update(block)
    assert rest.hexdigest() == DIGEST
    assert (await plane.line(0)).sent == len(body)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_a_client_that_had_half_closed(client: RawClient, upstream: Upstream, plane: Plane, version: bytes):
    """N61: FIN behind the request is not a farewell."""
    upstream.will(large)
    await client.send(b"GET /public HTTP/%b\r\nHost: a\r\n\r\n" % version)
    client.half_close()
    assert await answered(client) == DIGEST
    assert await client.rest() == b""
    assert plane.stats.splices.total() == 1


async def test_an_upload_that_waits_for_100(client: RawClient, upstream: Upstream, plane: Plane):
    """N77: the expectation and its answer pass, and then the body does."""

    @early
    async def play(conversation: Conversation) -> None:
        await conversation.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await conversation.read_body()
        await conversation.send(answer(201, b"made"))

    upstream.will(play)
    await client.send(PUT.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
    assert (await client.head()).start == b"HTTP/1.1 100 Continue"
    await send(client)
    assert (await client.answer()).status == 201
    assert (await upstream.request(0)).body.decode() == DIGEST
    assert plane.stats.splices.total() == 1


async def test_many_at_once(upstream: Upstream, plane: Plane):
    """More than there are pumps: the others are relayed, and all arrive."""
    plane.plane.pumps._most = 5

    async def down() -> None:
        async with await plane.client() as client:
            await client.send(GET)
            assert await answered(client) == DIGEST

    async def up() -> str:
        async with await plane.client() as client:
            sending = asyncio.create_task(client.send(PUT + MEGABYTE * SIZE))
            got = await client.answer()
            await sending
            return got.body.decode()

    upstream.default = large
    await asyncio.gather(*(down() for _ in range(12)))
    upstream.default = Upstream().default
    assert all(DIGEST in got for got in await asyncio.gather(*(up() for _ in range(12))))
    assert plane.plane.pumps.running == 0
    assert plane.stats.splices.total() >= 10


@pytest.mark.parametrize("secured", ["client", "upstream"])
async def test_tls_on_one_side_is_relayed(secured: str):
    """Its octets have to be seen; they are the same all the same."""
    ca = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("gateway.test", "upstream.test").configure_cert(server)
    trusting = ssl.create_default_context()
    ca.configure_trust(trusting)
    to_client = secured == "client"
    async with Upstream(keep_bodies=False, tls=None if to_client else server) as up:
        tls = {} if to_client else {"scheme": "https", "tls": trusting, "server_name": "upstream.test"}
        plane = Plane(route("/public", service(up.port, **tls), None), tls=server if to_client else None)
        options = {"tls": trusting, "server_hostname": "gateway.test"} if to_client else {}
        async with plane, await plane.client(**options) as client:
            up.will(large)
            await client.send(GET)
            assert await answered(client) == DIGEST
            sending = asyncio.create_task(client.send(PUT + MEGABYTE * SIZE))
            assert (await client.answer()).status == 200
            await sending
            assert up.requests[1].body.decode() == DIGEST
            assert len(up.connections) == 1
            assert plane.stats.splices.total() == 0


async def test_a_reader_slower_than_the_upstream(upstream: Upstream, plane: Plane):
    """U5: nothing is piled up in this process."""
    upstream.will(large)
    async with await plane.client(receive_buffer=4096) as client:
        await client.send(GET)
        await client.answer_head()
        await stalled(plane)
        transport = protocol_of(plane).transport
        assert transport is not None
        got = hashlib.sha256()
        async for block in read_blocks(client.reader, SIZE * len(MEGABYTE)):
            got.update(block)
            assert transport.get_write_buffer_size() == 0
        assert got.hexdigest() == DIGEST


# --- cut short -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [CLOSE, RESET])
async def test_an_upstream_that_ends_within_its_answer(client: RawClient, upstream: Upstream, plane: Plane, end):
    """N81, U2: the client can never take what it got for the whole answer."""
    upstream.will(HEAD + MEGABYTE * 5, end)
    await client.send(GET)
    with pytest.raises((Broken, ConnectionError)):
        await answered(client)
    line = await plane.line(0)
    assert (line.outcome, line.reason) == ("failed", "body")
    assert plane.stats.splices.total() == 1


async def test_an_upstream_that_ends_while_the_client_does_not_read(upstream: Upstream, plane: Plane):
    """N81, U2: what had arrived before is delivered, then the answer is cut."""
    release = asyncio.Event()
    upstream.will(HEAD + MEGABYTE * (SIZE - 1), release, CLOSE)
    async with await plane.client(receive_buffer=4096) as client:
        await client.send(GET)
        await client.answer_head()
        await stalled(plane)
        release.set()
        with pytest.raises((Broken, ConnectionError)):
            await received(client)
        assert (await plane.line(0)).reason == "body"


async def test_an_answer_that_stalls(upstream: Upstream):
    """U4: the idle deadline of reads, also for a pump."""
    upstream.will(HEAD + MEGABYTE, silence)
    async with Plane.before(upstream.port, read_timeout=0.3) as plane, await plane.client() as client:
        await client.send(GET)
        with pytest.raises((Broken, ConnectionError)):
            await answered(client)
        assert (await plane.line(0)).reason == "body_timeout"
        await upstream.until(upstream.connections[0].ended.is_set)


async def test_an_answer_that_trickles(upstream: Upstream):
    """U4: every octet moves the deadline."""

    async def trickle(conversation: Conversation) -> None:
        await conversation.send(HEAD + MEGABYTE)
        for _ in range(5):
            await asyncio.sleep(0.2)
            await conversation.send(b"x")
        await silence(conversation)

    upstream.will(trickle)
    async with Plane.before(upstream.port, read_timeout=0.5) as plane, await plane.client() as client:
        await client.send(GET)
        await client.answer_head()
        await client.read_exactly(len(MEGABYTE) + 5)
        assert plane.stats.splices.total() == 1


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "fin"])
@pytest.mark.parametrize("reads", [True, False], ids=["reading", "stalled"])
async def test_a_client_that_leaves_within_a_large_answer(
    upstream: Upstream, plane: Plane, reset: bool, reads: bool  # noqa: FBT001
):  # fmt: skip
    """C2: the upstream's connection is given up with it, within a second of its RST."""

    async def pour(conversation: Conversation) -> None:
        await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n")
        while True:
            await conversation.send(MEGABYTE)

    upstream.will(pour)
    client = await plane.client(receive_buffer=4096)
    await client.send(GET)
    await client.answer_head()
    if reads:
        await under_way(plane)
        await client.read_exactly(len(MEGABYTE))
    else:
        await stalled(plane)
    if reset:
        client.abort()
    else:
        await client.close()
    async with asyncio.timeout(1):
        await upstream.until(upstream.connections[0].ended.is_set)
    assert (await plane.line(0)).outcome == "client_gone"


async def test_a_client_that_leaves_a_silent_upstream(upstream: Upstream, plane: Plane):
    """C2: also while there is nothing to move."""
    upstream.will(HEAD + MEGABYTE, silence)
    client = await plane.client()
    await client.send(GET)
    await client.answer_head()
    await client.read_exactly(len(MEGABYTE))
    await under_way(plane)
    client.abort()
    async with asyncio.timeout(1):
        await upstream.until(upstream.connections[0].ended.is_set)
    assert (await plane.line(0)).outcome == "client_gone"


async def test_a_client_that_reads_nothing_of_a_large_answer(upstream: Upstream):
    """C1: the deadline of writes, also for a pump."""
    upstream.will(large)
    async with Plane.before(upstream.port, limits=Limits(body_timeout=0.3)) as plane:
        client = await plane.client(receive_buffer=4096)
        await client.send(GET)
        line = await plane.line(0)
        assert line.outcome == "client_gone"
        assert 0 < line.sent < SIZE * len(MEGABYTE)
        await upstream.until(upstream.connections[0].ended.is_set)
        client.abort()


@pytest.mark.parametrize("end", ["reset", "fin", "stall"])
async def test_a_client_that_ends_within_its_upload(upstream: Upstream, end: str):
    """N55, C1, C2: the upstream never takes it for whole; who is still there is told."""
    async with Plane.before(upstream.port, limits=Limits(body_timeout=0.5)) as plane, await plane.client() as client:
        await client.send(PUT)
        await under_way(plane)
        await send(client, 5)
        got = await upstream.head(0)
        if end == "reset":
            client.abort()
        else:
            if end == "fin":
                client.half_close()
            assert (await client.answer()).status == (400 if end == "fin" else 408)
            assert await client.ended()
        await upstream.until(got.connection.ended.is_set)
        assert not got.complete.is_set()
        line = await plane.line(0)
        assert line.outcome == ("client_gone" if end == "reset" else "failed")
        assert line.reason == {"reset": "body", "fin": "request_body", "stall": "body_timeout"}[end]
        assert line.received > WITH_HEAD
    upstream.broken.clear()


WITH_HEAD = 300_000
"""Octets that may have come in one read with a head."""


async def test_an_upload_that_trickles(upstream: Upstream):
    """C1: where no rate is asked for, every octet moves the deadline."""
    async with (
        Plane.before(upstream.port, limits=Limits(body_timeout=0.5, body_rate=0)) as plane,
        await plane.client() as client,
    ):
        await client.send(PUT)
        await under_way(plane)
        for _ in range(5):
            await asyncio.sleep(0.2)
            await client.send(b"x")
        await plane.until(lambda: protocol_of(plane)._body.taken == 5, "five octets")
        client.abort()
    upstream.broken.clear()


async def test_an_upstream_that_takes_nothing(upstream: Upstream):
    """U4: the deadline of writes, also for a pump; the time is not the client's."""

    @early
    async def take_nothing(conversation: Conversation) -> None:
        conversation.writer.transport.pause_reading()
        await conversation.ended.wait()

    upstream.will(take_nothing)
    limits = Limits(body_timeout=0.2)
    async with Plane.before(upstream.port, limits=limits, write_timeout=0.6) as plane, await plane.client() as client:
        sending = asyncio.create_task(client.send(PUT + MEGABYTE * SIZE))
        assert (await client.answer()).status == 504
        assert (await plane.line(0)).reason == "head_timeout"
        assert plane.stats.splices.total() == 1
        await give_up(sending)
    upstream.broken.clear()


@pytest.mark.parametrize("end", [CLOSE, RESET])
async def test_an_upstream_that_ends_within_an_upload(client: RawClient, upstream: Upstream, plane: Plane, end):
    """U2: 502, although the client is still sending."""

    @early
    async def leave(conversation: Conversation) -> None:
        async for _ in read_blocks(conversation.reader, 5 * len(MEGABYTE)):
            pass
        await conversation._take(end)

    upstream.will(leave)
    await client.send(PUT)
    await under_way(plane)
    sending = asyncio.create_task(send(client))
    assert (await client.answer()).status == 502
    assert (await plane.line(0)).reason == "send"
    await give_up(sending)
    upstream.broken.clear()


async def test_an_early_answer_to_a_large_upload(client: RawClient, upstream: Upstream, plane: Plane):
    """U6: it is delivered, the upload ends, neither connection is used again."""

    @early
    async def refuse(conversation: Conversation) -> None:
        async for _ in read_blocks(conversation.reader, 5 * len(MEGABYTE)):
            pass
        await conversation.send(answer(413, b"too large"))

    upstream.will(refuse)
    await client.send(PUT)
    await under_way(plane)
    sending = asyncio.create_task(send(client, 10))
    got = await client.answer()
    assert (got.status, got.body, got.header("connection")) == (413, b"too large", "close")
    assert await client.ended()
    await upstream.until(upstream.connections[0].ended.is_set)
    assert plane.plane.pumps.running == 0
    await give_up(sending)
    upstream.broken.clear()


async def test_a_fault_of_ours_within_an_upload(client: RawClient, upstream: Upstream, plane: Plane, monkeypatch):
    """P10: 500 for it alone, and the upstream does not take it for whole."""

    def fault(*_args: object) -> None:
        raise ValueError("for the test")

    await client.send(b"PUT /public HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n")
    got = await upstream.head(0)
    monkeypatch.setattr(Upload, "body_data", fault)
    await client.send(b"0123456789")
    assert (await client.answer()).status == 500
    await upstream.until(got.connection.ended.is_set)
    assert not got.complete.is_set()
    upstream.broken.clear()
    assert (await plane.line(0)).status == 500


# --- drain ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["down", "up"])
@pytest.mark.parametrize("patient", [True, False])
async def test_a_drain_within_a_large_body(upstream: Upstream, plane: Plane, way: str, patient: bool):  # noqa: FBT001
    """P3: it is finished in the time there is, and cut at the end of it."""
    release = asyncio.Event()
    upstream.will(HEAD + MEGABYTE, release, MEGABYTE * (SIZE - 1))
    client = await plane.client()
    await client.send(GET if way == "down" else PUT)
    await under_way(plane)
    if not patient:
        assert await plane.server.drain(0.1) == 1
        assert plane.plane.pumps.running == 0
        with pytest.raises((Broken, ConnectionError)):
            await client.answer()
    else:
        draining = asyncio.create_task(plane.server.drain(20))
        release.set()
        if way == "up":
            await send(client)
        got = await client.answer_head()
        await received(client)
        assert got.header("connection") == ("close" if way == "up" else None)
        assert await client.rest() == b""
        assert await draining == 0
    release.set()
    await client.close()
    upstream.broken.clear()
