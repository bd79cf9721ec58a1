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

from bench.stubs.serving import Answer, Request, serve
from bench.tokens import BAD

_SUBJECT = re.compile(rb"\r\nx-subject: *([^\r]*)\r\n", re.IGNORECASE)
_BEARER = re.compile(rb"\r\nauthorization: *bearer +([^\r]*)\r\n", re.IGNORECASE)
_BAD = tuple(start.encode() for start in BAD)


class Book:
    """What came, over all connections."""

    def __init__(self) -> None:
        self.requests = 0
        self.let_in: Counter[str] = Counter()
        self.posts: Counter[str] = Counter()
        self.resets = 0.0
        self.chance = random.Random(4)

    def counted(self) -> bytes:
        """As JSON."""
        repeated = sum(count > 1 for count in self.posts.values())
        told = {"requests": self.requests, "let_in": self.let_in, "posts": len(self.posts), "repeated": repeated}
        return json.dumps(told).encode()


class Who:
    """What it answers."""

    def __init__(self) -> None:
        self._book = Book()

    def __call__(self, request: Request) -> Answer | None:
        """Answer a request."""
        book, head, target = self._book, request.head, request.target
        if target.startswith("/-/"):
            if target.startswith("/-/reset/"):
                book.resets = float(target.rpartition("/")[2])
            return Answer(book.counted())
        book.requests += 1
        subject, bearer = _SUBJECT.search(head), _BEARER.search(head)
        if not target.startswith("/open/"):
            if subject is None or bearer is None:
                book.let_in["no identity"] += 1
            elif bearer[1].startswith(_BAD):
                book.let_in[bearer[1].split(b".")[0].decode()] += 1
        if request.method == "POST":
            book.posts[target] += 1
            if book.resets and book.chance.random() < book.resets:
                _reset(request.transport)
                return None
        hashed = hashlib.sha256(request.body).hexdigest().encode()
        return Answer(b"%b\n%b\n%b" % (target.encode(), subject[1] if subject else b"", hashed))


def _reset(transport: asyncio.Transport) -> None:
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


if __name__ == "__main__":
    serve(int(sys.argv[1]), Who())
