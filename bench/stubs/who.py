"""An upstream that says who it was asked by: `python -m bench.stubs.who PORT`.

Every answer is the target, X-Subject and the SHA-256 of the body that came, a line each: whatever a gateway mixes up,
its client can see. GET /-/counted says as JSON what came in all, what came without an identity or with a token that no
gateway may let through ("let_in"), and how many POSTs came more than once ("repeated"); POST /-/reset/SHARE ends so
many of all POSTs from now on with a reset after they were counted. Paths under /open/ need no identity.
"""

import asyncio
import hashlib
import json
import random
import re
import socket
import struct
import sys
from collections import Counter
from typing import cast

import uvloop

from bench.tokens import BAD

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)
_SUBJECT = re.compile(rb"\r\nx-subject: *([^\r]*)\r\n", re.IGNORECASE)
_BEARER = re.compile(rb"\r\nauthorization: *bearer +([^\r]*)\r\n", re.IGNORECASE)
_BAD = tuple(start.encode() for start in BAD)


class Book:
    """What came, over all connections."""

    def __init__(self) -> None:
        self.requests = 0
        self.let_in: Counter[str] = Counter()
        self.posts: Counter[bytes] = Counter()
        self.resets = 0.0
        self.chance = random.Random(4)

    def counted(self) -> bytes:
        """As JSON."""
        repeated = sum(count > 1 for count in self.posts.values())
        told = {"requests": self.requests, "let_in": self.let_in, "posts": len(self.posts), "repeated": repeated}
        return json.dumps(told).encode()


class Who(asyncio.Protocol):
    """One connection of the gateway's."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to answer."""
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
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        method, target, _ = head.split(b" ", 2)
        if target.startswith(b"/-/"):
            self._steer(target)
            return
        book = self._book
        book.requests += 1
        subject, bearer = _SUBJECT.search(head), _BEARER.search(head)
        if not target.startswith(b"/open/"):
            if subject is None or bearer is None:
                book.let_in["no identity"] += 1
            elif bearer[1].startswith(_BAD):
                book.let_in[bearer[1].split(b".")[0].decode()] += 1
        if method == b"POST":
            book.posts[target] += 1
            if book.resets and book.chance.random() < book.resets:
                _reset(self._transport)
                return
        self._say(b"%b\n%b\n%b" % (target, subject[1] if subject else b"", hashlib.sha256(body).hexdigest().encode()))

    def _steer(self, target: bytes) -> None:
        if target.startswith(b"/-/reset/"):
            self._book.resets = float(target.rpartition(b"/")[2])
        self._say(self._book.counted())

    def _say(self, body: bytes) -> None:
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


def _reset(transport: asyncio.Transport) -> None:
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def _serve(port: int) -> None:
    book = Book()
    server = await asyncio.get_running_loop().create_server(lambda: Who(book), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
