"""The express lane: usual requests, decided and passed on inside the callback that brought them.

It takes a request that is complete in the octets that just arrived on a resting connection, that leaves the connection
open, and for which nothing has to be waited for: what is to be known of its token is known, and a connection to its
upstream rests. Everything else is the general lane's (`server`, `exchange`): when in doubt this one steps aside.

What a head comes to is remembered by its octets, or by those of its lines that decide where only others differ
(`layout`). Both lanes read heads by the same parser, decide by the same gate and write by the same functions.
"""

from typing import TYPE_CHECKING, Final, NamedTuple

from fastgate.dataplane import layout
from fastgate.dataplane.answer import parse_answer_head
from fastgate.dataplane.known import Known, KnownAnswer, Repeated, Tally
from fastgate.dataplane.layout import Layout
from fastgate.dataplane.memo import LONGEST, Memo
from fastgate.errors import ForwardError, HeadError
from fastgate.gate import Admission, Pending
from fastgate.model import BodyKind, Forward, Reply, RequestHead, Route, Snapshot, TokenSource
from fastgate.policy import forwarding

if TYPE_CHECKING:
    from fastgate.dataplane.plane import Dataplane
    from fastgate.dataplane.server import DownstreamProtocol

_LONGEST: Final = 4096
"""Octets of a head that is taken."""
_HEADS: Final = 4096
_REFUSED: Final = 256
"""Of their own: refused requests never push out what is known of others."""
_GISTS: Final = 4096
_ANSWERS: Final = 1024
_LAYOUTS: Final = 64
_BURST: Final = 32.0
"""Layouts that may be learned at once; then one a second, for it takes a millisecond."""
_CHUNKED: Final = BodyKind.CHUNKED
_LENGTH: Final = BodyKind.LENGTH
_FINAL: Final = 200
_IN_QUERY: Final = TokenSource.QUERY
_HEADER_ONLY: Final = frozenset({TokenSource.HEADER})


class _Read(NamedTuple):
    """A head, read: what it comes to, and what is its own."""

    known: Known
    stated: int
    """Content-Length; -1 without one."""
    kept: tuple[bytes, ...] | None
    """The lines that go on; None when the head has no layout, and is written from all its fields."""
    gist: tuple[bytes, ...] | None
    """Under which `known` is to be kept, if it is new and has a layout."""


class ExpressLane:
    """What all connections of a worker share: everything that is known of heads."""

    def __init__(self, plane: "Dataplane") -> None:
        self._plane = plane
        self._gate = plane.gate
        limits = plane.limits
        # No line and no section can be too long in a head this short.
        self._longest = min(_LONGEST, limits.request_line, limits.header_field, limits.header_section)
        self._heads: Memo[bytes, Repeated] = Memo(_HEADS)
        self._gists: Memo[tuple[bytes, ...], Known] = Memo(_GISTS)
        self._refused: Memo[tuple[bytes, ...], Known] = Memo(_REFUSED)
        self._answers: Memo[bytes, KnownAnswer] = Memo(_ANSWERS)
        self._layouts: Memo[tuple[bytes, ...], Layout] = Memo(_LAYOUTS)
        self._tallies: dict[Route, Tally] = {}
        self._credit = _BURST
        self._credited_at = plane.clock.monotonic()
        self._snapshot: Snapshot | None = None
        self._wanted: frozenset[bytes] = frozenset()
        """Fields by which the snapshot's routes are chosen."""

    def take(self, protocol: "DownstreamProtocol", data: bytes) -> Forward | Reply | Pending | bool:
        """Take the request that just arrived: True. False: it was not looked at.

        What was decided already comes back instead when the general lane has to go on with it.
        """
        end = data.find(b"\r\n\r\n") + 4
        raw = data if end == len(data) else data[:end]
        repeated = self._heads.young.get(raw) or self._heads.get(raw)
        if (
            repeated is not None
            and repeated.known.snapshot is self._gate.snapshot
            and repeated.known.origin == protocol.origin
        ):
            known, length, read = repeated.known, repeated.length, None
        else:
            read = self._read(protocol, raw)
            if read is None:
                return False
            known, length, repeated = read.known, max(0, read.stated), None
        considered = known.considered
        decision: Forward | Reply | Pending = (
            self._gate.again(considered) or Pending(self._gate, considered)
            if isinstance(considered, Admission)
            else considered
        )
        if read is not None and read.gist is not None:
            self._keep(read.gist, known, decision)
        if len(data) - end != length or isinstance(decision, Pending):
            return decision
        if isinstance(decision, Reply):
            protocol.express_exchange().answer_ourselves(known, decision)
            return True
        request = repeated.request if repeated is not None and repeated.forward is decision else None
        if request is None:
            request = self._write(protocol, raw, read, decision)
        tally = known.tally
        if tally is None:
            tally = known.tally = self._tally(decision.route)
        connection = tally.upstream.take() if request is not None else None
        if request is None or connection is None:
            return decision
        body = data[end:] if length else b""
        protocol.express_exchange().begin(self, known, decision, tally, connection, raw, request, body)
        return True

    def _tally(self, route: Route) -> Tally:
        tally = self._tallies.get(route)
        if tally is None:
            tally = self._tallies[route] = Tally(route, self._plane.upstreams.of(route.service), self._plane.stats)
        return tally

    def _write(self, protocol: "DownstreamProtocol", raw: bytes, read: _Read | None, forward: Forward) -> bytes | None:
        """Write the forwarded head; one that is written a second time is remembered whole."""
        if read is None:
            read = self._read(protocol, raw)  # it was known for another decision
            if read is None:
                return None
        known, stated, kept, _ = read
        if kept is None:
            head, again = known.head, True
            request = forwarding.upstream_request(head, forward, forward.forwarding, head.framing)
        else:
            request, again = known.write(forward, kept, stated)
        if again and len(raw) <= LONGEST:
            self._heads.put(raw, Repeated(known, max(0, stated), forward, request))
        return request

    def _keep(self, gist: tuple[bytes, ...], known: Known, decision: Forward | Reply | Pending) -> None:
        if isinstance(decision, Forward):
            self._gists.put(gist, known)
        elif isinstance(decision, Reply):
            self._refused.put(gist, known)

    # --- reading request heads ------------------------------------------------------------------------------

    def _read(self, protocol: "DownstreamProtocol", raw: bytes) -> _Read | None:
        """Read a head; None when it is not one for this lane."""
        if not 4 < len(raw) <= self._longest:  # noqa: PLR2004 - an empty line, or none
            return None
        snapshot = self._gate.snapshot
        if snapshot is not self._snapshot:
            self._turn_to(snapshot)
        shape = protocol.layout
        if shape is not None and shape.snapshot is snapshot:
            match = shape.pattern.fullmatch(raw)
            if match is not None:
                groups = match.groups()
                gist = shape.gist(groups)
                known = self._gists.get(gist) or self._refused.get(gist)
                if known is not None and known.origin == protocol.origin:
                    return _Read(known, shape.stated(groups), shape.lines(groups), None)
        return self._read_anew(protocol, snapshot, raw)

    def _turn_to(self, snapshot: Snapshot) -> None:
        """Forget what depends on the snapshot that was in force before."""
        self._snapshot = snapshot
        self._wanted = frozenset(name for route in snapshot.routes for name, _ in route.match.headers)
        self._layouts.clear()
        self._gists.clear()
        self._refused.clear()
        self._heads.clear()
        self._tallies.clear()

    def _read_anew(self, protocol: "DownstreamProtocol", snapshot: Snapshot, raw: bytes) -> _Read | None:
        try:
            head = protocol.heads.parse(raw)
        except HeadError:
            return None
        considered = self._gate.consider(head) if _is_usual(head, raw) else None
        if considered is None or isinstance(considered, Pending):
            return None
        if isinstance(considered, Admission) and considered.token.source is _IN_QUERY:
            return None  # its answer must be marked as private
        groups = self._grouped(protocol, snapshot, raw, head, considered)
        shape = protocol.layout
        if groups is None or shape is None:
            known = Known(snapshot, protocol.origin, considered, head)
            return _Read(known, head.framing.length if head.framing.kind is _LENGTH else -1, None, None)
        # Fields that may differ in the next head decide nothing: they need not be kept.
        slim = head._replace(fields=())
        if isinstance(considered, Admission):
            considered.head = slim
        known = Known(snapshot, protocol.origin, considered, slim)
        return _Read(known, shape.stated(groups), shape.lines(groups), shape.gist(groups))

    def _grouped(
        self,
        protocol: "DownstreamProtocol",
        snapshot: Snapshot,
        raw: bytes,
        head: RequestHead,
        considered: Admission | Forward | Reply,
    ) -> tuple[bytes, ...] | None:
        """Find or learn the layout of a head, and what it makes of it; None: it has none."""
        access = considered.access if isinstance(considered, Admission) else None
        if isinstance(considered, Reply) or (access is not None and access.extraction.sources != _HEADER_ONLY):
            return None  # tokens may stand in lines that the gist does not hold
        names = tuple([spelled for _, spelled, _ in head.fields])
        shape = self._layouts.get(names)
        if shape is None:
            shape = layout.learn(raw, head.fields, snapshot, self._wanted) if self._may_learn() else None
            if shape is None:
                return None
            self._layouts.put(names, shape)
        match = shape.pattern.fullmatch(raw)
        if match is None or (shape.said and forwarding.is_trusted(snapshot.settings.forwarding.trusted, head.peer)):
            return None
        protocol.layout = shape
        return match.groups()

    def _may_learn(self) -> bool:
        now = self._plane.clock.monotonic()
        self._credit = min(_BURST, self._credit + now - self._credited_at)
        self._credited_at = now
        if self._credit < 1.0:
            return False
        self._credit -= 1.0
        return True

    # --- reading answer heads -------------------------------------------------------------------------------

    def answer(self, raw: bytes, head: RequestHead) -> KnownAnswer | None:
        """Read an answer's head; None when it is malformed, or not one for this lane."""
        date = self._plane.date
        known = self._answers.get(raw)
        if known is not None and (known.dated is None or known.dated is date()):
            return known
        try:
            answer = parse_answer_head(raw, head.method)
        except ForwardError:
            return None
        if not answer.keep_alive or answer.status < _FINAL or answer.framing.kind is _CHUNKED:
            return None
        today = date()
        written = forwarding.answer_head(answer, head, answer.framing, keep_alive=True, date=today, private=False)
        known = KnownAnswer(answer, written, today if b"\r\nDate: %b\r\n" % today in written else None)
        if len(raw) <= LONGEST:
            self._answers.put(raw, known)
        return known


def _is_usual(head: RequestHead, raw: bytes) -> bool:
    """Tell whether this lane takes requests with such a head."""
    return (
        head.keep_alive
        and not head.http_1_0
        and not head.expects_continue
        and head.upgrade is None
        and head.framing.kind is not _CHUNKED
        and head.method != "HEAD"
        and raw.startswith(b"/", len(head.method) + 1)
    )
