"""Octets from one socket to another through a pipe: they stay in the kernel (splice(2)).

A large body that nobody has to look into costs far less this way than through buffers of this process
(bench/PROFILE.md). Plain TCP on both sides only: under TLS the octets have to be seen.

uvloop lets nobody watch the descriptor of one of its transports, so a pump works on duplicates. Meanwhile the source's
transport may not read and the sink's has nothing to write; what comes after the pump's octets is the transport's.
"""

import asyncio
import fcntl
import os
import resource
import socket
from contextlib import suppress
from typing import Final, Protocol

from fastgate.stats import Stats

WORTH: Final = 1024 * 1024
"""Octets from which on a pump is worth the system calls that begin and end it; half as many are relayed as cheaply."""
_PIPE: Final = 256 * 1024
"""Octets a pipe is to hold: four times as many save nothing, a quarter costs half as much again."""
_LEAST: Final = 64 * 1024
"""Octets below which it is not worth it: the kernel gives a user with very many pipes only a page or two."""
_AT_ONCE: Final = 256
"""Pumps of one worker: what waits in a pipe is memory of the kernel."""
_SHARE: Final = 16
"""One pump at most for so many descriptors that the process may open: each takes four."""
_TURN: Final = 8
"""Fillings of the pipe before others have their turn."""
_FLAGS: Final = getattr(os, "SPLICE_F_MOVE", 0) | getattr(os, "SPLICE_F_NONBLOCK", 0)
"""0 where there is no splice: then there are no pumps."""


class Ends(Protocol):
    """Who is told how a pump fares. One of the last four ends it, unless it is stopped."""

    def moved(self, octets: int) -> None:
        """The sink has taken so many more."""

    def held_up(self) -> None:
        """It takes no more for now."""

    def goes_on(self) -> None:
        """It does again."""

    def finished(self) -> None:
        """Every octet was moved."""

    def source_ended(self) -> None:
        """The source said its end before the last octet."""

    def source_broke(self) -> None:
        """The source was reset, or broke otherwise."""

    def sink_broke(self) -> None:
        """The sink takes nothing any more."""


class Pumps:
    """The pumps of one worker."""

    __slots__ = ("_loop", "_most", "_stats", "running")

    def __init__(self, loop: asyncio.AbstractEventLoop, stats: Stats) -> None:
        self._loop = loop
        self._stats = stats
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = min(_AT_ONCE, descriptors // _SHARE) if _kernel_splices() else 0
        self.running = 0

    def begin(
        self, source: asyncio.BaseTransport, sink: asyncio.WriteTransport, octets: int, ends: Ends
    ) -> "Pump | None":
        """Move so many octets; None when that cannot be done this way, now or ever, and nothing was changed."""
        if self.running >= self._most or sink.get_write_buffer_size():
            return None
        if source.is_closing() or sink.is_closing() or not is_plain(source) or not is_plain(sink):
            return None
        pump = Pump(self._loop, self, octets, ends)
        if not pump.open(source, sink):
            return None
        self.running += 1
        self._stats.splices.add()
        return pump


class Pump:
    """Moves octets as they come and no faster than they are taken."""

    __slots__ = (
        "_again",
        "_ends",
        "_entrance",
        "_exit",
        "_held",
        "_held_up",
        "_holds",
        "_left",
        "_loop",
        "_over",
        "_pumps",
        "_sink",
        "_source",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, pumps: Pumps, octets: int, ends: Ends) -> None:
        self._loop = loop
        self._pumps = pumps
        self._ends = ends
        self._left = octets
        """Octets the sink has still to take."""
        self._held = 0
        """Octets in the pipe."""
        self._held_up = False
        self._again = False
        """A turn is scheduled."""
        self._over = False
        self._source = self._entrance = self._exit = self._sink = -1
        self._holds = 0

    def open(self, source: asyncio.BaseTransport, sink: asyncio.BaseTransport) -> bool:
        """Take what it needs of descriptors and begin; False, and nothing is taken, when there are too few."""
        try:
            self._exit, self._entrance = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            self._source = os.dup(source.get_extra_info("socket").fileno())
            self._sink = os.dup(sink.get_extra_info("socket").fileno())
            self._holds = _widen(self._entrance)
        except OSError:
            self._holds = 0
        if self._holds < _LEAST:
            self._close()
            return False
        self._loop.add_reader(self._source, self._readable)
        return True

    def stop(self) -> None:
        """Move nothing more; octets in the pipe are lost. A second time it does nothing."""
        if self._over:
            return
        self._over = True
        # Before they are closed: what watches them holds the number, not what stands behind it.
        self._loop.remove_reader(self._source)
        self._loop.remove_writer(self._sink)
        self._close()
        self._pumps.running -= 1

    def _close(self) -> None:
        for descriptor in (self._source, self._entrance, self._exit, self._sink):
            if descriptor >= 0:
                os.close(descriptor)

    def _readable(self) -> None:
        if not self._again:
            self._move()

    def _move(self) -> None:
        """Fill the pipe and empty it, until one of the ends has nothing or takes nothing, but not for too long.

        After an error of the socket uvloop calls once and never again, so the rest of a turn is not left to it.
        """
        self._again = False
        for _ in range(_TURN):
            if self._over or not self._fill() or not self._drain():
                return
        self._again = True
        self._loop.call_soon(self._move)

    def _fill(self) -> bool:
        """Fill the empty pipe; False when nothing came."""
        try:
            self._held = os.splice(self._source, self._entrance, min(self._left, self._holds), flags=_FLAGS)
        except BlockingIOError:
            return False
        except OSError:
            self.stop()
            self._ends.source_broke()
            return False
        if not self._held:
            self.stop()
            self._ends.source_ended()
        return self._held > 0

    def _drain(self) -> bool:
        """Empty the pipe; True when more is to be moved and can be."""
        while self._held:
            try:
                taken = os.splice(self._exit, self._sink, self._held, flags=_FLAGS)
            except BlockingIOError:
                self._wait_for_sink()
                return False
            except OSError:
                self.stop()
                self._ends.sink_broke()
                return False
            self._held -= taken
            self._left -= taken
            self._ends.moved(taken)
        if self._held_up:
            self._held_up = False
            self._loop.remove_writer(self._sink)
            self._loop.add_reader(self._source, self._readable)
            self._ends.goes_on()
        if not self._left:
            self.stop()
            self._ends.finished()
        return not self._over

    def _wait_for_sink(self) -> None:
        if not self._held_up:
            self._held_up = True
            self._loop.remove_reader(self._source)
            self._loop.add_writer(self._sink, self._drain)
            self._ends.held_up()


def is_plain(transport: asyncio.BaseTransport) -> bool:
    """Whether its octets are those of a socket: not under TLS."""
    return transport.get_extra_info("sslcontext") is None and transport.get_extra_info("socket") is not None


def _widen(pipe: int) -> int:
    """Make a pipe as large as it may be; returns how many octets it holds. Raises OSError."""
    with suppress(PermissionError):  # this user's pipes hold too much already
        return fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE)
    return fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)


def _kernel_splices() -> bool:
    """Whether the system call is there and allowed: not everywhere outside Linux, nor in every sandbox."""
    if not _FLAGS:
        return False
    ours, theirs = socket.socketpair()
    exit_, entrance = os.pipe()
    try:
        theirs.send(b"x")
        return os.splice(ours.fileno(), entrance, 1) == 1 and os.splice(exit_, theirs.fileno(), 1) == 1
    except OSError:
        return False
    finally:
        ours.close()
        theirs.close()
        os.close(exit_)
        os.close(entrance)
