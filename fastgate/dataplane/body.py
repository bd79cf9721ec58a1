"""The body of one request: fed by the connection as it arrives, read by one reader no faster than it takes it.

Until somebody reads, and while the reader takes nothing, octets wait here; when enough of them do the connection is
asked to read no further. A pump may read the socket itself meanwhile: then the body is lent to it.
"""

import asyncio
from typing import Final, Protocol

from fastgate.dataplane.framing import ChunkedDecoder
from fastgate.errors import ForwardError
from fastgate.model import NO_BODY, BodyKind, Field, Framing

# An Enum's attribute costs fifteen times a global's in Python 3.11, and these are read on every request.
_CHUNKED: Final = BodyKind.CHUNKED
_ENOUGH: Final = 64 * 1024
"""Octets that wait before the connection is asked for no more."""


class Reader(Protocol):
    """Who reads a body. One of the last two ends it, once."""

    def body_data(self, data: bytes) -> None:
        """Octets of the body, transfer coding removed."""

    def body_end(self) -> None:
        """That was all of it."""

    def body_failed(self, error: ForwardError) -> None:
        """The rest will not come."""


class Flow(Protocol):
    """Where a body comes from."""

    def pause_body(self) -> None:
        """Read no further for now."""

    def resume_body(self) -> None:
        """Read on."""

    def body_moved(self, octets: int) -> None:
        """A pump has read some of it."""


class Body:
    """The body of one request."""

    __slots__ = (
        "_chunks",
        "_error",
        "_flow",
        "_flowing",
        "_lent",
        "_paused",
        "_reader",
        "_size",
        "_waiting",
        "complete",
        "left",
        "taken",
    )

    def __init__(self, framing: Framing, flow: Flow | None = None) -> None:
        chunked = framing.kind is _CHUNKED
        self._flow = flow
        self._chunks = ChunkedDecoder() if chunked else None
        self._reader: Reader | None = None
        self._error: ForwardError | None = None
        self._waiting: list[bytes] = []
        self._size = 0
        """Octets that wait."""
        self._paused = False
        self._lent = False
        self._flowing = True
        self.left = framing.length
        """Octets still to arrive; 0 where that is not known."""
        self.complete = not chunked and not self.left
        """All of it has arrived, though perhaps not been read."""
        self.taken = 0
        """Octets that were read."""

    def __repr__(self) -> str:
        return f"<Body left={self.left} waiting={self._size} complete={self.complete}>"

    @property
    def trailers(self) -> tuple[Field, ...]:
        """Trailer fields, once it is complete."""
        return self._chunks.trailers if self._chunks is not None else ()

    @property
    def held_up(self) -> bool:
        """Whoever reads it is slow, not who sends it."""
        return self._paused or self._size >= _ENOUGH

    # --- from the connection ----------------------------------------------------------------------------------

    def take(self, data: bytes) -> bytes:
        """Take what arrived; returns what lies behind the end of the body. Raises FramingError.

        Nobody hears of it before `pass_on`.
        """
        if self._chunks is not None:
            data, rest = self._chunks.feed(data)
            self.complete = self._chunks.complete
        else:
            data, rest = (data, b"") if len(data) <= self.left else (data[: self.left], data[self.left :])
            self.left -= len(data)
            self.complete = not self.left
        if data:
            self._waiting.append(data)
            self._size += len(data)
        return rest

    def pass_on(self) -> None:
        """Hand what waits to who reads, unless it takes nothing now."""
        reader = self._reader
        if reader is not None and not self._paused:
            if self._waiting:
                reader.body_data(self.take_out())
            # It may have asked for a pause, or left.
            if self.complete and not self._waiting and reader is self._reader:
                self._reader = None
                reader.body_end()
        self._regulate()

    def fail(self, error: ForwardError) -> None:
        """The rest will not come: who reads hears that at once, before what still waits."""
        self._error = error
        self._waiting.clear()
        self._size = 0
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.body_failed(error)

    # --- from who reads ---------------------------------------------------------------------------------------

    def read_by(self, reader: Reader) -> None:
        """Hand on what waits, and from now on everything as it arrives."""
        if self._error is not None:
            reader.body_failed(self._error)
            return
        self._reader = reader
        self.pass_on()

    def leave(self) -> None:
        """Nobody reads any more."""
        self._reader = None

    def pause(self) -> None:
        """Who reads takes no more for now."""
        self._paused = True
        self._regulate()

    def resume(self) -> None:
        """It does again."""
        if self._paused:
            self._paused = False
            self.pass_on()

    def take_out(self) -> bytes:
        """Everything that waits."""
        waiting = self._waiting
        data = waiting[0] if len(waiting) == 1 else b"".join(waiting)
        self.taken += self._size
        self._waiting, self._size = [], 0
        return data

    async def whole(self, at_most: int) -> bytes | None:
        """All of it in one piece; None as soon as it is longer than that. Raises ForwardError when it breaks."""
        gatherer = _Gatherer(at_most)
        self.read_by(gatherer)
        try:
            gathered = await gatherer.gathered
        finally:
            self.leave()
        if isinstance(gathered, ForwardError):
            raise gathered
        return gathered

    # --- from a pump ------------------------------------------------------------------------------------------

    def lend(self) -> None:
        """From now on a pump reads the socket: the connection does not."""
        self._lent = True
        self._regulate()

    def moved(self, octets: int) -> None:
        """A pump has read and passed on so many; it may not read the last one."""
        self.left -= octets
        self.taken += octets
        if self._flow is not None:
            self._flow.body_moved(octets)

    def give_back(self) -> None:
        """The connection reads again."""
        self._lent = False
        self._regulate()

    def _regulate(self) -> None:
        """Let the connection read exactly while there is room; behind the end of the body that is not ours to say."""
        flowing = self.complete or not (self._lent or self.held_up)
        if flowing is self._flowing or self._flow is None:
            return
        self._flowing = flowing
        if flowing:
            self._flow.resume_body()
        else:
            self._flow.pause_body()


class _Gatherer:
    """Reads a body into one piece."""

    __slots__ = ("_at_most", "_pieces", "_size", "gathered")

    def __init__(self, at_most: int) -> None:
        self._at_most = at_most
        self._pieces: list[bytes] = []
        self._size = 0
        self.gathered: asyncio.Future[bytes | ForwardError | None] = asyncio.get_running_loop().create_future()
        """An error is a result, so that nobody has to hear of it when the client has left too."""

    def body_data(self, data: bytes) -> None:
        """Keep them, while there is room."""
        self._size += len(data)
        self._pieces.append(data)
        if self._size > self._at_most and not self.gathered.done():
            self.gathered.set_result(None)

    def body_end(self) -> None:
        """Hand out the whole."""
        if not self.gathered.done():
            self.gathered.set_result(b"".join(self._pieces))

    def body_failed(self, error: ForwardError) -> None:
        """Hand out the reason."""
        if not self.gathered.done():
            self.gathered.set_result(error)


NOTHING: Final = Body(NO_BODY)
"""The body of every request that has none."""
