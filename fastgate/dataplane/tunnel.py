"""What is left of an exchange after a verified 101: octets both ways (RFC 9110 section 7.8)."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from fastgate.dataplane.outbox import Outbox
from fastgate.dataplane.upstream import UpstreamConnection

if TYPE_CHECKING:
    from fastgate.dataplane.server import DownstreamProtocol


class Tunnel:
    """Passes octets and half-closes; the exchange keeps the connections' deadlines and ends."""

    __slots__ = ("_connection", "_ended", "_half_closed", "_outbox", "_protocol", "received", "sent")

    def __init__(
        self,
        protocol: "DownstreamProtocol",
        connection: UpstreamConnection,
        outbox: Outbox,
        ended: Callable[[], None],
    ) -> None:
        self._protocol = protocol
        self._connection = connection
        self._outbox = outbox
        self._ended = ended
        """Told that neither side has anything more to say."""
        self._half_closed = False
        self.received = 0
        """Octets from the client."""
        self.sent = 0
        """Octets to it."""

    def client_data(self, data: bytes) -> None:
        """Octets from the client's end."""
        self.received += len(data)
        self._connection.write(data)

    def client_eof(self) -> None:
        """The client's end says no more."""
        if not self._connection.write_eof() or self._half_closed:
            self._ended()
        self._half_closed = True

    def upstream_data(self, data: bytes) -> None:
        """Octets from the upstream's end."""
        self.sent += len(data)
        transport = self._protocol.transport
        if transport is not None:
            self._outbox.flush()
            transport.write(data)

    def upstream_eof(self) -> None:
        """The upstream's end says no more."""
        transport = self._protocol.transport
        if self._half_closed or transport is None or not transport.can_write_eof():
            self._ended()
            return
        self._half_closed = True
        transport.write_eof()

    def pause(self) -> None:
        """The upstream takes no more for now."""
        if self._protocol.transport is not None:
            self._protocol.transport.pause_reading()

    def resume(self) -> None:
        """It does again."""
        if self._protocol.transport is not None:
            self._protocol.transport.resume_reading()
