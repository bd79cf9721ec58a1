"""The larger part of a large answer: from the upstream's socket to the client's, past this process."""

from typing import TYPE_CHECKING

from fastgate.dataplane.splice import Pump, Pumps
from fastgate.dataplane.upstream import UpstreamConnection

if TYPE_CHECKING:
    from fastgate.dataplane.server import DownstreamProtocol


class Download:
    """Told by the pump of one answer."""

    __slots__ = ("_connection", "_protocol", "_pump", "moved_octets")

    def __init__(self, connection: UpstreamConnection, protocol: "DownstreamProtocol") -> None:
        self._connection = connection
        self._protocol = protocol
        self._pump: Pump | None = None
        self.moved_octets = 0

    def begin(self, pumps: Pumps) -> None:
        """Leave all but the last octet to a pump, if one can begin now: so the connection sees what comes behind."""
        connection, client = self._connection, self._protocol.transport
        upstream = connection.transport
        if self._pump is not None or upstream is None or client is None:
            return
        self._pump = pumps.begin(upstream, client, connection.left - 1, self)
        if self._pump is not None:
            connection.lend()

    def stop(self) -> None:
        """Move nothing more."""
        pump, self._pump = self._pump, None
        if pump is not None:
            pump.stop()

    # --- splice.Ends ------------------------------------------------------------------------------------------

    def moved(self, octets: int) -> None:
        """Neither side stands still."""
        self.moved_octets += octets
        self._connection.moved(octets)
        self._protocol.takes()

    def held_up(self) -> None:
        """As if the client's transport had said so."""
        self._protocol.pause_writing()

    def goes_on(self) -> None:
        """The same."""
        self._protocol.resume_writing()

    def finished(self) -> None:
        """The last octet comes the ordinary way."""
        self._pump = None
        self._connection.take_back()

    def source_ended(self) -> None:
        """An answer of known length that ends before its last octet is cut short."""
        self._pump = None
        self._connection.cut_short()

    def source_broke(self) -> None:
        """The same."""
        self.source_ended()

    def sink_broke(self) -> None:
        """The client is gone; an error is told once, and that was to the pump."""
        self._pump = None
        if self._protocol.transport is not None:
            self._protocol.transport.abort()
