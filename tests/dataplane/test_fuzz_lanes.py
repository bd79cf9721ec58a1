"""Two lanes of octets, cut anywhere, well-formed or nearly so: what passes is what another reader sees in them.

The other reader is h11. Where it is laxer than we are a refusal is right; where it and we both take a message, it must
be the same message, and there must be an answer to each, in order.
"""

import asyncio
import hashlib
import random
import re
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from itertools import pairwise
from typing import Any, NamedTuple

import h11
import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.client import Answer, RawClient
from tests.support.plane import Plane
from tests.support.upstream import Conversation, Upstream, chunked
from tests.support.wire import Broken

FUZZ = settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


class Stage:
    """A gateway and its upstream, kept for all examples of a test; every example has connections of its own."""

    def __init__(self, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self.run = run
        self.upstream = Upstream()
        self.plane: Plane

    async def start(self) -> None:
        await self.upstream.start()
        self.plane = await Plane.before(self.upstream.port, read_timeout=5.0).start()

    async def stop(self) -> None:
        await self.plane.stop()
        await self.upstream.stop()

    async def quiet(self) -> None:
        """Wait until nothing of the last example is under way."""
        plane = self.plane
        await plane.until(lambda: not plane.server.connections and not plane.stats.connections.total(), "quiet")


@pytest.fixture
def stage() -> Iterator[Stage]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        made = Stage(runner.run)
        runner.run(made.start())
        yield made
        runner.run(made.stop())


def segments(octets: bytes, cuts: list[int]) -> list[bytes]:
    """Cut a stream at these places (modulo its length)."""
    places = sorted({0, len(octets), *(cut % (len(octets) + 1) for cut in cuts)})
    return [octets[begin:end] for begin, end in pairwise(places)]


async def trickle(send: Callable[[bytes], None], pieces: list[bytes]) -> None:
    """Send piece by piece, each in a segment of its own as far as the loop allows."""
    for piece in pieces:
        send(piece)
        for _ in range(3):
            await asyncio.sleep(0)


def spoiled(draw: st.DrawFn, octets: bytearray) -> bytes:
    """Now and then an octet is lost, doubled or changed."""
    if draw(st.integers(0, 9)) == 0:
        place = draw(st.integers(0, len(octets) - 1))
        odd = draw(st.sampled_from([b"", b"\r", b"\n", b" ", b"\x00", b"0", b":"]))
        octets[place : place + draw(st.integers(0, 1))] = odd
    return bytes(octets)


# --- requests ----------------------------------------------------------------------------------------------------


class Seen(NamedTuple):
    """A complete request."""

    method: str
    target: bytes
    body: bytes


def requests_in(stream: bytes) -> list[Seen]:
    """Read requests as h11 does, up to the first that it refuses, that is incomplete, or that asks to close."""
    seen: list[Seen] = []
    while stream:
        # One empty line before a request is tolerated (RFC 9112 section 2.2); h11 does not know that.
        stream = stream.removeprefix(b"\r\n")
        reader = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        reader.receive_data(stream)
        head: h11.Request | None = None
        body = b""
        while True:
            try:
                event = reader.next_event()
            except h11.RemoteProtocolError:
                return seen
            if isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                return seen
        assert head is not None
        listed = b",".join(value for name, value in head.headers if name == b"connection").lower()
        options = [option.strip() for option in listed.split(b",")]
        seen.append(Seen(head.method.decode(), bytes(head.target), body))
        if b"keep-alive" not in options if head.http_version == b"1.0" else b"close" in options:
            return seen
        stream = reader.trailing_data[0]
    return seen


SMUGGLED = b"GET /public/smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
bodies = st.sampled_from([b"", b"x", b"hello", SMUGGLED, b"0\r\n\r\n", b"\r\n", b"a" * 300])


@st.composite
def framed(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Framing fields and the octets that follow the head; usually they agree."""
    body = draw(bodies)
    kind = draw(st.sampled_from(["none", "length", "chunked"] * 4 + ["odd"]))
    if kind == "none":
        return b"", b""
    if kind == "length":
        return b"Content-Length: %d\r\n" % len(body), body
    end = draw(st.sampled_from([b"0\r\n\r\n", b"0\r\n\r\n", b"000;x=y\r\nX-T: 1\r\n\r\n", b"0\r\nHost: b\r\n\r\n"]))
    extension = draw(st.sampled_from([b"", b"", b";a=b", b'; a="b"', b";"]))
    half = draw(st.integers(0, len(body)))
    coded = b"".join(b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in (body[:half], body[half:]) if part)
    if kind == "chunked":
        return b"Transfer-Encoding: chunked\r\n", coded + end
    return draw(
        st.sampled_from(
            [
                (b"Content-Length: +%d\r\n" % len(body), body),
                (b"Content-Length: %d, %d\r\n" % (len(body), len(body)), body),
                (b"Content-Length: %d\r\nContent-Length: %d\r\n" % (len(body), len(body)), body),
                (b"Content-Length: %d\r\n" % (len(body) + 1), body),
                (b"Content-Length: 0x3\r\n", body),
                (b"Content-Length:\r\n", body),
                (b"Content-Length: 0%d\r\n" % len(body), body),
                (b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n" % len(coded + end), coded + end),
                (b"Transfer-Encoding: chunked, chunked\r\n", coded + end),
                (b"Transfer-Encoding: identity\r\n", body),
                (b"Transfer-Encoding: Chunked\r\n", coded + end),
                (b"Transfer-Encoding:\tchunked \r\n", coded + end),
                (b"Transfer-Encoding : chunked\r\n", coded + end),
                (b"Transfer-Encoding: xchunked\r\n", coded + end),
                (b"Transfer_Encoding: chunked\r\n", coded + end),
                (b"Transfer-Encoding: chunked\r\n", coded.replace(b"\r\n", b"\n") + end),
                (b"Transfer-Encoding: chunked\r\n", b"0x" + coded + end),
                (b"Transfer-Encoding: chunked\r\n", coded + b"0\r\n"),
                (b"Transfer-Encoding: chunked\r\n", coded + b"-0\r\n\r\n"),
            ]
        )
    )


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """One request, usually well-formed."""
    usual = draw(st.integers(0, 9)) > 0
    method = draw(st.sampled_from(["GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH"]))
    target = draw(st.sampled_from(["/public", "/public/x?y=%20&z", "/nowhere", "/api", "http://b/public/abs"]))
    version = draw(st.sampled_from(["1.1", "1.1", "1.1", "1.0"]))
    host = b"Host: a\r\n"
    if not usual:
        method = draw(st.sampled_from([method, "FOO", "get", "CONNECT", "G(T", ""]))
        target = draw(st.sampled_from([target, "/a b", "/#x", "//public", "b:80", "/\u00e9", ""]))
        version = draw(st.sampled_from([version, "2.0", "1.10", "1.2", "1"]))
        host = draw(st.sampled_from([host, b"", host * 2, b"Host: a b\r\n", b"HOST:a\r\n"]))
    fields = draw(
        st.lists(
            st.sampled_from(
                [
                    b"X: y\r\n",
                    b"X-Empty:\r\n",
                    b"Connection: keep-alive\r\n",
                    b"Connection: close\r\n",
                    b"Connection: x, upgrade\r\nUpgrade: h2c\r\n",
                    b"Expect: 100-continue\r\n",
                    b"Cookie: a=b\r\nCookie: c\r\n",
                ]
                if usual
                else [
                    b"X : y\r\n",
                    b" X: y\r\n",
                    b"X: y\r\n z\r\n",
                    b"X\r\n",
                    b"X: a\nY: b\r\n",
                    b"X: \x00\r\n",
                    b"\x00: y\r\n",
                ]
            ),
            max_size=2,
        )
    )
    framing, body = draw(framed())
    blank = draw(st.sampled_from([b""] * 8 + [b"\r\n", b"\n"]))
    line = f"{method} {target} HTTP/{version}\r\n".encode("latin-1")
    return blank + line + host + b"".join(fields) + framing + b"\r\n" + body


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Some requests behind one another."""
    stream = bytearray(b"".join(draw(st.lists(requests(), min_size=1, max_size=4))))
    return spoiled(draw, stream)


async def ended(reader: asyncio.StreamReader) -> bool:
    """Wait for another octet, or the end."""
    first = await reader.read(1)
    if first:
        reader._buffer[:0] = first  # type: ignore[attr-defined]
    return not first


async def answers_to(stage: Stage, expected: list[Seen], pieces: list[bytes]) -> list[Answer]:
    """Send a stream and the end of it; read answers until the gateway ends too."""
    answers: list[Answer] = []
    async with await stage.plane.client() as client, asyncio.timeout(20):
        with suppress(ConnectionError, RuntimeError):  # the gateway may have ended already
            await trickle(client.writer.write, pieces)
            client.half_close()
        while not await ended(client.reader):
            answers.append(await client.answer_head())
            if answers[-1].status >= 400 and answers[-1].header("connection") == "close":
                await client.reader.read()  # the method of what could not be read is not known
            else:
                assert len(answers) <= len(expected)
                await client.read_body(answers[-1], expected[len(answers) - 1].method)
    return answers


@FUZZ
@given(stream=streams(), cuts=st.lists(st.integers(0, 2000), max_size=6))
def check_requests(stage: Stage, stream: bytes, cuts: list[int]) -> None:
    upstream = stage.upstream
    upstream.requests.clear()
    upstream.broken.clear()
    expected = requests_in(stream)
    answers: list[Answer] = stage.run(answers_to(stage, expected, segments(stream, cuts)))
    stage.run(stage.quiet())
    whole = [each for each in upstream.requests if each.complete.is_set()]
    passed = [Seen(each.method, each.start.split(b" ")[1], each.body) for each in whole]
    for number, answer in enumerate(answers):
        closes = answer.header("connection") == "close"
        assert not closes or number == len(answers) - 1
        if answer.status == 200:
            got, want = passed.pop(0), expected[number]
            assert got.method == want.method
            assert want.target.endswith(got.target)  # an absolute target goes on in origin-form
            assert got.body == want.body
        elif not closes:
            assert number < len(expected)
    assert not passed
    if not answers or answers[-1].header("connection") != "close":
        assert len(answers) == len(expected)
    assert len(upstream.requests) <= len(answers)


def test_requests_in_any_segments(stage: Stage):
    """N36 to N62, N74: what reaches the upstream is what h11 sees too, and each request has its answer, in order."""
    check_requests(stage)


# --- answers -----------------------------------------------------------------------------------------------------


class Told(NamedTuple):
    """A complete answer."""

    hints: int
    status: int
    body: bytes


def answer_in(stream: bytes, method: str) -> tuple[Told | None, bytes]:
    """Read an answer as h11 does, and what is left over.

    None when h11 refuses it or when it is incomplete at the end of the connection.
    """
    reader = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    reader.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    reader.send(h11.EndOfMessage())
    # White space before the colon of an answer is for a proxy to remove (RFC 9112 section 5.1).
    reader.receive_data(re.sub(rb"\n([\w-]+)[ \t]+:", rb"\n\1:", stream))
    reader.receive_data(b"")
    hints, status, body = 0, 0, b""
    while True:
        try:
            event = reader.next_event()
        except h11.RemoteProtocolError:
            return None, b""
        if isinstance(event, h11.InformationalResponse):
            hints += event.status_code == 103
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return Told(hints, status, body), reader.trailing_data[0]
        else:
            return None, b""


@st.composite
def replies(draw: st.DrawFn) -> bytes:
    """One answer, usually well-formed, and what an upstream may say before and behind it."""
    before = draw(
        st.sampled_from([b""] * 4 + [b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n", b"HTTP/1.1 100 \r\n\r\n"])
    )
    status = draw(st.sampled_from([200, 200, 200, 204, 304, 404, 500]))
    version = draw(st.sampled_from([b"1.1"] * 5 + [b"1.0", b"2.0"]))
    framing, body = draw(framed())
    if status in {204, 304} and draw(st.booleans()):
        body = b""
    fields = draw(
        st.lists(
            st.sampled_from(
                [b"X: y\r\n", b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Set-Cookie: a\r\n"] * 3
                + [b"X : y\r\n", b"X: \x00\r\n", b"X: y\r\n z\r\n"]
            ),
            max_size=2,
        )
    )
    behind = draw(st.sampled_from([b""] * 4 + [b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"]))
    line = b"HTTP/%b %d Said\r\n" % (version, status)
    return spoiled(draw, bytearray(before + line + b"".join(fields) + framing + b"\r\n" + body)) + behind


async def told(stage: Stage, method: str, pieces: list[bytes], *, poisoned: bool) -> Told | None:
    """Have the upstream say these octets, and its end; returns what the client takes for complete, if anything.

    `poisoned`: octets too many may arrive in a segment of their own, when nobody can tell whose they are.
    """

    async def play(conversation: Conversation) -> None:
        await trickle(conversation.writer.write, pieces)
        await conversation.close()

    stage.upstream.will(play)
    got: Answer | None = None
    async with asyncio.timeout(20), await stage.plane.client() as client, await stage.plane.client() as other:
        await client.send(f"{method} /public HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        with suppress(Broken, ConnectionError):
            got = await client.answer(method)
            assert all(b" 100 " not in head.start for head in got.interim)
        # Whatever was said: the next answer on this connection, or on another, is to the next request.
        if got is not None and got.header("connection") != "close" and not poisoned:
            assert b"/public/next" in (await client.request("GET", "/public/next")).body
        assert poisoned or b"/public/other" in (await other.request("GET", "/public/other")).body
    return Told(len(got.interim), got.status, got.body) if got is not None else None


@FUZZ
@given(stream=replies(), method=st.sampled_from(["GET", "GET", "HEAD", "POST"]), cuts=st.lists(st.integers(0, 500)))
def check_answers(stage: Stage, stream: bytes, method: str, cuts: list[int]) -> None:
    stage.upstream.broken.clear()
    expected, rest = answer_in(stream, method)
    pieces = segments(stream, cuts)
    # h11 looks at the framing of answers that have no body, whatever their framing says.
    bodiless = method == "HEAD" or re.search(rb"HTTP/1.[01] (204|304)", stream) is not None
    rest = rest or (stream if bodiless and expected is None else b"")
    got: Told | None = stage.run(told(stage, method, pieces, poisoned=bool(rest) and len(pieces) > 1))
    stage.run(stage.quiet())
    if expected is None:
        assert got is None or got.status == 502 or (bodiless and not got.body)
    elif got is not None and got.status != 502:
        assert got == expected


def test_answers_in_any_segments(stage: Stage):
    """N79 to N82: what a client takes for complete is what h11 takes for complete; nothing else reaches anybody."""
    check_answers(stage)


# --- both at once, and large ---------------------------------------------------------------------------------------

SIZES = [0, 1, 100, 20_000, 65_535, 65_536, 65_537, 131_072, 131_073, 262_144, 300_000]


class Said(NamedTuple):
    """One exchange of a long conversation."""

    request: bytes
    digest: str
    size: int
    """Octets of the answer's body."""


def exchange(dice: random.Random, number: int) -> Said:
    """Make a request that says in which way, and how long, it wants to be answered."""
    body = bytes([number]) * dice.choice(SIZES)
    size, how = dice.choice(SIZES), dice.choice(["length", "chunked", "close"])
    head = b"POST /public/%d HTTP/1.1\r\nHost: a\r\nX-Size: %d\r\nX-How: %b\r\n" % (number, size, how.encode())
    if dice.random() < 0.5:
        request = head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    else:
        half = dice.randint(0, len(body))
        request = head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(*filter(None, (body[:half], body[half:])))
    return Said(request, hashlib.sha256(body).hexdigest(), size)


async def answer_as_asked(conversation: Conversation) -> None:
    """Answer with the digest of the request's body, and with as many octets as it asks for."""
    got = conversation.request
    size, how = int(got.header("x-size") or 0), got.header("x-how")
    if size % 2:
        await asyncio.sleep(0.01)  # slow by turns
    head = b"HTTP/1.1 200 OK\r\nX-Got: %b\r\n" % hashlib.sha256(got.body).hexdigest().encode()
    body = b"r" * size
    if how == "length":
        await conversation.send(head + b"Content-Length: %d\r\n\r\n" % size + body)
    elif how == "chunked":
        parts = filter(None, (body[: size // 3], body[size // 3 :]))
        await conversation.send(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(*parts))
    else:
        await conversation.send(head + b"\r\n" + body)
        await conversation.close()


@pytest.mark.parametrize("seed", range(3))
async def test_a_long_conversation_of_large_messages(seed: int):
    """N57, N74, U5: sizes around every buffer, both sides slow by turns, all pipelined: each octet arrives once."""
    dice = random.Random(seed)
    script = [exchange(dice, number) for number in range(40)]
    stream = b"".join(said.request for said in script)

    async def send(client: RawClient) -> None:
        place = 0
        while place < len(stream):
            step = dice.choice([1, 1000, 65_536, 300_000])
            await client.send(stream[place : place + step])
            place += step
        client.half_close()

    async with Upstream(default=answer_as_asked) as upstream, Plane.before(upstream.port) as plane:
        async with await plane.client(receive_buffer=16_384) as client, asyncio.timeout(30):
            sending = asyncio.create_task(send(client))
            for said in script:
                got = await client.answer()
                assert (got.status, got.header("x-got"), len(got.body)) == (200, said.digest, said.size)
                if dice.random() < 0.2:
                    await asyncio.sleep(0.01)
            assert await client.rest() == b""
            await sending
        assert len(upstream.requests) == len(script)
