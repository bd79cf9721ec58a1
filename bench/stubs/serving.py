"""HTTP for stubs whose own cost would be measured otherwise: whole requests in, whole answers out, nothing checked."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, cast

import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)
_HEAD = b"HTTP/1.1 %d X\r\nContent-Type: %b\r\nContent-Length: %d\r\nCache-Control: no-store\r\n\r\n"


class Request(NamedTuple):
    """A whole request."""

    method: str
    target: str
    head: bytes
    """All of it; every line ends with CRLF."""
    body: bytes
    transport: asyncio.Transport


class Answer(NamedTuple):
    """A whole answer."""

    body: bytes
    status: int = 200
    content_type: bytes = b"application/json"


Handler = Callable[[Request], Answer | Awaitable[Answer] | None]
"""None: it has answered itself, or never will."""


def as_json(said: Any) -> Answer:
    """Answer with JSON."""
    return Answer(json.dumps(said).encode())


class _Connection(asyncio.Protocol):
    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._received = b""
        self._thinking: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[: end + 2]
            length = _LENGTH.search(head)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self._received) < whole:
                return
            body, self._received = self._received[end + 4 : whole], self._received[whole:]
            method, target, _ = head.split(b" ", 2)
            said = self._handler(Request(method.decode(), target.decode(), head, body, self._transport))
            if isinstance(said, Answer):
                self._say(said)
            elif said is not None:
                task = asyncio.ensure_future(self._say_later(said))
                self._thinking.add(task)
                task.add_done_callback(self._thinking.discard)

    async def _say_later(self, answer: Awaitable[Answer]) -> None:
        self._say(await answer)

    def _say(self, answer: Answer) -> None:
        if not self._transport.is_closing():
            head = _HEAD % (answer.status, answer.content_type, len(answer.body))
            self._transport.write(head + answer.body)


def serve(port: int, handler: Handler) -> None:
    """Serve on loopback until the process is ended."""

    async def forever() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Connection(handler), "127.0.0.1", port, backlog=4096)
        await server.serve_forever()

    uvloop.run(forever())
