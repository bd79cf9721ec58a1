"""The listening sockets of the gateway: they live as long as the supervisor, whatever workers come and go.

Each address has one socket for each worker (SO_REUSEPORT), so that the kernel spreads connections evenly and wakes one
process for each. They are numbered by worker, from 0; a socket that systemd passed is the only one of its address.
"""

import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from ssl import SSLContext

from fastgate.dataplane.listening import beside, cannot_listen, listen_on, refuse_new
from fastgate.errors import StartError
from fastgate.model import Address, Settings
from fastgate.supervisor.systemd import Activated


@dataclass(eq=False)
class Place:
    """One local address: its sockets, as many as there are workers or just one."""

    host: str
    port: int
    """As the configuration says; 0 is any free one."""
    sockets: list[socket.socket]
    ours: bool = True
    """Bound here, so that there can be more of them."""
    address: int = 0
    """Which of the configuration's `listen` it belongs to."""

    def grow(self, workers: int) -> None:
        """Have a socket for each worker. Where that cannot be had (too many open files), some share one."""
        with suppress(OSError):
            while self.ours and len(self.sockets) < workers:
                self.sockets.append(beside(self.sockets[0]))

    def refuse_new(self) -> None:
        """Let no new client in, while those that wait are still served; not where systemd keeps them for the next."""
        for each in self.sockets if self.ours else ():
            refuse_new(each)

    def close(self) -> None:
        """Give the address up; what waits at it is lost, unless somebody else holds the socket."""
        for each in self.sockets:
            each.close()


@dataclass
class OwnSockets:
    """What the supervisor serves itself: where operators reach the gateway, or identity providers."""

    sockets: list[socket.socket] = field(default_factory=list)
    tls: SSLContext | None = None


class Sockets:
    """Everything that the gateway listens on."""

    def __init__(self, settings: Settings, workers: int, passed: Sequence[Activated] = ()) -> None:
        """Bind everything, using the sockets that systemd passed where they have the same address.

        Raises StartError, with nothing left bound.
        """
        self._passed = list(passed)
        self.admin: OwnSockets | None = None
        self.events: OwnSockets | None = None
        self.places: list[Place] = []
        try:
            self.places = self._opened(settings.listen, workers)
            if settings.admin is not None:
                self.admin = self._own(settings.admin.address)
            if settings.events is not None:
                self.events = self._own(settings.events)
            _none_left(self._passed, settings)
        except BaseException:
            self.close()
            raise

    def moved(self, listen: Sequence[Address], workers: int) -> list[Place]:
        """Bind what a new configuration listens on; addresses that it has already are not bound again.

        Raises StartError, with nothing changed. `settle` puts the result in force.
        """
        return self._opened(listen, workers)

    def settle(self, places: list[Place]) -> list[Place]:
        """Listen on these from now on; returns those that are to be given up when nobody accepts from them any more."""
        gone = _without(self.places, places)
        self.places = places
        for place in gone:
            place.refuse_new()
        return gone

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where clients reach the gateway."""
        return [place.sockets[0].getsockname()[:2] for place in self.places]

    def refuse_new(self) -> None:
        """Let no new client in, while those that wait are still served."""
        for place in self.places:
            place.refuse_new()

    def discard(self, places: Sequence[Place]) -> None:
        """Close what `moved` has bound: it was not put in force."""
        for place in _without(places, self.places):
            place.close()

    def close_public(self) -> None:
        """Give up the addresses of clients."""
        for place in self.places:
            place.close()

    def close(self) -> None:
        """Close everything."""
        self.close_public()
        for each in self._passed:
            each.socket.close()
        for own in (self.admin, self.events):
            for sock in own.sockets if own is not None else ():
                sock.close()

    def _opened(self, listen: Sequence[Address], workers: int) -> list[Place]:
        known: dict[tuple[str, int], list[Place]] = {}
        for place in self.places:
            known.setdefault((place.host, place.port), []).append(place)
        made: list[Place] = []
        result: list[Place] = []
        try:
            for number, address in enumerate(listen):
                found = known.get((address.host, address.port))
                if found is None:
                    found = self._bound(address)
                    made += found
                for place in found:
                    place.grow(workers)
                result += [Place(each.host, each.port, each.sockets, each.ours, number) for each in found]
        except BaseException:
            for place in made:
                place.close()
            raise
        return result

    def _bound(self, address: Address) -> list[Place]:
        taken = self._take(address)
        if taken:
            return [Place(address.host, address.port, [each.socket], ours=False) for each in taken]
        return [Place(address.host, address.port, [sock]) for sock in listen_on(address)]

    def _own(self, address: Address) -> OwnSockets:
        taken = self._take(address)
        return OwnSockets([each.socket for each in taken] or listen_on(address), address.tls)

    def _take(self, address: Address) -> list[Activated]:
        """Take those of the passed sockets that are at this address."""
        if not self._passed:
            return []
        wanted = _stands_for(address)
        taken = [each for each in self._passed if _at(each.socket) in wanted]
        self._passed = [each for each in self._passed if each not in taken]
        return taken


def _without(places: Sequence[Place], others: Sequence[Place]) -> list[Place]:
    """Places whose sockets are none of the others'."""
    theirs = {id(sock) for place in others for sock in place.sockets}
    return [place for place in places if not any(id(sock) in theirs for sock in place.sockets)]


def _stands_for(address: Address) -> set[tuple[str, int]]:
    """Local addresses that a configured one means."""
    try:
        found = socket.getaddrinfo(address.host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise cannot_listen(address, error) from error
    return {(str(where[0]), int(where[1])) for *_, where in found}


def _at(sock: socket.socket) -> tuple[str, int]:
    host, port = sock.getsockname()[:2]
    return str(host), int(port)


def _none_left(passed: Sequence[Activated], settings: Settings) -> None:
    """Raise StartError when a socket was passed at an address that the configuration does not name."""
    if not passed:
        return
    listen = [*settings.listen]
    listen += [settings.admin.address] if settings.admin is not None else []
    listen += [settings.events] if settings.events is not None else []
    theirs = ", ".join(f"{host}:{port} ({each.name})" for each in passed for host, port in [_at(each.socket)])
    ours = ", ".join(f"{address.host}:{address.port}" for address in listen)
    raise StartError(
        f"systemd passed a socket on {theirs}, but the configuration listens on {ours}: "
        "make ListenStream= of the socket unit and `listen`, `admin.listen` or `events.listen` the same"
    )
