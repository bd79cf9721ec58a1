"""What upstreams do wrong, and what the client sees of it."""

import asyncio
import socket
import ssl
from dataclasses import replace

import pytest
import trustme

from fastgate.model import Target
from tests.support.client import RawClient
from tests.support.plane import BEARER, Plane, access, provider, route, service
from tests.support.upstream import BODY, CLOSE, RESET, Upstream, answer, early, echo, silence
from tests.support.wire import Broken

OK = answer(200, b"ok")


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def test_nobody_listens():
    """N85, U1: refused is 502; the reason goes to the log, not to the client."""
    port = closed_port()
    async with Plane.before(port) as plane, await plane.client() as client:
        got = await client.request("GET", "/api", BEARER)
        assert got.status == 502
        assert got.header("cache-control") == "no-store"
        assert str(port).encode() not in got.body
        assert (await plane.line(0)).reason == "connect"
        assert (await client.request("GET", "/api", BEARER)).status == 502


async def test_a_blackhole_is_504():
    """N85, U1: a connection that is not accepted ends by the connect deadline."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        port = sock.getsockname()[1]
        fillers = []
        for _ in range(3):
            filler = socket.socket()
            filler.settimeout(0)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        async with Plane.before(port, connect_timeout=0.3) as plane, await plane.client() as client:
            assert (await client.request("GET", "/api", BEARER)).status == 504
        for filler in fillers:
            filler.close()


async def test_no_answer_in_time_is_504(upstream: Upstream):
    """N85, U4: the idle deadline of reads."""
    upstream.will(silence)
    async with Plane.before(upstream.port, read_timeout=0.2) as plane, await plane.client() as client:
        assert (await client.request("GET", "/api", BEARER)).status == 504
        assert (await plane.line(0)).reason == "head_timeout"
        await upstream.until(upstream.connections[0].ended.is_set)


async def test_a_stalled_body_is_cut(upstream: Upstream):
    """N81, U4: the answer had begun: it is cut, never ended."""
    upstream.will(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", silence)
    async with Plane.before(upstream.port, read_timeout=0.2) as plane, await plane.client() as client:
        with pytest.raises((Broken, ConnectionError)):
            await client.request("GET", "/api", BEARER)
        assert (await plane.line(0)).reason == "body_timeout"


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"http/1.1 200 OK\r\n\r\n",
        b"garbage\r\n\r\n",
        b"\x00" * 100,
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775808\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\rY: b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX(: a\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nraw",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 300 + b"\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 50 + OK,
    ],
    ids=lambda head: head[:60].decode("latin-1").encode("unicode_escape").decode(),
)
async def test_a_malformed_answer_is_502(client: RawClient, upstream: Upstream, plane: Plane, head: bytes):
    """N80, U7: 502, the upstream connection is closed and nothing of the answer reaches anybody."""
    upstream.will(head)
    got = await client.request("GET", "/api", BEARER)
    assert got.status == 502
    await upstream.until(upstream.connections[0].ended.is_set)
    got = await client.request("GET", "/api/next", BEARER)
    assert got.status == 200
    assert len(upstream.connections) == 2
    assert (await plane.line(0)).reason == "head"


async def test_space_before_the_colon_of_an_answer_is_removed(client: RawClient, upstream: Upstream):
    """N80: RFC 9112 section 5.1 tells proxies to."""
    upstream.will(b"HTTP/1.1 200 OK\r\nX-A : b\r\nContent-Length \t: 2\r\n\r\nok")
    got = await client.request("GET", "/api", BEARER)
    assert (got.status, got.header("x-a"), got.body) == (200, "b", b"ok")
    assert b"X-A: b\r\n" in got.message.raw_head


@pytest.mark.parametrize("end", [CLOSE, RESET])
async def test_an_end_within_the_head_is_502(client: RawClient, upstream: Upstream, end):
    """U2: half a head is no answer."""
    upstream.will(b"HTTP/1.1 200 OK\r\nContent-Le", end)
    assert (await client.request("GET", "/api", BEARER)).status == 502


@pytest.mark.parametrize("end", [CLOSE, RESET])
@pytest.mark.parametrize(
    "begun",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n123",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n",
    ],
)
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_a_truncated_body_is_visibly_cut(
    client: RawClient, upstream: Upstream, plane: Plane, begun, end, version
):
    """N81, U2: the client can never take what it got for the whole answer."""
    upstream.will(begun, end)
    await client.send(b"GET /public HTTP/%b\r\nHost: a\r\n\r\n" % version)
    with pytest.raises((Broken, ConnectionError)):
        await client.answer()
    line = await plane.line(0)
    assert (line.outcome, line.reason) == ("failed", "body")


async def test_a_reset_ends_no_answer_until_close(client: RawClient, upstream: Upstream):
    """N81: an answer until close that is reset is not complete."""
    upstream.will(b"HTTP/1.1 200 OK\r\n\r\nabc", RESET)
    with pytest.raises((Broken, ConnectionError)):
        await client.request("GET", "/api", BEARER)


BAD_CHUNKS = [b"zz\r\n", b"5\r\n12345XX", b"5\r\n12345\r\n0\r\nX : y\r\n\r\n"]
BEGUN = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"


@pytest.mark.parametrize("bad", BAD_CHUNKS)
async def test_a_broken_chunk_is_visibly_cut(client: RawClient, upstream: Upstream, bad: bytes):
    """N80, N81: what breaks after the answer has begun cannot be a 502 any more."""
    begun = asyncio.Event()
    upstream.will(BEGUN, begun, bad)
    await client.send(b"GET /public HTTP/1.1\r\nHost: a\r\n\r\n")
    answer = await client.answer_head()
    begun.set()
    with pytest.raises((Broken, ConnectionError)):
        await client.read_body(answer)
    await upstream.until(upstream.connections[0].ended.is_set)


@pytest.mark.parametrize("bad", BAD_CHUNKS)
async def test_a_broken_chunk_that_comes_with_the_head_is_502(client: RawClient, upstream: Upstream, bad: bytes):
    """N80: nothing of it was passed on yet."""
    upstream.will(BEGUN + bad)
    assert (await client.request("GET", "/api", BEARER)).status == 502
    await upstream.until(upstream.connections[0].ended.is_set)


@pytest.mark.parametrize("extra", [b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"])
async def test_octets_behind_an_answer_poison_nobody(client: RawClient, upstream: Upstream, extra: bytes):
    """N82, U7: the connection is not used again."""
    upstream.will(OK + extra)
    assert (await client.request("GET", "/api", BEARER)).body == b"ok"
    got = await client.request("GET", "/api", BEARER)
    assert b"poison" not in got.body
    assert len(upstream.connections) == 2


async def test_octets_while_resting_poison_nobody(client: RawClient, upstream: Upstream, plane: Plane):
    """N82: an answer nobody asked for closes the connection."""
    assert (await client.request("GET", "/api", BEARER)).status == 200
    await upstream.connections[0].send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
    await upstream.until(upstream.connections[0].ended.is_set)
    got = await client.request("GET", "/api", BEARER)
    assert b"poison" not in got.body


async def test_a_dead_kept_alive_connection_is_retried_once(client: RawClient, upstream: Upstream, plane: Plane):
    """N76, U3: an idempotent request without body goes out again on a fresh connection."""
    assert (await client.request("GET", "/api", BEARER)).status == 200
    upstream.will(RESET)
    assert (await client.request("GET", "/api/again", BEARER)).status == 200
    assert [each.target for each in upstream.requests] == ["/api", "/api/again", "/api/again"]
    assert plane.stats.upstream_retries.total() == 1


async def test_a_retry_is_not_retried(client: RawClient, upstream: Upstream):
    """N76: once."""
    assert (await client.request("GET", "/api", BEARER)).status == 200
    upstream.will(RESET)
    upstream.will(RESET)
    assert (await client.request("GET", "/api", BEARER)).status == 502
    assert len(upstream.requests) == 3


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_other_methods_are_never_retried(client: RawClient, upstream: Upstream, method: str):
    """N76: it may have been acted on."""
    assert (await client.request("GET", "/api", BEARER)).status == 200
    upstream.will(RESET)
    assert (await client.request(method, "/api", BEARER)).status == 502
    assert len(upstream.requests) == 2


async def test_a_put_with_body_is_never_retried(client: RawClient, upstream: Upstream):
    """N76: a body that was streamed cannot be sent again."""
    assert (await client.request("GET", "/api", BEARER)).status == 200
    upstream.will(BODY, RESET)
    assert (await client.request("PUT", "/api", BEARER, body=b"x")).status == 502


async def test_a_first_use_is_not_retried(upstream: Upstream, monkeypatch):
    """N76: a fresh connection that dies saw the request."""
    monkeypatch.setattr(Plane, "warm", False)
    upstream.will(RESET)
    async with Plane.before(upstream.port) as plane, await plane.client() as client:
        assert (await client.request("GET", "/api", BEARER)).status == 502
    assert len(upstream.requests) == 1


async def test_an_early_answer_while_uploading(client: RawClient, upstream: Upstream):
    """U6: the answer is delivered, the upload ends, the upstream connection is not used again."""

    @early
    async def refuse(conversation):
        await conversation.send(answer(413, b"too large"))

    upstream.will(refuse)
    await client.send(b"POST /public HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 1000)
    got = await client.answer()
    assert (got.status, got.body) == (413, b"too large")
    assert got.header("connection") == "close"
    await upstream.until(upstream.connections[0].ended.is_set)
    upstream.broken.clear()


async def test_the_next_target_is_tried_when_one_refuses():
    """U1: nothing was sent yet, so every method may go to the next target."""
    async with Upstream() as up:
        dead = closed_port()
        async with Plane.before(dead, up.port) as plane, await plane.client() as client:
            for _ in range(6):
                assert (await client.request("POST", "/api", BEARER, body=b"x")).status == 200
            assert len(up.requests) == 6


async def test_targets_share_by_weight():
    """Weighted round-robin, smooth."""
    async with Upstream() as heavy, Upstream() as light:
        to = replace(
            service(heavy.port), targets=(Target("127.0.0.1", heavy.port, 300), Target("127.0.0.1", light.port, 100))
        )
        async with Plane(route("/api", to, access(provider()))) as plane, await plane.client() as client:
            for _ in range(40):
                assert (await client.request("GET", "/api", BEARER)).status == 200
            assert (len(heavy.requests), len(light.requests)) == (30, 10)


async def test_a_full_pool_is_503(upstream: Upstream):
    """N85: overload of the upstream's connections is said at once."""
    release = asyncio.Event()
    upstream.will(release, echo)
    async with (
        Plane.before(upstream.port, max_connections=1) as plane,
        await plane.client() as first,
        await plane.client() as second,
    ):
        await first.send(b"GET /public HTTP/1.1\r\nHost: a\r\n\r\n")
        await upstream.head(0)
        got = await second.request("GET", "/public")
        assert got.status == 503
        assert got.header("retry-after")
        release.set()
        assert (await first.answer()).status == 200
        assert (await second.request("GET", "/public")).status == 200


@pytest.mark.parametrize("trusted", [True, False])
async def test_tls_to_the_upstream_is_verified(trusted: bool):  # noqa: FBT001
    """T21: a certificate that does not verify is 502, not a pass."""
    ca = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("upstream.test").configure_cert(server)
    context = ssl.create_default_context()
    if trusted:
        ca.configure_trust(context)
    async with Upstream(tls=server) as up:
        to = service(up.port, scheme="https", tls=context, server_name="upstream.test")
        async with Plane(route("/public", to, None)) as plane, await plane.client() as client:
            got = await client.request("GET", "/public")
            assert got.status == (200 if trusted else 502)
            assert len(up.requests) == (1 if trusted else 0)
            assert "upstream.test" not in got.body.decode() or trusted
