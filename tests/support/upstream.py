r"""An upstream that records every octet it is sent and answers exactly what a test tells it to.

    async with Upstream() as upstream:                 # echo: answers with what it received, as JSON
        upstream.will(b"HTTP/1.1 204 No Content\r\n\r\n")   # the next request gets these octets
        upstream.will(half, event, rest)               # octets, then wait for the event, then more octets
        upstream.will(half, RESET)                     # half an answer, then RST (or CLOSE: FIN)
        upstream.will(interim_100, BODY, final)        # answer before the body was read
        upstream.will(play)                            # `async def play(conversation)`: anything else
        ...
        got = await upstream.request(0)                # waits for the first request (head and body)
        assert upstream.connections[0].received == b"..."

A request that breaks RFC 9112 (h11 is asked too) or ends early is put into `upstream.broken`, which is
raised at the end of the `async with` unless the test took it out: the gateway must never send such a thing.
"""

import asyncio
import hashlib
import json
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import Enum
from types import TracebackType
from typing import Self

import h11

from tests.support.client import PATIENCE, reset
from tests.support.wire import (
    Broken,
    Message,
    framing_of,
    parse_head,
    read_blocks,
    read_chunked,
    read_head,
    read_length,
)


class Act(Enum):
    """Steps of a script that are no octets."""

    BODY = "read the request's body now; a script without it starts when the whole request was read"
    CLOSE = "end the connection with FIN"
    RESET = "end the connection with RST"


BODY, CLOSE, RESET = Act.BODY, Act.CLOSE, Act.RESET

Play = Callable[["Conversation"], Awaitable[None]]
Step = bytes | Act | asyncio.Event | Play


class Received(Message):
    """A request as it arrived."""

    __slots__ = ("complete", "connection")

    connection: "Conversation"
    complete: asyncio.Event
    """Set when the body was read to its end."""

    @property
    def method(self) -> str:
        return self.start.split(b" ", 1)[0].decode()

    @property
    def target(self) -> str:
        return self.start.split(b" ")[1].decode("latin-1")

    def header(self, name: str) -> str | None:
        """Return the value of a header that may occur once at most."""
        return self.one(name)


class _Tap(asyncio.StreamReader):
    """A reader that also writes down every octet it was fed."""

    def __init__(self, limit: int, record: bytearray | None) -> None:
        super().__init__(limit=limit)
        self.record = record

    def feed_data(self, data: bytes) -> None:
        if self.record is not None:
            self.record.extend(data)
        super().feed_data(data)


class Conversation:
    """One accepted connection."""

    def __init__(self, upstream: "Upstream", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.upstream = upstream
        self.reader = reader
        self.writer = writer
        self.received = reader.record if isinstance(reader, _Tap) and reader.record is not None else bytearray()
        """Every octet that came in, as it came."""
        self.requests: list[Received] = []
        self.ended = asyncio.Event()
        """Set when this connection is over, whoever ended it."""

    @property
    def request(self) -> Received:
        """The request being answered."""
        return self.requests[-1]

    async def send(self, data: bytes) -> None:
        """Send octets to the gateway."""
        self.writer.write(data)
        await self.writer.drain()

    async def read_body(self) -> bytes:
        """Read the body of the request being answered, once."""
        got = self.request
        if got.complete.is_set():
            return got.body
        framing = framing_of(got)
        if framing == "chunked":
            await read_chunked(self.reader, got)
        elif isinstance(framing, int) and self.upstream.keep_bodies:
            await read_length(self.reader, got, framing)
        elif isinstance(framing, int):
            digest = hashlib.sha256()
            async for block in read_blocks(self.reader, framing):
                digest.update(block)
            got.body = digest.hexdigest().encode()
        got.complete.set()
        return got.body

    def abort(self) -> None:
        """End with RST."""
        reset(self.writer)

    async def close(self) -> None:
        """End with FIN."""
        self.writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await self.writer.wait_closed()

    async def _next(self) -> Received | None:
        raw = await read_head(self.reader)
        if raw is None:
            return None
        head = parse_head(raw)
        got = Received(head.start, head.fields, head.raw_head)
        got.connection = self
        got.complete = asyncio.Event()
        self.requests.append(got)
        _ask_h11(raw)
        return got

    async def _serve(self) -> None:
        while (got := await self._next()) is not None:
            steps: tuple[Step, ...] = (
                self.upstream.scripts.popleft() if self.upstream.scripts else (self.upstream.default,)
            )
            self.upstream.requests.append(got)
            self.upstream.arrived()
            if BODY not in steps and not getattr(steps[0], "early", False):
                await self.read_body()
                self.upstream.arrived()
            for step in steps:
                await self._take(step)
                if self.writer.is_closing():
                    return
            await self.read_body()
            self.upstream.arrived()

    async def _take(self, step: Step) -> None:
        if isinstance(step, bytes):
            await self.send(step)
        elif isinstance(step, asyncio.Event):
            await step.wait()
        elif step is BODY:
            await self.read_body()
            self.upstream.arrived()
        elif step is CLOSE:
            await self.close()
        elif step is RESET:
            self.abort()
        elif callable(step):
            await step(self)

    async def run(self) -> None:
        """Serve this connection to its end; what breaks goes to `upstream.broken`."""
        try:
            await self._serve()
        except Broken as broken:
            self.upstream.broken.append(broken)
        except (ConnectionError, asyncio.CancelledError):
            pass
        except BaseException as error:  # noqa: BLE001 - raised again where the test can see it
            self.upstream.broken.append(error)
        finally:
            self.ended.set()
            self.upstream.arrived()
            self.writer.close()
            with suppress(ConnectionError, ssl.SSLError, asyncio.CancelledError):
                await self.writer.wait_closed()


def early(play: Play) -> Play:
    """Mark a play that wants to act before the request's body was read."""
    play.early = True  # type: ignore[attr-defined]
    return play


async def echo(conversation: Conversation) -> None:
    """Answer 200 with what was received as JSON: method, target, fields, body (64 KiB), size, digest."""
    got = conversation.request
    keep = conversation.upstream.keep_bodies or framing_of(got) == "chunked"
    body = json.dumps(
        {
            "method": got.method,
            "target": got.target,
            "fields": [[name.decode(), value.decode("latin-1")] for name, value in got.fields],
            "body": got.body[:65536].decode("latin-1"),
            "length": len(got.body) if keep else None,
            "sha256": hashlib.sha256(got.body).hexdigest() if keep else got.body.decode(),
        }
    ).encode()
    await conversation.send(answer(200, body, ("Content-Type", "application/json"), method=got.method))


async def silence(conversation: Conversation) -> None:
    """Say nothing more until the gateway ends the connection."""
    await conversation.reader.read()


def answer(status: int, body: bytes = b"", *fields: tuple[str, str], method: str = "GET") -> bytes:
    """Build a well-formed answer with Content-Length (none for 1xx and 204); a HEAD gets the head only."""
    lines = [f"HTTP/1.1 {status} Said so", *(f"{name}: {value}" for name, value in fields)]
    if status >= 200 and status != 204:
        lines.append(f"Content-Length: {len(body)}")
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    return head if method == "HEAD" or status in {204, 304} else head + body


def chunked(*chunks: bytes, trailers: bytes = b"") -> bytes:
    """Build a chunked body."""
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n" + trailers + b"\r\n"


def _ask_h11(raw: bytes) -> None:
    oracle = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    oracle.receive_data(raw)
    try:
        oracle.next_event()
    except h11.RemoteProtocolError as error:
        raise Broken(f"h11 refuses the head: {error}", raw) from None


class Upstream:
    """The recording upstream; `async with` starts and stops it."""

    def __init__(
        self, *, keep_bodies: bool = True, tls: ssl.SSLContext | None = None, default: Play | None = None
    ) -> None:
        """`keep_bodies=False`: bodies with a length are hashed, not kept (`body` is the SHA-256 in hex).

        `default` answers what has no script; `echo` unless given.
        """
        self.default = default or echo
        self.keep_bodies = keep_bodies
        self.tls = tls
        self.port = 0
        self.scripts: deque[tuple[Step, ...]] = deque()
        self.requests: list[Received] = []
        """Every request in the order of arrival, over all connections."""
        self.connections: list[Conversation] = []
        self.broken: list[BaseException] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._bell = asyncio.Event()

    @property
    def octets(self) -> bytes:
        """Everything that came in, over all connections."""
        return b"".join(bytes(each.received) for each in self.connections)

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def will(self, *steps: Step) -> None:
        """Script the answer to the next request that has none yet; without a script requests are echoed."""
        self.scripts.append(steps)

    def arrived(self) -> None:
        """Wake everybody who waits for something to happen here."""
        self._bell.set()
        self._bell = asyncio.Event()

    async def until(self, condition: Callable[[], bool], what: str = "the upstream's state") -> None:
        """Wait until something recorded here makes the condition true."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not condition():
                    await self._bell.wait()
        except TimeoutError:
            raise AssertionError(f"waited {PATIENCE} s for {what}; broken: {self.broken}") from None

    async def request(self, index: int = 0) -> Received:
        """Return the request at this index, once its head and whole body have arrived."""
        await self.until(
            lambda: len(self.requests) > index and self.requests[index].complete.is_set(), f"request {index}"
        )
        return self.requests[index]

    async def head(self, index: int = 0) -> Received:
        """Return the request at this index as soon as its head has arrived."""
        await self.until(lambda: len(self.requests) > index, f"the head of request {index}")
        return self.requests[index]

    async def start(self, port: int = 0) -> Self:
        """Listen; the port of an earlier start can be given to come back on it."""
        loop = asyncio.get_running_loop()

        def accept() -> asyncio.StreamReaderProtocol:
            reader = _Tap(1 << 20, bytearray() if self.keep_bodies else None)
            return asyncio.StreamReaderProtocol(reader, self._accepted, loop=loop)

        self._server = await loop.create_server(accept, "127.0.0.1", port or self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversation = Conversation(self, reader, writer)
        self.connections.append(conversation)
        self.arrived()
        task = asyncio.ensure_future(conversation.run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def drop(self) -> None:
        """Stop listening and reset every connection: the upstream process died."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for conversation in self.connections:
            if not conversation.ended.is_set():
                conversation.abort()

    async def stop(self) -> None:
        """Stop listening, end every connection and wait for them."""
        if self._server is not None:
            self._server.close()
            self._server = None
        while ending := list(self._tasks):
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)
            # From Python 3.12 on it returns at once when all were done: their callbacks have not run then.
            self._tasks.difference_update(ending)
        # A conversation that ends before it began has closed nothing.
        for conversation in self.connections:
            conversation.writer.transport.abort()
        await asyncio.sleep(0)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
        if self.broken and error is None:
            raise ExceptionGroup("the upstream received broken requests", [_as_exception(e) for e in self.broken])


def _as_exception(error: BaseException) -> Exception:
    return error if isinstance(error, Exception) else RuntimeError(repr(error))
