"""One request and its answer: the way from an admitted head to the last octet, or to the reason it ended early.

The exchange is the receiver of the upstream's answer and relays it from callbacks. Nothing is awaited on the usual way:
tasks are made for an unknown token, for a new connection, and for a body.
"""

import asyncio
import socket
import struct
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestPayloadError

from fastgate.dataplane.framing import chunk, last_chunk
from fastgate.dataplane.plane import Dataplane
from fastgate.dataplane.upstream import UpstreamConnection
from fastgate.errors import ForwardError, HeadError, Side, Stage
from fastgate.gate import Pending
from fastgate.model import (
    NO_BODY,
    AnswerHead,
    BodyKind,
    Field,
    Forward,
    Framing,
    Reply,
    RequestHead,
    TokenSource,
)
from fastgate.policy import forwarding, replies

if TYPE_CHECKING:
    from fastgate.dataplane.server import DownstreamProtocol

UNREAD: Final = RequestHead("", b"", "", None, False, "", (), NO_BODY, False, None, False, "", "", 0)  # noqa: FBT003
"""Stands for the head of a request that could not be read."""
_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
# An Enum's attribute costs fifteen times a global's in Python 3.11, and these are read on every request.
_CHUNKED: Final = BodyKind.CHUNKED
_LENGTH: Final = BodyKind.LENGTH
_UNTIL_CLOSE: Final = BodyKind.UNTIL_CLOSE
_IN_QUERY: Final = TokenSource.QUERY
_MAX_FORM: Final = 64 * 1024
_BIG: Final = 32 * 1024
"""Above this a chunk is written in three pieces rather than copied into one."""
_DAY: Final = 86_400.0
"""Seconds."""
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER on, zero seconds: closing sends RST."""


class BodyStalledError(RequestPayloadError):
    """The client stopped sending its body."""


class Exchange:
    """A request under way."""

    __slots__ = (
        "_active",
        "_answer",
        "_began",
        "_chunked",
        "_connection",
        "_corked",
        "_ended",
        "_expiry",
        "_form",
        "_forward",
        "_forwarded_at",
        "_framing",
        "_gone",
        "_half_closed",
        "_head",
        "_keep_alive",
        "_payload",
        "_plane",
        "_protocol",
        "_received",
        "_request",
        "_reused",
        "_room",
        "_sent",
        "_target",
        "_task",
        "_tunnel",
        "_upload",
        "_upstream_seconds",
    )

    def __init__(
        self,
        protocol: "DownstreamProtocol",
        plane: Dataplane,
        head: RequestHead,
        payload: StreamReader,
    ) -> None:
        self._payload = payload
        self._protocol = protocol
        self._plane = plane
        self._head = head
        self._began = plane.clock.monotonic()  # the loop's clock has milliseconds
        self._forward: Forward | None = None
        self._framing = NO_BODY
        self._request = b""
        self._reused = False
        self._forwarded_at = 0.0
        self._upstream_seconds: float | None = None
        self._target = ""
        self._connection: UpstreamConnection | None = None
        self._answer: AnswerHead | None = None
        self._task: asyncio.Task[None] | None = None
        """What is being waited for, besides the upload."""
        self._upload: asyncio.Task[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._form: bytes | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._corked: list[bytes] | None = None
        """What waits to be written together with what came along."""
        self._keep_alive = False
        self._chunked = False
        self._tunnel = False
        self._half_closed = False
        self._gone = False
        self._ended = False
        self._active = False
        self._received = 0
        self._sent = 0

    # --- the way of the request ------------------------------------------------------------------------------

    def begin(self, decision: Forward | Reply | Pending | None = None) -> None:
        """Decide, unless that was done; answer or forward at once. Only what has to be waited for becomes a task."""
        self._plane.stats.requests_active.add()
        self._active = True
        if decision is None:
            decision = self._plane.gate.admit(self._head)
        if isinstance(decision, Pending):
            self._task = self._go_on_in_task(self._settle, decision)
        else:
            self._decided(decision)

    def go_on(
        self,
        forward: Forward,
        connection: UpstreamConnection,
        request: bytes,
        *,
        began: float,
        received: int,
        answer: AnswerHead | None,
        sent: int,
    ) -> None:
        """Go on from where the express lane came to: the request is sent, and of its answer `sent` octets are."""
        self._active = True
        self._began = self._forwarded_at = began
        self._forward = forward
        self._framing = self._head.framing
        self._request = request
        self._received = received
        self._answer = answer
        self._sent = sent
        self._keep_alive = answer is not None
        self._connection = connection
        self._target = connection.target
        self._reused = connection.reused
        connection.hand_over(self)

    def refuse(self, error: HeadError) -> None:
        """Answer a head that cannot be served, or a fault of our own; no other request may follow."""
        late, self._ended = self._ended or self._answer is not None, True
        self._release(whole=False)
        self._plane.stats.heads_refused.add(str(error.status))
        reply = replies.head_refused(error)
        if late:
            # Too late for an answer: what was begun is cut.
            self._cut()
        else:
            self._write(self._render(reply, keep_alive=False, method="GET"))
        self._complete(reply.status, "refused", reply.reason)

    def _go_on_in_task(self, step: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> asyncio.Task[None]:
        """Go on where something has to be waited for; a fault there is a fault of this request."""

        async def guarded() -> None:
            try:
                await step(*arguments)
            except Exception as error:  # noqa: BLE001 - told and answered
                self._protocol.failed(self, error)

        return self._plane.loop.create_task(guarded())

    async def _settle(self, pending: Pending) -> None:
        decision = await (self._settle_with_form(pending, self._head) if pending.wants_form else pending.settle())
        self._task = None
        self._decided(decision)

    async def _settle_with_form(self, pending: Pending, head: RequestHead) -> Forward | Reply:
        if head.framing.length > _MAX_FORM:
            return replies.reply(413, reason="form_too_large")
        if head.expects_continue:
            # The token stands in the body, so the body is needed to authenticate.
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._head = head._replace(expects_continue=False)
        form = bytearray()
        try:
            while piece := await self._payload.readany():
                form += piece
                if len(form) > _MAX_FORM:
                    return replies.reply(413, reason="form_too_large")
        except BodyStalledError:
            return replies.reply(408, reason="body_timeout")
        except (RequestPayloadError, ConnectionError):
            return replies.reply(400, reason="body_incomplete")
        self._form = bytes(form)
        self._received = len(form)
        return await pending.settle(self._form)

    def _decided(self, decision: Forward | Reply) -> None:
        if self._ended:
            return
        if isinstance(decision, Reply):
            self._ended = True
            self._release(whole=True)
            self._finish(keep_alive=self._reply(decision, replies.outcome(decision)))
            return
        self._forward = decision
        self._framing = framing = self._body_framing(decision, self._head)
        self._request = forwarding.upstream_request(self._head, decision, decision.forwarding, framing)
        connection = self._plane.upstreams.of(decision.route.service).take()
        if connection is None:
            self._task = self._go_on_in_task(self._connect, decision, False)  # noqa: FBT003
        else:
            self._send(decision, connection)

    async def _connect(self, forward: Forward, fresh: bool) -> None:  # noqa: FBT001 - passed on through a task
        upstream = self._plane.upstreams.of(forward.route.service)
        try:
            connection = await upstream.acquire(fresh=fresh)
        except ForwardError as error:
            self._task = None
            self._end(error)
            return
        self._task = None
        self._send(forward, connection)

    def _send(self, forward: Forward, connection: UpstreamConnection) -> None:
        """Send the request; what comes of it arrives through the callbacks below."""
        if self._ended:
            connection.give_back()
            return
        framing = self._framing
        self._connection = connection
        self._target = connection.target
        self._reused = connection.reused
        self._forwarded_at = self._plane.clock.monotonic()
        has_body = framing.kind is _CHUNKED or framing.length > 0
        connection.begin(self, self._request, self._head.method, self._plane.outbox, has_body=has_body)
        if self._protocol.writing_paused:
            connection.pause_reading()
        if has_body:
            protected = forward.forwarding.protected
            self._upload = self._go_on_in_task(self._send_body, connection, framing, protected)

    def _may_try_again(self, error: ForwardError) -> bool:
        """A kept-alive connection that had died before it saw a request that can be repeated (N76)."""
        return (
            error.stage is Stage.SEND
            and self._reused
            and self._framing == NO_BODY
            and self._head.method in _IDEMPOTENT
            and not self._gone
        )

    def _body_framing(self, forward: Forward, head: RequestHead) -> Framing:
        if self._form is None:
            return head.framing
        permit = forward.permit
        access = forward.route.access
        if permit is not None and permit.token.source is TokenSource.BODY and access and access.hide_credentials:
            self._form = forwarding.hide_form_token(self._form)
        return Framing(_LENGTH, len(self._form))

    async def _send_body(self, connection: UpstreamConnection, framing: Framing, protected: frozenset[bytes]) -> None:
        """Relay the request's body as it arrives, no faster than the upstream takes it."""
        try:
            if self._form is not None:
                connection.write(self._form)
            else:
                chunked = framing.kind is _CHUNKED
                while data := await self._payload.readany():
                    self._received += len(data)
                    connection.write(chunk(data) if chunked else data)
                    if connection.upload_stalled:
                        self._room = self._plane.loop.create_future()
                        await self._room
                if chunked:
                    connection.write(last_chunk(forwarding.trailers(self._protocol.trailers, protected)))
            connection.finish_request()
        except (RequestPayloadError, ConnectionError) as error:
            # Never let a body that ended early look complete to the upstream (N55).
            connection.abort()
            stage = Stage.BODY_TIMEOUT if isinstance(error, BodyStalledError) else Stage.REQUEST_BODY
            self._end(ForwardError(Side.DOWNSTREAM, stage, str(error)))

    # --- Receiver: the answer, from the upstream's callbacks ---------------------------------------------------

    def interim(self, answer: AnswerHead) -> None:
        """Pass a 1xx on to clients that know it (RFC 9110 section 15.2)."""
        head = self._head
        if head.http_1_0 or (answer.status == 100 and not head.expects_continue):  # noqa: PLR2004
            return
        self._write(forwarding.informational(answer))

    def answer_head(self, answer: AnswerHead) -> None:
        """Write the final head, framed for this client, together with what came along."""
        head, forward, plane = self._head, self._forward, self._plane
        if forward is None:
            return
        self._answer = answer
        self._upstream_seconds = plane.clock.monotonic() - self._forwarded_at
        plane.stats.upstream_seconds.observe(self._upstream_seconds, forward.route.service.name)
        framing = answer.framing
        if framing.kind is _CHUNKED or framing.kind is _UNTIL_CLOSE:
            framing = Framing(_UNTIL_CLOSE if head.http_1_0 else _CHUNKED)
            self._end_with_token(answer, forward)
        self._chunked = framing.kind is _CHUNKED
        connection = self._connection
        self._keep_alive = (
            head.keep_alive
            and framing.kind is not _UNTIL_CLOSE
            and connection is not None
            and connection.sent_all
            and self._may_go_on()
        )
        permit = forward.permit
        private = permit is not None and permit.token.source is _IN_QUERY
        self._corked = [
            forwarding.answer_head(
                answer, head, framing, keep_alive=self._keep_alive, date=plane.date(), private=private
            )
        ]

    def flush(self) -> None:
        """Nothing more came along with the head: write what there is, in one piece."""
        piece = self._uncork()
        if piece:
            self._write(piece)

    def _uncork(self) -> bytes:
        corked, self._corked = self._corked, None
        return b"".join(corked) if corked else b""

    def _write_whole(self, answer: bytes) -> None:
        """Write an answer that came in one piece, together with others of this turn."""
        transport = self._protocol.transport
        if transport is not None:
            self._plane.outbox.send(transport, answer)

    def answer_data(self, data: bytes) -> None:
        """Pass body octets on as they came."""
        self._sent += len(data)
        if not self._chunked or self._tunnel:
            self._write(data)
        elif len(data) > _BIG:
            self._write(b"%x\r\n" % len(data))
            self._write(data)
            self._write(b"\r\n")
        else:
            self._write(chunk(data))

    def answer_end(self, trailers: tuple[Field, ...]) -> None:
        """The answer is complete (or, in a tunnel, the upstream says no more)."""
        if self._tunnel:
            self._half_close()
            return
        if self._chunked:
            self._write(last_chunk(forwarding.trailers(trailers) if trailers else b""))
        piece = self._uncork()
        if piece:
            self._write_whole(piece)
        self._connection = None
        self._end(None)

    def answer_failed(self, error: ForwardError) -> None:
        """No complete answer will come."""
        self._connection = None
        self._end(error)

    def switched(self, answer: AnswerHead, early: bytes) -> None:
        """The upstream switched protocols: only a switch that the client asked for is believed (RFC 9110 7.8)."""
        head, connection, forward = self._head, self._connection, self._forward
        if connection is None or forward is None:
            return
        if head.upgrade != b"websocket" or answer.upgrade != head.upgrade:
            connection.abort()
            self._end(ForwardError(Side.UPSTREAM, Stage.HEAD, "switched protocols unasked"))
            return
        self.answer_head(answer)
        self.flush()
        self._keep_alive = False
        self._tunnel = True
        self._end_with_token(answer, forward)
        held_back = self._protocol.begin_tunnel()
        if held_back:
            self.client_data(held_back)
        if early:
            self.answer_data(early)
        if self._protocol.client_eof:
            self.client_eof()

    def upload_paused(self) -> None:
        """The upstream takes no more: a tunnel stops reading the client; a body waits in `_send_body`."""
        if self._tunnel and self._protocol.transport is not None:
            self._protocol.transport.pause_reading()

    def upload_resumed(self) -> None:
        """The upstream takes more."""
        room = self._room
        if room is not None and not room.done():
            room.set_result(None)
        if self._tunnel and self._protocol.transport is not None:
            self._protocol.transport.resume_reading()

    # --- from the client's side --------------------------------------------------------------------------------

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
        self._gone = True
        if self._connection is not None:
            self._connection.abort()
        self._end(ForwardError(Side.DOWNSTREAM, Stage.BODY, "the client left"))

    def client_half_closed(self) -> None:
        """A client that sends no more still gets its answer, unless that is a stream of events without end."""
        if self._answer is not None and _is_event_stream(self._answer) and self._protocol.transport is not None:
            self._protocol.transport.abort()

    def client_data(self, data: bytes) -> None:
        """Octets from the client's end of a tunnel."""
        self._received += len(data)
        if self._connection is not None:
            self._connection.write(data)

    def client_eof(self) -> None:
        """The client's end of a tunnel says no more."""
        connection = self._connection
        if connection is None or not connection.write_eof() or self._half_closed:
            self._end(None)
        self._half_closed = True

    def _half_close(self) -> None:
        transport = self._protocol.transport
        if self._half_closed or transport is None:
            self._end(None)
            return
        self._half_closed = True
        if transport.can_write_eof():
            transport.write_eof()
        else:
            self._end(None)

    # --- ends --------------------------------------------------------------------------------------------------

    def _end(self, error: ForwardError | None) -> None:
        """The exchange is over, once: completely, or with the first error."""
        forward = self._forward
        if self._ended:
            return
        if error is not None and forward is not None and self._may_try_again(error):
            self._connection = None
            self._plane.stats.upstream_retries.add(forward.route.service.name)
            self._task = self._go_on_in_task(self._connect, forward, True)  # noqa: FBT003
            return
        self._ended = True
        self._release(whole=error is None)
        if error is not None:
            self._finish(keep_alive=self._failed(error, forward))
            return
        status = self._answer.status if self._answer is not None else 0
        self._complete(status, "tunnel" if self._tunnel else "forwarded", "")
        self._finish(keep_alive=self._keep_alive and self._protocol.body_complete)

    def _finish(self, *, keep_alive: bool) -> None:
        if not self._gone:
            self._protocol.finished(keep_alive=keep_alive)

    def _release(self, *, whole: bool) -> None:
        """Let go of everything the exchange held."""
        if self._active:
            self._active = False
            self._plane.stats.requests_active.add(amount=-1)
        for task in (self._task, self._upload):
            if task is not None and not task.done():
                task.cancel()
        self._task = self._upload = None
        if self._expiry is not None:
            self._expiry.cancel()
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if whole:
            connection.leave()
        else:
            connection.abort()

    def _failed(self, error: ForwardError, forward: Forward | None) -> bool:
        """Answer a failure if nothing was answered yet; cut the connection visibly if something was (N81)."""
        if self._gone or forward is None:
            self._complete(self._answer.status if self._answer else 0, "client_gone", str(error.stage))
            return False
        if self._corked is not None:
            # Head and fault came in one piece: nothing was said yet.
            self._corked = self._answer = None
        route = forward.route
        self._plane.stats.forward_failures.add(route.service.name, str(error.side), str(error.stage))
        if self._answer is None:
            return self._reply(replies.forward_failed(error, route.name), "failed")
        self._complete(self._answer.status, "failed", str(error.stage))
        if not self._tunnel:
            self._cut()
        return False

    def _cut(self) -> None:
        """End the connection so that no client can take what it got for the whole answer."""
        transport = self._protocol.transport
        if transport is None:
            return
        self._plane.outbox.flush()
        if not self._chunked:
            # Without a length or a last chunk only a reset tells (RFC 9112 section 8).
            sock = transport.get_extra_info("socket")
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()

    def _reply(self, reply: Reply, outcome: str) -> bool:
        keep_alive = self._head.keep_alive and self._protocol.body_complete and self._may_go_on()
        self._write_whole(self._render(reply, keep_alive=keep_alive, method=self._head.method))
        if outcome == "refused" and reply.route:
            self._plane.stats.denials.add(reply.route, reply.reason)
        self._complete(reply.status, "client_gone" if self._gone else outcome, reply.reason, reply.route)
        return keep_alive

    def _may_go_on(self) -> bool:
        return self._protocol.more_may_come and not self._plane.draining

    def _render(self, reply: Reply, *, keep_alive: bool, method: str) -> bytes:
        return replies.render(
            reply,
            date=self._plane.date(),
            keep_alive=keep_alive,
            method=method,
            http_1_0=self._head.http_1_0,
        )

    def _write(self, data: bytes) -> None:
        if self._corked is not None:
            self._corked.append(data)
            return
        transport = self._protocol.transport
        if transport is not None:
            self._plane.outbox.flush()
            transport.write(data)

    def _end_with_token(self, answer: AnswerHead, forward: Forward) -> None:
        """A tunnel or an event stream does not outlive the token that opened it (N88)."""
        permit, access = forward.permit, forward.route.access
        if permit is None or access is None or permit.state.exp is None:
            return
        if self._tunnel or _is_event_stream(answer):
            self._await_expiry(permit.state.exp + access.policy.leeway)

    def _await_expiry(self, at: float) -> None:
        left = at - self._plane.clock.now()
        if left > 0:
            # A far `exp` does not fit a timer: look again after a day.
            self._expiry = self._plane.loop.call_later(min(left, _DAY), self._await_expiry, at)
            return
        connection = self._connection
        if connection is not None:
            connection.abort()
        if self._chunked and not self._tunnel:
            self._keep_alive = False
            self._write(last_chunk())
        self._end(None)

    def _complete(self, status: int, outcome: str, reason: str, route: str = "") -> None:
        """Count the request and hand its line to the access log."""
        plane, head, forward = self._plane, self._head, self._forward
        if forward is not None:
            route = forward.route.name
        plane.stats.requests.add(route, str(status))
        plane.complete(
            head,
            peer=self._protocol.peer,
            began=self._began,
            status=status,
            outcome=outcome,
            reason=reason,
            route=route,
            service=forward.route.service.name if forward else "",
            target=self._target,
            upstream_seconds=self._upstream_seconds,
            received=self._received,
            sent=self._sent,
        )


def _is_event_stream(answer: AnswerHead) -> bool:
    return any(key == b"content-type" and value[:17].lower() == b"text/event-stream" for key, _, value in answer.fields)
