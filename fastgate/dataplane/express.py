"""The express lane: usual requests, decided and passed on inside the callback that brought them.

It takes a request that is complete in the octets that just arrived on a resting connection, that leaves the connection
open, and for which nothing has to be waited for: what is to be known of its token is known, and a connection to its
upstream rests; or nobody is asked about its token now, as in a flood of invented ones. Everything else is the general
lane's (`server`, `exchange`): when in doubt this one steps aside.

What a head comes to is remembered by its octets, or by those of its lines that decide where only others differ
(`layout`); of one that differs in its token, too, only that is read. Both lanes read heads by the same parser, decide
by the same gate and write by the same functions.
"""

from typing import TYPE_CHECKING, Final

from fastgate.dataplane import layout
from fastgate.dataplane.answer import parse_answer_head
from fastgate.dataplane.known import Known, KnownAnswer, Passage, Tally
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
_HEADS: Final = 8192
_REFUSED: Final = 256
"""Of their own: refused requests never push out what is known of others."""
_GISTS: Final = 12_500
"""As many clients at once, and up to twice as many, are served without reading their heads anew; 1 KiB each."""
_ALIKE: Final = 1024
"""Kinds of heads of which only the token is read where that is new: in a flood of invented tokens they all are."""
_ANSWERS: Final = 1024
_LAYOUTS: Final = 64
_BURST: Final = 32.0
"""Layouts that may be learned at once; then one a second, for it takes a millisecond."""
_CHUNKED: Final = BodyKind.CHUNKED
_LENGTH: Final = BodyKind.LENGTH
_FINAL: Final = 200
_IN_QUERY: Final = TokenSource.QUERY
_HEADER_ONLY: Final = frozenset({TokenSource.HEADER})


_Read = tuple[Known, Admission | Forward | Reply, tuple[bytes, ...] | None, int, tuple[bytes, ...] | None]
"""A head, read: what it comes to, but for its token, where it is like one that was read before; what its token makes of
it; the lines that go on (None: it has no layout, and is written from all its fields); its Content-Length (-1 without
one); under which gist it is to be kept, if it is new and has a layout."""


class ExpressLane:
    """What all connections of a worker share: everything that is known of heads."""

    def __init__(self, plane: "Dataplane") -> None:
        self._plane = plane
        self._gate = plane.gate
        limits = plane.limits
        # No line and no section can be too long in a head this short.
        self._longest = min(_LONGEST, limits.request_line, limits.header_field, limits.header_section)
        self._heads: Memo[bytes, Passage] = Memo(_HEADS)
        self._gists: Memo[tuple[bytes, ...], Known] = Memo(_GISTS)
        self._refused: Memo[tuple[bytes, ...], Known] = Memo(_REFUSED)
        self._alike: Memo[tuple[object, ...], tuple[Known, Admission]] = Memo(_ALIKE)
        """The last new head of each origin, layout, request line and Host that a token decides about."""
        self._answers: Memo[bytes, KnownAnswer] = Memo(_ANSWERS)
        self._layouts: Memo[tuple[object, ...], Layout] = Memo(_LAYOUTS)
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
        if self._gate.snapshot is not self._snapshot:
            self._turn_to(self._gate.snapshot)
        passage = None if protocol.varies else self._heads.young.get(raw) or self._heads.get(raw)
        if passage is None or passage.origin is not protocol.origin:
            return self._take_read(protocol, raw, data[end:], None)
        decision = self._decide(passage.considered)
        if decision is not passage.forward or len(data) - end != passage.length:
            return self._take_read(protocol, raw, data[end:], decision)
        # As in `_pass_on`: on the way of most requests a call counts.
        connection = passage.tally.upstream.take()
        if connection is None:
            return passage.forward
        protocol.express_exchange().begin(self, passage, connection, raw, data[end:])
        return True

    def _decide(self, considered: Admission | Forward | Reply) -> Forward | Reply | Pending:
        if isinstance(considered, Admission):
            return self._gate.again(considered) or Pending(self._gate, considered)
        return considered

    def _pass_on(self, protocol: "DownstreamProtocol", passage: Passage, raw: bytes, body: bytes) -> Forward | bool:
        """Forward a request, if a connection to its upstream rests."""
        connection = passage.tally.upstream.take()
        if connection is None:
            return passage.forward
        protocol.express_exchange().begin(self, passage, connection, raw, body)
        return True

    def _take_read(
        self, protocol: "DownstreamProtocol", raw: bytes, rest: bytes, decision: Forward | Reply | Pending | None
    ) -> Forward | Reply | Pending | bool:
        """Take a request whose head has to be read; `decision` was made already, perhaps."""
        read = self._read(protocol, raw)
        if read is None:
            return decision or False
        known, considered, kept, stated, gist = read
        if decision is None:
            decision = self._decide(considered)
        if gist is not None:
            known = self._keep(gist, known, considered, decision)
        if len(rest) != max(0, stated):
            return decision
        if not isinstance(decision, Forward):
            return self._refuse(protocol, known, decision, raw, rest)
        if kept is None:
            head, again = known.head, True
            request = forwarding.upstream_request(head, decision, decision.forwarding, head.framing)
        else:
            request, again = known.write(decision, kept, stated)
            protocol.varies = not again
        tally = known.tally
        if tally is None:
            tally = known.tally = self._tally(decision.route)
        passage = Passage(known, known.considered, protocol.origin, len(rest), decision, request, tally)
        if again and len(raw) <= LONGEST:
            # Remembered whole only if it repeats: heads that differ each time would push out those that do.
            self._heads.put(raw, passage)
        return self._pass_on(protocol, passage, raw, rest)

    def _refuse(
        self, protocol: "DownstreamProtocol", known: Known, decision: Reply | Pending, raw: bytes, rest: bytes
    ) -> Pending | bool:
        """Refuse a request, perhaps after a glance at what others know of its token."""
        if isinstance(decision, Reply):
            protocol.express_exchange().answer_ourselves(known, decision)
            return True
        if rest or not decision.hopeless():
            return decision
        protocol.express_exchange().glance(known, decision, raw)
        return True

    def _keep(
        self,
        gist: tuple[bytes, ...],
        known: Known,
        considered: Admission | Forward | Reply,
        decision: Forward | Reply | Pending,
    ) -> Known:
        """Keep what a new head comes to, and return it; not where nobody was asked: the next answer may be another."""
        forwards = isinstance(decision, Forward)
        if not forwards and not (isinstance(considered, Admission) and decision is considered.answer):
            return known
        if considered is not known.considered:
            known = Known(known.origin, considered, known.head, hides=known.hides)
        (self._gists if forwards else self._refused).put(gist, known)
        return known

    def _tally(self, route: Route) -> Tally:
        tally = self._tallies.get(route)
        if tally is None:
            tally = self._tallies[route] = Tally(route, self._plane.upstreams.of(route.service), self._plane.stats)
        return tally

    # --- reading request heads ------------------------------------------------------------------------------

    def _read(self, protocol: "DownstreamProtocol", raw: bytes) -> _Read | None:
        """Read a head; None when it is not one for this lane."""
        if not 4 < len(raw) <= self._longest:  # noqa: PLR2004 - an empty line, or none
            return None
        shape = protocol.layout
        if shape is not None and shape.snapshot is self._snapshot:
            match = shape.pattern.fullmatch(raw)
            if match is not None:
                groups = match.groups()
                gist = shape.gist(groups)
                known = self._gists.get(gist) or self._refused.get(gist)
                if known is not None and known.origin is protocol.origin and known.hides is shape.hides:
                    return known, known.considered, shape.lines(groups), shape.stated(groups), None
                alike = self._alike.get((protocol.origin, shape, *gist[:2]))
                if alike is not None:
                    known, admission = alike
                    considered = self._gate.consider_like(admission, gist[2])
                    return known, considered, shape.lines(groups), shape.stated(groups), gist
        return self._read_anew(protocol, self._gate.snapshot, raw)

    def _turn_to(self, snapshot: Snapshot) -> None:
        """Forget what depends on the snapshot that was in force before."""
        self._snapshot = snapshot
        self._wanted = frozenset(name for route in snapshot.routes for name, _ in route.match.headers)
        self._layouts.clear()
        self._gists.clear()
        self._refused.clear()
        self._alike.clear()
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
            known = Known(protocol.origin, considered, head, hides=False)
            stated = head.framing.length if head.framing.kind is _LENGTH else -1
            return known, considered, None, stated, None
        # Fields that may differ in the next head decide nothing: they need not be kept.
        slim = head._replace(fields=())
        known, gist = Known(protocol.origin, considered, slim, hides=shape.hides), shape.gist(groups)
        if isinstance(considered, Admission):
            considered.head = slim
            self._alike.put((protocol.origin, shape, *gist[:2]), (known, considered))
        return known, considered, shape.lines(groups), shape.stated(groups), gist

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
        hides = access is not None and access.hide_credentials
        names = (hides, *(spelled for _, spelled, _ in head.fields))
        shape = self._layouts.get(names)
        if shape is None:
            shape = layout.learn(raw, head.fields, snapshot, self._wanted, hides=hides) if self._may_learn() else None
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

    def answer(self, raw: bytes, known: Known) -> KnownAnswer | None:
        """Read an answer's head; None when it is malformed, or not one for this lane."""
        date = self._plane.date
        before = self._answers.young.get(raw) or self._answers.get(raw)
        if before is not None and (before.dated is None or before.dated is date()):
            return before
        head = known.head
        try:
            answer = parse_answer_head(raw, head.method)
        except ForwardError:
            return None
        if not answer.keep_alive or answer.status < _FINAL or answer.framing.kind is _CHUNKED:
            return None
        today = date()
        written = forwarding.answer_head(answer, head, answer.framing, keep_alive=True, date=today, private=False)
        found = KnownAnswer(answer, written, today if b"\r\nDate: %b\r\n" % today in written else None)
        if len(raw) <= LONGEST:
            self._answers.put(raw, found)
        return found


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
