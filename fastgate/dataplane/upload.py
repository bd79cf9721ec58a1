"""A request's body on its way to the upstream: as it arrives, and no faster than the upstream takes it."""

import asyncio
from collections.abc import Callable
from typing import Final

from fastgate.dataplane.body import Body
from fastgate.dataplane.framing import last_chunk
from fastgate.dataplane.splice import WORTH, Pump, Pumps
from fastgate.dataplane.upstream import UpstreamConnection
from fastgate.errors import ForwardError
from fastgate.model import BodyKind, Framing
from fastgate.policy import forwarding

_CHUNKED: Final = BodyKind.CHUNKED


class Upload:
    """Relays one body that has not arrived completely: its reader, and told by the pump of its larger part."""

    __slots__ = ("_body", "_chunked", "_client", "_connection", "_failed", "_protected", "_pump", "_pumps")

    def __init__(
        self,
        body: Body,
        framing: Framing,
        client: asyncio.Transport,
        connection: UpstreamConnection,
        pumps: Pumps,
        protected: frozenset[bytes],
        failed: Callable[[ForwardError], None],
    ) -> None:
        self._body = body
        self._chunked = framing.kind is _CHUNKED
        self._client = client
        self._connection = connection
        self._pumps = pumps
        self._pump: Pump | None = None
        self._protected = protected
        """Names that may not stand in trailers."""
        self._failed = failed
        """Told that the body did not arrive; the connection was given up then."""

    def begin(self) -> None:
        """Send what has arrived, and then the rest as it does; the head was sent before."""
        self._body.read_by(self)
        self._splice()

    def stop(self) -> None:
        """Send nothing more."""
        self._body.leave()
        pump, self._pump = self._pump, None
        if pump is not None:
            pump.stop()

    def pause(self) -> None:
        """The upstream takes no more for now."""
        self._body.pause()

    def resume(self) -> None:
        """It does again."""
        self._body.resume()
        self._splice()

    # --- body.Reader ------------------------------------------------------------------------------------------

    def body_data(self, data: bytes) -> None:
        """Send them on."""
        if self._chunked:
            self._connection.write_chunk(data)
        else:
            self._connection.write(data)
            self._splice()

    def body_end(self) -> None:
        """End the request."""
        if self._chunked:
            self._connection.write(last_chunk(forwarding.trailers(self._body.trailers, self._protected)))
        self._connection.finish_request()

    def body_failed(self, error: ForwardError) -> None:
        """Never let a body that ended early look complete to the upstream (N55)."""
        self._connection.abort()
        self._failed(error)

    # --- splice.Ends ------------------------------------------------------------------------------------------

    def _splice(self) -> None:
        """Leave all but the last octet to a pump: with that one the connection sees what comes behind the body."""
        body, upstream = self._body, self._connection.transport
        if body.left < WORTH or body.held_up or self._pump is not None or upstream is None:
            return
        self._pump = self._pumps.begin(self._client, upstream, body.left - 1, self)
        if self._pump is not None:
            body.lend()

    def moved(self, octets: int) -> None:
        """Neither side stands still."""
        self._body.moved(octets)
        self._connection.upload_moved()

    def held_up(self) -> None:
        """As if the upstream's transport had said so."""
        self._connection.pause_writing()

    def goes_on(self) -> None:
        """The same."""
        self._connection.resume_writing()

    def finished(self) -> None:
        """The last octet comes the ordinary way."""
        self._pump = None
        self._body.give_back()

    def source_ended(self) -> None:
        """The client's transport finds the end by itself."""
        self._pump = None
        self._body.give_back()

    def source_broke(self) -> None:
        """The client's transport would not: an error is told once, and that was to the pump."""
        self._pump = None
        self._client.abort()

    def sink_broke(self) -> None:
        """Nothing more is read from the client; the upstream's transport finds its last words and its end."""
        self._pump = None
