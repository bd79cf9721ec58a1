"""Upgrades, event streams, interim answers: what does not look like one request and one answer."""

import asyncio
import time

import pytest

from tests.support.client import RawClient
from tests.support.plane import BEARER, Plane
from tests.support.upstream import Upstream, answer, early, silence

HANDSHAKE = (
    b"GET /api/ws HTTP/1.1\r\nHost: a\r\nAuthorization: %b\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" % BEARER[1].encode()
)
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n"
)


def tunnel(*, early_octets: bytes = b""):
    """Play: switch, then echo raw octets until the client's end, then say goodbye."""

    async def play(conversation):
        await conversation.send(SWITCH + early_octets)
        while data := await conversation.reader.read(65536):
            await conversation.send(data.upper())
        if not conversation.writer.is_closing():
            await conversation.send(b"goodbye")
            await conversation.close()

    return play


async def test_a_tunnel_carries_octets_both_ways(client: RawClient, upstream: Upstream, plane: Plane):
    """N86, U10: after a verified 101 octets are only octets; a half-close travels."""
    upstream.will(tunnel(early_octets=b"early"))
    await client.send(HANDSHAKE)
    head = await client.answer_head()
    assert head.status == 101
    assert head.header("upgrade") == "websocket"
    assert (head.header("connection") or "").lower() == "upgrade"
    assert await client.read_exactly(5) == b"early"
    await client.send(b"abc\r\n\r\nGET / HTTP/1.1\r\n")
    assert await client.read_exactly(23) == b"ABC\r\n\r\nGET / HTTP/1.1\r\n"
    client.half_close()
    assert await client.rest() == b"goodbye"
    line = await plane.line(0)
    assert (line.status, line.outcome) == (101, "tunnel")
    request = upstream.requests[0]
    assert request.header("upgrade") == "websocket"
    assert request.header("connection").lower() == "upgrade"


async def test_a_lot_through_a_tunnel(client: RawClient, upstream: Upstream):
    """U10: 20 MB both ways under back-pressure."""
    upstream.will(tunnel())
    await client.send(HANDSHAKE)
    assert (await client.answer_head()).status == 101
    block = b"a" * 100_000

    async def send():
        for _ in range(200):
            await client.send(block)
        client.half_close()

    sending = asyncio.create_task(send())
    for _ in range(200):
        assert await client.read_exactly(100_000) == b"A" * 100_000
    assert await client.rest() == b"goodbye"
    await sending


async def test_octets_before_the_101_are_not_http(client: RawClient, upstream: Upstream):
    """N86: a smuggled request behind the handshake reaches the upstream as tunnel octets or not at all."""
    release = asyncio.Event()
    upstream.will(release, tunnel())
    await client.send(HANDSHAKE + b"GET /public HTTP/1.1\r\nHost: a\r\n\r\n")
    await upstream.head(0)
    release.set()
    assert (await client.answer_head()).status == 101
    assert (await client.read_exactly(10)).startswith(b"GET /PUBLI")
    assert len(upstream.requests) == 1


async def test_a_declined_upgrade_stays_http(client: RawClient, upstream: Upstream):
    """N86: another status is an ordinary answer, and what was sent behind it an ordinary request."""
    upstream.will(answer(426, b"no", ("Upgrade", "websocket"), ("Connection", "upgrade")))
    await client.send(HANDSHAKE + b"GET /public/next HTTP/1.1\r\nHost: a\r\n\r\n")
    got = await client.answer()
    assert (got.status, got.body) == (426, b"no")
    assert (await client.answer()).status == 200
    assert upstream.requests[1].target == "/public/next"


async def test_an_upgrade_needs_a_token(client: RawClient, upstream: Upstream):
    """N86: the token is checked before the upstream hears anything."""
    await client.send(HANDSHAKE.replace(b"good-token", b"bad-token"))
    assert (await client.answer()).status == 401
    assert upstream.octets == b""


@pytest.mark.parametrize(
    "changed",
    [(b"Version: 13", b"Version: 8"), (b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b"")],
)
async def test_websocket_without_its_fields(client: RawClient, upstream: Upstream, changed):
    """N87: a wrong version is 426, a missing key 400, decided here."""
    await client.send(HANDSHAKE.replace(*changed))
    assert (await client.answer()).status in {426, 400}
    assert upstream.octets == b""


async def test_h2c_is_stripped(client: RawClient, upstream: Upstream):
    """N87: an upgrade to h2c is not passed on; the request is an ordinary one."""
    await client.send(
        b"GET /public HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
    )
    got = await client.answer()
    assert got.status == 200
    request = await upstream.request(0)
    assert request.header("upgrade") is None
    assert request.header("http2-settings") is None
    assert (await client.request("GET", "/public")).status == 200


async def test_a_101_for_another_protocol_is_502(client: RawClient, upstream: Upstream):
    """N86: only the switch that was asked for is believed."""
    upstream.will(SWITCH.replace(b"websocket", b"h2c"))
    await client.send(HANDSHAKE)
    assert (await client.answer()).status == 502


async def test_either_end_may_break_a_tunnel(client: RawClient, upstream: Upstream, plane: Plane):
    """U10: when one side resets, the other is closed."""
    upstream.will(tunnel())
    await client.send(HANDSHAKE)
    assert (await client.answer_head()).status == 101
    client.abort()
    await upstream.until(upstream.connections[0].ended.is_set)
    async with await plane.client() as second:
        upstream.will(tunnel())
        await second.send(HANDSHAKE)
        assert (await second.answer_head()).status == 101
        upstream.connections[1].abort()
        assert await second.ended()


async def test_a_tunnel_ends_with_its_token(upstream: Upstream):
    """N88: our policy: closed when the token that opened it expires."""
    async with Plane.before(upstream.port) as plane, await plane.client() as client:
        plane.knows("short", {"scope": "read"}, exp=int(time.time()) + 2)
        upstream.will(tunnel())
        await client.send(HANDSHAKE.replace(b"good-token", b"short"))
        assert (await client.answer_head()).status == 101
        assert await client.ended()
        await upstream.until(upstream.connections[0].ended.is_set)


async def test_an_event_stream_ends_with_its_token(upstream: Upstream):
    """N88: a clean end, so that the browser comes back with a new token."""

    async def events(conversation):
        await conversation.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"9\r\ndata: 1\n\n\r\n"
        )
        await conversation.reader.read()

    async with Plane.before(upstream.port) as plane, await plane.client() as client:
        plane.knows("short", {"scope": "read"}, exp=int(time.time()) + 2)
        upstream.will(events)
        got = await client.request("GET", "/api", ("Authorization", "Bearer short"))
        assert got.body == b"data: 1\n\n"
        await upstream.until(upstream.connections[0].ended.is_set)


async def test_events_pass_one_by_one(client: RawClient, upstream: Upstream):
    """U9: every event arrives before the next one is made."""
    ticks = [asyncio.Event() for _ in range(5)]
    steps: list = [b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"]
    for number, tick in enumerate(ticks):
        steps += [tick, b"data: %d\n\n" % number]
    upstream.will(*steps, silence)
    await client.send(b"GET /public HTTP/1.1\r\nHost: a\r\n\r\n")
    await client.answer_head()
    for number, tick in enumerate(ticks):
        tick.set()
        assert await client.read_exactly(14) == b"9\r\ndata: %d\n\n\r\n" % number


async def test_a_client_that_leaves_an_event_stream_frees_the_upstream(client: RawClient, upstream: Upstream):
    """U9: FIN on a stream of events means gone, although nothing is being sent."""
    upstream.will(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n", silence)
    await client.send(b"GET /public HTTP/1.1\r\nHost: a\r\n\r\n")
    await client.answer_head()
    await client.close()
    await upstream.until(upstream.connections[0].ended.is_set)


async def test_a_client_that_aborts_frees_the_upstream(client: RawClient, upstream: Upstream, plane: Plane):
    """C2: the upstream request is aborted and the line says that the client was gone."""
    upstream.will(silence)
    await client.send(b"GET /public HTTP/1.1\r\nHost: a\r\n\r\n")
    got = await upstream.head(0)
    client.abort()
    await upstream.until(got.connection.ended.is_set)
    line = await plane.line(0)
    assert (line.outcome, line.status) == ("client_gone", 0)


async def test_early_hints_are_passed_on(client: RawClient, upstream: Upstream):
    """N78: 103 reaches HTTP/1.1 clients."""
    upstream.will(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" + answer(200, b"ok"))
    got = await client.request("GET", "/api", BEARER)
    assert [each.start for each in got.interim] == [b"HTTP/1.1 103 Early Hints"]
    assert got.interim[0].one("link") == "</a.css>"
    assert got.body == b"ok"


async def test_interim_answers_stay_from_http_1_0(client: RawClient, upstream: Upstream):
    """N78: HTTP/1.0 clients never see 1xx."""
    upstream.will(b"HTTP/1.1 103 Early Hints\r\n\r\n" + answer(200, b"ok"))
    await client.send(b"GET /public HTTP/1.0\r\nHost: a\r\n\r\n")
    got = await client.answer()
    assert (got.interim, got.status) == ([], 200)


async def test_expect_continue_is_the_upstreams_to_answer(client: RawClient, upstream: Upstream):
    """N77: authenticated first, then the expectation travels, and so does the 100."""

    @early
    async def play(conversation):
        await conversation.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await conversation.read_body()
        await conversation.send(answer(201, b"made"))

    upstream.will(play)
    await client.send(
        b"PUT /api HTTP/1.1\r\nHost: a\r\nAuthorization: %b\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
        % BEARER[1].encode()
    )
    assert (await client.head()).start == b"HTTP/1.1 100 Continue"
    await client.send(b"body")
    got = await client.answer()
    assert (got.status, got.interim) == (201, [])
    assert upstream.requests[0].header("expect") == "100-continue"
    assert upstream.requests[0].body == b"body"


async def test_expect_continue_without_a_token_is_refused_before_the_body(client: RawClient, upstream: Upstream):
    """N77: no 100 for those who may not."""
    await client.send(b"PUT /api HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
    got = await client.answer()
    assert (got.status, got.interim) == (401, [])
    assert await client.ended()
    assert upstream.octets == b""


async def test_a_final_answer_before_the_100_poisons_nobody(client: RawClient, upstream: Upstream, plane: Plane):
    """N77: the upstream connection that waits for a body is not used again (CVE-2024-24791)."""

    @early
    async def refuse(conversation):
        await conversation.send(answer(417, b"no"))

    upstream.will(refuse)
    await client.send(b"PUT /public HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
    assert (await client.answer()).status == 417
    async with await plane.client() as second:
        assert (await second.request("GET", "/public")).status == 200
    assert len(upstream.connections) == 2
    upstream.broken.clear()
