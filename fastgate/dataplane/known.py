"""What is known of request heads and answer heads that were seen before: all that does not change between two requests.

Nothing here is a decision: `gate` makes it anew each time. What is kept is what follows from octets alone.
"""

from fastgate.dataplane.pool import Upstream
from fastgate.gate import Admission
from fastgate.model import NO_BODY, AnswerHead, BodyKind, Forward, Framing, Reply, RequestHead, Snapshot
from fastgate.policy import forwarding
from fastgate.stats import Stats


class Gist:
    """What heads have in common whose request line, Host and Authorization are the same (see `layout`)."""

    __slots__ = ("_closing", "_forward", "_opening", "_stated", "considered", "head", "origin")

    def __init__(self, origin: str, considered: Admission | Forward, head: RequestHead) -> None:
        self.origin = origin
        self.considered = considered
        self.head = head
        """One of them."""
        self._opening = self._closing = b""
        self._forward: Forward | None = None
        self._stated = -1

    def write(self, forward: Forward, kept: tuple[bytes, ...], stated: int) -> bytes:
        """Write the head of the forwarded request, as `forwarding.upstream_request` would.

        `kept` are the client's lines that go on, `stated` is its Content-Length, -1 without one.
        """
        if forward is not self._forward or stated != self._stated:
            framing = Framing(BodyKind.LENGTH, stated) if stated >= 0 else NO_BODY
            self._opening = forwarding.opening(self.head, forward)
            self._closing = forwarding.closing(self.head, forward, forward.forwarding, framing)
            self._forward, self._stated = forward, stated
        return b"".join((self._opening, *kept, self._closing))


class Known:
    """One request head."""

    __slots__ = (
        *(
            "_forward",
            "_gist",
            "_kept",
            "_latency",
            "_request",
            "_stated",
            "considered",
            "counts",
            "head",
            "length",
            "origin",
        ),
        *("replied", "replied_at", "reply", "snapshot", "upstream"),
    )

    def __init__(
        self,
        snapshot: Snapshot,
        origin: str,
        considered: Admission | Forward | Reply,
        head: RequestHead,
        *,
        stated: int,
        gist: Gist | None = None,
        kept: tuple[bytes, ...] = (),
    ) -> None:
        """`head` is its own, or with a gist that of a sibling. `stated` is its Content-Length, -1 without one."""
        self.snapshot = snapshot
        self.origin = origin
        self.considered = considered
        self.head = head
        self.length = max(0, stated)
        """Octets of the body."""
        self._stated = stated
        self._gist = gist
        self._kept = kept
        self._forward: Forward | None = None
        self._request = b""
        self._latency: list[float] | None = None
        self.upstream: Upstream | None = None
        """Of its route, once it was forwarded."""
        self.counts: dict[int, list[int]] = {}
        """Counters of this route's requests by status, once used."""
        self.reply: Reply | None = None
        """The last refusal; what was written (`replied`) for this Date (`replied_at`)."""
        self.replied = self.replied_at = b""

    def request(self, forward: Forward) -> bytes:
        """Write the head of the forwarded request; the same one as long as the decision is the same."""
        if forward is not self._forward:
            self._forward = forward
            if self._gist is None:
                self._request = forwarding.upstream_request(self.head, forward, forward.forwarding, self.head.framing)
            else:
                self._request = self._gist.write(forward, self._kept, self._stated)
        return self._request

    def latency(self, stats: Stats, forward: Forward) -> list[float]:
        """Find the histogram of its upstream's latency."""
        if self._latency is None:
            self._latency = stats.upstream_seconds.row(forward.route.service.name)
        return self._latency


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
