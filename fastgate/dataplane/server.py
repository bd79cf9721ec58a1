"""The aiohttp server and its protocol, made as strict as a gateway has to be.

On top of aiohttp's `RequestHandler`, which keeps the connection: messages are read strictly and one at a time, a
half-closed client still gets its answers, heads and bodies have deadlines, and a client that is refused is parted from
kindly, so that it can read why.
"""

import asyncio
from collections.abc import Callable
from enum import Enum
from functools import partial
from sys import intern
from typing import Any, Final, cast

import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from fastgate.dataplane import aiohttp_seam as seam
from fastgate.dataplane.body import NOTHING, Body
from fastgate.dataplane.deadline import Deadline
from fastgate.dataplane.exchange import UNREAD, Exchange
from fastgate.dataplane.express_exchange import ExpressExchange
from fastgate.dataplane.framing import FramingError
from fastgate.dataplane.head import HeadParser, find_head_end
from fastgate.dataplane.layout import Layout
from fastgate.dataplane.plane import Dataplane
from fastgate.dataplane.tunnel import Tunnel
from fastgate.errors import ForwardError, HeadError, Side
from fastgate.errors import Stage as Forwarding
from fastgate.gate import Pending
from fastgate.model import BodyKind, Forward, Reply
from fastgate.policy import replies

log = structlog.get_logger("fastgate.dataplane")

_INBOX: Final = 64 * 1024
"""Octets held back behind a request under way before reading is paused."""
_LINGER: Final = 1.0
"""Seconds to let a refused client read why before the connection is closed (RFC 9112 section 9.6)."""
_SWEEP: Final = 0.05
"""Seconds between two looks at what is left to drain."""
_ONE_MORE: Final = 1.0
"""Seconds that draining leaves to idle clients: what they may have sent already would be lost if we closed first."""


class _Stage(Enum):
    HEAD = "head"
    """Between requests, or within a head."""
    BODY = "body"
    BUSY = "busy"
    """The request is complete, its answer is not: what comes now waits."""
    PARTING = "parting"
    """The last answer is written; the client has a moment to read it."""


# An Enum's attribute costs fifteen times a global's in Python 3.11, and these are read on every request.
_HEAD: Final = _Stage.HEAD
_BODY: Final = _Stage.BODY
_BUSY: Final = _Stage.BUSY
_PARTING: Final = _Stage.PARTING
_CHUNKED: Final = BodyKind.CHUNKED


class DownstreamProtocol(RequestHandler):
    """One client connection."""

    __slots__ = (
        "_begun",
        "_body",
        "_came",
        "_deadline",
        "_discarding",
        "_express",
        "_held_up",
        "_inbox",
        "_inbox_paused",
        "_peer",
        "_scheme",
        "_stage",
        "_tunnel",
        "_wire",
        "_write_deadline",
        "client_eof",
        "exchange",
        "heads",
        "layout",
        "origin",
        "plane",
        "strained",
        "varies",
    )

    def __init__(self, server: "GatewayServer", plane: Dataplane, **kwargs: Any) -> None:
        super().__init__(server, loop=plane.loop, **kwargs)
        seam.drop_parser(self)
        self.plane = plane
        self.exchange: Exchange | ExpressExchange | None = None
        self._express: ExpressExchange | None = None
        self.client_eof = False
        self.strained = False
        """The client sends no more, or does not read what it was sent: nothing for the express lane."""
        self._wire: asyncio.Transport | None = None
        """The transport while it is open and counted; aiohttp forgets its own as soon as it closes."""
        self._stage = _HEAD
        self._inbox = b""
        self._inbox_paused = False
        self._begun = 0
        """Octets of a head that has begun."""
        self._body = NOTHING
        """Of the request that was read last."""
        self._came = 0
        """Octets of it since the deadline was set."""
        self._tunnel: Tunnel | None = None
        self._discarding = False
        self._held_up = False
        """The next request waits until the client has taken the last answer."""
        self._deadline = Deadline(plane.loop, self._read_expired)
        self._write_deadline = Deadline(plane.loop, self._write_expired)
        self._scheme = "http"
        self._peer = ""
        self.origin = ""
        """How requests on this connection come: what `RequestHead` holds beside a head. Equal ones are the same."""
        self.layout: Layout | None = None
        """Of the head that came last, where it has one."""
        self.varies = False
        """The head that came last was not as the one before of its kind: the next one need not be looked up whole."""

    # --- connection ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or say 503 when there are too many."""
        stats = self.plane.stats
        if stats.connections.total() >= self.plane.limits.connections:
            stats.connections_refused.add()
            reply = replies.reply(503, reason="connections", fields=((b"Retry-After", b"1"),))
            refused = cast("asyncio.Transport", transport)
            refused.write(replies.render(reply, date=self.plane.date(), keep_alive=False, method="GET"))
            refused.close()
            self._discarding = True
            return
        stats.connections.add()
        self._wire = cast("asyncio.Transport", transport)
        if transport.get_extra_info("sslcontext") is None:
            # What the kernel does not take at once is a reason to pause: nothing is piled up here.
            self._wire.set_write_buffer_limits(high=0)
        else:
            self._scheme = "https"
        peer, local = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        self._peer = peer[0] if peer else ""
        port = local[1] if local else 0
        self.origin = intern(f"{self._scheme} {self._peer} {port}")
        self.heads = HeadParser(self.plane.limits, scheme=self._scheme, peer=self._peer, port=port)
        self._deadline.set(self.plane.limits.keepalive_timeout)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Whatever was under way for this client ends."""
        if self._wire is not None:
            self._wire = None
            self.plane.stats.connections.add(amount=-1)
        self._deadline.close()
        self._write_deadline.close()
        super().connection_lost(exc)
        self._inbox = b""
        # They know us, too: nothing of a connection is left to the garbage collector.
        self._express = None
        self._body = NOTHING
        self._stage = _PARTING  # a body that could break is nobody's now, and NOTHING is everybody's

    def force_close(self) -> None:
        """Let go of the client: also aiohttp's way to close an idle connection, and to say that one was lost."""
        self.plane.outbox.flush()
        super().force_close()
        self._say_farewell()
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.downstream_lost()

    def _say_farewell(self) -> None:
        """What is written still goes out before the connection closes, but not to a client that does not read it."""
        if self._wire is not None:
            self._write_deadline.set(self.plane.limits.body_timeout)

    def eof_received(self) -> bool | None:  # type: ignore[override]  # aiohttp's says None: it always closes
        """A half-closed client still gets its answers (RFC 9112 section 9.6); TLS cannot be half-closed."""
        if self.client_eof:
            return True  # whoever resumes reading finds the end once more
        self.client_eof = self.strained = True
        self.plane.outbox.flush()  # the loop closes a transport for which this returns None
        if self._scheme == "https" or self._stage is _PARTING:
            return None
        if self._tunnel is not None:
            self._tunnel.client_eof()
            return True
        if self._stage is _BODY:
            self._break_body(_incomplete("the client ended its body early"))
            return True
        if self._stage is _HEAD:
            self._say_farewell()
            return None
        if self.exchange is not None:
            self.exchange.client_half_closed()
        return True

    def begin_drain(self, *, patient: bool = False) -> None:
        """Close now if nothing is under way; otherwise the answer that is due says `Connection: close`.

        `patient`: a client that has just connected, or had an answer before we drained, may be about to say something.
        """
        idle = self._stage is _HEAD and not self._begun
        if idle and self.transport is not None and not patient:
            self._say_farewell()
            self.plane.outbox.flush()
            self.transport.close()

    # --- octets in -------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Cut what arrives into messages and hand them on, one at a time."""
        if self._tunnel is not None:
            self._tunnel.client_data(data)
        elif self._stage is _HEAD and not self._inbox and not self._discarding:
            decision: Forward | Reply | Pending | bool = False
            if self.plane.express is not None and not (self.strained or self.plane.draining):
                try:
                    decision = self.plane.express.take(self, data)
                except Exception as error:  # noqa: BLE001 - told and answered
                    self._failed_early(error)
                    return
            if decision is not True:
                self._inbox = data
                self._take_in(decision or None)
        elif not self._discarding:
            self._inbox += data
            self._take_in()

    def _failed_early(self, error: Exception) -> None:
        """Answer a fault of ours about a request that has no exchange yet, or one on the express lane."""
        if self.exchange is None:
            self.exchange = Exchange(self, self.plane, UNREAD, NOTHING)
        self.failed(self.exchange, error)

    def express_exchange(self) -> ExpressExchange:
        """What carries requests of this connection on the express lane."""
        self._stage = _BUSY
        express, plane = self._express, self.plane
        if express is None:
            express = self._express = ExpressExchange(plane, self)
        return express

    def rest(self) -> None:
        """Wait for the next request: one that the express lane took was answered."""
        self.exchange = None
        if self._inbox or self.strained or self.plane.draining:
            self.finished(keep_alive=True)
        else:
            self._stage = _HEAD
            self._deadline.set(self.plane.limits.keepalive_timeout)

    def _take_in(self, decision: Forward | Reply | Pending | None = None) -> None:
        """Cut what waits into messages; `decision` was made about the first one."""
        while self._inbox:
            if self._stage is _HEAD:
                if not self._take_head(decision):
                    return
                decision = None
            elif self._stage is _BODY:
                self._take_body()
            else:
                if len(self._inbox) >= _INBOX and self.transport is not None:
                    self._inbox_paused = True
                    self.transport.pause_reading()
                return

    def _take_head(self, decision: Forward | Reply | Pending | None) -> bool:
        """Take one head; False while it is incomplete or when it was refused."""
        inbox = self._inbox
        if inbox.startswith(b"\r\n"):
            inbox = inbox[2:]  # one empty line is tolerated (RFC 9112 section 2.2)
        limits = self.plane.limits
        if inbox in (b"", b"\r"):
            return False
        try:
            end = find_head_end(inbox, limits, self._begun)
            if end < 0:
                if not self._begun:
                    self._deadline.set(limits.header_timeout)  # runs from the first octet
                self._begun = len(inbox)
                return False
            raw = inbox[:end]
            head = self.heads.parse(raw)
        except HeadError as error:
            self._refuse(error)
            return False
        self._deadline.clear()
        self._inbox = inbox[end:]
        self._begun = 0
        framing = head.framing
        if framing.kind is _CHUNKED or framing.length:
            self._body = Body(framing, self)
            self._stage = _BODY
            self._await_body()
            if self._inbox:
                # What came with the head belongs to the request: a small body is complete before its answer is.
                self._take_body()
        else:
            self._body = NOTHING
            self._stage = _BUSY
        exchange = self.exchange = Exchange(self, self.plane, head, self._body)
        self._guarded(exchange, partial(exchange.begin, decision))
        return True

    def _take_body(self) -> None:
        body, before = self._body, len(self._inbox)
        try:
            self._inbox = body.take(self._inbox)
        except FramingError as error:
            self._break_body(_incomplete(str(error)))
            return
        if body.complete:
            self._stage = _BUSY
            self._deadline.clear()
        else:
            self.body_moved(before - len(self._inbox))
        if self.exchange is not None:
            self._guarded(self.exchange, body.pass_on)

    @property
    def peer(self) -> str:
        """Address of the client."""
        return self._peer

    @property
    def body_complete(self) -> bool:
        """The whole request has arrived."""
        return self._stage is not _BODY

    @property
    def more_may_come(self) -> bool:
        """Another request may follow on this connection."""
        return not self.client_eof or bool(self._inbox)

    def _break_body(self, error: ForwardError) -> None:
        """The rest of the body will not come or cannot be told apart: nothing after it is read."""
        self._inbox = b""
        self._discarding = True
        self._deadline.clear()
        if self.exchange is None:
            self._body.fail(error)
        else:
            self._guarded(self.exchange, partial(self._body.fail, error))

    def _refuse(self, error: HeadError) -> None:
        """Answer with the status it deserves and read nothing more; no other answer is due, or it would be BUSY."""
        self._inbox = b""
        self._discarding = True
        self._deadline.clear()
        self._stage = _BUSY
        Exchange(self, self.plane, UNREAD, NOTHING).refuse(error)
        self._leave()

    # --- answers ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Nothing: aiohttp would answer its messages in this task of the connection; ours are answered at once."""

    def _guarded(self, exchange: Exchange | ExpressExchange, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001 - told and answered
            self.failed(exchange, error)

    def failed(self, exchange: Exchange | ExpressExchange, error: Exception) -> None:
        """A fault of ours costs this request, never the next one on the connection."""
        log.error("a request failed inside fastgate: please report this", exc_info=error)
        if exchange is self.exchange:
            exchange.refuse(HeadError(500, "internal error"))
            self.finished(keep_alive=False)
        elif self.exchange is None:
            self.force_close()  # it was answered: what failed is the turn to the next one

    def finished(self, *, keep_alive: bool) -> None:
        """The exchange is over: turn to the next request, or part."""
        self.exchange = None
        if not keep_alive:
            self._leave()
        elif self.writing_paused:
            # Who does not read answers is asked for no more requests: the pause held for this exchange only.
            self._held_up = True
        elif self._inbox:
            # Not from within the callback that ended this one: its upstream connection is still to be put to rest.
            self.plane.loop.call_soon(self._turn)
        else:
            self._next()

    def _turn(self) -> None:
        """Turn to the next request from the loop, where nobody else would end the connection after a fault of ours."""
        try:
            self._next()
        except Exception:
            log.exception("a connection failed inside fastgate: please report this")
            self.force_close()

    def _next(self) -> None:
        """Turn to the next request."""
        if self.transport is None or self._stage is _PARTING:
            return
        self._stage = _HEAD
        self._body = NOTHING
        if self._inbox_paused:
            self._inbox_paused = False
            self.transport.resume_reading()
        self._take_in()
        if self._stage is _BODY and self.client_eof:
            self._break_body(_incomplete("the client ended its body early"))
        elif self._stage is _HEAD and (self.client_eof or (self.plane.draining and not self._begun)):
            self._leave()
        elif self._stage is _HEAD and not self._begun:
            self._deadline.set(self.plane.limits.keepalive_timeout)

    def _leave(self) -> None:
        """Close in two steps, so that octets still to come do not turn our last words into a reset.

        Most clients end when we do; TLS has these steps of its own.
        """
        self._say_farewell()
        self.plane.outbox.flush()
        self._discarding = True
        self._inbox = b""
        self._tunnel = None
        self._stage = _PARTING
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if self.client_eof or not transport.can_write_eof():
            transport.close()
            return
        transport.write_eof()
        transport.resume_reading()
        self._deadline.set(_LINGER)

    # --- tunnel ----------------------------------------------------------------------------------------------

    def begin_tunnel(self, tunnel: Tunnel) -> bytes:
        """From now on octets are only octets; returns those that were held back."""
        self._tunnel = tunnel
        early, self._inbox = self._inbox, b""
        if self._inbox_paused and self.transport is not None:
            self._inbox_paused = False
            self.transport.resume_reading()
        return early

    # --- flow and time ---------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """The client reads slower than the upstream answers."""
        super().pause_writing()
        self.strained = True
        self._write_deadline.set(self.plane.limits.body_timeout)
        if self.exchange is not None:
            self.exchange.downstream_paused()

    def resume_writing(self) -> None:
        """It has caught up."""
        super().resume_writing()
        self.strained = self.client_eof
        if self.transport is not None and not self.transport.is_closing():
            self._write_deadline.clear()
        if self.exchange is not None:
            self.exchange.downstream_resumed()
        if self._held_up:
            self._held_up = False
            self.plane.loop.call_soon(self._turn)

    def takes(self) -> None:
        """The client has taken some of an answer that goes past its transport."""
        if self.writing_paused:
            self._write_deadline.set(self.plane.limits.body_timeout)

    def pause_body(self) -> None:
        """Read no more of the body for now."""
        if self.transport is not None:
            self.transport.pause_reading()

    def resume_body(self) -> None:
        """The body has room again: what the clock ran while it had none was not the client's time."""
        if self.transport is not None and self._stage is _BODY and not self._discarding:
            self.transport.resume_reading()
            self._await_body()

    def body_moved(self, octets: int) -> None:
        """The client has sent some of its body, perhaps past its transport; one that drips does not gain time by it."""
        limits = self.plane.limits
        self._came += octets
        if self._came >= limits.body_rate * limits.body_timeout:
            self._await_body()

    def _await_body(self) -> None:
        self._came = 0
        self._deadline.set(self.plane.limits.body_timeout)

    def _write_expired(self) -> None:
        if self._wire is not None:
            self._wire.abort()

    def _read_expired(self) -> None:
        if self._stage is _HEAD and self._begun:
            self._refuse(HeadError(408, "the head took too long"))
        elif self._stage is _HEAD or self._stage is _PARTING:
            self.force_close()
        elif self._stage is _BODY:
            if self._body.held_up:
                self._await_body()
            else:
                self._break_body(ForwardError(Side.DOWNSTREAM, Forwarding.BODY_TIMEOUT, "the body stalled"))


def _incomplete(detail: str) -> ForwardError:
    return ForwardError(Side.DOWNSTREAM, Forwarding.REQUEST_BODY, detail)


class GatewayServer(web.Server):
    """aiohttp's low-level server, making our protocol and our exchanges."""

    def __init__(self, plane: Dataplane) -> None:
        super().__init__(_nobody, loop=plane.loop)
        self._plane = plane
        self._protocol_settings: dict[str, Any] = {
            "keepalive_timeout": 0,  # ours is the deadline of the connection
            "access_log": None,
        }

    def __call__(self) -> RequestHandler:
        """Make the protocol of one accepted connection."""
        return DownstreamProtocol(self, self._plane, **self._protocol_settings)

    async def drain(self, seconds: float) -> int:
        """Finish what is under way, at most `seconds`; returns how many connections had to be cut."""
        self._plane.draining = True
        loop = self._plane.loop
        begun = loop.time()
        end = begun + seconds
        # What clients sent before they could know is read first: it makes a request of an idle connection.
        await asyncio.sleep(_SWEEP)
        while self.connections and loop.time() < end:
            for connection in self.connections:
                cast("DownstreamProtocol", connection).begin_drain(patient=loop.time() < begun + _ONE_MORE)
            await asyncio.sleep(_SWEEP)
        left = self.connections
        for connection in left:
            connection.force_close()
        await self.shutdown(1.0)
        return len(left)


async def _nobody(request: web.BaseRequest) -> web.StreamResponse:
    """Stands for the handler that aiohttp wants; `DownstreamProtocol` hands it no message."""
    raise NotImplementedError
