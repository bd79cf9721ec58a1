"""The test parts themselves: a recorder that records wrongly would make every other test worthless."""

import asyncio

import pytest

from tests.support.client import RawClient, fetch
from tests.support.upstream import BODY, RESET, Upstream, answer, chunked, early
from tests.support.wire import Broken


async def test_upstream_echoes_and_records_every_octet():
    async with Upstream() as upstream:
        async with await RawClient.connect(upstream.port) as client:
            sent = b"POST /a?b HTTP/1.1\r\nHost: h\r\nX-A:  b \r\nContent-Length: 3\r\n\r\nabc"
            await client.send(sent)
            got = await client.answer()
        assert got.status == 200
        assert b'"body": "abc"' in got.body
        assert upstream.connections[0].received == sent
        assert upstream.requests[0].all("x-a") == ["b"]


async def test_script_with_interim_answer_event_and_pipelining():
    go = asyncio.Event()
    async with Upstream() as upstream, await RawClient.connect(upstream.port) as client:
        upstream.will(b"HTTP/1.1 100 Continue\r\n\r\n", BODY, answer(201, b"xy"))
        upstream.will(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            go,
            chunked(b"a", b"bc", trailers=b"T: 1\r\n"),
        )
        await client.send(b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        head = await client.head()
        assert head.start == b"HTTP/1.1 100 Continue"
        await client.send(b"2\r\nhi\r\n0\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await client.answer()).body == b"xy"
        assert (await upstream.request(0)).body == b"hi"
        second = await client.answer_head()
        go.set()
        await client.read_body(second)
        assert (second.body, second.message.trailers) == (b"abc", [(b"T", b"1")])
        assert upstream.requests[1].target == "/2"


async def test_half_an_answer_is_seen_as_broken():
    async with Upstream() as upstream, await RawClient.connect(upstream.port) as client:
        upstream.will(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", RESET)
        await client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        with pytest.raises((Broken, ConnectionError)):
            await client.answer()


async def test_play_before_the_body_was_read():
    @early
    async def play(conversation):
        await conversation.send(answer(413, b""))
        await conversation.close()

    async with Upstream() as upstream, await RawClient.connect(upstream.port) as client:
        upstream.will(play)
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99\r\n\r\n")
        assert (await client.answer()).status == 413
        assert await client.ended()


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : h\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nabc",
        b"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n",
    ],
)
async def test_upstream_does_not_forgive_broken_requests(sent):
    upstream = await Upstream().start()
    async with await RawClient.connect(upstream.port) as client:
        await client.send(sent)
        client.half_close()
        await upstream.until(lambda: bool(upstream.broken))
    await upstream.stop()
    assert isinstance(upstream.broken[0], Broken)


async def test_upstream_comes_back_on_its_port():
    upstream = await Upstream().start()
    assert (await fetch(upstream.port, "GET", "/")).status == 200
    upstream.drop()
    with pytest.raises(ConnectionError):
        await fetch(upstream.port, "GET", "/")
    await upstream.start()
    assert (await fetch(upstream.port, "GET", "/")).status == 200
    await upstream.stop()
