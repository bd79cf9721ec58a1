"""One request and its answer: the way from an admitted head to the last octet, or to the reason it ended early.

The exchange is the receiver of the upstream's answer and relays it from callbacks. Nothing is awaited on the usual way:
tasks are made for an unknown token and for a new connection.
"""

import asyncio
import socket
import struct
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from fastgate.dataplane.body import Body
from fastgate.dataplane.download import Download
from fastgate.dataplane.framing import chunk, last_chunk
from fastgate.dataplane.plane import Dataplane
from fastgate.dataplane.splice import WORTH
from fastgate.dataplane.tunnel import Tunnel
from fastgate.dataplane.upload import Upload
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
"""Octets above which a chunk is written in three pieces rather than copied into one."""
_DAY: Final = 86_400.0
"""Seconds."""
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER on, zero seconds: closing sends RST."""


class Exchange:
    """A request under way."""

    __slots__ = (
        *("_active", "_answer", "_began", "_body", "_chunked", "_connection", "_corked", "_download", "_ended"),
        *("_expiry", "_form", "_forward", "_forwarded_at", "_framing", "_gone", "_head", "_keep_alive"),
        *("_plane", "_protocol", "_received", "_request", "_reused", "_sent", "_target", "_task", "_tunnel"),
        *("_upload", "_upstream_seconds"),
    )

    def __init__(
        self,
        protocol: "DownstreamProtocol",
        plane: Dataplane,
        head: RequestHead,
        body: Body,
    ) -> None:
        self._body = body
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
        """What is being waited for."""
        self._upload: Upload | None = None
        self._download: Download | None = None
        self._tunnel: Tunnel | None = None
        self._form: bytes | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._corked: list[bytes] | None = None
        """What waits to be written together with what came along."""
        self._keep_alive = False
        self._chunked = False
        self._gone = False
        self._ended = False
        self._active = False
        self._received = 0
        """Octets of the request's body that were sent before this exchange went on with it."""
        self._sent = 0
        """Octets of the answer's body; those that a pump moved are added at its end."""

    # --- the way of the request ------------------------------------------------------------------------------

    def begin(self, decision: Forward | Reply | Pending | None = None, began: float | None = None) -> None:
        """Decide, unless that was done; answer or forward at once. Only what has to be waited for becomes a task.

        `began`: when the request came, where that was not now.
        """
        if began is not None:
            self._began = began
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
        try:
            form = await self._body.whole(_MAX_FORM)
        except ForwardError as error:
            if error.stage is Stage.BODY_TIMEOUT:
                return replies.reply(408, reason="body_timeout")
            return replies.reply(400, reason="body_incomplete")
        if form is None:
            return replies.reply(413, reason="form_too_large")
        self._form = form
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
        self._connection = connection
        self._target = connection.target
        self._reused = connection.reused
        self._forwarded_at = self._plane.clock.monotonic()
        protected = forward.forwarding.protected
        body = b"" if self._framing is NO_BODY else self._arrived(protected)
        request = self._request + body if body else self._request
        connection.begin(self, request, self._head.method, self._plane.outbox, has_body=body is None)
        if self._protocol.writing_paused:
            connection.pause_reading()
        client = self._protocol.transport
        if body is None and client is not None:
            self._upload = Upload(
                self._body, self._framing, client, connection, self._plane.pumps, protected, self._end
            )
            self._upload.begin()

    def _arrived(self, protected: frozenset[bytes]) -> bytes | None:
        """Return the whole body as it goes upstream, b"" where there is none; None while it is incomplete."""
        if self._form is not None:
            return self._form
        body = self._body
        if not body.complete:
            return None
        data = body.take_out()
        if self._framing.kind is not _CHUNKED:
            return data
        return (chunk(data) if data else b"") + last_chunk(forwarding.trailers(body.trailers, protected))

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
        if self._tunnel is not None:
            self._tunnel.upstream_data(data)
            return
        self._sent += len(data)
        if not self._chunked:
            self._write(data)
        elif len(data) > _BIG:
            self._write(b"%x\r\n" % len(data), data, b"\r\n")
        else:
            self._write(chunk(data))

    def much_left(self) -> None:
        """Leave what is still to come to a pump, as soon as the client has taken what was written before."""
        if self._connection is None or self._protocol.writing_paused:
            return
        if self._download is None:
            self._download = Download(self._connection, self._protocol)
        self._download.begin(self._plane.pumps)

    def answer_end(self, trailers: tuple[Field, ...]) -> None:
        """The answer is complete (or, in a tunnel, the upstream says no more)."""
        if self._tunnel is not None:
            self._tunnel.upstream_eof()
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
        tunnel = self._tunnel = Tunnel(self._protocol, connection, self._plane.outbox, self._tunnel_ended)
        self._end_with_token(answer, forward)
        held_back = self._protocol.begin_tunnel(tunnel)
        if held_back:
            tunnel.client_data(held_back)
        if early:
            tunnel.upstream_data(early)
        if self._protocol.client_eof:
            tunnel.client_eof()

    def _tunnel_ended(self) -> None:
        self._end(None)

    def upload_paused(self) -> None:
        """The upstream takes no more: the client is read no further."""
        relay = self._tunnel or self._upload
        if relay is not None:
            relay.pause()

    def upload_resumed(self) -> None:
        """The upstream takes more."""
        relay = self._tunnel or self._upload
        if relay is not None:
            relay.resume()

    # --- from the client's side --------------------------------------------------------------------------------

    def downstream_paused(self) -> None:
        """The client is slow: stop reading the answer."""
        if self._connection is not None:
            self._connection.pause_reading()

    def downstream_resumed(self) -> None:
        """The client has caught up."""
        if self._connection is not None:
            self._connection.resume_reading()
            if self._connection.left >= WORTH:
                self.much_left()

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
        self._complete(status, "forwarded" if self._tunnel is None else "tunnel", "")
        self._finish(keep_alive=self._keep_alive and self._protocol.body_complete)

    def _finish(self, *, keep_alive: bool) -> None:
        if not self._gone:
            self._protocol.finished(keep_alive=keep_alive)

    def _release(self, *, whole: bool) -> None:
        """Let go of everything the exchange held."""
        if self._active:
            self._active = False
            self._plane.stats.requests_active.add(amount=-1)
        if self._task is not None:
            self._task.cancel()
            self._task = None
        # Their pumps hold the sockets open: whatever closes or resets these comes after.
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.stop()
        download, self._download = self._download, None
        if download is not None:
            download.stop()
            self._sent += download.moved_octets
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
        if self._tunnel is None:
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

    def _write(self, *pieces: bytes) -> None:
        if self._corked is not None:
            self._corked += pieces
            return
        transport = self._protocol.transport
        if transport is not None:
            self._plane.outbox.flush()
            if len(pieces) == 1:
                transport.write(pieces[0])
            else:
                transport.writelines(pieces)

    def _end_with_token(self, answer: AnswerHead, forward: Forward) -> None:
        """A tunnel or an event stream does not outlive the token that opened it (N88)."""
        permit, access = forward.permit, forward.route.access
        if permit is None or access is None or permit.state.exp is None:
            return
        if self._tunnel is not None or _is_event_stream(answer):
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
        if self._chunked and self._tunnel is None:
            self._keep_alive = False
            self._write(last_chunk())
        self._end(None)

    def _complete(self, status: int, outcome: str, reason: str, route: str = "") -> None:
        """Count the request and hand its line to the access log."""
        plane, head, forward = self._plane, self._head, self._forward
        if forward is not None:
            route = forward.route.name
        plane.stats.requests.add(route, str(status))
        tunnel = self._tunnel
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
            received=self._received + self._body.taken if tunnel is None else tunnel.received,
            sent=self._sent if tunnel is None else tunnel.sent,
        )


def _is_event_stream(answer: AnswerHead) -> bool:
    return any(key == b"content-type" and value[:17].lower() == b"text/event-stream" for key, _, value in answer.fields)
