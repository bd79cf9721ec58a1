"""A request goes through and its answer comes back."""

import json

import pytest

from tests.support.client import RawClient
from tests.support.plane import BAD, BEARER, Plane
from tests.support.upstream import Upstream, answer


async def test_a_good_token_reaches_the_upstream_with_the_subject(client: RawClient, upstream: Upstream):
    """N1, N11: the request is forwarded, its Authorization byte-identical, our identity header added."""
    got = await client.request("GET", "/api/x?y=1", BEARER)
    assert got.status == 200
    seen = json.loads(got.body)
    assert seen["target"] == "/api/x?y=1"
    fields = {name.lower(): value for name, value in seen["fields"]}
    assert fields["authorization"] == BEARER[1]
    assert fields["x-auth-subject"] == "alex"
    assert fields["host"] == "upstream.test"


async def test_no_token_is_refused_before_the_upstream(client: RawClient, upstream: Upstream):
    """N7, N8: 401 with a bare challenge, and the upstream hears nothing."""
    got = await client.request("GET", "/api")
    assert got.status == 401
    assert got.header("www-authenticate") == 'Bearer realm="test"'
    assert json.loads(got.body) == {"message": "Unauthorized"}
    assert upstream.octets == b""


async def test_keep_alive_on_both_sides(client: RawClient, plane: Plane, upstream: Upstream):
    """T5: many requests of one client use one upstream connection."""
    for number in range(20):
        got = await client.request("GET", f"/api/{number}", BEARER)
        assert got.status == 200
    assert len(upstream.connections) == 1
    line = await plane.line(19)
    assert (line.status, line.outcome, line.route) == (200, "forwarded", "/api")


async def test_an_inactive_token_is_refused(client: RawClient, upstream: Upstream):
    """N18: active:false is 401 invalid_token."""
    got = await client.request("GET", "/api", ("Authorization", f"Bearer {BAD}"))
    assert got.status == 401
    assert 'error="invalid_token"' in (got.header("www-authenticate") or "")
    assert upstream.octets == b""


async def test_a_body_with_length_passes(client: RawClient, upstream: Upstream):
    """N74: one framing upstream, the body byte-identical."""
    body = bytes(range(256)) * 1000
    got = await client.request("POST", "/api", BEARER, body=body)
    assert got.status == 200
    request = await upstream.request(0)
    assert request.body == body
    assert request.header("content-length") == str(len(body))
    assert request.header("transfer-encoding") is None


async def test_a_chunked_body_passes(client: RawClient, upstream: Upstream):
    """N53, N74: chunk extensions stay behind, the octets pass, trailers that may pass do."""
    await client.send(
        b"POST /api HTTP/1.1\r\nHost: a\r\nAuthorization: %b\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
        b"5;ext=1\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\nAuthorization: Bearer x\r\n\r\n"
        % BEARER[1].encode()
    )
    got = await client.answer()
    assert got.status == 200
    request = await upstream.request(0)
    assert request.body == b"hello!"
    assert b"ext" not in bytes(upstream.connections[0].received)
    assert request.trailers == [(b"X-Sum", b"1")]


async def test_head_has_no_body(client: RawClient, upstream: Upstream):
    """N79: the answer to HEAD ends after its head, whatever its Content-Length says."""
    upstream.will(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    got = await client.request("HEAD", "/api", BEARER)
    assert got.status == 200
    assert got.header("content-length") == "1000"
    assert (await client.request("GET", "/api", BEARER)).status == 200
    assert len(upstream.connections) == 1


@pytest.mark.parametrize("status", [204, 304])
async def test_bodiless_statuses(client: RawClient, upstream: Upstream, status: int):
    """N79: 204 and 304 have no body; the next answer is the next answer."""
    upstream.will(b"HTTP/1.1 %d X\r\nETag: a\r\n\r\n" % status)
    got = await client.request("GET", "/api", BEARER)
    assert got.status == status
    assert got.header("etag") == "a"
    assert (await client.request("GET", "/api/next", BEARER)).status == 200


async def test_an_answer_until_close_becomes_chunked(client: RawClient, upstream: Upstream):
    """N74: an HTTP/1.1 client gets a self-delimited answer and keeps its connection."""

    async def play(conversation):
        await conversation.send(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nhello")
        await conversation.close()

    upstream.will(play)
    got = await client.request("GET", "/api", BEARER)
    assert got.body == b"hello"
    assert got.header("transfer-encoding") == "chunked"
    assert (await client.request("GET", "/api", BEARER)).status == 200


async def test_a_date_is_added_when_the_upstream_has_none(client: RawClient, upstream: Upstream):
    """N84: exactly one Date."""
    got = await client.request("GET", "/api", BEARER)
    assert len(got.all("date")) == 1
    upstream.will(answer(200, b"x", ("Date", "Sun, 06 Nov 1994 08:49:37 GMT")))
    got = await client.request("GET", "/api", BEARER)
    assert got.all("date") == ["Sun, 06 Nov 1994 08:49:37 GMT"]


async def test_unknown_paths_are_404(client: RawClient, upstream: Upstream):
    """No route: 404 as JSON; the connection goes on."""
    got = await client.request("GET", "/nowhere")
    assert got.status == 404
    assert (await client.request("GET", "/public")).status == 200
