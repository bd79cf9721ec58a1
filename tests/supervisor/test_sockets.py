"""The listening sockets: exclusive towards others, several among ourselves."""

import errno
import socket
from collections import Counter

import pytest

from fastgate.dataplane import listening
from fastgate.errors import StartError
from fastgate.model import Address, Admin, Settings
from fastgate.supervisor.sockets import Sockets
from fastgate.supervisor.systemd import Activated
from tests.support.process import answers, free_port

ADMIN = Admin(Address("127.0.0.1", 0))


def settings(*ports, host="127.0.0.1", admin=ADMIN):
    return Settings(tuple(Address(host, port) for port in ports), admin)


def accepted(sock):
    count = 0
    while True:
        try:
            sock.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


def test_one_for_each_worker():
    """The kernel spreads connections evenly over them; nobody else gets the port, not even one of our own kind."""
    sockets = Sockets(settings(0), 4)
    ((_, port),) = sockets.addresses
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
    assert min(accepted(sock) for sock in sockets.places[0].sockets) >= 20
    with pytest.raises(StartError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use; stop "):
        Sockets(settings(port), 2)
    for each in clients:
        each.close()
    sockets.close()
    Sockets(settings(port), 2).close()


def test_nothing_is_left_bound_when_one_is_taken():
    """P6: also when it is the last of several."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        free, other = free_port(), free_port()
        with pytest.raises(StartError, match="cannot listen"):
            Sockets(settings(free, taken.getsockname()[1]), 2)
        with pytest.raises(StartError, match="cannot listen"):
            Sockets(settings(free, other, admin=Admin(Address("127.0.0.1", taken.getsockname()[1]))), 2)
    assert not answers(free)
    assert not answers(other)


def test_a_host_that_does_not_exist():
    with pytest.raises(StartError, match=r"cannot listen on nowhere\.invalid:80: its name cannot be resolved"):
        Sockets(settings(80, host="nowhere.invalid"), 1)


def test_every_interface():
    """`:port` is every IPv4 and every IPv6 address, as far as the machine has them."""
    sockets = Sockets(settings(free_port(), host=""), 2)
    assert Counter(place.sockets[0].family for place in sockets.places)[socket.AF_INET] == 1
    sockets.close()


def test_too_many_open_files(monkeypatch):
    """What cannot be had is shared: fewer sockets than workers."""

    def full(_):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("fastgate.supervisor.sockets.beside", full)
    sockets = Sockets(settings(0), 4)
    assert len(sockets.places[0].sockets) == 1
    sockets.close()


def test_moving():
    """What is listened on already is kept, what is new is bound, what is gone takes nobody new."""
    sockets = Sockets(settings(0), 1)
    (kept,) = sockets.places
    ((_, port),) = sockets.addresses
    first, second = free_port(), free_port()
    places = sockets.moved(settings(first, 0).listen, 2)
    assert [place.port for place in places] == [first, 0]
    assert places[1].sockets is kept.sockets
    assert [len(place.sockets) for place in places] == [2, 2]
    assert [place.address for place in places] == [0, 1]
    assert sockets.settle(places) == []
    discarded = sockets.moved(settings(0, second).listen, 2)
    sockets.discard(discarded)
    assert not answers(second)
    assert answers(port)
    (gone,) = sockets.settle(sockets.moved(settings(0).listen, 2))
    assert gone.port == first
    waiting = socket.socket()
    waiting.settimeout(0.2)
    with pytest.raises(TimeoutError):
        waiting.connect(("127.0.0.1", first))
    waiting.close()
    gone.close()
    sockets.close()


def test_a_socket_that_was_passed():
    """The only one of its address, whatever the number of workers."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    port = sock.getsockname()[1]
    sockets = Sockets(settings(port, 0), 3, [Activated(sock, "web")])
    assert [len(place.sockets) for place in sockets.places] == [1, 3]
    assert sockets.places[0].sockets == [sock]
    sockets.close()


def test_refusing_the_new_serves_those_who_wait():
    """Who has connected is still to be accepted; who connects now is told nothing."""
    (sock,) = listening.listen_on(Address("127.0.0.1", 0))
    where = sock.getsockname()
    with sock, socket.create_connection(where) as waiting, socket.socket() as late:
        listening.refuse_new(sock)
        late.settimeout(0.2)
        with pytest.raises(TimeoutError):
            late.connect(where)
        accepted_, _ = sock.accept()
        with accepted_:
            waiting.sendall(b"hello")
            assert accepted_.recv(5) == b"hello"
