"""What is known of request heads and answer heads that were seen before: all that does not change between two requests.

Nothing here is a decision: `gate` makes it anew each time. What is kept is what follows from octets alone.
"""

from typing import NamedTuple

from fastgate.dataplane.pool import Upstream
from fastgate.gate import Admission
from fastgate.model import NO_BODY, AnswerHead, BodyKind, Forward, Framing, Reply, RequestHead, Snapshot
from fastgate.policy import forwarding
from fastgate.stats import Stats


class Known:
    """What request heads come to whose lines that decide are the same: request line, Host, Authorization."""

    __slots__ = (
        *("_closing", "_forward", "_kept", "_latency", "_opening", "_request", "_stated", "considered", "counts"),
        *("head", "origin", "replied", "replied_at", "reply", "snapshot", "upstream"),
    )

    def __init__(
        self, snapshot: Snapshot, origin: str, considered: Admission | Forward | Reply, head: RequestHead
    ) -> None:
        self.snapshot = snapshot
        self.origin = origin
        self.considered = considered
        self.head = head
        """One of them."""
        self._forward: Forward | None = None
        self._stated = -1
        self._opening = self._closing = self._request = b""
        self._kept: tuple[bytes, ...] = ()
        self._latency: list[float] | None = None
        self.upstream: Upstream | None = None
        """Of their route, once one was forwarded."""
        self.counts: dict[int, list[int]] = {}
        """Counters of this route's requests by status, once used."""
        self.reply: Reply | None = None
        """The last refusal; what was written (`replied`) for this Date (`replied_at`)."""
        self.replied = self.replied_at = b""

    def write(self, forward: Forward, kept: tuple[bytes, ...], stated: int) -> tuple[bytes, bool]:
        """Write the head of a forwarded request as `forwarding.upstream_request` would; True: as the time before.

        `kept` are the client's lines that go on, `stated` is its Content-Length, -1 without one.
        """
        if forward is not self._forward or stated != self._stated:
            framing = Framing(BodyKind.LENGTH, stated) if stated >= 0 else NO_BODY
            self._opening = forwarding.opening(self.head, forward)
            self._closing = forwarding.closing(self.head, forward, forward.forwarding, framing)
            self._forward, self._stated = forward, stated
        elif kept == self._kept:
            return self._request, True
        self._kept = kept
        self._request = b"".join((self._opening, *kept, self._closing))
        return self._request, False

    def latency(self, stats: Stats, forward: Forward) -> list[float]:
        """Find the histogram of its upstream's latency."""
        if self._latency is None:
            self._latency = stats.upstream_seconds.row(forward.route.service.name)
        return self._latency


class Repeated(NamedTuple):
    """A whole head that was seen again."""

    known: Known
    length: int
    """Octets of the body."""
    forward: Forward
    request: bytes
    """What was written for this decision."""


class KnownAnswer:
    """One answer head: of a kept connection, with a length, to a client that keeps its own."""

    __slots__ = ("dated", "head", "length", "written")

    def __init__(self, head: AnswerHead, written: bytes, dated: bytes | None) -> None:
        self.head = head
        self.length = head.framing.length
        """Octets of the body."""
        self.written = written
        """As it goes to the client."""
        self.dated = dated
        """The Date that we added, None where the upstream said it."""
