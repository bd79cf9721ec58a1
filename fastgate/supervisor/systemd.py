"""systemd's two ways to speak with a service: notifications (sd_notify(3)) and activated sockets (sd_listen_fds(3))."""

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, NamedTuple

from fastgate.errors import StartError

_FIRST: Final = 3
"""The number of the first activated socket."""


class Notifier:
    """Tells systemd how it goes; without systemd it says nothing."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """`environ` names the socket to write to, and how often a sign of life is wanted."""
        where = environ.get("NOTIFY_SOCKET", "")
        self._where = "\0" + where[1:] if where.startswith("@") else where
        wanted = environ.get("WATCHDOG_USEC", "")
        ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.interval = int(wanted) / 2e6 if self._where and ours and wanted.isdigit() and int(wanted) else None
        """Seconds between two signs of life; None: nobody wants any."""
        self._status = ""

    def ready(self) -> None:
        """Say that clients are served: after a start, and after a reload."""
        self._say("READY=1")

    def reloading(self) -> None:
        """Say that the configuration is being read."""
        self._say(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """Say that the end has begun."""
        self._say("STOPPING=1\nSTATUS=draining")

    def status(self, status: str) -> None:
        """Say in words how it goes, when it has changed."""
        if status != self._status:
            self._status = status
            self._say(f"STATUS={status}")

    def alive(self) -> None:
        """Give a sign of life."""
        self._say("WATCHDOG=1")

    def _say(self, what: str) -> None:
        if not self._where:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)  # noqa: FBT003 - the socket module's own signature
            sock.sendto(what.encode(), self._where)


class Activated(NamedTuple):
    """A listening socket that systemd opened."""

    socket: socket.socket
    name: str
    """FileDescriptorName= of the socket unit."""


def activated(environ: Mapping[str, str]) -> list[Activated]:
    """Take the sockets that systemd passed to this very process. Raises StartError when one does not listen on TCP."""
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = environ.get("LISTEN_FDS", "")
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    found = []
    for index in range(int(count) if count.isdigit() else 0):
        name = names[index] if index < len(names) else "unknown"
        try:
            sock = socket.socket(fileno=_FIRST + index)
            listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError:
            raise StartError(f"systemd passed no socket as descriptor {_FIRST + index} ({name})") from None
        if not listens or sock.type != socket.SOCK_STREAM or sock.family not in (socket.AF_INET, socket.AF_INET6):
            raise StartError(
                f"systemd passed a socket ({name}) that does not listen on TCP: use ListenStream=host:port"
            )
        sock.set_inheritable(False)
        sock.setblocking(False)  # noqa: FBT003 - the same
        found.append(Activated(sock, name))
    return found
