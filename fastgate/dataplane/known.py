"""What is known of request heads and answer heads that were seen before: all that does not change between two requests.

Nothing here is a decision: `gate` makes it anew each time. What is kept is what follows from octets alone.
"""

from typing import NamedTuple

from fastgate.dataplane.pool import Upstream
from fastgate.gate import Admission
from fastgate.model import NO_BODY, AnswerHead, BodyKind, Forward, Framing, Reply, RequestHead, Route
from fastgate.policy import forwarding
from fastgate.stats import Stats


class Tally:
    """What all requests of one route share: where they lead, and how they are counted."""

    __slots__ = ("_counts", "_requests", "_route", "latency", "upstream")

    def __init__(self, route: Route, upstream: Upstream, stats: Stats) -> None:
        self._route = route.name
        self._requests = stats.requests
        self._counts: dict[int, list[int]] = {}
        self.upstream = upstream
        self.latency = stats.upstream_seconds.row(route.service.name)
        """A row of the histogram."""

    def count(self, status: int) -> None:
        """Count an answer."""
        cell = self._counts.get(status)
        if cell is None:
            cell = self._counts[status] = self._requests.cell(self._route, str(status))
        cell[0] += 1


class Known:
    """What request heads come to whose lines that decide are the same: request line, Host, Authorization."""

    __slots__ = (
        *("_closing", "_forward", "_kept", "_opening", "_stated", "considered", "head", "hides", "origin"),
        *("replied", "replied_at", "reply", "tally"),
    )

    def __init__(self, origin: str, considered: Admission | Forward | Reply, head: RequestHead, *, hides: bool) -> None:
        self.hides = hides
        """As its layout does."""
        self.origin = origin
        self.considered = considered
        self.head = head
        """One of them; without its fields when they may be others."""
        self._forward: Forward | None = None
        self._stated = -1
        self._opening = self._closing = b""
        self._kept: tuple[bytes, ...] = ()
        """The lines that went on the time before."""
        self.tally: Tally | None = None
        """Of its route, once one was forwarded."""
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
        before, self._kept = self._kept, kept
        return b"".join((self._opening, *kept, self._closing)), before == kept


class Passage(NamedTuple):
    """One whole head, and what is forwarded for it."""

    known: Known
    considered: Admission | Forward | Reply
    """Here too, and more: what every request needs lies close together."""
    origin: str
    length: int
    """Octets of the body."""
    forward: Forward
    request: bytes
    """What is written for this decision."""
    tally: Tally


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
