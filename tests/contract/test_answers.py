"""What is forwarded and what comes back: framing, faults, streams, upgrades, the gateway's own errors."""

import asyncio
import gzip
import json

import pytest

from tests.contract.parts import READER, StillClock, bearer, config, route, service
from tests.support.client import fetch
from tests.support.process import free_port
from tests.support.upstream import CLOSE, RESET, Upstream, answer, chunked, early, silence
from tests.support.wire import Broken

NOW = 1_700_000_000
HANDSHAKE = (
    b"GET /any/ws HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer good\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


# --- the request, forwarded ---------------------------------------------------------------------------------------


async def test_what_a_forwarded_request_looks_like(lane, idp, upstream):
    """N70, N73, N74: HTTP/1.1, fields in their order and as often as they came, unknown ones and obs-text too."""
    lines = (
        b"Accept: a",
        b"X-Twice: 1",
        b"Cookie: a=1",
        b"X-Odd: \xe9\xff",
        b"x-tWICE: 2",
        b"Cookie: b=2",
        b"X-Empty:",
    )
    async with lane(config(idp, upstream)) as gateway, await gateway.connect() as client:
        await client.send(
            b"PATCH /public HTTP/1.0\r\nHost: a\r\n" + b"\r\n".join(lines) + b"\r\nContent-Length: 2\r\n\r\nhi"
        )
        assert (await client.answer()).status == 200
    got = upstream.requests[0]
    assert got.start == b"PATCH /public HTTP/1.1"
    kept = [
        b"%b: %b" % field for field in got.fields if field[0].lower() in {b"accept", b"x-twice", b"cookie", b"x-odd"}
    ]
    assert kept == list(lines[:-1])
    assert got.header("x-empty") == ""
    assert (got.header("content-length"), got.header("transfer-encoding"), got.body) == ("2", None, b"hi")
    assert got.header("via").startswith("1.0 fastgate")


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS", "POST", "PUT", "PATCH"])
@pytest.mark.parametrize("framing", ["length", "chunked", "none"])
async def test_bodies_of_any_method(lane, idp, upstream, method, framing):
    """N74, N75: a body is framed exactly once, never dropped; the next request on the connection is the next one."""
    head = f"{method} /any HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer good\r\n".encode()
    octets = {
        "length": head + b"Content-Length: 3\r\n\r\nabc",
        "chunked": head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"ab", b"c"),
        "none": head + b"\r\n",
    }[framing]
    async with lane(config(idp, upstream)) as gateway, await gateway.connect() as client:
        for _ in range(2):
            await client.send(octets)
            assert (await client.answer(method)).status == 200
    for got in upstream.requests:
        assert got.body == (b"" if framing == "none" else b"abc")
        lengths = [got.header("content-length"), got.header("transfer-encoding")]
        expected = {"length": ["3", None], "chunked": [None, "chunked"]}
        assert lengths == expected.get(framing, ["0" if method in {"POST", "PUT", "PATCH"} else None, None])
    assert len(upstream.connections) == 1


async def test_loops_and_the_last_hop(lane, idp, upstream):
    """N68, N69: Via is appended and recognised; Max-Forwards ends an OPTIONS here or is counted down."""
    async with lane(config(idp, upstream, via="edge-7")) as gateway:
        assert (await gateway.get("/public", ("Via", "1.0 other, 1.1 edge-71"))).status == 200
        assert (await gateway.get("/public", ("Via", "1.0 other, HTTP/1.1 EDGE-7 (x)"))).status == 508
        ended = await gateway.request("OPTIONS", "/public", ("Max-Forwards", "0"))
        assert (ended.status, json.loads(ended.body)) == (200, {"message": "OK"})
        assert (await gateway.request("OPTIONS", "/public", ("Max-Forwards", "3"))).status == 200
        assert (await gateway.get("/public", ("Max-Forwards", "0"))).status == 200
    assert [got.method for got in upstream.requests] == ["GET", "OPTIONS", "GET"]
    assert upstream.requests[0].all("via") == ["1.0 other, 1.1 edge-71", "1.1 edge-7"]
    assert [got.header("max-forwards") for got in upstream.requests] == [None, "2", "0"]


async def test_connections_to_the_upstream_are_used_again(lane, idp, upstream):
    """T5: many clients, one after the other and side by side, share a few connections."""
    async with lane(config(idp, upstream)) as gateway:

        async def ask(_):
            async with await gateway.connect() as client:
                for _ in range(50):
                    assert (await client.request("GET", "/any", bearer("good"))).status == 200

        await asyncio.gather(*map(ask, range(10)))
        assert await gateway.metric("fastgate_upstream_connections_total", how="reused") >= 490
        assert await gateway.metric("fastgate_upstream_open") <= 10
    assert len(upstream.connections) <= 10
    assert len(upstream.requests) == 500


# --- the answer, brought back -----------------------------------------------------------------------------------


async def test_an_answer_comes_back_as_it_is(lane, idp, upstream):
    """N73, N83, N84, N89, N90: octets, order and repetition; nothing decompressed, cached, or named after us."""
    body = gzip.compress(b"x" * 1000)
    fields = (
        ("Set-Cookie", "a=1; Path=/"),
        ("Content-Encoding", "gzip"),
        ("Set-Cookie", "b=2"),
        ("Cache-Control", "max-age=60, no-transform"),
        ("Vary", "Accept"),
        ("ETag", '"1"'),
        ("X-Odd", "\xe9"),
        ("Connection", "X-Hop"),
        ("X-Hop", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Server", "theirs"),
    )
    upstream.will(answer(299, body, *fields))
    upstream.will(answer(304, b"", ("ETag", '"1"')))
    async with lane(config(idp, upstream)) as gateway, await gateway.connect() as client:
        got = await client.request("GET", "/any", bearer("good"), ("Accept-Encoding", "gzip"))
        assert (got.status, got.reason, got.body) == (299, "Said so", body)
        raw = [(name.decode(), value.decode("latin-1")) for name, value in got.fields]
        kept = [field for field in fields if field[0] not in {"Connection", "X-Hop", "Keep-Alive"}]
        assert [field for field in raw if field[0] not in {"Content-Length", "Date"}] == kept
        assert len(got.all("date")) == 1
        conditional = (("If-None-Match", '"1"'), ("Range", "bytes=0-1"))
        assert (await client.request("GET", "/any", bearer("good"), *conditional)).status == 304
    assert upstream.requests[1].header("if-none-match") == '"1"'
    assert upstream.requests[1].header("range") == "bytes=0-1"
    assert upstream.requests[0].header("accept-encoding") == "gzip"


@pytest.mark.parametrize(
    ("method", "octets"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n"),
        ("GET", b"HTTP/1.1 103 Early\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ],
)
async def test_answers_without_a_body(lane, idp, upstream, method, octets):
    """N78, N79: whatever their fields say; the connections on both sides stay in step."""
    upstream.will(octets)
    async with lane(config(idp, upstream)) as gateway, await gateway.connect() as client:
        got = await client.request(method, "/any", bearer("good"))
        assert got.status == int(octets[9:12] if b"103" not in octets else b"200")
        assert [each.start for each in got.interim] == ([b"HTTP/1.1 103 Early"] if b"103" in octets else [])
        assert (await client.request("GET", "/any", bearer("good"))).status == 200
    assert len(upstream.connections) == 1


async def test_a_204_that_announces_a_body(lane, idp, upstream):
    """N79, N82: it has none, but may send it: the connection is not used again."""
    upstream.will(b"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n")
    async with lane(config(idp, upstream)) as gateway, await gateway.connect() as client:
        assert (await client.request("GET", "/any", bearer("good"))).status == 204
        assert (await client.request("GET", "/any", bearer("good"))).status == 200
    assert len(upstream.connections) == 2


MALFORMED = [
    b"HTTP/2 200 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\na",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na",
    b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\x00\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Len",
    b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
]
CUT = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\nzz\r\n",
]


async def test_answers_that_are_none(lane, idp, upstream):
    """N80, N81, N82, N90: 502 before the answer began, a visible cut after; no connection is used again."""
    async with lane(config(idp, upstream)) as gateway:
        for octets in MALFORMED:
            upstream.will(octets, CLOSE)
            got = await gateway.get("/any", token="good")
            assert (got.status, got.header("cache-control")) == (502, "no-store"), octets
            assert str(upstream.port) not in got.body.decode()
        for octets in CUT:
            for end in (CLOSE, RESET):
                upstream.will(octets, end)
                try:
                    got = await gateway.get("/any", token="good")
                except (Broken, ConnectionError):
                    continue
                # What was broken from the first segment on may still be told.
                assert got.status == 502, octets
        upstream.will(answer(200, b"ok") + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
        assert (await gateway.get("/any", token="good")).body == b"ok"
        assert b"poison" not in (await gateway.get("/any", token="good")).body
        assert len(upstream.connections) == len(MALFORMED) + 2 * len(CUT) + 2


async def test_one_safe_retry(lane, idp, upstream):
    """N76: once, when a kept-alive connection died before an answer, and nothing was to be lost."""
    async with lane(config(idp, upstream)) as gateway, await gateway.connect() as client:
        for method, body, status in (
            ("GET", None, 200),
            ("DELETE", None, 200),
            ("POST", b"x", 502),
            ("PUT", b"x", 502),
        ):
            assert (await client.request("GET", "/any", bearer("good"))).status == 200
            seen = len(upstream.requests)
            upstream.will(RESET)
            assert (await client.request(method, "/any", bearer("good"), body=body)).status == status
            assert len(upstream.requests) - seen == (2 if status == 200 else 1)


async def test_the_gateways_own_errors(lane, idp, upstream):
    """N85, N90: 502, 503, 504, 404: self-delimited JSON that says nothing about what is behind us."""
    wanted = config(idp, upstream)
    dead = free_port()
    wanted["services"] = [
        service(upstream, route("/slow", "none"), name="slow", read_timeout="200ms"),
        service(upstream, route("/full", "none"), name="full", max_connections=1),
        {"name": "dead", "url": f"http://127.0.0.1:{dead}", "routes": [route("/dead", "none")]},
        {"name": "two", "targets": [{"target": f"127.0.0.1:{dead}"}, {"target": f"127.0.0.1:{upstream.port}"}],
         "routes": [route("/two", "none")]},
    ]  # fmt: skip
    async with lane(wanted) as gateway:
        errors = [await gateway.get("/dead"), await gateway.get("/nowhere")]
        upstream.will(silence)
        errors.append(await gateway.get("/slow"))
        held = asyncio.Event()
        upstream.will(held, answer(200, b"first"))
        first = asyncio.create_task(gateway.get("/full"))
        await upstream.until(lambda: len(upstream.requests) == 2)
        errors.append(await gateway.get("/full"))
        held.set()
        assert (await first).body == b"first"
        assert [got.status for got in errors] == [502, 404, 504, 503]
        assert errors[3].header("retry-after")
        for got in errors:
            assert got.header("cache-control") == "no-store"
            assert list(json.loads(got.body)) == ["message"]
            assert str(dead) not in got.body.decode()
        # Where another address is left, nobody notices.
        assert [(await gateway.get("/two")).status for _ in range(4)] == [200] * 4


# --- expectations, interim answers ------------------------------------------------------------------------------


async def test_expectations(lane, idp, upstream):
    """N56, N77, N78: authenticated first; then the 100 is the upstream's to give, and a refusal poisons nobody."""
    head = b"PUT /any HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n"
    async with lane(config(idp, upstream)) as gateway:
        async with await gateway.connect() as client:
            await client.send(head + b"\r\n")
            got = await client.answer()
            assert (got.status, got.interim) == (401, [])
            assert await client.ended()
        assert upstream.connections == []

        @early
        async def go_on(conversation):
            await conversation.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            await conversation.read_body()
            await conversation.send(answer(201, b"made"))

        @early
        async def refuse(conversation):
            await conversation.send(answer(413, b"no"))

        for play, status in ((go_on, 201), (refuse, 413)):
            upstream.will(play)
            async with await gateway.connect() as client:
                await client.send(head + b"Authorization: Bearer good\r\n\r\n")
                if status == 201:
                    assert (await client.head()).start == b"HTTP/1.1 100 Continue"
                    await client.send(b"body")
                assert (await client.answer()).status == status
        assert (await gateway.get("/any", token="good")).status == 200
    assert len(upstream.connections) == 2
    upstream.broken.clear()


async def test_interim_answers_stay_from_http_1_0(lane, idp, upstream):
    """N70, N78: and chunks as well."""
    upstream.will(
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"abc")
    )
    async with lane(config(idp, upstream)) as gateway, await gateway.connect() as client:
        await client.send(b"GET /public HTTP/1.0\r\n\r\n")
        got = await client.answer()
    assert (got.interim, got.until_close, got.body) == ([], True, b"abc")


# --- upgrades and streams ---------------------------------------------------------------------------------------


async def tunnel(conversation):
    """Play: switch, echo in capitals until the client's end."""
    await conversation.send(SWITCH)
    while data := await conversation.reader.read(65536):
        await conversation.send(data.upper())


async def test_a_tunnel(lane, idp, upstream):
    """N86: begins when the upstream has switched; octets sent before that are not requests."""
    upstream.will(early(tunnel))
    async with lane(config(idp, upstream)) as gateway, await gateway.connect() as client:
        await client.send(HANDSHAKE + b"GET /public HTTP/1.1\r\n\r\n")
        got = await client.answer_head()
        assert (got.status, got.header("upgrade"), got.header("connection")) == (101, "websocket", "upgrade")
        assert await client.read_exactly(24) == b"GET /PUBLIC HTTP/1.1\r\n\r\n"
        await client.send(b"more")
        assert await client.read_exactly(4) == b"MORE"
    assert len(upstream.requests) == 1


async def test_a_tunnel_that_is_refused(lane, idp, upstream):
    """N86, N87: no token, no switch, no key, another version, another protocol: ordinary answers, in step."""
    async with lane(config(idp, upstream)) as gateway, await gateway.connect() as client:
        for changed, status in (
            ((b"Bearer good", b"Bearer bad"), 401),
            ((b"Version: 13", b"Version: 12"), 426),
            ((b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b""), 400),
            ((b"GET", b"POST"), 400),
        ):
            await client.send(HANDSHAKE.replace(*changed))
            got = await client.answer()
            assert got.status == status
            assert got.header("sec-websocket-version") == ("13" if status == 426 else None)
        assert upstream.connections == []
        upstream.will(answer(403, b"no"))
        await client.send(HANDSHAKE + b"GET /public/next HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.answer()).status == 403
        assert (await client.answer()).status == 200
        await client.send(HANDSHAKE.replace(b"WebSocket", b"h2c", 1))
        assert (await client.answer()).status == 200
        assert upstream.requests[-1].header("upgrade") is None
        upstream.will(SWITCH.replace(b"websocket", b"h2c"))
        await client.send(HANDSHAKE)
        assert (await client.answer()).status == 502
    assert [got.target for got in upstream.requests] == ["/any/ws", "/public/next", "/any/ws", "/any/ws"]


@pytest.mark.parametrize("kind", ["tunnel", "events"])
async def test_what_outlives_its_token(lane, idp, upstream, kind):
    """N88: a tunnel is closed and an event stream ended at `exp`, by the policy of ours that the page states."""
    idp.tokens["short"] = {**READER, "exp": NOW + 1}

    async def events(conversation):
        await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        await conversation.reader.read()

    upstream.will(early(tunnel) if kind == "tunnel" else events)
    clock = StillClock(NOW + 0.75)
    async with lane(config(idp, upstream), clock=clock) as gateway, await gateway.connect() as client:
        if kind == "tunnel":
            await client.send(HANDSHAKE.replace(b"good", b"short"))
            assert (await client.answer_head()).status == 101
            clock.pass_(1)
            assert await client.ended()
        else:
            await client.send(b"GET /any HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer short\r\n\r\n")
            got = await client.answer_head()
            clock.pass_(1)
            await client.read_body(got)
            assert got.body == b"data: 1\n\n"
        await upstream.until(upstream.connections[0].ended.is_set)


async def test_events_are_not_held_back(lane, idp, upstream):
    """N83: each is passed on before the next one is made; a client that leaves frees the upstream."""
    ticks = [asyncio.Event() for _ in range(3)]
    steps = [b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"]
    for number, tick in enumerate(ticks):
        steps += [tick, b"9\r\ndata: %d\n\n\r\n" % number]
    upstream.will(*steps, silence)
    async with lane(config(idp, upstream)) as gateway, await gateway.connect() as client:
        await client.send(b"GET /any HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer good\r\n\r\n")
        await client.answer_head()
        for number, tick in enumerate(ticks):
            tick.set()
            assert await client.read_exactly(14) == b"9\r\ndata: %d\n\n\r\n" % number
        await client.close()
        await upstream.until(upstream.connections[0].ended.is_set)


async def test_large_bodies_both_ways(lane, idp):
    """N74, N83: ten megabytes up and down, as they were."""
    up, down = b"up" * 5_000_000, b"down" * 2_500_000

    async def play(conversation):
        assert conversation.request.body == up
        await conversation.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(down[:7], down[7:]))

    async with Upstream(default=play) as upstream, lane(config(idp, upstream)) as gateway:
        assert (await gateway.request("POST", "/any", token="good", body=up)).body == down


async def test_the_date_is_the_gateways_clock(lane, idp, upstream):
    """N84: added where the upstream had none."""
    async with lane(config(idp, upstream), clock=StillClock(NOW)) as gateway:
        assert (await gateway.get("/public")).header("date") == "Tue, 14 Nov 2023 22:13:20 GMT"
        upstream.will(answer(200, b"", ("Date", "Sun, 06 Nov 1994 08:49:37 GMT")))
        assert (await fetch(gateway.port, "GET", "/public")).header("date") == "Sun, 06 Nov 1994 08:49:37 GMT"
