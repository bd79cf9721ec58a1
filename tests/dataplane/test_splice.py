"""Pumps between real sockets, on uvloop and on asyncio's own loop."""

import asyncio
import fcntl
import os
import random
import resource
import socket
import struct
import termios
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Self, cast

import pytest
import uvloop

from fastgate.dataplane import splice
from fastgate.dataplane.splice import Pumps
from fastgate.stats import Stats

MEGABYTE = random.Random(1).randbytes(1_000_000)
PATIENCE = 20.0

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=[uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def run(request) -> Iterator[Run]:
    """Run on either loop, and find every descriptor closed afterwards."""
    with asyncio.Runner(loop_factory=request.param) as runner:

        async def bounded(test: Coroutine[Any, Any, None]) -> None:
            async with Place():
                pass  # a loop opens some of its own when it is first used
            before = descriptors()
            async with asyncio.timeout(PATIENCE):
                await test
                while descriptors() > before:  # noqa: ASYNC110 - a transport closes its socket in its own time
                    await asyncio.sleep(0.01)

        runner.run(asyncio.sleep(0))
        yield lambda test: runner.run(bounded(test))


def opened() -> list[int]:
    return [int(each.name) for each in Path("/proc/self/fd").iterdir()]


def descriptors() -> int:
    return len(opened())


class End(asyncio.Protocol):
    """What the transport of one of a pump's sockets hears."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.received += data

    def eof_received(self) -> bool:
        self.ended.set()
        return True

    def connection_lost(self, _exc: Exception | None) -> None:
        self.ended.set()


class Place:
    """A source and a sink that a pump can be put between, the peers of both, and what the pump said."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.stats = Stats()
        self.pumps = Pumps(self.loop, self.stats)
        self.heard: list[str] = []
        self.moved_octets = 0
        self.over = asyncio.Event()
        self._stack = ExitStack()

    async def __aenter__(self) -> Self:
        self.source, self.sender = await self._connected()
        self.sink, self.taker = await self._connected()
        self.source.transport.pause_reading()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.source.transport.abort()
        self.sink.transport.abort()
        self._stack.close()
        await asyncio.sleep(0.01)

    async def _connected(self) -> tuple[End, socket.socket]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            peer = self._stack.enter_context(socket.create_connection(listener.getsockname()))
            ours, _ = listener.accept()
        peer.setblocking(False)  # noqa: FBT003
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ours.setblocking(False)  # noqa: FBT003
        _, end = await self.loop.connect_accepted_socket(End, ours)
        return end, peer

    def begin(self, octets: int) -> splice.Pump | None:
        return self.pumps.begin(self.source.transport, self.sink.transport, octets, self)

    async def taken(self, octets: int) -> bytes:
        """What arrives behind the sink."""
        got = bytearray()
        while len(got) < octets and (piece := await self.loop.sock_recv(self.taker, 1 << 20)):
            got += piece
        return bytes(got)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for anything; the test's own deadline ends it."""
        while not condition():  # noqa: ASYNC110 - nothing wakes for all of them
            await asyncio.sleep(0.001)

    def queued(self) -> int:
        """Octets that have arrived at the source and were not read."""
        room = bytearray(4)
        fcntl.ioctl(self.source.transport.get_extra_info("socket").fileno(), termios.FIONREAD, room)
        return int(struct.unpack("i", room)[0])

    # --- splice.Ends

    def moved(self, octets: int) -> None:
        self.moved_octets += octets

    def held_up(self) -> None:
        self.heard.append("held up")

    def goes_on(self) -> None:
        self.heard.append("goes on")

    def finished(self) -> None:
        self.heard.append("finished")
        self.over.set()

    def source_ended(self) -> None:
        self.heard.append("source ended")
        self.over.set()

    def source_broke(self) -> None:
        self.heard.append("source broke")
        self.over.set()

    def sink_broke(self) -> None:
        self.heard.append("sink broke")
        self.over.set()


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_exactly_so_many_octets(run: Run):
    """Those behind them are left to the transport, which reads on where the pump stopped."""

    async def test() -> None:
        async with Place() as place:
            assert place.begin(5 * len(MEGABYTE) - 1) is not None
            sending = asyncio.create_task(place.loop.sock_sendall(place.sender, MEGABYTE * 5 + b"behind"))
            assert await place.taken(5 * len(MEGABYTE) - 1) == (MEGABYTE * 5)[:-1]
            await place.over.wait()
            await sending
            assert place.heard[-1] == "finished"
            assert place.moved_octets == 5 * len(MEGABYTE) - 1
            assert (place.pumps.running, place.stats.splices.total()) == (0, 1)
            assert not place.source.received
            place.source.transport.resume_reading()
            await place.until(lambda: len(place.source.received) == 7)
            assert place.source.received == MEGABYTE[-1:] + b"behind"

    run(test())


def test_octets_one_by_one(run: Run):
    """Each is passed on as it comes: nothing waits for more."""

    async def test() -> None:
        async with Place() as place:
            assert place.begin(301) is not None
            for octet in MEGABYTE[:300]:
                await place.loop.sock_sendall(place.sender, bytes([octet]))
                assert await place.taken(1) == bytes([octet])
            assert place.heard == []
            await place.loop.sock_sendall(place.sender, b"!")
            await place.over.wait()

    run(test())


def test_a_sink_that_stalls(run: Run):
    """U5: says so once, takes up no more than pipe and socket buffers, and goes on."""

    async def test() -> None:
        async with Place() as place:
            size = 40 * len(MEGABYTE)
            assert place.begin(size) is not None
            sending = asyncio.create_task(place.loop.sock_sendall(place.sender, MEGABYTE * 40))
            await place.until(lambda: "held up" in place.heard)
            await asyncio.sleep(0.1)
            assert place.heard == ["held up"]
            assert place.moved_octets < size
            assert await place.taken(size) == MEGABYTE * 40
            await sending
            await place.over.wait()
            assert set(zip(place.heard[:-1:2], place.heard[1:-1:2], strict=True)) == {("held up", "goes on")}
            assert place.heard[-1] == "finished"

    run(test())


def test_a_source_that_ends_early(run: Run):
    """N55, N81: told as that, after what came before was passed on; the transport finds the end too."""

    async def test() -> None:
        async with Place() as place:
            assert place.begin(2000) is not None
            await place.loop.sock_sendall(place.sender, b"x" * 1000)
            place.sender.shutdown(socket.SHUT_WR)
            await place.over.wait()
            assert place.heard == ["source ended"]
            assert await place.taken(1000) == b"x" * 1000
            place.source.transport.resume_reading()
            await place.source.ended.wait()

    run(test())


@pytest.mark.parametrize("waiting", [0, 1000, len(MEGABYTE)])
def test_a_source_that_is_reset(run: Run, waiting: int, monkeypatch):
    """U2: what had arrived before is passed on, however many turns that takes, and then the reset is told."""
    monkeypatch.setattr(splice, "_TURN", 1)
    monkeypatch.setattr(splice, "_PIPE", 65536)

    async def test() -> None:
        async with Place() as place:
            place.source.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            await place.loop.sock_sendall(place.sender, MEGABYTE[:waiting])
            await place.until(lambda: place.queued() == waiting)
            taking = asyncio.create_task(place.taken(waiting))
            reset(place.sender)
            assert place.begin(2 * len(MEGABYTE)) is not None
            await place.over.wait()
            assert place.heard[-1] == "source broke"
            assert await taking == MEGABYTE[:waiting]

    run(test())


@pytest.mark.parametrize("stalled", [False, True])
def test_a_sink_that_breaks(run: Run, stalled: bool):  # noqa: FBT001
    """C2: while octets flow, and while it took none."""

    async def test() -> None:
        async with Place() as place:
            assert place.begin(100 * len(MEGABYTE)) is not None
            sending = asyncio.create_task(place.loop.sock_sendall(place.sender, MEGABYTE * 50))
            if stalled:
                await place.until(lambda: "held up" in place.heard)
            reset(place.taker)
            await place.over.wait()
            assert place.heard[-1] == "sink broke"
            assert place.pumps.running == 0
            sending.cancel()

    run(test())


@pytest.mark.parametrize("stalled", [False, True])
def test_a_pump_that_is_stopped(run: Run, stalled: bool):  # noqa: FBT001
    """Nothing is moved or told any more, and everything is closed, also when it is stopped twice."""

    async def test() -> None:
        async with Place() as place:
            before = descriptors()
            pump = place.begin(100 * len(MEGABYTE))
            assert pump is not None
            assert descriptors() == before + 4
            sending = asyncio.create_task(place.loop.sock_sendall(place.sender, MEGABYTE * 50))
            await place.until(lambda: "held up" in place.heard if stalled else place.moved_octets > 0)
            pump.stop()
            pump.stop()
            assert descriptors() == before
            assert place.pumps.running == 0
            heard, moved = list(place.heard), place.moved_octets
            await asyncio.sleep(0.05)
            assert (place.heard, place.moved_octets) == (heard, moved)
            sending.cancel()

    run(test())


def test_a_turn_is_bounded(run: Run, monkeypatch):
    """P9: a source and a sink that never have to wait do not keep the loop from others."""
    monkeypatch.setattr(splice, "_PIPE", 65536)

    async def test() -> None:
        async with Place() as place:
            place.source.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            place.sink.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
            await place.loop.sock_sendall(place.sender, MEGABYTE)
            await place.until(lambda: place.queued() == len(MEGABYTE))
            assert place.begin(len(MEGABYTE)) is not None
            taking = asyncio.create_task(place.taken(len(MEGABYTE)))
            turns: list[int] = [0]
            while not place.over.is_set():
                await asyncio.sleep(0)
                turns.append(place.moved_octets)
            most = max(after - before for before, after in pairwise(turns))
            assert most <= 2 * splice._TURN * 65536  # by the ready callback, and by the socket's, before we looked
            assert await taking == MEGABYTE

    run(test())


def test_where_there_can_be_no_pump(run: Run, monkeypatch):
    """Nothing is begun, and nothing of the attempt stays."""

    async def test() -> None:
        async with Place() as place:
            before = descriptors()
            place.sink.transport.set_write_buffer_limits(high=1 << 30)
            written = 0
            while not place.sink.transport.get_write_buffer_size():
                place.sink.transport.write(MEGABYTE)
                written += len(MEGABYTE)
            assert place.begin(1000) is None  # it would overtake what is still to be written
            await place.taken(written)
            await place.until(lambda: not place.sink.transport.get_write_buffer_size())
            pump = place.begin(1000)
            assert pump is not None
            place.pumps._most = 1
            assert place.begin(1000) is None
            pump.stop()
            place.sink.transport.close()
            assert place.begin(1000) is None
            place.source.transport.close()
            assert place.begin(1000) is None
            assert descriptors() == before
            assert place.stats.splices.total() == 1

    run(test())


def test_without_descriptors(run: Run):
    """C5: it is relayed instead, wherever in the beginning they run out."""

    async def test() -> None:
        async with Place() as place:
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(opened()) + 8, hard))
            taken: list[int] = []
            try:
                with suppress(OSError):
                    while True:
                        taken.append(os.dup(0))
                for _ in range(4):
                    assert place.begin(1000) is None
                    os.close(taken.pop())
                pump = place.begin(1000)
                assert pump is not None  # the four that it takes were all that was missing
                pump.stop()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                for each in taken:
                    os.close(each)
            assert place.pumps.running == 0

    run(test())


@pytest.mark.parametrize("usual", [65536, 8192])
def test_a_user_with_many_pipes(run: Run, usual: int, monkeypatch):
    """What the kernel gives is enough, unless it is a page or two (pipe(7), pipe-user-pages-soft)."""

    def refuse(pipe: int, command: int, *arguments: int) -> int:
        if command == fcntl.F_SETPIPE_SZ and arguments[0] != usual:
            raise PermissionError
        return fcntl.fcntl(pipe, command, *arguments)

    class Fcntl:
        F_SETPIPE_SZ, F_GETPIPE_SZ = fcntl.F_SETPIPE_SZ, fcntl.F_GETPIPE_SZ
        fcntl = staticmethod(refuse)

    real = os.pipe2

    def open_(flags: int) -> tuple[int, int]:
        ends = real(flags)
        fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, usual)
        return ends

    monkeypatch.setattr(splice, "fcntl", Fcntl)
    monkeypatch.setattr(splice.os, "pipe2", open_)

    async def test() -> None:
        async with Place() as place:
            pump = place.begin(len(MEGABYTE))
            assert (pump is None) == (usual == 8192)
            if pump is not None:
                sending = asyncio.create_task(place.loop.sock_sendall(place.sender, MEGABYTE))
                assert await place.taken(len(MEGABYTE)) == MEGABYTE
                await sending
                await place.over.wait()

    run(test())


@pytest.mark.parametrize("without", ["flags", "call"])
def test_a_kernel_that_does_not_splice(run: Run, without: str, monkeypatch):
    """No Linux, or a sandbox that forbids the call: there are no pumps, and no error."""

    def forbidden(*_: object, **__: object) -> int:
        raise PermissionError

    if without == "flags":
        monkeypatch.setattr(splice, "_FLAGS", 0)
    else:
        monkeypatch.setattr(splice.os, "splice", forbidden)

    async def test() -> None:
        async with Place() as place:
            assert place.begin(1000) is None

    run(test())
