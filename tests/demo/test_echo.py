"""The echo service over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import TestClient, TestServer

from fastgate.demo.echo import MAX_ECHO, echo_application


@pytest.fixture
async def echo() -> AsyncIterator[TestClient]:
    async with TestClient(TestServer(echo_application())) as client:
        yield client


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PROPFIND"])
async def test_anything(echo, method):
    """Method, path as sent, arguments, headers and body come back."""
    answer = await echo.request(
        method, "/anything/a%2Fb?x=1&y=2&x=3", data=b"hello", headers=[("X-A", "1"), ("X-A", "2")]
    )
    told = await answer.json()
    assert (told["method"], told["args"]) == (method, {"x": "1,3", "y": "2"})
    assert told["url"].endswith("/anything/a%2Fb?x=1&y=2&x=3")
    assert told["path"] == "/anything/a%2Fb"
    assert told["headers"]["X-A"] == "1,2"
    assert (told["length"], told["data"]) == (5, "hello")


async def test_a_big_body(echo):
    """Counted whole, repeated in part."""
    told = await (await echo.post("/anything", data=b"\xff" + b"a" * 300_000)).json()
    assert told["length"] == 300_001
    assert told["data"] == "\ufffd" + "a" * (MAX_ECHO - 1)


async def test_header_octets_that_are_not_utf8(echo):
    """Whatever came is shown."""
    reader, writer = await asyncio.open_connection(echo.host, echo.port)
    writer.write(b"GET /anything HTTP/1.1\r\nHost: a\r\nX-A: \xff\r\nConnection: close\r\n\r\n")
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert json.loads(body)["headers"]["X-A"] == "\\udcff"
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("code", [200, 204, 404, 503, 599])
async def test_a_status(echo, code):
    assert (await echo.get(f"/status/{code}")).status == code


async def test_something_that_is_no_status(echo):
    """It is a path like any other."""
    assert (await (await echo.get("/status/99")).json())["path"] == "/status/99"


async def test_a_stream(echo):
    """One line of JSON after the other, without Content-Length."""
    answer = await echo.get("/stream/3?a=b")
    assert answer.headers["Transfer-Encoding"] == "chunked"
    lines = [json.loads(line) for line in (await answer.read()).splitlines()]
    assert [line["id"] for line in lines] == [0, 1, 2]
    assert lines[0]["args"] == {"a": "b"}


async def test_events(echo):
    answer = await echo.get("/sse?count=2&interval=0")
    assert answer.content_type == "text/event-stream"
    assert await answer.text() == "id: 0\ndata: event 0\n\nid: 1\ndata: event 1\n\n"


async def test_events_without_end(echo):
    """Each arrives on its own, until the client leaves."""
    answer = await echo.get("/sse?interval=0")
    for _ in range(3):
        await answer.content.readuntil(b"\n\n")
    answer.close()


async def test_events_of_a_wrong_number(echo):
    assert (await echo.get("/sse?count=many")).status == 400
