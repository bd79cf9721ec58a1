"""The zygote: a process that has imported everything a worker needs, and forks workers when it is asked to.

It has no event loop and no thread, so that forking is safe; it knows no configuration, so that a worker begins with
what the supervisor knows at that moment. It is the parent of the workers: it says how they ended, and when the
supervisor is gone it sees to it that they end too.

Started as `python -m fastgate.worker.zygote FD`; FD is one end of a SOCK_SEQPACKET pair.
"""

import gc
import os
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from importlib import import_module
from typing import Any, Final, NamedTuple

import orjson

from fastgate import __version__
from fastgate.worker.orders import MAX_DESCRIPTORS, MAX_PACKET, NOT_FOR_WORKERS, PROTOCOL
from fastgate.worker.process import call_process, work

SHARED_TIER: Final = "fastgate.tokens.shared.tier"
"""Loads redis; see `App.start`."""
_TURN: Final = 0.1


class Order(NamedTuple):
    """One worker to be made."""

    number: int
    channel: socket.socket
    sockets: list[socket.socket]


def main() -> int:
    """Serve the supervisor; in a process that was forked, be the worker. Returns the exit status."""
    supervisor = socket.socket(fileno=int(sys.argv[1]))
    call_process("fastgate-zygote")
    order = Zygote(supervisor).serve()
    if order is None:
        return 0
    gc.enable()
    call_process(f"fastgate-{order.number}")
    return work(order.channel, order.sockets)


class Zygote:
    """The parent of workers."""

    def __init__(self, supervisor: socket.socket) -> None:
        self._supervisor = supervisor
        self._workers: set[int] = set()
        self._patience = 0.0
        """Seconds that workers get to end when the supervisor is gone."""
        self._woken, self._wake = os.pipe()

    def serve(self) -> Order | None:
        """Fork when asked; returns the order in the new process, and None here when there is nothing left to do."""
        for number in NOT_FOR_WORKERS:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, NOT_FOR_WORKERS)
        os.set_blocking(self._wake, False)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # What is there now never becomes garbage: untouched, its pages stay shared with the workers.
        gc.disable()
        gc.collect()
        gc.freeze()
        self._say({"ready": PROTOCOL, "version": __version__})
        poll = select.poll()
        poll.register(self._supervisor, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == self._woken:
                    os.read(self._woken, 4096)
                    self._reap()
                    continue
                order = self._next()
                if order is None:
                    self._outlast()
                    return None
                if self._fork(order):
                    return order
                _close(order)

    def _next(self) -> Order | None:
        """Read one order; None: the supervisor is gone, or wants no more workers."""
        descriptors: list[int] = []
        more = True
        said: dict[str, Any] = {}
        while more:
            try:
                packet, got, _, _ = socket.recv_fds(self._supervisor, MAX_PACKET, MAX_DESCRIPTORS)
            except OSError:
                packet, got = b"", []
            if not packet:
                return None
            descriptors += got
            said = orjson.loads(packet)
            more = said["more"]
        self._patience = said["patience"]
        if said["redis"] and SHARED_TIER not in sys.modules:
            # Once for all workers, instead of 20 MiB in each.
            import_module(SHARED_TIER)
            gc.collect()
            gc.freeze()
        channel, *sockets = (socket.socket(fileno=each) for each in descriptors)
        return Order(said["number"], channel, sockets)

    def _fork(self, order: Order) -> bool:
        """Make the worker; True in the new process."""
        # A child that ends at once must not be reaped before it is known.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        try:
            pid = os.fork()
            if pid == 0:
                self._forget()
                return True
            self._workers.add(pid)
            self._say({"number": order.number, "pid": pid})
        except OSError as error:
            self._say({"number": order.number, "pid": None, "why": os.strerror(error.errno or 0)})
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        return False

    def _forget(self) -> None:
        """In the new process: nothing is left of the zygote."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._supervisor.close()
        os.close(self._woken)
        os.close(self._wake)

    def _reap(self) -> None:
        while self._workers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            self._workers.discard(pid)
            self._say({"ended": pid, "status": os.waitstatus_to_exitcode(status)})

    def _outlast(self) -> None:
        """Wait until every worker has ended, as they do without a supervisor; end those that hang."""
        end = time.monotonic() + self._patience
        while self._workers:
            self._reap()
            if time.monotonic() > end:
                for pid in self._workers:
                    os.kill(pid, signal.SIGKILL)
            if select.select([self._woken], [], [], _TURN)[0]:
                os.read(self._woken, 4096)

    def _say(self, what: dict[str, Any]) -> None:
        with suppress(OSError):  # nobody listens any more
            self._supervisor.send(orjson.dumps(what))


def _close(order: Order) -> None:
    order.channel.close()
    for each in order.sockets:
        each.close()


if __name__ == "__main__":
    sys.exit(main())
