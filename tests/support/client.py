"""A client that sends exact octets and reads answers strictly: it shows what a browser would hide."""

import asyncio
import re
import socket
import ssl
import struct
from contextlib import suppress
from types import TracebackType
from typing import Self

from tests.support.wire import Broken, Message, framing_of, parse_head, read_chunked, read_head, read_length

PATIENCE = 30.0
"""Seconds before a read that nothing answers is called a failure: generous, never an expectation."""

_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) ([\t\x20-\x7e\x80-\xff]*)")


class Answer:
    """One final answer and the informational ones before it."""

    def __init__(self, message: Message, interim: list[Message]) -> None:
        match = _STATUS_LINE.fullmatch(message.start)
        if match is None:
            raise Broken(f"bad status line {message.start!r}", message.raw_head)
        self.message = message
        self.interim = interim
        self.status = int(match[1])
        self.reason = match[2].decode("latin-1")
        self.until_close = False
        """The end of the connection was the end of the body."""

    @property
    def body(self) -> bytes:
        return self.message.body

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
        return self.message.fields

    def all(self, name: str) -> list[str]:
        """Every value of this header."""
        return self.message.all(name)

    def header(self, name: str) -> str | None:
        """Return the value of a header that may occur once at most."""
        return self.message.one(name)

    def __repr__(self) -> str:
        return f"<Answer {self.message.raw_head!r} {self.message.body[:200]!r}>"


class RawClient:
    r"""One connection to a server.

    async with await RawClient.connect(port) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = await client.answer()
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(
        cls,
        port: int,
        host: str = "127.0.0.1",
        *,
        tls: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
        receive_buffer: int | None = None,
    ) -> Self:
        """Connect; a small `receive_buffer` (octets) makes a reader that applies back-pressure early."""
        sock = socket.socket()
        sock.setblocking(False)  # noqa: FBT003 - the socket module's own signature
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            await asyncio.get_running_loop().sock_connect(sock, (host, port))
        except BaseException:
            sock.close()
            raise
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        limit = 1 << 20 if receive_buffer is None else 64 * 1024
        if tls is None:
            return cls(*await asyncio.open_connection(sock=sock, limit=limit))
        return cls(
            *await asyncio.open_connection(sock=sock, limit=limit, ssl=tls, server_hostname=server_hostname or host)
        )

    async def send(self, data: bytes) -> None:
        """Send exactly these octets."""
        self.writer.write(data)
        async with asyncio.timeout(PATIENCE):
            await self.writer.drain()

    async def request(
        self,
        method: str,
        target: str,
        *fields: tuple[str, str],
        body: bytes | None = None,
        host: str = "gateway.test",
    ) -> Answer:
        """Send one well-formed request (Content-Length when there is a body) and read its answer."""
        lines = [
            f"{method} {target} HTTP/1.1",
            f"Host: {host}",
            *(f"{name}: {value}" for name, value in fields),
        ]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        await self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b""))
        return await self.answer(method)

    async def head(self) -> Message:
        """Read one head, informational or final; the end of the connection instead of it raises Broken."""
        async with asyncio.timeout(PATIENCE):
            raw = await read_head(self.reader)
        if raw is None:
            raise Broken("closed instead of answering", b"")
        return parse_head(raw)

    async def answer_head(self) -> Answer:
        """Read up to the head of the final answer (or a 101); its body is still to come."""
        interim: list[Message] = []
        while True:
            answer = Answer(await self.head(), interim)
            if answer.status >= 200 or answer.status == 101:
                return answer
            interim.append(answer.message)

    async def read_body(self, answer: Answer, method: str = "GET") -> None:
        """Read the body by RFC 9112 section 6.3 into `answer.message`; raises Broken when it is cut short."""
        framing = framing_of(answer.message)
        if method == "HEAD" or answer.status in {101, 204, 304} or (method == "CONNECT" and answer.status == 200):
            return
        async with asyncio.timeout(PATIENCE):
            if framing == "chunked":
                await read_chunked(self.reader, answer.message)
            elif isinstance(framing, int):
                await read_length(self.reader, answer.message, framing)
            else:
                answer.until_close = True
                answer.message.body = answer.message.raw_body = await self.reader.read()

    async def answer(self, method: str = "GET") -> Answer:
        """Read one whole answer to a request of this method."""
        answer = await self.answer_head()
        await self.read_body(answer, method)
        return answer

    async def read_exactly(self, count: int) -> bytes:
        """Read `count` octets, for tunnels."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.readexactly(count)

    async def rest(self) -> bytes:
        """Everything until the server ends the connection."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read()

    async def ended(self) -> bool:
        """Wait for the server to say something or end; True when it ended (cleanly or with a reset)."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await self.reader.read(1) == b""
        except ConnectionError:
            return True

    def half_close(self) -> None:
        """Say that nothing more will be sent (FIN); answers can still be read."""
        self.writer.write_eof()

    def abort(self) -> None:
        """Leave with a reset (RST)."""
        reset(self.writer)

    async def close(self) -> None:
        """Leave politely."""
        self.writer.close()
        with suppress(ConnectionError, ssl.SSLError, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self.writer.wait_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST instead of FIN."""
    sock = writer.get_extra_info("socket")
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def fetch(
    port: int,
    method: str,
    target: str,
    *fields: tuple[str, str],
    body: bytes | None = None,
    host: str = "gateway.test",
) -> Answer:
    """One request on a connection of its own."""
    async with await RawClient.connect(port) as client:
        return await client.request(method, target, *fields, ("Connection", "close"), body=body, host=host)
