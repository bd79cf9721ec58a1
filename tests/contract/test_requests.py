"""What is no request: refused with its status, parted from where the framing is in doubt, and never forwarded."""

import asyncio

import pytest

from tests.contract.parts import config
from tests.support.client import RawClient
from tests.support.upstream import Upstream, answer, echo

OK = b"GET /public HTTP/1.1\r\nHost: a\r\n\r\n"
LINE = b"GET /public HTTP/1.1\r\n"
POST = b"POST /public HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

REFUSED = [
    # the Host field, N36
    (LINE + b"\r\n", {400}),
    (LINE + b"Host: a\r\nHost: a\r\n\r\n", {400}),
    (LINE + b"Host: a\r\nhost: b\r\n\r\n", {400}),
    (b"GET /public HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", {400}),
    *(
        (LINE + b"Host: " + host + b"\r\n\r\n", {400})
        for host in (
            b"a b",
            b"a/b",
            b"u@a",
            b"a,b",
            b"a:99999",
            b"a:b",
            b"a\x01",
            b"[::1",
            b"a?b",
            b"",
            b"a#b",
            b"\xe9",
        )
    ),
    # white space where none belongs (N37 to N39)
    (LINE + b"Host : a\r\n\r\n", {400}),
    (LINE + b"Host\t: a\r\n\r\n", {400}),
    (LINE + b"Host: a\r\nX: 1\r\n folded\r\n\r\n", {400}),
    (LINE + b"Host: a\r\nX: 1\r\n\tfolded\r\n\r\n", {400}),
    (LINE + b" Host: a\r\n\r\n", {400}),
    (b" " + OK, {400}),
    # CR, LF, NUL and other controls (N40 to N42)
    (LINE + b"Host: a\rX: b\r\n\r\n", {400}),
    (LINE + b"Host: a\r\nX: a\rb\r\n\r\n", {400}),
    (LINE + b"Host: a\r\nX: a\x00b\r\n\r\n", {400}),
    (LINE + b"Host: a\r\nX: a\x0bb\r\n\r\n", {400}),
    (LINE + b"Host: a\r\nX: a\x7fb\r\n\r\n", {400}),
    (LINE + b"Host: a\r\nX: a\nY: b\r\n\r\n", {400}),
    (b"GET /public HTTP/1.1\nHost: a\n\n", {400}),
    (b"GET /public HTTP/1.1\r\nHost: a\n\r\n", {400}),
    # field names (N43)
    (LINE + b"Host: a\r\n: x\r\n\r\n", {400}),
    (LINE + b"Host: a\r\nX\r\n\r\n", {400}),
    (LINE + b"Host: a\r\nX(: x\r\n\r\n", {400}),
    (LINE + b"Host: a\r\nX\xe9: x\r\n\r\n", {400}),
    # the request line (N44, N47, N48)
    (b"GET  /public HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    (b"GET /public  HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    (b"GET /public HTTP/1.1 \r\nHost: a\r\n\r\n", {400}),
    (b"GET\t/public HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    (b"GET /public\r\n\r\n", {400}),
    (b"GET /public HTTP/0.9\r\nHost: a\r\n\r\n", {400, 505}),
    (b"GET /public HTTP/2.0\r\nHost: a\r\n\r\n", {400, 505}),
    (b"GET /public HTTP/1.9\r\nHost: a\r\n\r\n", {400, 505}),
    (b"GET /public HTTP/1.10\r\nHost: a\r\n\r\n", {400}),
    (b"GET /public http/1.1\r\nHost: a\r\n\r\n", {400}),
    (b"G(T /public HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 505}),
    (b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", {400, 405, 501}),
    (b"TRACE /public HTTP/1.1\r\nHost: a\r\n\r\n", {405, 501}),
    (b"GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    (b"GET public HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    (b"GET ftp://a/public HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    (b"GET http:///public HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    (b"GET http://u@a/public HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    (b"GET /public#x HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    (b"GET /public\\x HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    (b"GET /public x HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    (b"GET /public\xe9 HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    # how large things may be, N45
    (b"GET /public?" + b"x" * 17_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", {414}),
    (LINE + b"Host: a\r\nX: " + b"x" * 17_000 + b"\r\n\r\n", {431}),
    (LINE + b"Host: a\r\n" + b"X: x\r\n" * 200 + b"\r\n", {431}),
    (LINE + b"Host: a\r\n" + (b"X: " + b"x" * 8000 + b"\r\n") * 12, {431}),
    # framing (N49 to N52)
    (b"POST /public HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {400}),
    *(
        (POST + b"Transfer-Encoding: " + coding + b"\r\n\r\n0\r\n\r\n", {400, 501})
        for coding in (b"chunked, chunked", b"chunked, gzip", b"gzip", b"identity", b"xchunked", b"chunked;a=b", b"")
    ),
    (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {400}),
    (POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", {400}),
    (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", {400}),
    (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {400}),
    *(
        (POST + b"Content-Length: " + length + b"\r\n\r\nabc", {400})
        for length in (b"+3", b"-3", b"0x3", b"3_0", b"3 3", b"3, 3", b"3,4", b"\xb3", b"", b"3.0", b"9" * 40)
    ),
    (POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", {400}),
    (POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", {400}),
    (POST + b"Expect: 200-ok\r\nContent-Length: 3\r\n\r\nabc", {417}),
]
"""Octets, and the statuses that are right for them."""

BROKEN_BODIES = [
    b"-1\r\n",
    b"+3\r\nabc\r\n0\r\n\r\n",
    b"0x3\r\nabc\r\n0\r\n\r\n",
    b"\r\nabc\r\n0\r\n\r\n",
    b"3 \r\nabc\r\n0\r\n\r\n",
    b"3\nabc\r\n0\r\n\r\n",
    b"3\r\nabcXX0\r\n\r\n",
    b"3\r\nabc\n0\r\n\r\n",
    b"fffffffffffffffff\r\nabc\r\n",
    b"3;" + b"x" * 5000 + b"\r\nabc\r\n0\r\n\r\n",
    b"1;" + b";x" * 2000 + b"\r\na\r\n" + (b"1;" + b"x" * 4000 + b"\r\na\r\n") * 5,
    b"3;a\rb\r\nabc\r\n0\r\n\r\n",
    b"0\r\nX : y\r\n\r\n",
    b"0\r\n folded: y\r\n\r\n",
    b"0\r\n" + b"X: y\r\n" * 100 + b"\r\n",
    b"0\r\nX: " + b"y" * 5000 + b"\r\n\r\n",
]
"""Chunked bodies that are none (N53, N54)."""


async def test_malformed_requests(lane, idp, upstream):
    """N36 to N52, N56, N59, N77: the status arrives, then the connection ends; nothing behind it is a request."""
    wrong = []
    async with lane(config(idp, upstream)) as gateway:
        for octets, statuses in REFUSED:
            async with await gateway.connect() as client:
                await client.send(octets + OK)
                got = await client.answer()
                ended = got.header("connection") == "close" and await client.ended()
                if got.status not in statuses or not ended or got.header("cache-control") != "no-store":
                    wrong.append((octets[:120], got))
    assert wrong == []
    assert upstream.connections == []


async def test_malformed_bodies(lane, idp, upstream):
    """N53, N54, N55: 400 and the end; no upstream ever takes what came for a whole request."""
    wrong = []
    async with lane(config(idp, upstream)) as gateway:
        for octets in BROKEN_BODIES:
            async with await gateway.connect() as client:
                await client.send(CHUNKED + octets + OK)
                got = await client.answer()
                if got.status != 400 or not await client.ended():
                    wrong.append((octets[:60], got))
        await upstream.until(lambda: all(each.ended.is_set() for each in upstream.connections))
    assert wrong == []
    assert [got.target for got in upstream.requests if got.complete.is_set()] == []
    upstream.broken.clear()


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 10\r\n\r\n12345", b"Transfer-Encoding: chunked\r\n\r\n5\r\n12345"]
)
@pytest.mark.parametrize("leaves", ["half", "reset"])
async def test_a_body_that_ends_early(lane, idp, upstream, framing, leaves):
    """N55: the upstream sees its connection break, not a complete request."""
    async with lane(config(idp, upstream)) as gateway, await gateway.connect() as client:
        await client.send(POST + framing)
        got = await upstream.head()
        if leaves == "half":
            client.half_close()
            assert (await client.answer()).status == 400
        else:
            client.abort()
        await upstream.until(got.connection.ended.is_set)
        assert not got.complete.is_set()
        upstream.broken.clear()


async def test_what_is_a_request_all_the_same(lane, idp, upstream):
    """N36, N43, N44, N45, N49, N52, N53, N60, N75: odd and in order, each forwarded as exactly one request."""
    good = [
        (b"\r\n" + OK, b""),
        (LINE + b"hOST:\t a \t\r\n\r\n", b""),
        (LINE + b"Host: [::1]:80\r\n\r\n", b""),
        (b"GET /public HTTP/1.0\r\n\r\n", b""),
        (b"GET /public?" + b"x" * 8100 + b" HTTP/1.1\r\nHost: a\r\n\r\n", b""),
        (LINE + b"Host: a\r\nX:\r\nY: \xe9\r\n!#$%&'*+.^`|~: x\r\n\r\n", b""),
        (POST + b"Content-Length: 0003\r\n\r\nabc", b"abc"),
        (POST + b'Transfer-Encoding: Chunked\r\n\r\n003;a="b"\r\nabc\r\n0;last\r\n\r\n', b"abc"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n00\r\nX: y\r\n\r\n", b"0123456789"),
        (b"DELETE /public HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
        (b"GET /public HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
        (b"HEAD /public HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", b"a"),
        (b"GET /public HTTP/1.0\r\nExpect: 100-continue\r\n\r\n", b""),
    ]
    async with lane(config(idp, upstream)) as gateway:
        for number, (octets, body) in enumerate(good):
            async with await gateway.connect() as client:
                await client.send(octets)
                got = await client.answer(octets.split()[0].decode())
                assert got.status == 200, octets[:80]
            assert len(upstream.requests) == number + 1
            assert upstream.requests[number].body == body
            # However it came, exactly one framing goes on.
            fields = [upstream.requests[number].header(name) for name in ("content-length", "transfer-encoding")]
            assert None in fields


async def test_octets_one_by_one(lane, idp, upstream):
    """N62: nothing is acted on before a head is complete, and nothing depends on how TCP cuts the octets."""
    async with lane(config(idp, upstream)) as gateway, await gateway.connect() as client:
        octets = CHUNKED + b"3\r\nabc\r\n0\r\n\r\n"
        for octet in octets[: octets.index(b"\r\n\r\n") + 3]:
            await client.send(bytes([octet]))
        assert upstream.connections == []
        for octet in octets[octets.index(b"\r\n\r\n") + 3 :]:
            await client.send(bytes([octet]))
        assert (await client.answer()).status == 200
    assert [got.body for got in upstream.requests] == [b"abc"]


async def test_pipelines(lane, idp, upstream):
    """N56, N57, N58, N61: answers in the order of the requests, to a client that said FIN, up to the `close`."""
    held = asyncio.Event()
    upstream.will(held, answer(200, b"slow"))
    async with lane(config(idp, upstream)) as gateway, await gateway.connect() as client:
        refused = b"POST /api HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"
        last = b"GET /public/last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        await client.send(OK + refused + b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n" + last + OK + b"junk\r\n\r\n")
        client.half_close()
        await upstream.head()
        held.set()
        assert [(await client.answer()).status for _ in range(4)] == [200, 401, 404, 200]
        assert await client.rest() == b""
    assert [got.target for got in upstream.requests] == ["/public", "/public/last"]


async def test_one_clients_mistake_is_nobody_elses(lane, idp):
    """N56, N57: connections that are broken in the middle leave the ones beside them alone."""
    async with Upstream(default=echo) as upstream, lane(config(idp, upstream)) as gateway:

        async def good(number):
            async with await gateway.connect() as client:
                for count in range(10):
                    body = f"{number}-{count}".encode()
                    got = await client.request("POST", "/public", body=body)
                    assert got.status == 200
                    assert b'"body": "%b"' % body in got.body

        async def bad(number):
            octets, _ = REFUSED[number]
            client = await RawClient.connect(gateway.port)
            await client.send(OK + octets)
            if number % 2:
                client.abort()
            else:
                assert (await client.answer()).status == 200
                assert (await client.answer()).status >= 400
                await client.close()

        await asyncio.gather(*map(good, range(10)), *map(bad, range(20)))
        upstream.broken.clear()
