"""What systemd sees, played by the test: notifications, signs of life, activated sockets."""

import asyncio
import os
import signal
import socket
import sys

import pytest

from fastgate.supervisor.systemd import Notifier, activated
from tests.contract.parts import config
from tests.support.client import PATIENCE, fetch
from tests.support.ledger import Ledger
from tests.support.process import Process, answers, free_port

from .parts import Fleet

TWO = {"workers": 2}


class Systemd:
    """The receiving end of sd_notify."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(str(path))
        self.sock.setblocking(False)  # noqa: FBT003 - the socket module's own signature
        self.environ = {"NOTIFY_SOCKET": str(path)}

    async def said(self, wanted):
        """Wait for a message that contains this; returns it."""
        async with asyncio.timeout(PATIENCE):
            while True:
                message = (await asyncio.get_running_loop().sock_recv(self.sock, 4096)).decode()
                if wanted in message:
                    return message


@pytest.fixture
def systemd(tmp_path):
    made = Systemd(tmp_path / "notify")
    yield made
    made.sock.close()


async def test_a_life_as_a_service(idp, upstream, systemd):
    """READY when clients are served, RELOADING while a file is read, STOPPING at the end, WATCHDOG all the time."""
    environ = systemd.environ | {"WATCHDOG_USEC": "400000"}
    gateway = Fleet(config(idp, upstream, **TWO), env=environ)
    starting = asyncio.create_task(gateway.start())
    assert await systemd.said("STATUS=") == "STATUS=2 of 2 workers serving"
    assert await systemd.said("READY=1") == "READY=1"
    assert (await fetch(gateway.port, "GET", "/public")).status == 200
    await starting
    for _ in range(2):
        await systemd.said("WATCHDOG=1")
    gateway.process.signal(signal.SIGHUP)
    assert "\nMONOTONIC_USEC=" in await systemd.said("RELOADING=1")
    await systemd.said("READY=1")
    os.kill((await gateway.pids())[1], signal.SIGKILL)
    await systemd.said("STATUS=1 of 2 workers serving")
    await systemd.said("STATUS=2 of 2 workers serving")
    gateway.process.signal(signal.SIGTERM)
    await systemd.said("STOPPING=1")
    assert await gateway.stop() == 0


def test_an_abstract_socket():
    """A name that begins with @ is Linux's own kind of address."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0fastgate-test-notify")
        Notifier({"NOTIFY_SOCKET": "@fastgate-test-notify"}).stopping()
        assert sock.recv(100) == b"STOPPING=1\nSTATUS=draining"


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "3000000"}, None),
        ({"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "3000000"}, 1.5),
        ({"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "0"}, None),
        ({"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "often"}, None),
    ],
)
def test_when_signs_of_life_are_wanted(environ, interval):
    """At half the time that systemd waits, from the process that it means; a socket that is gone harms nobody."""
    notifier = Notifier(environ)
    notifier.ready()
    assert notifier.interval == interval


# --- activated sockets --------------------------------------------------------------------------------------------

LAUNCH = (
    "import os, sys\n"
    "fds = [int(each) for each in sys.argv[1].split(',')]\n"
    "high = [os.dup2(fd, 100 + index) for index, fd in enumerate(fds)]\n"
    "[os.dup2(fd, 3 + index) for index, fd in enumerate(high)]\n"
    "os.environ['LISTEN_PID'] = str(os.getpid())\n"
    "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])\n"
)
"""What systemd does between fork and exec."""


class Activated(Fleet):
    """A gateway that is given its sockets."""

    def __init__(self, written, sockets, names):
        super().__init__(written, env={"LISTEN_FDS": str(len(sockets)), "LISTEN_FDNAMES": ":".join(names)})
        self._sockets = sockets

    async def start(self):
        self.write()
        numbers = ",".join(str(sock.fileno()) for sock in self._sockets)
        command = [sys.executable, "-c", LAUNCH, numbers, "-m", "fastgate", "run", "-c", str(self.file)]
        for sock in self._sockets:
            sock.set_inheritable(True)
        self.process = self.last = Process("gateway", command, cwd=self.folder, env=self.env, close_fds=False)
        return self


def listening(port=0, host="127.0.0.1"):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    sock.listen(1024)
    return sock


async def test_activated_sockets(idp, repeater):
    """They are used where `listen` and `admin.listen` say the same address; all workers share them; they stay open."""
    with listening() as public, listening() as admin:
        ports = [sock.getsockname()[1] for sock in (public, admin)]
        both = {"listen": f"127.0.0.1:{ports[0]}", "admin": {"listen": f"127.0.0.1:{ports[1]}"}}
        gateway = Activated(config(idp, repeater, **TWO, **both), [public, admin], ["http", "admin"])
        gateway.port, gateway.admin_port = ports
        async with gateway:
            # The socket takes connections before anybody is there to accept them.
            async with Ledger(gateway.port, kept=4, closing=8) as ledger:
                await ledger.answered(300)
                before = await gateway.serving(2)
                gateway.process.signal(signal.SIGUSR2)
                await gateway.serving(2, without=set(before.values()))
                await ledger.answered(300)
            assert ledger.lost == []
            for worker in (await gateway.workers()).values():
                assert worker["state"] == "serving"
        # It was systemd's, and still is: who comes now waits for the next start.
        assert answers(ports[0])


async def test_activated_sockets_that_nobody_asked_for(idp, upstream):
    """One at another address than the configuration's: a sentence that names both, status 1."""
    with listening() as public:
        port = public.getsockname()[1]
        gateway = Activated(config(idp, upstream), [public], ["web"])
        await gateway.start()
        assert await asyncio.to_thread(gateway.process._process.wait, PATIENCE) == 1
        said = gateway.log()
    assert f"systemd passed a socket on 127.0.0.1:{port} (web), but the configuration listens on" in said
    assert "ListenStream=" in said
    assert "Traceback" not in said
    assert not answers(gateway.port)


def test_sockets_for_somebody_else():
    """LISTEN_PID names another process: they are not ours to take."""
    assert activated({"LISTEN_PID": "1", "LISTEN_FDS": "1"}) == []
    assert activated({}) == []


async def test_an_activated_socket_that_does_not_listen(idp, upstream):
    """A datagram socket, say: refused with a sentence."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wrong:
        wrong.bind(("127.0.0.1", free_port()))
        gateway = Activated(config(idp, upstream), [wrong], ["dns"])
        await gateway.start()
        assert await asyncio.to_thread(gateway.process._process.wait, PATIENCE) == 1
    assert "systemd passed a socket (dns) that does not listen on TCP: use ListenStream=host:port" in gateway.log()
