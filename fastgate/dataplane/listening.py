"""Listening sockets: bound so that nobody else can be on the port, shared between processes, emptied before they close.

A connection that waits to be accepted belongs to its listening socket, not to a process: as long as one process holds
the socket, another may stop accepting from it and nobody notices. When the last one closes it, the kernel resets what
still waits; so no new connection is let in first, and those that wait are accepted.
"""

import asyncio
import ctypes
import os
import select
import socket
import struct
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from ssl import SSLContext
from typing import Final, NamedTuple

from fastgate.errors import StartError
from fastgate.model import Address

BACKLOG: Final = 4096
_EMPTYING: Final = 1.0
"""Seconds at most to accept what waits."""
_TURN: Final = 0.002
_SO_ATTACH_FILTER: Final = 26
"""asm-generic/socket.h; Python has no name for it."""
_NO_SYN: Final = (
    (0x30, 0, 0, 13),  # A = the octet of TCP's flags
    (0x54, 0, 0, 0x12),  # A &= SYN | ACK
    (0x15, 0, 1, 0x02),  # SYN alone asks for a new connection
    (0x06, 0, 0, 0),  # drop it
    (0x06, 0, 0, 0xFFFFFFFF),  # pass everything else: handshakes under way are finished
)
"""A classic BPF program over TCP segments: (code, jump if true, jump if false, operand)."""


class Inlet(NamedTuple):
    """One listening socket and what is spoken on it."""

    socket: socket.socket
    tls: SSLContext | None = None


def listen_on(address: Address) -> list[socket.socket]:
    """Bind and listen: one socket for each address that the host stands for. Raises StartError.

    They may be joined by others of `beside`, although nobody else had the port before.
    """
    made: list[socket.socket] = []
    try:
        for family, _, _, _, where in _resolved(address):
            made.append(_bound(family, where, exclusive=True))
    except OSError as error:
        for each in made:
            each.close()
        raise cannot_listen(address, error) from error
    for each in made:
        # Only now: with it from the beginning, a second gateway on the same port would share it unnoticed.
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        each.listen(BACKLOG)
    return made


def beside(sock: socket.socket) -> socket.socket:
    """Make another listening socket on the same address: the kernel spreads connections evenly. Raises OSError."""
    made = _bound(sock.family, sock.getsockname(), exclusive=False)
    made.listen(BACKLOG)
    return made


def _resolved(address: Address) -> list[tuple[int, int, int, str, tuple[str, int]]]:
    found = socket.getaddrinfo(address.host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys(found))  # type: ignore[arg-type]  # (host, port, ...) for IPv6


def _bound(family: int, where: object, *, exclusive: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)  # noqa: FBT003 - the socket module's own signature
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if not exclusive:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(where)  # type: ignore[arg-type]
    except BaseException:
        sock.close()
        raise
    return sock


def cannot_listen(address: Address, error: OSError) -> StartError:
    """Say why, and what to do."""
    reason = str(error)
    if isinstance(error, socket.gaierror):
        reason = "its name cannot be resolved"
    elif error.errno:
        reason = os.strerror(error.errno)
    return StartError(
        f"cannot listen on {address.host}:{address.port}: {reason}; stop what holds the port or change the address"
    )


def refuse_new(sock: socket.socket) -> None:
    """Let no new connection in, in any process that holds this socket; those that wait are still to be accepted.

    Who tries to connect is told nothing and tries again a second later, when the port is closed or somebody else's.
    """
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _NO_SYN))
    with suppress(OSError):  # then what comes at the last instant is reset, as with most servers
        sock.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(_NO_SYN), ctypes.addressof(program))
        )


class Listeners:
    """The sockets that this process accepts from, by number. Each is duplicated: the one given is never closed."""

    def __init__(self, serve: Callable[[], asyncio.BaseProtocol]) -> None:
        """`serve` makes the protocol of one connection."""
        self._serve = serve
        self._open: dict[int, tuple[asyncio.Server, socket.socket]] = {}

    @property
    def accepting(self) -> frozenset[int]:
        """Numbers of the sockets that are accepted from."""
        return frozenset(self._open)

    async def accept(self, wanted: Mapping[int, Inlet]) -> None:
        """Accept from exactly these from now on. Connections that wait at the others are left to whoever holds them."""
        for number in self._open.keys() - wanted.keys():
            self._stop(number)
        loop = asyncio.get_running_loop()
        for number in wanted.keys() - self._open.keys():
            inlet = wanted[number]
            own = inlet.socket.dup()
            server = await loop.create_server(self._serve, sock=own, ssl=inlet.tls, backlog=BACKLOG)
            self._open[number] = (server, own)

    async def finish(self, last: Collection[int]) -> None:
        """Accept no more. At `last`, where nobody accepts after us: let nobody new in, and accept whoever waits."""
        for number in self._open.keys() - set(last):
            self._stop(number)
        ours = [sock for _, sock in self._open.values()]
        for sock in ours:
            refuse_new(sock)
        loop = asyncio.get_running_loop()
        end = loop.time() + _EMPTYING
        # Two turns at least: what the loop has been told of already is still to be accepted.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        while any(map(_somebody_waits, ours)) and loop.time() < end:  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(_TURN)
        self.close()

    def close(self) -> None:
        """Accept no more, at once."""
        for number in list(self._open):
            self._stop(number)

    def _stop(self, number: int) -> None:
        server, _ = self._open.pop(number)
        server.close()


def _somebody_waits(sock: socket.socket) -> bool:
    if sock.fileno() < 0:
        return False
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
