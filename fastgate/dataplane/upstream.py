"""One connection to an upstream: one exchange at a time, answers framed strictly, bodies passed as they arrive.

A connection is given to a `Receiver` with `begin` and taken back when the answer is complete; if anything about the
exchange leaves its state in doubt it is closed instead of being used again (RFC 9112 sections 9.3 and 9.6).
"""

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import Any, Final, Protocol, cast

from fastgate.dataplane.answer import MAX_HEAD, malformed, parse_answer_head
from fastgate.dataplane.deadline import Deadline
from fastgate.dataplane.framing import ChunkedDecoder, FramingError
from fastgate.dataplane.outbox import Outbox
from fastgate.dataplane.splice import WORTH
from fastgate.errors import ForwardError, Side, Stage
from fastgate.model import NO_BODY, AnswerHead, BodyKind, Field, Service

_INTERIM = range(100, 200)
_SWITCHING = 101
_MAX_INTERIM = 32
"""Interim answers to one request; more is a flood."""


class Receiver(Protocol):
    """Who gets an answer. Exactly one of `answer_end`, `answer_failed` or `switched` ends it."""

    def interim(self, answer: AnswerHead) -> None:
        """A 1xx other than 101."""

    def answer_head(self, answer: AnswerHead) -> None:
        """The final answer's head."""

    def answer_data(self, data: bytes) -> None:
        """Octets of the answer's body, transfer coding removed."""

    def flush(self) -> None:
        """Nothing more came in one piece with the head."""

    def much_left(self) -> None:
        """So much of the answer's body is still to come that a pump is worth it."""

    def answer_end(self, trailers: tuple[Field, ...]) -> None:
        """The answer is complete."""

    def answer_failed(self, error: ForwardError) -> None:
        """No complete answer will come."""

    def switched(self, answer: AnswerHead, early: bytes) -> None:
        """A 101: from now on raw octets arrive through `answer_data`, the first of them being `early`."""

    def upload_paused(self) -> None:
        """The upstream takes no more of the request's body for now."""

    def upload_resumed(self) -> None:
        """It does again."""


class ExpressReceiver(Receiver, Protocol):
    """A receiver that takes usual answers as they come."""

    def take_answer(self, data: bytes) -> bool:
        """The first octets of the answer. True: they were taken, and `go_on` or `complete` was called."""


class _Phase(Enum):
    IDLE = "idle"
    HEAD = "head"
    BODY = "body"
    TUNNEL = "tunnel"
    CLOSED = "closed"


# An Enum's attribute costs fifteen times a global's in Python 3.11, and these are read on every request.
_CHUNKED: Final = BodyKind.CHUNKED
_LENGTH: Final = BodyKind.LENGTH
_UNTIL_CLOSE: Final = BodyKind.UNTIL_CLOSE
_IDLE: Final = _Phase.IDLE
_HEAD: Final = _Phase.HEAD
_BODY: Final = _Phase.BODY
_TUNNEL: Final = _Phase.TUNNEL
_CLOSED: Final = _Phase.CLOSED


class UpstreamConnection(asyncio.Protocol):
    """A keep-alive connection to one target."""

    __slots__ = (
        "_buffer",
        "_chunks",
        "_deadline",
        "_express",
        "_interim_count",
        "_lent",
        "_lost",
        "_method",
        "_phase",
        "_read_paused",
        "_receiver",
        "_resting",
        "_service",
        "_transport",
        "_until_close",
        "_wire",
        "_write_stalled",
        "answer",
        "left",
        "reused",
        "sent_all",
        "target",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        service: Service,
        target: str,
        resting: Callable[["UpstreamConnection"], None],
        lost: Callable[["UpstreamConnection"], None],
    ) -> None:
        self._service = service
        self.target = target
        """host:port"""
        self._resting = resting
        self._lost = lost
        self._deadline = Deadline(loop, self._expired)
        self._transport: asyncio.Transport | None = None
        self._wire: asyncio.Transport | None = None
        """What is paused: the transport, or with TLS the one below it."""
        self._phase = _IDLE
        self._receiver: Receiver | None = None
        self._express: ExpressReceiver | None = None
        """The receiver, as long as it has to be offered the beginning of the answer as it came."""
        self._buffer = b""
        self._method = ""
        self._chunks: ChunkedDecoder | None = None
        self._until_close = False
        self._interim_count = 0
        self._read_paused = False
        self._lent = False
        """A pump reads the socket, not we."""
        self._write_stalled = False
        self.left = 0
        """Octets of the answer's body still to come; 0 where that is not known."""
        self.answer: AnswerHead | None = None
        self.sent_all = True
        """The whole request was written."""
        self.reused = False
        """This is not the first exchange on this connection."""

    def __repr__(self) -> str:
        return f"<UpstreamConnection {self._service.name} {self._phase.value} reused={self.reused}>"

    # --- towards the exchange -------------------------------------------------------------------------------

    def begin(self, receiver: Receiver, head: bytes, method: str, outbox: Outbox, *, has_body: bool) -> None:
        """Send a request's head, with others of this turn when nothing follows it; the answer goes to `receiver`."""
        self._receiver = receiver
        self._method = method
        self._phase = _HEAD
        self._interim_count = 0
        self.answer = None
        self.sent_all = not has_body
        if has_body or self._transport is None:
            self.write(head)
        else:
            outbox.send(self._transport, head)
        self._watch()

    def begin_whole(self, receiver: "ExpressReceiver", request: bytes, outbox: Outbox) -> None:
        """Send a whole request, not a HEAD, with others of this turn; `receiver` is offered the answer as it comes."""
        self._receiver = self._express = receiver
        self._method = "GET"  # or another one whose answers are framed like these (RFC 9112 section 6.3)
        self._phase = _HEAD
        self._interim_count = 0
        self.answer = None
        self.sent_all = True
        if self._transport is not None:
            outbox.send(self._transport, request)
        self._deadline.set(self._service.read_timeout)

    def go_on(self, answer: AnswerHead, left: int) -> None:
        """Expect the rest of a body whose beginning the receiver took as it came."""
        self.answer = answer
        self._phase = _BODY
        self._chunks = None
        self._until_close = False
        self.left = left
        self._watch()

    def complete(self) -> None:
        """Rest: the receiver took a whole answer as it came, and nothing about the connection is in doubt."""
        self._receiver = None
        self._phase = _IDLE
        if self._read_paused:
            self.resume_reading()
        self._resting(self)

    def hand_over(self, receiver: Receiver) -> None:
        """Let somebody else receive the answer, unless there is none to come."""
        self._express = None
        if self._phase is not _CLOSED:
            self._receiver = receiver

    def write(self, data: bytes) -> None:
        """Send octets of the request's body (or of a tunnel)."""
        if self._transport is not None:
            self._transport.write(data)

    def write_chunk(self, data: bytes) -> None:
        """Send octets of the request's body as a chunk, without copying them into one."""
        if self._transport is not None:
            self._transport.writelines((b"%x\r\n" % len(data), data, b"\r\n"))

    def finish_request(self) -> None:
        """The whole request was written: from here the answer's clock runs."""
        self.sent_all = True
        self._watch()

    def write_eof(self) -> bool:
        """Half-close a tunnel towards the upstream; False when that cannot be said (TLS)."""
        if self._transport is None or not self._transport.can_write_eof():
            return False
        self._transport.write_eof()
        return True

    @property
    def upload_stalled(self) -> bool:
        """The upstream has not taken all that was written."""
        return self._write_stalled

    def pause_reading(self) -> None:
        """The client is slow: take no more of the answer for now."""
        if self._wire is not None and not self._read_paused:
            self._read_paused = True
            if not self._lent:
                self._wire.pause_reading()
            self._watch()

    def resume_reading(self) -> None:
        """The client has caught up."""
        if self._read_paused:
            self._read_paused = False
            if self._wire is not None:
                if not self._lent:
                    self._wire.resume_reading()
                self._watch()

    # --- towards a pump -------------------------------------------------------------------------------------

    @property
    def transport(self) -> asyncio.Transport | None:
        """The transport while it is open."""
        return self._transport

    def upload_moved(self) -> None:
        """The upstream has taken some of the request's body."""
        self._watch()

    def lend(self) -> None:
        """From now on a pump reads the answer from the socket."""
        self._lent = True
        if self._wire is not None and not self._read_paused:
            self._wire.pause_reading()

    def moved(self, octets: int) -> None:
        """The client has taken so many; the pump may not read the last one."""
        self.left -= octets
        self._watch()

    def take_back(self) -> None:
        """Read on, at the octet behind the pump's last."""
        self._lent = False
        if self._wire is not None and not self._read_paused:
            self._wire.resume_reading()

    def cut_short(self) -> None:
        """The pump found the end of the connection."""
        self._fail(self._cut_short())

    # --- towards its pool -----------------------------------------------------------------------------------

    def abort(self) -> None:
        """Give up this connection at once; the receiver hears nothing more."""
        self._receiver = None
        self._phase = _CLOSED
        self._deadline.close()
        if self._transport is not None:
            self._transport.abort()

    def leave(self) -> None:
        """End a tunnel: what was written still goes out, as long as the upstream takes it."""
        self.resume_reading()
        self._receiver = None
        if self._transport is not None and self._phase is not _CLOSED:
            self._phase = _CLOSED
            self._deadline.set(self._service.write_timeout)
            self._transport.close()

    def give_back(self) -> None:
        """Return an unused connection to its pool."""
        self._resting(self)

    def close(self) -> None:
        """Close a resting connection."""
        self._phase = _CLOSED
        self._deadline.close()
        if self._transport is not None:
            self._transport.close()

    def rest(self, seconds: float) -> None:
        """Wait in the pool, at most `seconds`."""
        self.reused = True
        self._deadline.set(seconds)

    @property
    def usable(self) -> bool:
        """It can take another exchange."""
        transport = self._transport
        return self._phase is _IDLE and transport is not None and not transport.is_closing()

    # --- asyncio.Protocol -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport. What the kernel does not take at once is a reason to pause: nothing is piled up here."""
        self._transport = self._wire = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=0)

    def secured(self, transport: asyncio.Transport, wire: asyncio.Transport) -> None:
        """TLS was agreed on over `wire`. Reading is paused below TLS.

        Were it paused above, uvloop would throw away what it has not handed on when the upstream's FIN comes.
        """
        self._transport, self._wire = transport, wire

    def data_received(self, data: bytes) -> None:
        """Move the answer on by what arrived."""
        phase = self._phase
        if phase is _BODY or phase is _TUNNEL:
            self._watch()
            self._body(data)
            if self.left >= WORTH and self._receiver is not None:
                self._receiver.much_left()
        elif phase is _HEAD:
            express, self._express = self._express, None
            if express is None or not express.take_answer(data):
                self._head(self._buffer + data if self._buffer else data)
        elif phase is _IDLE:
            # Octets nobody asked for: whatever they are, they are no answer to the next request.
            self.close()
            self._lost(self)

    def eof_received(self) -> bool:
        """A FIN (close_notify with TLS) ends an until-close body, half-closes a tunnel, and fails everything else."""
        phase = self._phase
        if phase is _TUNNEL:
            receiver = self._receiver
            if receiver is not None:
                receiver.answer_end(())
            return True
        # Now, and not when the connection is lost: before that what we have written would have to be taken.
        if phase is _BODY and self._until_close:
            self._end(b"", ())
        elif phase is not _IDLE:
            self._fail(self._cut_short())
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the receiver, once, what that means for its answer."""
        self._transport = self._wire = None
        self._deadline.close()
        self._lost(self)
        receiver, self._receiver = self._receiver, None
        error = None if self._phase is _TUNNEL and exc is None else self._cut_short()
        self._phase = _CLOSED
        if receiver is None:
            return
        if error is None:
            receiver.answer_end(())
        else:
            receiver.answer_failed(error)

    def _cut_short(self) -> ForwardError:
        if self._phase in (_BODY, _TUNNEL):
            return ForwardError(Side.UPSTREAM, Stage.BODY, "connection lost within the answer")
        if self._buffer or self._interim_count:
            return malformed("connection lost within the answer's head")
        return ForwardError(Side.UPSTREAM, Stage.SEND, "connection lost before an answer")

    def pause_writing(self) -> None:
        """The upstream does not take the request's body as fast as the client sends it."""
        self._write_stalled = True
        self._watch()
        if self._receiver is not None:
            self._receiver.upload_paused()

    def resume_writing(self) -> None:
        """It does again."""
        self._write_stalled = False
        self._watch()
        if self._receiver is not None:
            self._receiver.upload_resumed()

    # --- the answer -----------------------------------------------------------------------------------------

    def _head(self, data: bytes) -> None:
        """Take interim heads until the final one is complete."""
        while self._phase is _HEAD:
            end = data.find(b"\r\n\r\n", max(0, len(self._buffer) - 3))
            if end < 0:
                self._hold(data)
                return
            self._buffer = b""
            try:
                if end > MAX_HEAD:
                    raise malformed("head too large")
                answer = parse_answer_head(data[: end + 4], self._method)
            except ForwardError as error:
                self._fail(error)
                return
            data = data[end + 4 :]
            if answer.status == _SWITCHING:
                self._switch(answer, data)
                return
            if answer.status not in _INTERIM:
                self._begin_body(answer, data)
                return
            self._take_interim(answer)

    def _hold(self, data: bytes) -> None:
        """Keep the beginning of a head, unless it can never be one."""
        self._buffer = data
        if len(data) > MAX_HEAD:
            self._fail(malformed("head too large"))
        elif not b"HTTP/1.".startswith(data[:7]):
            self._fail(malformed("not HTTP/1.x"))

    def _take_interim(self, answer: AnswerHead) -> None:
        self._interim_count += 1
        if self._interim_count > _MAX_INTERIM:
            self._fail(malformed("too many interim answers"))
            return
        self._watch()
        if self._receiver is not None:
            self._receiver.interim(answer)

    def _begin_body(self, answer: AnswerHead, data: bytes) -> None:
        self.answer = answer
        self._phase = _BODY
        kind, self.left = answer.framing
        self._chunks = ChunkedDecoder() if kind is _CHUNKED else None
        self._until_close = kind is _UNTIL_CLOSE
        if self._receiver is not None:
            self._receiver.answer_head(answer)
        if self._phase is not _BODY:
            return
        self._watch()
        if answer.framing == NO_BODY or (kind is _LENGTH and not self.left):
            self._end(data, ())
        elif data:
            self._body(data)
        if self._receiver is not None:
            self._receiver.flush()
            if self.left >= WORTH:
                self._receiver.much_left()

    def _body(self, data: bytes) -> None:
        receiver = self._receiver
        if receiver is None:
            return
        if self._chunks is not None:
            self._chunked(self._chunks, data, receiver)
        elif self._until_close or self._phase is _TUNNEL:
            receiver.answer_data(data)
        elif len(data) < self.left:
            self.left -= len(data)
            receiver.answer_data(data)
        else:
            body, rest = (data, b"") if len(data) == self.left else (data[: self.left], data[self.left :])
            self.left = 0
            receiver.answer_data(body)
            if self._phase is _BODY:
                self._end(rest, ())

    def _chunked(self, chunks: ChunkedDecoder, data: bytes, receiver: Receiver) -> None:
        try:
            body, rest = chunks.feed(data)
        except FramingError as error:
            self._fail(ForwardError(Side.UPSTREAM, Stage.BODY, str(error)))
            return
        if body:
            receiver.answer_data(body)
        if chunks.complete and self._phase is _BODY:
            self._end(rest, chunks.trailers)

    def _end(self, rest: bytes, trailers: tuple[Field, ...]) -> None:
        """Finish the answer; the connection rests only when nothing about it is in doubt."""
        receiver, self._receiver = self._receiver, None
        answer = self.answer
        self._chunks = None
        if receiver is not None:
            # It lets go of us first: whatever it still did with us would hit the next exchange.
            receiver.answer_end(trailers)
        sure = not rest and self.sent_all and not self._write_stalled and self._phase is _BODY
        if sure and answer is not None and answer.keep_alive:
            self._phase = _IDLE
            self.resume_reading()
            self._resting(self)
        else:
            self.abort()

    def _switch(self, answer: AnswerHead, early: bytes) -> None:
        self._phase = _TUNNEL
        self._deadline.clear()
        self.answer = answer
        if self._receiver is not None:
            self._receiver.switched(answer, early)

    def _fail(self, error: ForwardError) -> None:
        receiver = self._receiver
        self.abort()
        if receiver is not None:
            receiver.answer_failed(error)

    # --- time -----------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Set the clock that fits the phase: writing while stalled, reading once the request is out."""
        if self._phase is _CLOSED:
            return
        if self._write_stalled:
            self._deadline.set(self._service.write_timeout)
        elif self._read_paused or not self.sent_all or self._phase is _TUNNEL:
            # Not the upstream's turn: the client is slow, and has clocks of its own.
            self._deadline.clear()
        else:
            self._deadline.set(self._service.read_timeout)

    def _expired(self) -> None:
        if self._phase is _IDLE:
            self.close()
            self._lost(self)
        elif self._phase is _HEAD:
            self._fail(ForwardError(Side.UPSTREAM, Stage.HEAD_TIMEOUT, "no answer in time"))
        else:
            self._fail(ForwardError(Side.UPSTREAM, Stage.BODY_TIMEOUT, "the answer stalled"))

    def peer_socket(self) -> Any:
        """The socket of this connection, for tests and for splicing."""
        return None if self._transport is None else self._transport.get_extra_info("socket")
