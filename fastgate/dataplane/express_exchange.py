"""One request under way on the express lane: from the forwarded head to an answer of known length.

There is one object per client connection, used again for every request. Whatever ends in another way than the usual one
goes on as an `Exchange`, which knows all ends: so there is one place for each of them.
"""

from functools import partial
from typing import TYPE_CHECKING, Final

from fastgate.dataplane.body import NOTHING
from fastgate.dataplane.exchange import Exchange
from fastgate.dataplane.known import Known, KnownAnswer, Passage
from fastgate.dataplane.upstream import UpstreamConnection
from fastgate.errors import ForwardError, HeadError
from fastgate.gate import Pending
from fastgate.model import AnswerHead, Field, Reply
from fastgate.policy import replies
from fastgate.stats import count

if TYPE_CHECKING:
    from fastgate.dataplane.express import ExpressLane
    from fastgate.dataplane.plane import Dataplane
    from fastgate.dataplane.server import DownstreamProtocol

_LARGE: Final = 256 * 1024
"""Octets of an answer that is left to the general lane, which has another way for large bodies."""


class ExpressExchange:
    """The request of one client connection, and the `Receiver` of its answer."""

    __slots__ = (
        *("_active", "_answer", "_began", "_connection", "_lane", "_passage", "_pending", "_plane"),
        *("_protocol", "_raw", "_received", "_sent", "_target", "_upstream_seconds"),
    )

    def __init__(self, plane: "Dataplane", protocol: "DownstreamProtocol") -> None:
        self._plane = plane
        self._protocol = protocol
        self._active = plane.stats.requests_active.cell()
        self._connection: UpstreamConnection | None = None
        self._answer: KnownAnswer | None = None
        self._pending: Pending | None = None
        """While it is seen whether others know the token."""

    def begin(
        self, lane: "ExpressLane", passage: Passage, connection: UpstreamConnection, raw: bytes, body: bytes
    ) -> None:
        """Send a request, whole: `raw` is its head as it came."""
        self._lane = lane
        self._passage = passage
        self._connection = connection
        self._raw = raw
        self._received = len(body)
        self._sent = 0
        self._answer = None
        self._began = self._plane.clock.monotonic()
        self._active[0] += 1
        self._protocol.exchange = self
        request = passage.request
        connection.begin_whole(self, request + body if body else request, self._plane.outbox)

    def glance(self, known: Known, pending: Pending, raw: bytes) -> None:
        """See whether others know the token; if not, refuse. `raw` is the whole request as it came."""
        self._raw = raw
        self._pending = pending
        self._began = self._plane.clock.monotonic()
        self._active[0] += 1
        self._protocol.exchange = self
        pending.glance(partial(self._glanced, known, pending))

    def _glanced(self, known: Known, pending: Pending, reply: Reply | None) -> None:
        protocol = self._protocol
        if self._pending is not pending:
            return  # the client left
        try:
            if reply is None or protocol.strained or self._plane.draining:
                self._step_aside()
            else:
                self._pending = None
                self._active[0] -= 1
                self.answer_ourselves(known, reply, self._began)
        except Exception as error:  # noqa: BLE001 - told and answered
            protocol.failed(self, error)

    def answer_ourselves(self, known: Known, reply: Reply, began: float | None = None) -> None:
        """Refuse by policy, now; `began`: when the request came, where that was not now."""
        plane, protocol = self._plane, self._protocol
        date = plane.date()
        if reply is not known.reply or date is not known.replied_at:
            known.replied = replies.render(reply, date=date, keep_alive=True, method=known.head.method)
            known.reply, known.replied_at = reply, date
        transport = protocol.transport
        if transport is not None:
            plane.outbox.send(transport, known.replied)
        outcome = replies.outcome(reply)
        if outcome == "refused" and reply.route:
            plane.stats.denials.add(reply.route, reply.reason)
        plane.stats.requests.add(reply.route, str(reply.status))
        if plane.record is not None:
            plane.complete(
                known.head,
                peer=protocol.peer,
                began=plane.clock.monotonic() if began is None else began,
                status=reply.status,
                outcome=outcome,
                reason=reply.reason,
                route=reply.route,
                service="",
                target="",
                upstream_seconds=None,
                received=0,
                sent=0,
            )
        protocol.rest()

    # --- the answer -----------------------------------------------------------------------------------------

    def take_answer(self, data: bytes) -> bool:
        """Take the beginning of an answer, which is all of it as a rule; False: it is for somebody else to take."""
        protocol, connection, plane = self._protocol, self._connection, self._plane
        transport = protocol.transport
        end = data.find(b"\r\n\r\n") + 4
        answer = self._lane.answer(data[:end], self._passage.known) if end >= 4 else None  # noqa: PLR2004 - the head's end
        if (
            answer is None
            or connection is None
            or transport is None
            or answer.length > _LARGE
            or answer.length < len(data) - end
            or connection.upload_stalled
            or protocol.strained
            or plane.draining
        ):
            self._step_aside()
            return False
        self._answer = answer
        self._target = connection.target
        self._upstream_seconds = plane.clock.monotonic() - self._began
        count(self._passage.tally.latency, self._upstream_seconds)
        self._sent = len(data) - end
        plane.outbox.send(transport, answer.written + data[end:] if answer.length else answer.written)
        if self._sent < answer.length:
            connection.go_on(answer.head, answer.length - self._sent)
        else:
            connection.complete()
            self.answer_end(())
        return True

    def answer_data(self, data: bytes) -> None:
        """Pass on more of the body."""
        self._sent += len(data)
        transport = self._protocol.transport
        if transport is not None:
            self._plane.outbox.flush()
            transport.write(data)

    def answer_end(self, trailers: tuple[Field, ...]) -> None:
        """The answer is complete."""
        del trailers
        answer = self._answer
        self._connection = None
        self._active[0] -= 1
        status = 0 if answer is None else answer.head.status
        self._passage.tally.count(status)
        if self._plane.record is not None:
            self._record(status)
        self._protocol.rest()

    def flush(self) -> None:
        """Nothing was held back."""

    def much_left(self) -> None:
        """Never: an answer so large was left to the general lane."""

    # --- unusual turns: the exchange of the general lane goes on ---------------------------------------------

    def answer_failed(self, error: ForwardError) -> None:
        """No complete answer will come."""
        self._step_aside().answer_failed(error)

    def answer_head(self, answer: AnswerHead) -> None:
        """Never: `take_answer` stepped aside before."""

    def interim(self, answer: AnswerHead) -> None:
        """Never: `take_answer` stepped aside before."""

    def switched(self, answer: AnswerHead, early: bytes) -> None:
        """Never: `take_answer` stepped aside before."""

    def upload_paused(self) -> None:
        """The whole request was handed over: there is nothing to hold back."""

    def upload_resumed(self) -> None:
        """There was nothing to hold back."""

    def downstream_paused(self) -> None:
        """The client is slow: stop reading the answer."""
        if self._connection is not None:
            self._connection.pause_reading()

    def downstream_resumed(self) -> None:
        """The client has caught up."""
        if self._connection is not None:
            self._connection.resume_reading()

    def downstream_lost(self) -> None:
        """The client is gone: nobody waits for the answer."""
        self._step_aside().downstream_lost()

    def client_half_closed(self) -> None:
        """A client that sends no more still gets its answer."""

    def refuse(self, error: HeadError) -> None:
        """A fault of our own."""
        self._step_aside().refuse(error)

    def _step_aside(self) -> Exchange:
        """Let an `Exchange` go on from here."""
        protocol, connection = self._protocol, self._connection
        exchange = Exchange(protocol, self._plane, protocol.heads.parse(self._raw), NOTHING)
        protocol.exchange = exchange
        self._connection = None
        pending, self._pending = self._pending, None
        if pending is not None:
            self._active[0] -= 1
            exchange.begin(pending, self._began)
        if connection is not None:
            exchange.go_on(
                self._passage.forward,
                connection,
                self._passage.request,
                began=self._began,
                received=self._received,
                answer=None if self._answer is None else self._answer.head,
                sent=self._sent,
            )
        return exchange

    def _record(self, status: int) -> None:
        route = self._passage.forward.route
        self._plane.complete(
            self._passage.known.head,
            peer=self._protocol.peer,
            began=self._began,
            status=status,
            outcome="forwarded",
            reason="",
            route=route.name,
            service=route.service.name,
            target=self._target,
            upstream_seconds=self._upstream_seconds,
            received=self._received,
            sent=self._sent,
        )
