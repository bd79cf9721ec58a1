"""deploy/haproxy.cfg and deploy/nginx.conf, run for real before two recording stand-ins for fastgates."""

import asyncio
import re
from contextlib import asynccontextmanager, suppress

import pytest

from tests.support import programs
from tests.support.balancer import haproxy
from tests.support.client import RawClient
from tests.support.process import Process, answers, free_port, scratch
from tests.support.upstream import CLOSE, Upstream, answer
from tests.support.wire import Broken

WEBSOCKET = (
    b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
ACCEPTED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


class Readiness:
    """The admin listener of a stand-in: /readyz says 200 or 503."""

    def __init__(self):
        self.ready = True
        self.asked = 0

    async def __call__(self, conversation):
        assert conversation.request.target == "/readyz"
        self.asked += 1
        await conversation.send(answer(200 if self.ready else 503, b"{}"))


class Pair:
    """Two stand-ins and the load balancer before them."""

    def __init__(self, one, two, ready, port):
        self.each = (one, two)
        self.ready = ready
        self.port = port

    async def connect(self):
        return await RawClient.connect(self.port)

    def got(self):
        """Return how many requests each was sent."""
        return [len(upstream.requests) for upstream in self.each]


def nginx(program, deploy, folder, servers):
    port = free_port()
    text = (deploy / "nginx.conf").read_text()
    text = text.replace("listen 8080 ", f"listen 127.0.0.1:{port} ").replace("/run/nginx.pid", str(folder / "pid"))
    text = re.sub(r"worker_rlimit_nofile .*|worker_connections .*", "", text)
    for number, (server, _) in enumerate(servers, 1):
        text = text.replace(f"server fastgate-{number}:8000", f"server 127.0.0.1:{server}")
    assert text.count("server 127.0.0.1:") == 2
    text = text.replace("/dev/stdout", str(folder / "access")).replace("/dev/stderr", str(folder / "error"))
    text = text.replace(
        "    server_tokens", f"    client_body_temp_path {folder}; proxy_temp_path {folder};\n    server_tokens"
    )
    file = folder / "nginx.conf"
    file.write_text(text)
    return port, Process("nginx", [program, "-c", str(file), "-p", str(folder), "-g", "daemon off; user root;"])


@asynccontextmanager
async def standing(kind, part, deploy, *, gone=False):
    """Start the stand-ins and the load balancer; with `gone` nobody listens at the first one's address."""
    program = part(lambda: programs.program(kind.__name__))
    ready = [Readiness(), Readiness()]
    async with Upstream() as one, Upstream() as two, Upstream(default=ready[0]) as a, Upstream(default=ready[1]) as b:
        first = free_port() if gone else one.port
        port, process = kind(program, deploy, scratch(kind.__name__), [(first, a.port), (two.port, b.port)])
        try:
            await asyncio.to_thread(process.wait_until, lambda: answers(port))
            yield Pair(one, two, ready, port)
        except BaseException as error:
            error.add_note(process.tail())
            raise
        finally:
            process.kill()


both = pytest.mark.parametrize("kind", [haproxy, nginx])


async def until(holds):
    """Wait until something holds."""
    deadline = asyncio.get_running_loop().time() + 30
    while not holds():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.02)


@both
async def test_where_a_request_came_from(kind, part, deploy):
    """What the client says of its way is replaced by what is so; Host, target and token pass as they are."""
    forged = (
        *(("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-Host", "evil"), ("X-Forwarded-Proto", "https")),
        *(("X-Forwarded-Port", "1"), ("Authorization", "Bearer t"), ("Cookie", "c" * 8000)),
    )
    async with standing(kind, part, deploy) as pair, await pair.connect() as client:
        got = await client.request("GET", "/a//b?c=%2F", *forged, host="api.example")
        assert got.status == 200
        (sent,) = [request for upstream in pair.each for request in upstream.requests]
        assert sent.target == "/a//b?c=%2F"
        assert sent.header("host") == "api.example"
        assert sent.header("authorization") == "Bearer t"
        assert sent.header("x-forwarded-for") == "127.0.0.1"
        assert sent.header("x-forwarded-proto") == "http"
        assert sent.header("x-forwarded-host") == "api.example"
        assert sent.header("x-forwarded-port") == str(pair.port)


@both
async def test_a_fastgate_that_refuses_connections(kind, part, deploy):
    """What could not be sent goes to the other one, whatever its method: nobody notices."""
    async with standing(kind, part, deploy, gone=True) as pair:
        for number in range(10):
            async with await pair.connect() as client:
                got = await client.request(("GET", "POST")[number % 2], "/", body=b"x" if number % 2 else None)
                assert got.status == 200
        assert pair.got() == [0, 10]


@both
async def test_a_post_that_was_sent_is_never_sent_again(kind, part, deploy):
    """The connection dies after the request was read; the client hears so, and nothing is done twice."""
    async with standing(kind, part, deploy) as pair:
        for upstream in pair.each:
            upstream.will(CLOSE)
        async with await pair.connect() as client:
            got = await client.request("POST", "/pay", body=b"100")
            assert got.status == 502
        assert sum(pair.got()) == 1


@both
async def test_a_post_on_a_kept_connection_that_dies(kind, part, deploy):
    """The same on connections that were used before: an error or a closed connection, never a second POST."""
    async with standing(kind, part, deploy) as pair, await pair.connect() as client:
        for _ in range(4):
            assert (await client.request("POST", "/pay", body=b"1")).status == 200
        for upstream in pair.each:
            upstream.will(CLOSE)
        with suppress(Broken):
            assert (await client.request("POST", "/pay", body=b"2")).status == 502
        assert sum(pair.got()) == 5


@both
async def test_connections_are_kept(kind, part, deploy):
    """A client's requests do not each open a connection to a fastgate."""
    async with standing(kind, part, deploy) as pair, await pair.connect() as client:
        for _ in range(20):
            assert (await client.request("GET", "/")).status == 200
        assert sum(pair.got()) == 20
        assert sum(len(upstream.connections) for upstream in pair.each) <= 4


@both
async def test_events_arrive_when_they_happen(kind, part, deploy):
    """Neither answers nor uploads are held back until they are complete."""
    more = asyncio.Event()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with standing(kind, part, deploy) as pair, await pair.connect() as client:
        for upstream in pair.each:
            upstream.will(head, b"7\r\ndata: 1\r\n", more, b"7\r\ndata: 2\r\n0\r\n\r\n")
        await client.send(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.answer_head()).status == 200
        async with asyncio.timeout(30):
            assert b"data: 1" in await client.reader.readuntil(b"data: 1")
        more.set()
        async with asyncio.timeout(30):
            assert b"data: 2" in await client.reader.readuntil(b"data: 2")


@both
async def test_websocket(kind, part, deploy):
    """An upgrade becomes a tunnel in both directions."""

    async def tunnel(conversation):
        assert conversation.request.header("upgrade") == "websocket"
        assert conversation.request.header("connection").lower() == "upgrade"
        await conversation.send(ACCEPTED)
        while octets := await conversation.reader.read(100):
            await conversation.send(octets.upper())

    async with standing(kind, part, deploy) as pair, await pair.connect() as client:
        for upstream in pair.each:
            upstream.will(tunnel)
        await client.send(WEBSOCKET)
        assert (await client.answer_head()).status == 101
        await client.send(b"ping")
        async with asyncio.timeout(30):
            assert await client.reader.readexactly(4) == b"PING"


async def test_a_fastgate_that_drains_gets_nothing_new(part, deploy):
    """HAProxy asks /readyz: after a 503 requests go to the other one, and what is under way is answered."""
    held = asyncio.Event()
    async with standing(haproxy, part, deploy) as pair, await pair.connect() as waiting:
        for upstream in pair.each:
            upstream.will(held, answer(200, b"late"))
        await waiting.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(lambda: sum(pair.got()) == 1)
        leaving = pair.got().index(1)
        pair.each[1 - leaving].scripts.clear()
        pair.ready[leaving].ready = False
        asked = pair.ready[leaving].asked
        await until(lambda: pair.ready[leaving].asked > asked + 3)
        for _ in range(10):
            async with await pair.connect() as client:
                assert (await client.request("GET", "/")).status == 200
        assert pair.got()[leaving] == 1
        held.set()
        assert (await waiting.answer()).body == b"late"


async def test_a_get_on_a_kept_connection_that_dies(part, deploy):
    """HAProxy repeats what is safe to repeat, on a connection of its own."""
    async with standing(haproxy, part, deploy) as pair, await pair.connect() as client:
        for _ in range(4):
            assert (await client.request("GET", "/")).status == 200
        pair.each[0].will(CLOSE)
        for _ in range(4):
            assert (await client.request("GET", "/")).status == 200


def test_their_own_checks(checked, deploy, tmp_path):
    """`haproxy -c` and `nginx -t`: nothing to say but that the names of the fastgates are not known here."""
    said = checked("haproxy", "-c", "-f", deploy / "haproxy.cfg")
    warnings = [line for line in said.splitlines() if "[WARNING]" in line]
    assert all("could not resolve address 'fastgate-" in line for line in warnings)
    text = re.sub(r"fastgate-[12]:8000", "127.0.0.1:8000", (deploy / "nginx.conf").read_text())
    file = tmp_path / "nginx.conf"
    file.write_text(text.replace("/run/nginx.pid", str(tmp_path / "pid")))
    said = checked("nginx", "-t", "-q", "-c", file)
    assert "[warn]" not in said
