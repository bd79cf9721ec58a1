"""An upstream that says what it was asked, and by whom: `python -m bench.stubs.witness PORT`.

Every answer is `SUBJECT METHOD TARGET CRC32` of the request: the header X-Subject, and the body's check sum. Asked
directly, GET /--/bad says how many requests came for a target under /bad/, which none must, and GET /--/doubled how
many came a second time.
"""

import asyncio
import re
import sys
from contextlib import suppress
from typing import ClassVar, cast
from zlib import crc32

import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)
_SUBJECT = re.compile(rb"\r\nx-subject: *([^\r]*)\r\n", re.IGNORECASE)
OURS = b"/--/"
BAD = b"/bad/"


class Witness(asyncio.Protocol):
    """One connection of a gateway."""

    seen: ClassVar[set[bytes]] = set()
    counts: ClassVar[dict[bytes, int]] = {b"bad": 0, b"doubled": 0}

    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer every request that is whole."""
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[: end + 2]
            length = _LENGTH.search(head)
            whole = end + 4 + (int(length[1]) if length is not None else 0)
            if len(self._received) < whole:
                return
            body, self._received = self._received[end + 4 : whole], self._received[whole:]
            said = self._said(head, body)
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said))

    def _said(self, head: bytes, body: bytes) -> bytes:
        method, target, _ = head.split(b" ", 2)
        if target.startswith(OURS):
            return b"%d" % self.counts[target.removeprefix(OURS)]
        self.counts[b"bad"] += target.startswith(BAD)
        if method == b"POST":
            self.counts[b"doubled"] += target in self.seen
            self.seen.add(target)
        subject = _SUBJECT.search(head)
        return b"%s %s %s %d" % (subject[1] if subject is not None else b"-", method, target, crc32(body))


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Witness, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        uvloop.run(_serve(int(sys.argv[1])))
